"""Measures of cross-view matching: recall, verification, orientation; with intervals by photographer and by city."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.measures.bootstrap import interval, photographer_clusters, resampled_medians
from geoloc.evaluation.measures.intervals import differences, shares

AT = (1, 5, 10)
METRES = (25, 50, 100, 250)
TOP_PERCENT, TOP_PERCENT_FLOOR = "R@top 1% (N // 100 + 1)", "R@top 1% (N // 100)"
"""The two conventions: how many of N candidates the top 1 % are. Public code uses the first (Vo and Hays, SAFA, VIGOR),
the dissertation does not say; the second is undefined below 100 candidates."""
BEST_THRESHOLD, FIXED_THRESHOLD = "verification, best threshold", "verification, validation's threshold"
MEAN_ERROR, MEDIAN_ERROR = "orientation error, mean", "orientation error, median"
LAST, PENULTIMATE = "1 rotation", "1 rotation, penultimate layer"
"""The methods by the embedding and by the features before it (figure 4.11), with north at the top of each tile."""
JOINT, OVERHEAD, CLASSIFIER, AMONG_TILES = (
    "joint", "overhead alone", "classifier alone", "classifier among tiles",
)  # fmt: skip
"""The methods of a joint evaluation (evaluation/joint.py)."""
ALL = "all cities"
RESAMPLES = 1000
_NONE = [float("nan")] * 2  # the interval of one photographer, or of one city
COLUMNS = ("group", "measure", "value", "low", "high", "city_low", "city_high", "chance", "n")


def top_percent(candidates: NDArray[np.int64], floor: bool = False) -> NDArray[np.float64]:
    """How many of N candidates are the top 1 %: N // 100 + 1, or N // 100 with `floor` (NaN where that is 0)."""
    count = np.asarray(candidates, dtype=np.float64) // 100
    return np.asarray(np.where(count > 0, count, np.nan) if floor else count + 1)


def measure_pairs(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The measures of N pairs, all together and by city, a row each (COLUMNS).

    `pairs` has a row a pair: city, photographer, rank (from 1, NaN: none), candidates, metres (from the photo to its
    best tile), right_best and right_fixed (verification: 0, 0.5 or 1), heading_error (degrees, NaN: unknown). Columns
    that are all NaN are not measured. A share counts every pair: one without a rank is wrong. `low` and `high` are
    intervals by photographer, `city_low` and `city_high` by city (NaN for a single one). `chance` is what a random
    order reaches.
    """
    groups = [(ALL, pairs), *((str(city), rows) for city, rows in pairs.groupby("city", sort=True))]
    if len(groups) == 2:
        groups = groups[:1]
    ranked = bool(pairs["rank"].notna().any())
    rows = [
        row for name, group in groups for row in _measures(name, group.reset_index(drop=True), ranked, seed)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def orientation_histogram(errors: NDArray[np.float64], width: float = 15.0) -> pd.DataFrame:
    """The number of signed errors of headings, degrees, in bins of `width` from -180 to 180 (figure 3.15)."""
    edges = np.arange(-180.0, 180.0 + width, width)
    known = errors[np.isfinite(errors)]
    counts, _ = np.histogram((known + 180) % 360 - 180, edges)
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "pairs": counts})


def distance_histogram(
    matched: NDArray[np.floating], unmatched: NDArray[np.floating], bins: int = 30
) -> pd.DataFrame:
    """The numbers of matched and of unmatched pairs by distance (figure 3.9), in equal bins."""
    both = np.concatenate([matched, unmatched])
    edges = np.linspace(0, float(np.nanmax(both[np.isfinite(both)], initial=1e-9)), bins + 1)
    counts = [np.histogram(one[np.isfinite(one)], edges)[0] for one in (matched, unmatched)]
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "matched": counts[0], "unmatched": counts[1]})


def _measures(group: str, pairs: pd.DataFrame, ranked: bool, seed: int) -> Iterator[tuple[object, ...]]:
    owners = photographer_clusters(pairs["photographer"])
    cities = photographer_clusters(pairs["city"])

    def share(name: str, values: NDArray[np.float64], chance: float) -> tuple[object, ...]:
        bounds = [
            [float(one[0]) for one in shares(values[:, None], who).interval()] if who.max() else _NONE
            for who in (owners, cities)
        ]
        return group, name, float(values.mean()), *bounds[0], *bounds[1], chance, len(values)

    if ranked:
        rank = pairs["rank"].to_numpy(dtype=np.float64, na_value=np.inf)
        candidates = pairs["candidates"].to_numpy(dtype=np.int64)
        for at in AT:
            yield share(f"R@{at}", (rank <= at) * 1.0, float(np.minimum(at / candidates, 1).mean()))
        for name, floor in ((TOP_PERCENT, False), (TOP_PERCENT_FLOOR, True)):
            most = top_percent(candidates, floor)
            if not np.isnan(most).any():
                yield share(name, (rank <= most) * 1.0, float((most / candidates).mean()))
        metres = pairs["metres"].to_numpy(dtype=np.float64, na_value=np.inf)
        for limit in METRES:
            chance = pairs[f"chance_{limit}m"].mean() if f"chance_{limit}m" in pairs else np.nan
            yield share(
                f"within {limit} m", (np.nan_to_num(metres, nan=np.inf) <= limit) * 1.0, float(chance)
            )
    for name, column in ((BEST_THRESHOLD, "right_best"), (FIXED_THRESHOLD, "right_fixed")):
        if pairs[column].notna().any():
            yield share(name, pairs[column].fillna(0.0).to_numpy(dtype=np.float64), 0.5)
    yield from _orientation(group, pairs, owners, cities, seed)


def _orientation(
    group: str, pairs: pd.DataFrame, owners: NDArray[np.int64], cities: NDArray[np.int64], seed: int
) -> Iterator[tuple[object, ...]]:
    """Mean and median of the absolute error over pairs whose heading is known, degrees; by chance 90."""
    known = pairs["heading_error"].notna().to_numpy()
    if not known.any():
        return
    error = pairs["heading_error"].abs().to_numpy(dtype=np.float64)[known]
    whose = [photographer_clusters(one[known]) for one in (owners, cities)]
    bounds = [
        [float(one[0]) for one in differences(error[:, None], who, scale=180.0).interval()]
        if who.max()
        else _NONE
        for who in whose
    ]
    yield group, MEAN_ERROR, float(error.mean()), *bounds[0], *bounds[1], 90.0, len(error)
    medians = []
    for who in whose:
        found = interval(resampled_medians(error, who, resamples=RESAMPLES, seed=seed))
        medians.append([float(one) for one in found] if who.max() else _NONE)
    yield group, MEDIAN_ERROR, float(np.median(error)), *medians[0], *medians[1], 90.0, len(error)
