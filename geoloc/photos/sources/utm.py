"""Universal Transverse Mercator coordinates on WGS84, for sources that give them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RADIUS, _FLATTENING, _SCALE = 6378137.0, 1 / 298.257223563, 0.9996
_FALSE_EASTING, _FALSE_NORTHING = 500_000.0, 10_000_000.0
_WIDEST = 500_000.0  # metres from the middle of a zone: more than half of one, which is 334 km at the equator
_FURTHEST_SOUTH = 1_000_000.0  # the northing at 81 degrees south, where UTM ends


def from_utm(
    easting: ArrayLike, northing: ArrayLike, *, zone: int, south: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitude and longitude in degrees of UTM coordinates in metres, to a millimetre within a zone (Krüger's series to
    third order). NaN where a zone has no such coordinates. Raises ValueError for a zone outside 1 to 60."""
    if not 1 <= zone <= 60:
        raise ValueError(f"zone must be from 1 to 60, got {zone}")
    x, y = (np.asarray(one, np.float64) for one in (easting, northing))
    inside = (
        (np.abs(x - _FALSE_EASTING) < _WIDEST)
        & (y >= (_FURTHEST_SOUTH if south else 0))
        & (y <= _FALSE_NORTHING)
    )
    x, y = np.where(inside, x, np.nan), np.where(inside, y, np.nan)
    n = _FLATTENING / (2 - _FLATTENING)
    rectifying = _RADIUS / (1 + n) * (1 + n**2 / 4 + n**4 / 64)
    y = (y - (_FALSE_NORTHING if south else 0.0)) / (_SCALE * rectifying)
    x = (x - _FALSE_EASTING) / (_SCALE * rectifying)
    beta = (n / 2 - 2 * n**2 / 3 + 37 * n**3 / 96, n**2 / 48 + n**3 / 15, 17 * n**3 / 480)
    delta = (2 * n - 2 * n**2 / 3 - 2 * n**3, 7 * n**2 / 3 - 8 * n**3 / 5, 56 * n**3 / 15)
    xi, eta = y.copy(), x.copy()
    for j, b in enumerate(beta, start=1):
        xi = xi - b * np.sin(2 * j * y) * np.cosh(2 * j * x)
        eta = eta - b * np.cos(2 * j * y) * np.sinh(2 * j * x)
    conformal = np.arcsin(np.sin(xi) / np.cosh(eta))
    latitude = conformal + sum(d * np.sin(2 * j * conformal) for j, d in enumerate(delta, start=1))
    longitude = np.degrees(np.arctan2(np.sinh(eta), np.cos(xi))) + zone * 6 - 183
    return np.degrees(latitude), longitude
