"""Abstention: no answer where the confidence is too low to be worth one.

Geifman and El-Yaniv: Selective Classification for Deep Neural Networks, NeurIPS 2017: a threshold on the confidence,
chosen on validation photos. An abstained answer still counts as wrong in every accuracy; what is gained shows
in the risk-coverage curve (geoloc/evaluation/measures/selective.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.localizers.base import Alternatives, Answers, CellEvidence


def abstain_below(answers: Answers, threshold: float) -> Answers:
    """Returns the answers, with those whose confidence is below `threshold` replaced by abstentions."""
    low = np.asarray(answers.confidence) < threshold
    silent = low | answers.abstained
    a, c = answers.alternatives, answers.cells

    def blank(values: NDArray, missing: float) -> NDArray:
        return np.where(silent if values.ndim == 1 else silent[:, None], missing, values).astype(values.dtype)

    return Answers(
        blank(answers.latitude, np.nan),
        blank(answers.longitude, np.nan),
        blank(answers.confidence, 0),
        None if a is None else Alternatives(*(blank(x, np.nan) for x in (a.latitude, a.longitude, a.weight))),
        # The evidence is kept: it also explains the abstention.
        None if c is None else CellEvidence(c.cell, c.probability),
        answers.neighbours,
    )


def threshold_for(confidence: ArrayLike, right: ArrayLike, accuracy: float) -> float:
    """Returns the lowest threshold at which the kept answers have at least `accuracy`; infinite if there is none.

    `confidence` float [N] and `right` bool [N] are of validation photos. Photos of equal confidence are kept or dropped
    together. Raises ValueError for no photos, for an accuracy outside of (0, 1], or for lengths that differ.
    """
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if sure.shape != hit.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(
            f"confidence and right must be one each for at least one photo, got {sure.shape} and {hit.shape}"
        )
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy must be above 0 and at most 1, got {accuracy}")
    order = np.argsort(-sure, kind="stable")
    kept = np.arange(1, len(sure) + 1)
    enough = np.cumsum(hit[order]) >= accuracy * kept - 1e-9
    last = np.append(sure[order][1:] != sure[order][:-1], True)
    good = np.flatnonzero(enough & last)
    return float(sure[order][good[-1]]) if len(good) else float("inf")
