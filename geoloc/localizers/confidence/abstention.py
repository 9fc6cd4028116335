"""Abstention: no answer where the confidence is too low to be worth one.

Geifman and El-Yaniv: Selective Classification for Deep Neural Networks, NeurIPS 2017: a threshold on the confidence,
which the caller chooses. An abstained answer still counts as wrong in every accuracy; what is gained shows
in the risk-coverage curve (geoloc/evaluation/measures/selective.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
