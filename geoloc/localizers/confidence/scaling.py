"""Score scaling: any score made the probability of being within a distance, by two numbers.

Platt: Probabilistic Outputs for Support Vector Machines, 1999: the log-odds of being right are a straight line of the
score, here of the score's own log-odds, chosen by the likelihood on validation photos with his targets, which keep a
score that separates all of them from becoming certain. The slope is never negative: answers keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

_EDGE = 1e-3
"""Scores nearer to 0 or 1 count as this: 0 and 1 have no log-odds."""


class ScoreScaling:
    """Scales scores in [0, 1] to probabilities. `slope` and `offset` are NaN before `fit`; `photos` were fitted on."""

    def __init__(self) -> None:
        self.slope = self.offset = float("nan")
        self.photos = 0

    def fit(self, scores: ArrayLike, right: ArrayLike) -> Self:
        """Fit on N validation photos: scores in [0, 1] and whether each answer is right, bool; returns itself.

        Raises ValueError for no photos and for other scores.
        """
        from scipy.optimize import minimize  # here, because `geoloc locate` only applies what was fitted

        x, hit = _log_odds(scores), np.asarray(right, dtype=bool)
        if x.shape != hit.shape or not len(x):
            raise ValueError(
                f"scaling needs a score and a truth for each photo, got {x.shape} and {hit.shape}"
            )
        positive, negative = int(hit.sum()), int((~hit).sum())
        target = np.where(hit, (positive + 1) / (positive + 2), 1 / (negative + 2))

        def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            z = line[0] * x + line[1]
            value = float((np.logaddexp(0, z) - target * z).mean())
            off = 1 / (1 + np.exp(-np.clip(z, -500, 500))) - target
            return value, np.array([(off * x).mean(), off.mean()])

        found = minimize(
            loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.0, 20.0), (-50.0, 50.0)]
        )
        self.slope, self.offset = (round(float(value), 9) for value in found.x)
        self.photos = len(x)
        return self

    def predict(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of scores of any shape; NaN stays. Raises ValueError before `fit`, and for scores that are not
        in [0, 1]."""
        if np.isnan(self.slope):
            raise ValueError("score scaling is not fitted yet: call fit with validation photos first")
        return np.asarray(1 / (1 + np.exp(-(self.slope * _log_odds(scores) + self.offset))))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"slope": self.slope, "offset": self.offset, "photos": self.photos}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave. Raises KeyError, TypeError or ValueError for other values."""
        made = cls()
        made.slope, made.offset = float(values["slope"]), float(values["offset"])
        made.photos = int(values["photos"])
        return made

    def __repr__(self) -> str:
        if np.isnan(self.slope):
            return "ScoreScaling(), not fitted"
        return f"ScoreScaling(slope={self.slope:.3g}, offset={self.offset:.3g}, fitted on {self.photos:,} photos)"


def _log_odds(scores: ArrayLike) -> NDArray[np.float64]:
    s = np.asarray(scores, dtype=np.float64)
    if ((s < -1e-9) | (s > 1 + 1e-9)).any():
        raise ValueError("scores must be from 0 to 1")
    s = np.clip(s, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(s) - np.log1p(-s))
