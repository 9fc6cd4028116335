"""Smooth fields over the sphere: climate, relief and building styles of the sample planet, equal in all samples."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sphere import unit_vectors

PLANET = 20240229
"""Seed of the planet itself. Not a setting: samples of all seeds show the same Earth."""

_WAVES = 7


def fields(
    latitude: ArrayLike, longitude: ArrayLike, count: int, low: float, high: float, stream: int
) -> NDArray[np.float64]:
    """Returns `count` fields at N places (degrees), float64 (N, count), each about normal with standard deviation 0.7.

    Each is a sum of plane waves through the ball, with wave numbers from `low` to `high` radians per Earth radius. So
    it is continuous, also at the poles and the antimeridian. Different `stream` numbers give independent fields.
    """
    direction, phase = _waves(count, low, high, stream)
    x, y, z = np.moveaxis(unit_vectors(latitude, longitude).reshape(-1, 3), 1, 0)
    total = np.zeros((len(x), count))
    for wave in range(_WAVES):  # one by one: a matrix product sums in varying order
        a, b, c = direction[:, wave].T
        total += np.sin(x[:, None] * a + y[:, None] * b + z[:, None] * c + phase[:, wave], dtype=np.float64)
    return total / np.sqrt(_WAVES)


@functools.cache
def _waves(
    count: int, low: float, high: float, stream: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wave vectors (count, waves, 3) and phases (count, waves) of a set of fields."""
    rng = np.random.default_rng([PLANET, stream])
    direction = rng.normal(size=(count, _WAVES, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    number = rng.uniform(low, high, size=(count, _WAVES, 1))
    return direction * number, rng.uniform(0, 2 * np.pi, size=(count, _WAVES))
