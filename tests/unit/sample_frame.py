"""The frame of a sample city the other way: from degrees to metres."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sample.geography import METRES_PER_DEGREE

FloatArray = NDArray[np.float64]


def to_metres(
    city_latitude: ArrayLike, city_longitude: ArrayLike, latitude: ArrayLike, longitude: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """The inverse of `to_degrees`: metres east and north of the city's centre, float64."""
    lat0, lon0 = np.asarray(city_latitude, np.float64), np.asarray(city_longitude, np.float64)
    north = (np.asarray(latitude, np.float64) - lat0) * METRES_PER_DEGREE
    turn = (np.asarray(longitude, np.float64) - lon0 + 180) % 360 - 180
    return turn * METRES_PER_DEGREE * np.cos(np.radians(lat0)), north
