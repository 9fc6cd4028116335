"""Paired comparison of methods: the difference in accuracy on the same photos, with its interval."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.measures.bootstrap import interval

COLUMNS = ["method", "other", "level", "km", "difference", "low", "high", "verdict", "n"]


def pairs_to_compare(
    methods: Sequence[str], baselines: Sequence[str] = (), compare_with: str = ""
) -> list[tuple[str, str]]:
    """Returns each method with each baseline, and all pairs of methods, or all methods with `compare_with`.

    Raises ValueError if `compare_with` is neither a method nor a baseline.
    """
    against = list(itertools.product(methods, baselines))
    if not compare_with:
        return [*itertools.combinations(methods, 2), *against]
    if compare_with not in methods and compare_with not in baselines:
        allowed = ", ".join([*methods, *baselines])
        raise ValueError(f"evaluation.compare_with must be one of {allowed}; got {compare_with!r}")
    others = [(m, compare_with) for m in methods if m != compare_with and compare_with in methods]
    return [*others, *against]


def compare(
    pairs: Sequence[tuple[str, str]],
    names: Sequence[str],
    observed: NDArray[np.float64],
    resampled: NDArray[np.float64],
    levels_km: Mapping[str, float],
    *,
    confidence: float,
    queries: int,
    has_interval: bool = True,
) -> pd.DataFrame:
    """Returns the paired differences, columns `COLUMNS`, a row per pair and level.

    `observed` (M, L) are the accuracies of `names`; `resampled` (R, M, L) their bootstrap resamples, which
    must share their draws, so that what two methods have in common cancels. `difference` is the accuracy of
    `method` less that of `other`. `verdict` is "better" or "worse" if the interval excludes 0, "undecided"
    if it does not or there is no interval. Intervals are not corrected for the number of comparisons.
    """
    row = {name: i for i, name in enumerate(names)}
    records = []
    for method, other in pairs:
        a, b = row[method], row[other]
        low, high = interval(resampled[:, a] - resampled[:, b], confidence)
        for i, (level, km) in enumerate(levels_km.items()):
            verdict = "better" if low[i] > 0 else "worse" if high[i] < 0 else "undecided"
            records.append(
                {
                    "method": method,
                    "other": other,
                    "level": level,
                    "km": float(km),
                    "difference": observed[a, i] - observed[b, i],
                    "low": low[i] if has_interval else np.nan,
                    "high": high[i] if has_interval else np.nan,
                    "verdict": verdict if has_interval else "undecided",
                    "n": queries,
                }
            )
    return pd.DataFrame(records, columns=COLUMNS)
