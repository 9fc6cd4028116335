"""How the answers of two evaluations differ, photo by photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from geoloc.evaluation.result import Evaluation
from geoloc.sphere import distance_km

COLUMNS = {
    "method": "str", "other": "str", "level": "str", "km": "float64", "accuracy": "float64",
    "other_accuracy": "float64", "moved": "float64", "lost": "float64", "gained": "float64", "n": "int64",
}  # fmt: skip
"""Of `changed_answers`: shares of the `n` photos in both whose answer moved by more than `km`, was right and is wrong
(`lost`), and was wrong and is right (`gained`). The accuracies are those of the whole evaluations."""


@dataclass(frozen=True, eq=False)
class Changes:
    """The photos in both evaluations, and in one only; `levels` (COLUMNS) has a row per method and level; `answers` the
    share of photos of each method whose answer is not the same to the last digit."""

    photos: int
    only_first: int
    only_second: int
    levels: pd.DataFrame
    answers: dict[str, float]


def changed_answers(first: Evaluation, second: Evaluation) -> Changes:
    """Compare the answers of the methods that both have; and, where their first methods have other names, these."""
    both = [(name, name) for name in first.methods if name in second.methods]
    if first.methods[0] != second.methods[0] and (first.methods[0], first.methods[0]) not in both:
        both.insert(0, (first.methods[0], second.methods[0]))
    ids = (set(first.per_photo["photo_id"]), set(second.per_photo["photo_id"]))
    rows, answers = [], {}
    for name, other in both:
        pairs = _of(first, name).join(_of(second, other), how="inner", lsuffix="_a", rsuffix="_b")
        apart = _apart(pairs)
        answers[name] = float(np.mean(apart != 0)) if len(pairs) else 0.0
        for level, km in first.levels_km.items():
            right, then = (pairs[f"error_km_{side}"].le(km).to_numpy() for side in "ab")
            rows.append(
                {
                    "method": name,
                    "other": other,
                    "level": level,
                    "km": km,
                    "accuracy": _accuracy(first, name, level),
                    "other_accuracy": _accuracy(second, other, level),
                    "moved": _share(apart > km),
                    "lost": _share(right & ~then),
                    "gained": _share(~right & then),
                    "n": len(pairs),
                }
            )
    levels = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return Changes(len(ids[0] & ids[1]), len(ids[0] - ids[1]), len(ids[1] - ids[0]), levels, answers)


def _of(evaluation: Evaluation, method: str) -> pd.DataFrame:
    rows = evaluation.per_photo[evaluation.per_photo["method"] == method]
    return rows.set_index("photo_id")[["latitude", "longitude", "error_km"]]


def _apart(pairs: pd.DataFrame) -> np.ndarray:
    """How far two answers to each photo are from each other, in km: infinity where one of them is missing, 0 where both
    are, and where they are equal to the last digit."""
    columns = ("latitude_a", "longitude_a", "latitude_b", "longitude_b")
    a_lat, a_lon, b_lat, b_lon = (pairs[name].to_numpy() for name in columns)
    none_a, none_b = np.isnan(a_lat), np.isnan(b_lat)
    apart = np.where(none_a | none_b, np.inf, 0.0)
    apart[none_a & none_b] = 0.0
    differ = ~(none_a | none_b) & ((a_lat != b_lat) | (a_lon != b_lon))
    far = distance_km(a_lat[differ], a_lon[differ], b_lat[differ], b_lon[differ])
    apart[differ] = np.maximum(far, np.finfo(float).tiny)
    return apart


def _accuracy(evaluation: Evaluation, method: str, level: str) -> float:
    table = evaluation.accuracy
    found = table.loc[(table["method"] == method) & (table["level"] == level), "accuracy"]
    return float(found.iloc[0]) if len(found) else float("nan")


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
