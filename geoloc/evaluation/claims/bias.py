"""Bias of answered cells as a claim: is one method's KL divergence larger than another's, on the same photos?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.measures.bootstrap import interval, resampled_means
from geoloc.evaluation.measures.class_bias import kl_divergence

RESAMPLES = 2000


@dataclass(frozen=True)
class BiasDifference:
    """`estimate` is the sum of weight times KL divergence in nats; `draws` float64 [R] are those of resampled
    photographers, less what the resampling itself adds."""

    estimate: float
    draws: NDArray[np.float64]

    def interval(self, confidence: float) -> tuple[float, float]:
        """The percentile interval."""
        low, high = interval(self.draws, confidence)
        return float(low), float(high)

    def p_value(self) -> float:
        """The two-sided p-value of no difference: at least 2 / (R + 1)."""
        below, above = int((self.draws <= 0).sum()), int((self.draws >= 0).sum())
        return min(1.0, 2 * (min(below, above) + 1) / (len(self.draws) + 1))


def bias_difference(
    weights: ArrayLike, true_cells: ArrayLike, answered_cells: ArrayLike, cell_count: int, clusters: ArrayLike
) -> BiasDifference:
    """Compare the bias of T methods on N photos: `weights` (T,), `true_cells` int (N,), `answered_cells` int (N, T), -1
    for none, `clusters` (N,) the photographers. One is added to every count, as in measures/class_bias.py.

    A resample of photographers has fewer different cells than the photos, which makes all divergences larger; the mean
    of what it adds is taken off. Raises ValueError for no photo with a true cell.
    """
    weight = np.asarray(weights, dtype=np.float64)
    truth, answered = np.asarray(true_cells, dtype=np.int64), np.asarray(answered_cells, dtype=np.int64)
    known = truth >= 0
    if not known.any():
        raise ValueError("no photo has a true cell: there are no frequencies to compare")
    truth, answered = truth[known], answered[known]
    owners = np.unique(np.asarray(clusters)[known], return_inverse=True)[1]
    columns = [truth, *answered.T]
    cells = np.unique(np.concatenate(columns))
    cells = cells[cells >= 0]
    n, rest = len(truth), cell_count - len(cells)
    seen = np.concatenate([(column[:, None] == cells).astype(np.float64) for column in columns], axis=1)

    def total(shares: NDArray[np.float64]) -> float:
        counts = shares.reshape(len(columns), len(cells)) * n
        whole = np.concatenate([counts, np.zeros((len(columns), rest))], axis=1) + 1
        p, *q = whole / whole.sum(axis=1, keepdims=True)
        return float(sum(w * kl_divergence(p, one) for w, one in zip(weight, q, strict=True)))

    estimate = total(seen.mean(axis=0))
    drawn = np.array([total(one) for one in resampled_means(seen, owners, resamples=RESAMPLES, seed=0)])
    return BiasDifference(estimate, drawn - (drawn.mean() - estimate))
