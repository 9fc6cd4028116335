"""Paired comparison of methods: the difference in accuracy on the same photos, with its interval and verdict."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.measures.intervals import differences, holm
from geoloc.evaluation.measures.trainings import Luck

COLUMNS = [
    "method", "other", "level", "km", "difference", "low", "high", "p", "p_corrected", "asked", "verdict", "n",
]  # fmt: skip


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
    hits: NDArray[np.float64],
    clusters: NDArray[np.int64],
    levels_km: Mapping[str, float],
    *,
    baselines: Collection[str] = (),
    confidence: float = 0.95,
    luck: Luck | None = None,
    trainings: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Returns the paired differences, columns `COLUMNS`, a row per pair and level.

    `hits` float64 (N, M, L) in [0, 1] are those of `names` on N photos, `clusters` (N,) the photographers.
    `difference` is the accuracy of `method` less that of `other`; `low` and `high` are its interval (intervals.py), NaN
    for a single photographer. `p` is the p-value of no difference; `p_corrected` is Holm's for the `asked` comparisons
    of its family: methods with each other, or methods with `baselines`. `verdict` is "better" or "worse" if that is at
    most 1 - confidence, else "undecided"; one interval alone may exclude 0 and its verdict be undecided.

    With `luck` (of one training, at each level), intervals also know that names whose hits are the mean over so many
    `trainings` (0 or missing for none) could have been trained otherwise.
    """
    row, hits = {name: i for i, name in enumerate(names)}, np.asarray(hits, dtype=np.float64)
    records = []
    for method, other in pairs:
        found = differences(hits[:, row[method]] - hits[:, row[other]], clusters)
        if luck is not None:
            counts = [(trainings or {}).get(name, 0) for name in (method, other)]
            found = found.widened(luck.spread(counts), luck.freedom)
        low, high = found.interval(confidence)
        p = np.where(np.isnan(low), np.nan, found.p_value())
        records += [
            {
                "method": method, "other": other, "level": level, "km": float(km), "n": len(hits),
                "difference": found.estimate[i], "low": low[i], "high": high[i], "p": p[i],
            }
            for i, (level, km) in enumerate(levels_km.items())
        ]  # fmt: skip
    table = pd.DataFrame(records, columns=COLUMNS)
    for family in (table["other"].isin(list(baselines)), ~table["other"].isin(list(baselines))):
        table.loc[family, "p_corrected"] = holm(table.loc[family, "p"].to_numpy(dtype=np.float64))
        table.loc[family, "asked"] = int(family.sum())
    decided = table["p_corrected"].to_numpy(dtype=np.float64) <= 1 - confidence
    side = np.where(table["difference"].to_numpy(dtype=np.float64) > 0, "better", "worse")
    return table.assign(verdict=np.where(decided, side, "undecided"))
