"""Random numbers as hashes of integers such as positions, the same on every machine.

A planet cannot be stored house by house. So each house, tree and paving stone is drawn from a hash of its position,
and any part of the planet can be made at any time, in any order, in any process.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

_START = 0x6A09E667F3BCC909  # any number works; this is the fractional part of the square root of 2
_STEP = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_FULL = 2**64 - 1


def mixed(*keys: ArrayLike) -> NDArray[np.uint64]:
    """Returns a 64-bit hash of one or more integers, uint64, uniformly distributed; arguments broadcast.

    Each key is added and mixed by the finaliser of splitmix64 (Steele, Lea, Flood, Fast Splittable Pseudorandom
    Number Generators, 2014), so nearby keys give unrelated hashes.
    """
    made: int | NDArray[np.uint64] = _START
    for key in keys:
        if isinstance(made, int) and np.ndim(key) == 0:  # faster without numpy
            made = _mixed_in(made, int(key))  # type: ignore[arg-type]
            continue
        start = np.full(1, made, np.uint64) if isinstance(made, int) else made
        x = start + np.asarray(key).astype(np.int64).astype(np.uint64) * np.uint64(_STEP) + np.uint64(_STEP)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(_FIRST)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(_SECOND)
        made = x ^ (x >> np.uint64(31))
    if isinstance(made, int):
        return np.asarray(made, np.uint64)
    return made.reshape(np.broadcast_shapes(*(np.shape(key) for key in keys)))


def _mixed_in(made: int, key: int) -> int:
    """One step of `mixed` for single numbers."""
    x = (made + key * _STEP + _STEP) & _FULL
    x = (x ^ (x >> 30)) * _FIRST & _FULL
    x = (x ^ (x >> 27)) * _SECOND & _FULL
    return x ^ (x >> 31)


def uniform(*keys: ArrayLike) -> NDArray[np.float64]:
    """Returns a number in [0, 1) from a hash of the keys: 53 bits, so it is exact in float64."""
    return np.asarray((mixed(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def choice(count: int, *keys: ArrayLike) -> NDArray[np.int64]:
    """Returns a number in 0 .. count - 1 from a hash of the keys."""
    # Single numbers without numpy: many callers ask for one at a time.
    if all(isinstance(key, int) for key in keys):
        made = functools.reduce(_mixed_in, keys, _START)  # type: ignore[arg-type]
        return np.asarray(((made >> 32) * count) >> 32, np.int64)
    return np.asarray(((mixed(*keys) >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)).astype(np.int64)
