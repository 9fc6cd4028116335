"""Smooth fields over the sphere: climate, relief and custom of the sample planet, the same for every sample."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sphere import unit_vectors

PLANET = 20240229
"""The planet itself. It is no setting: every sample, whatever its seed, shows photos of the same Earth."""

_WAVES = 7


def fields(
    latitude: ArrayLike, longitude: ArrayLike, count: int, low: float, high: float, stream: int
) -> NDArray[np.float64]:
    """`count` fields at N places (degrees), float64 (N, count), each about normal with standard deviation 0.7.

    Each is a sum of plane waves through the ball, with wave numbers from `low` to `high` radians per Earth radius, so
    it is continuous, also at the poles and the antimeridian. `stream` tells sets of fields apart.
    """
    direction, phase = _waves(count, low, high, stream)
    x, y, z = np.moveaxis(unit_vectors(latitude, longitude).reshape(-1, 3), 1, 0)
    total = np.zeros((len(x), count))
    for wave in range(_WAVES):  # added one by one, not by a matrix product, whose order of summing varies
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
