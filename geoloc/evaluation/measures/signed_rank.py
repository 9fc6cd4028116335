"""Errors of two methods on the same photos: Wilcoxon's signed-rank test, and beside it what photographers allow.

Multi-modal Geolocation, section 4.2, tests paired errors by Wilcoxon's test, which takes photos as independent of each
other. Photos by one person are not, so its p-values are far too small wherever a photographer has many. Its number is
here to compare with the paper's; the interval of the difference resamples photographers (bootstrap.py), and is what to
believe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from geoloc.evaluation.measures.bootstrap import interval, resampled_means, resampled_medians

FURTHEST_KM = 20_016.0
"""The error of a missing answer here: a little more than half of the Earth's circumference, which no answer reaches."""


@dataclass(frozen=True)
class PairedErrors:
    """Errors of a method less those of another, on `photos` photos by `photographers` people; negative is better.

    `mean_km`, `low` and `high`: the mean difference and its interval by photographer; `median_km`, `median_low` and
    `median_high`: the difference of the medians and its interval. A missing answer counts as FURTHEST_KM. `nearer` and
    `further` are the shares of photos that the method places nearer, or further away. `wilcoxon_p` is the two-sided
    p-value of the signed-rank test over photos as if they were independent; 1 if no photo differs.
    """

    mean_km: float
    low: float
    high: float
    median_km: float
    median_low: float
    median_high: float
    nearer: float
    further: float
    wilcoxon_p: float
    photos: int
    photographers: int


def paired_errors(
    error_km: ArrayLike,
    other_km: ArrayLike,
    clusters: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedErrors:
    """Compare the errors of two methods, float (N,) in km each, infinite for a missing answer.

    `clusters` int (N,) are the photographers, as bootstrap.photographer_clusters gives them. Intervals are NaN for a
    single photographer. Zero differences are ranked and dropped (Pratt, 1959). Raises ValueError for no photos, other
    lengths, or NaN.
    """
    one, two = (np.asarray(errors, dtype=np.float64) for errors in (error_km, other_km))
    groups = np.asarray(clusters, dtype=np.int64)
    if not len(one) or one.shape != two.shape or one.shape != groups.shape or one.ndim != 1:
        raise ValueError(
            f"errors must be of one or more equal photos, got {one.shape}, {two.shape} and clusters {groups.shape}"
        )
    if np.isnan(one).any() or np.isnan(two).any():
        raise ValueError("errors must be numbers, infinite for a missing answer; got NaN")
    one, two = np.minimum(one, FURTHEST_KM), np.minimum(two, FURTHEST_KM)
    people = len(np.unique(groups))
    low = high = median_low = median_high = math.nan
    if people > 1:
        draws = {"resamples": resamples, "seed": seed}
        means = resampled_means((one - two)[:, None], groups, **draws)
        # Equal seeds draw equal photographers, so the medians are paired.
        medians = resampled_medians(one, groups, **draws) - resampled_medians(two, groups, **draws)
        (low, high), (median_low, median_high) = (
            map(float, np.ravel(interval(found.reshape(-1), confidence))) for found in (means, medians)
        )
    return PairedErrors(
        mean_km=float((one - two).mean()),
        low=low,
        high=high,
        median_km=float(np.median(one) - np.median(two)),
        median_low=median_low,
        median_high=median_high,
        nearer=float(np.mean(one < two)),
        further=float(np.mean(one > two)),
        wilcoxon_p=wilcoxon_p(one, two),
        photos=len(one),
        photographers=people,
    )


def wilcoxon_p(one: ArrayLike, two: ArrayLike) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test of N finite pairs; 1 if no pair differs."""
    from scipy.stats import wilcoxon  # imported here: it takes a second, and most evaluations do without

    difference = np.asarray(one, dtype=np.float64) - np.asarray(two, dtype=np.float64)
    if not difference.any():
        return 1.0
    return float(wilcoxon(difference, zero_method="pratt").pvalue)
