"""The area of a polygon on the sphere, in km²."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.sphere import EARTH_RADIUS_KM, unit_vectors

_NOTHING = 1e-14  # steradians, 0.4 m²: an outline that encloses less goes around the whole Earth


def polygon_area_km2(polygon: NDArray[np.float64]) -> float:
    """Area of a spherical polygon in km², in (0, that of the sphere].

    `polygon`: latitude, longitude in degrees, float64 (V, 2), anticlockwise, first vertex not repeated, edges of great
    circles. The signed triangles from one point to every edge are added up, each by its spherical excess (Van Oosterom
    and Strackee, The Solid Angle of a Plane Triangle, IEEE Trans. Biomedical Engineering 1983); the sum counts modulo
    the sphere, so a polygon may be larger than half of it. Raises ValueError for fewer than three vertices.
    """
    if len(polygon) < 3:
        raise ValueError(f"a polygon has at least three vertices, got {len(polygon)}")
    vertices = unit_vectors(polygon[:, 0], polygon[:, 1])
    b, c = vertices, np.roll(vertices, -1, axis=0)
    # From the middle of the vertices, so that no side is half a turn; those of a hemisphere have none, but an axis.
    a = vertices.sum(axis=0)
    if np.linalg.norm(a) < 0.01 * len(vertices):
        a = np.cross(b, c).sum(axis=0)
    if np.linalg.norm(a) < _NOTHING:
        return 4 * np.pi * EARTH_RADIUS_KM**2
    a = (a / np.linalg.norm(a))[None, :]
    # From differences: the product of nearly parallel vectors would lose the digits of a small cell.
    determinant = np.sum(a * np.cross(b - a, c - a), axis=1)
    dots = (a * b).sum(axis=1) + (b * c).sum(axis=1) + (c * a).sum(axis=1)
    excess = float(2 * np.arctan2(determinant, 1 + dots).sum()) % (4 * np.pi)
    if excess < _NOTHING or 4 * np.pi - excess < _NOTHING:
        excess = 4 * np.pi
    return excess * EARTH_RADIUS_KM**2
