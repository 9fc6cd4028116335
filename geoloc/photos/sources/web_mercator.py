"""Web Mercator (EPSG:3857), in which map tiles z/x/y are numbered: a square world of 256 x 2^zoom pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TILE = 256
MOST_LATITUDE = 85.0511287798066
_CIRCUMFERENCE = 2 * np.pi * 6378137.0

Floats = NDArray[np.float64]


def metres_per_pixel(latitude: ArrayLike, zoom: int) -> Floats:
    """Metres on the ground of a pixel at these latitudes and this zoom level."""
    return np.asarray(
        _CIRCUMFERENCE * np.cos(np.radians(np.asarray(latitude, np.float64))) / (TILE * 2.0**zoom)
    )


def to_pixels(latitude: ArrayLike, longitude: ArrayLike, zoom: int) -> tuple[Floats, Floats]:
    """Column and row of points in the world's pixels, from its north-west corner."""
    size = TILE * 2.0**zoom
    phi = np.radians(np.asarray(latitude, np.float64))
    column = (np.asarray(longitude, np.float64) + 180) / 360 * size
    return column, (0.5 - np.arctanh(np.sin(phi)) / (2 * np.pi)) * size


def from_pixels(column: ArrayLike, row: ArrayLike, zoom: int) -> tuple[Floats, Floats]:
    """Latitude and longitude of points in the world's pixels."""
    size = TILE * 2.0**zoom
    latitude = np.degrees(np.arcsin(np.tanh((0.5 - np.asarray(row, np.float64) / size) * 2 * np.pi)))
    return latitude, np.asarray(column, np.float64) / size * 360 - 180
