"""Errors in km, accuracy at levels and against distance. Every query counts; a missing answer is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sphere import LEVELS_KM, distance_km, is_valid

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class ErrorSummary:
    """Mean and median error of one method, with the counts of queries.

    `mean_km` and `median_answered_km` are over answered queries only, NaN if there are none. `median_km` is over all
    queries with an abstention infinitely far away, so that abstaining cannot improve it; it is infinite if half of
    the queries have no answer.
    """

    mean_km: float
    median_km: float
    median_answered_km: float
    answered: int
    abstained: int
    unreadable: int


def error_km(
    latitude: ArrayLike,
    longitude: ArrayLike,
    answer_latitude: ArrayLike,
    answer_longitude: ArrayLike,
    readable: ArrayLike | None = None,
) -> FloatArray:
    """Returns the great-circle error of each answer in km, float64 (N,); infinite without an answer.

    An abstention is NaN in both coordinates. An unreadable photo (`readable` False) is infinitely wrong whatever was
    answered, because the answer did not come from the photo. Raises ValueError for a true
    coordinate or an answer that is out of range, infinite, or half NaN.
    """
    if not is_valid(latitude, longitude).all():
        raise ValueError(
            "true coordinates must be finite, latitude in [-90, 90] and longitude in [-180, 180]"
        )
    lat = np.asarray(answer_latitude, dtype=np.float64)
    lon = np.asarray(answer_longitude, dtype=np.float64)
    abstained = np.isnan(lat) & np.isnan(lon)
    bad = ~(is_valid(lat, lon) | abstained)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"answer {first} is not a place: latitude {lat[first]}, longitude {lon[first]}; an abstention is "
            "NaN in both"
        )
    error = distance_km(latitude, longitude, lat, lon)
    missing = abstained if readable is None else abstained | ~np.asarray(readable, dtype=bool)
    return np.where(missing, np.inf, error)


def within(error: ArrayLike, levels_km: Mapping[str, float] = LEVELS_KM) -> BoolArray:
    """Returns whether each error is at most each level (`<=`), bool (N, L), levels in the mapping's order."""
    return np.asarray(error, dtype=np.float64)[:, None] <= np.array(list(levels_km.values()))[None, :]


def accuracy(error: ArrayLike, levels_km: Mapping[str, float] = LEVELS_KM) -> FloatArray:
    """Returns the share of all queries within each level, float64 (L,), in [0, 1]. Raises ValueError for no queries."""
    hits = within(error, levels_km)
    if len(hits) == 0:
        raise ValueError("accuracy of no queries is not defined")
    return hits.mean(axis=0)


def accuracy_curve(error: ArrayLike, km: ArrayLike) -> FloatArray:
    """Returns the share of all queries within each distance of `km`, float64 (K,)."""
    error, km = np.sort(np.asarray(error, dtype=np.float64)), np.asarray(km, dtype=np.float64)
    if len(error) == 0:
        raise ValueError("accuracy of no queries is not defined")
    return np.searchsorted(error, km, side="right") / len(error)


def curve_distances(points: int) -> FloatArray:
    """Returns distances for a curve: evenly spaced in log km from 0.1 km to half the Earth's circumference."""
    return np.geomspace(0.1, 20_015.2, points)


def summarise_errors(error: ArrayLike, readable: ArrayLike | None = None) -> ErrorSummary:
    """Returns mean and median error and the counts of answered, abstained and unreadable queries."""
    error = np.asarray(error, dtype=np.float64)
    readable = np.ones(len(error), dtype=bool) if readable is None else np.asarray(readable, dtype=bool)
    finite = error[np.isfinite(error)]
    return ErrorSummary(
        mean_km=float(finite.mean()) if len(finite) else float("nan"),
        median_km=float(np.median(error)) if len(error) else float("nan"),
        median_answered_km=float(np.median(finite)) if len(finite) else float("nan"),
        answered=len(finite),
        abstained=int((np.isinf(error) & readable).sum()),
        unreadable=int((~readable).sum()),
    )
