"""Distances, means, bearings and unit vectors on the Earth: the only place that does spherical maths.

Coordinates are latitude and longitude in degrees (WGS84), in that order. The Earth is a sphere of mean
radius 6371.0088 km (IUGG), so distances are within 0.6 % of the ellipsoid's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_RADIUS_KM = 6371.0088
LEVELS_KM = {"street": 1.0, "city": 25.0, "region": 200.0, "country": 750.0, "continent": 2500.0}
"""The five levels of Revisiting IM2GPS, section 1, in km; within a level means distance <= the level."""

FloatArray = NDArray[np.float64]
_CHUNK = 1 << 20  # points summed at a time


def distance_km(
    latitude_a: ArrayLike, longitude_a: ArrayLike, latitude_b: ArrayLike, longitude_b: ArrayLike
) -> FloatArray:
    """Great-circle distance in km, by the haversine formula; arguments broadcast.

    The haversine form keeps full precision for points a metre apart; the arc cosine of a dot product would lose half of
    the digits. NaN in gives NaN out.
    """
    lat_a, lon_a, lat_b, lon_b = (
        np.radians(np.asarray(x, dtype=np.float64))
        for x in (latitude_a, longitude_a, latitude_b, longitude_b)
    )
    h = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(h, 0.0, 1.0)))


def unit_vectors(latitude: ArrayLike, longitude: ArrayLike) -> FloatArray:
    """Points on the unit sphere, float64 (..., 3): x towards (0, 0), y towards (0, 90 E), z to the north pole."""
    lat = np.radians(np.asarray(latitude, dtype=np.float64))
    lon = np.radians(np.asarray(longitude, dtype=np.float64))
    lat, lon = np.broadcast_arrays(lat, lon)
    across = np.cos(lat)
    # Stored axis by axis, which is faster to compute and to read by axis; the shape is still (..., 3).
    return np.moveaxis(np.stack([across * np.cos(lon), across * np.sin(lon), np.sin(lat)]), 0, -1)


def from_vectors(vectors: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Latitude and longitude in degrees of vectors (..., 3) of any positive length; longitude in [-180, 180]."""
    v = np.asarray(vectors, dtype=np.float64)
    latitude = np.degrees(np.arctan2(v[..., 2], np.hypot(v[..., 0], v[..., 1])))
    longitude = np.degrees(np.arctan2(v[..., 1], v[..., 0]))
    return latitude, longitude


def group_means(
    latitude: ArrayLike, longitude: ArrayLike, group: ArrayLike, group_count: int
) -> tuple[FloatArray, FloatArray]:
    """Spherical mean of each group of N points: latitude and longitude, float64 (group_count,) each.

    `group` holds N integers below group_count; points with a negative group are skipped. NaN if a group has no point or
    its points cancel out. Raises ValueError for a group that is not below group_count.
    """
    group = np.asarray(group)
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    if group.size and group.max() >= group_count:
        raise ValueError(f"group must be below {group_count}, got {group.max()}")
    counts = np.zeros(group_count, dtype=np.int64)
    sums = np.zeros((group_count, 3))
    for start in range(0, len(group), _CHUNK):  # so that memory does not grow with the number of points
        part = slice(start, start + _CHUNK)
        vectors = unit_vectors(lat[part], lon[part])
        # Skipped points are summed too, in a slot of their own.
        slot = np.where(group[part] < 0, group_count, group[part])
        counts += np.bincount(slot, minlength=group_count + 1)[:group_count]
        for axis in range(3):
            sums[:, axis] += np.bincount(slot, vectors[:, axis], group_count + 1)[:group_count]
    # Relative to the count, because rounding errors grow with it.
    sums[np.linalg.norm(sums, axis=-1) < 1e-9 * np.maximum(counts, 1)] = np.nan
    return from_vectors(sums)


def bearing(
    latitude_a: ArrayLike, longitude_a: ArrayLike, latitude_b: ArrayLike, longitude_b: ArrayLike
) -> FloatArray:
    """Initial bearing from a to b in degrees clockwise from north, in [0, 360)."""
    lat_a, lon_a, lat_b, lon_b = (
        np.radians(np.asarray(x, dtype=np.float64))
        for x in (latitude_a, longitude_a, latitude_b, longitude_b)
    )
    east = np.sin(lon_b - lon_a) * np.cos(lat_b)
    north = np.cos(lat_a) * np.sin(lat_b) - np.sin(lat_a) * np.cos(lat_b) * np.cos(lon_b - lon_a)
    degrees = np.degrees(np.arctan2(east, north)) % 360.0
    return np.where(degrees >= 360.0, 0.0, degrees)  # -1e-17 % 360 rounds to 360 itself


def destination(
    latitude: ArrayLike, longitude: ArrayLike, bearing_degrees: ArrayLike, km: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """The point reached after `km` along the great circle from (latitude, longitude) with the initial bearing.

    Arguments broadcast; degrees in and out, longitude in [-180, 180].
    """
    lat, lon, theta, angle = np.broadcast_arrays(
        *(np.radians(np.asarray(x, dtype=np.float64)) for x in (latitude, longitude, bearing_degrees)),
        np.asarray(km, dtype=np.float64) / EARTH_RADIUS_KM,
    )
    north = np.stack([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)], axis=-1)
    east = np.stack([-np.sin(lon), np.cos(lon), np.zeros_like(lon)], axis=-1)
    here = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    ahead = np.cos(theta)[..., None] * north + np.sin(theta)[..., None] * east
    return from_vectors(np.cos(angle)[..., None] * here + np.sin(angle)[..., None] * ahead)


def is_valid(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.bool_]:
    """True where both are finite, latitude is in [-90, 90] and longitude in [-180, 180]."""
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    return (np.abs(lat) <= 90) & (np.abs(lon) <= 180)  # NaN compares false
