"""Does a classifier answer each cell as often as photos come from it? (Multi-modal Geolocation, table 7, appendix C)

"KL-Divergence(p, q) is calculated for each model, where p is the observed class proportions for the true labels in
validation, and q is the observed class proportions for the model predicted labels in validation (in both cases, 1 is
added to the counts prior to calculating proportions as an adjustment for 0 count issues)": sum of p log(p / q). The
entropies are in nats: the paper's 6.018 for the best possible with 538 cells is below log(538) = 6.288.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class ClassBias:
    """How far the frequencies of answered cells are from those of true cells.

    `kl_divergence` is in nats, 0 for equal frequencies; `entropy_answered` (the paper's "Shannon entropy") and
    `entropy_true` in nats, at most log(cells). `outside` photos have no true cell, `silent` no answer; each is left out
    of its own side only. `never_answered` counts cells that have photos but are never answered.
    """

    kl_divergence: float
    entropy_answered: float
    entropy_true: float
    photos: int
    outside: int
    silent: int
    never_answered: int


def class_bias(
    true_cells: ArrayLike, answered_cells: ArrayLike, cell_count: int, added: float = 1.0
) -> ClassBias:
    """Compare how often each cell is true and answered, int [N] each, -1 for none; `added` to every count.

    Raises ValueError for different lengths, no photos, an unknown cell, or a negative `added`. With `added` 0, a cell
    that is true but never answered makes the divergence infinite.
    """
    truth, answered = np.asarray(true_cells, dtype=np.int64), np.asarray(answered_cells, dtype=np.int64)
    if truth.shape != answered.shape or truth.ndim != 1 or not len(truth):
        raise ValueError(
            f"true and answered cells must be one each for at least one photo, got {truth.shape} and {answered.shape}"
        )
    if added < 0:
        raise ValueError(f"added must be at least 0, got {added}")
    for name, cells in (("true_cells", truth), ("answered_cells", answered)):
        if cells.min() < -1 or cells.max() >= cell_count:
            raise ValueError(
                f"{name} must be from -1 (none) to {cell_count - 1}, got {cells.min()} to {cells.max()}"
            )
    counts = [np.bincount(cells[cells >= 0], minlength=cell_count) for cells in (truth, answered)]
    if added == 0 and not all(c.sum() for c in counts):
        raise ValueError("no photo has a true cell, or none an answer: there are no frequencies to compare")
    p, q = ((c + added) / (c.sum() + added * cell_count) for c in counts)
    return ClassBias(
        kl_divergence=kl_divergence(p, q),
        entropy_answered=entropy(q),
        entropy_true=entropy(p),
        photos=len(truth),
        outside=int((truth < 0).sum()),
        silent=int((answered < 0).sum()),
        never_answered=int(((counts[0] > 0) & (counts[1] == 0)).sum()),
    )


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Sum of p log(p / q) in nats; 0 log 0 is 0, and infinite where q is 0 and p is not."""
    used = p > 0
    with np.errstate(divide="ignore"):
        return max(float(np.sum(p[used] * np.log(p[used] / q[used]))), 0.0)  # rounding can give -1e-17


def entropy(p: NDArray[np.float64]) -> float:
    """Shannon entropy, minus the sum of p log p, in nats."""
    used = p[p > 0]
    return float(-np.sum(used * np.log(used))) + 0.0  # no -0.0
