"""Top-k accuracy: the best of the k most confident answers (PlaNet, figure 3).

A photo is right within a level if any of its top-k alternatives is. It shows whether a localizer has the right place
among its first guesses. Choosing the right one needs the truth, so it is not the accuracy of answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.measures.accuracy import error_km, within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.intervals import shares
from geoloc.localizers.base import Alternatives
from geoloc.photos.owners import photographer_keys
from geoloc.sphere import LEVELS_KM

_DECIMALS = 10
"""As in evaluate.py: the order of a sum must not change the bytes."""


def best_of_k_errors(
    alternatives: Alternatives, latitude: ArrayLike, longitude: ArrayLike, readable: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Returns the error in km of the best of the top 1, 2, ... A alternatives, float64 (N, A); infinite without any.

    Missing alternatives do not change the error. An unreadable photo (`readable` False) is infinitely wrong.
    Raises ValueError as `error_km` does.
    """
    count = np.asarray(alternatives.latitude).shape[1]
    errors = [
        error_km(latitude, longitude, alternatives.latitude[:, k], alternatives.longitude[:, k], readable)
        for k in range(count)
    ]
    return np.asarray(np.minimum.accumulate(np.stack(errors, axis=1), axis=1))


def top_k_accuracy(
    alternatives: Alternatives,
    queries: pd.DataFrame,
    *,
    ks: Sequence[int] = (1, 2, 3, 4, 5),
    readable: ArrayLike | None = None,
    levels_km: Mapping[str, float] = LEVELS_KM,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Returns the share of all queries whose best of the top k alternatives is within each level, with its interval.

    `queries` has latitude, longitude and photographer, in the order of `alternatives`. Columns: k, level, km, accuracy,
    low, high (by photographer, NaN for a single one), n. Raises ValueError for no queries, another
    number of them than alternatives, and a k that is below 1 or above the number of alternatives.
    """
    errors = best_of_k_errors(alternatives, queries["latitude"], queries["longitude"], readable)
    if not len(errors) or not ks:
        raise ValueError("top-k accuracy of no queries, or for no k, is not defined")
    if min(ks) < 1 or max(ks) > errors.shape[1]:
        raise ValueError(f"k must be from 1 to {errors.shape[1]}, the number of alternatives; got {list(ks)}")
    clusters = photographer_clusters(photographer_keys(queries))
    hits = np.concatenate([within(errors[:, k - 1], levels_km) for k in ks], axis=1).astype(np.float64)
    low, high = shares(hits, clusters).interval(confidence)
    return pd.DataFrame(
        {
            "k": np.repeat(np.array(ks, dtype=np.int64), len(levels_km)),
            "level": list(levels_km) * len(ks),
            "km": list(map(float, levels_km.values())) * len(ks),
            "accuracy": hits.mean(axis=0),
            "low": low,
            "high": high,
            "n": len(errors),
        }
    ).round(_DECIMALS)
