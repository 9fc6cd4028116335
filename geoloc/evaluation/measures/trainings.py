"""The luck of one training: networks that differ in nothing but the training's seed differ in accuracy all the same.

Intervals by photographer hold for the networks at hand. To speak of recipes, the variance between trainings of one
recipe is added: estimated from those recipes that were trained more than once, and taken to be that of the others too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Luck:
    """The variance of one training at K levels, float64 (K,), and its degrees of freedom."""

    variance: FloatArray
    freedom: int

    def spread(self, trainings: Iterable[int]) -> FloatArray:
        """Returns the standard deviation of a sum or difference of means over so many trainings each, float64 (K,)."""
        return np.sqrt(self.variance * sum(1 / count for count in trainings if count))


def pooled_luck(runs: Iterable[FloatArray]) -> Luck | None:
    """Returns the pooled variance of `runs`, float64 (R, K) for each recipe; None if none was trained twice."""
    several = [one for one in runs if len(one) > 1]
    freedom = sum(len(one) - 1 for one in several)
    if not freedom:
        return None
    squares = sum(((one - one.mean(axis=0)) ** 2).sum(axis=0) for one in several)
    return Luck(np.asarray(squares / freedom), freedom)
