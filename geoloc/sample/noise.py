"""A noise texture of integers, used for the clouds, ridges and grain of the sample planet's drawings."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 512
_FULL = 256


@cache
def texture() -> NDArray[np.int32]:
    """Returns 512 x 512 values from 0 to 255 that wrap at the edges: four octaves of value noise. Read only."""
    rng = np.random.default_rng(7)
    total = np.zeros((SIDE, SIDE), np.int32)
    for cells, weight in ((8, 8), (16, 4), (32, 2), (64, 1)):
        step = SIDE // cells
        corner = rng.integers(0, 256, (cells, cells), dtype=np.int32)
        at, t = np.arange(SIDE) // step, (np.arange(SIDE, dtype=np.int32) % step) * _FULL // step
        t = (t * t * (3 * _FULL - 2 * t) // (_FULL * _FULL)).astype(np.int32)  # smooth step
        rows: NDArray[np.int32] = corner[at] * (_FULL - t)[:, None] + corner[(at + 1) % cells] * t[:, None]
        both: NDArray[np.int32] = rows[:, at] * (_FULL - t)[None, :] + rows[:, (at + 1) % cells] * t[None, :]
        total += weight * (both >> 16)
    made = (total // 15).astype(np.int32)
    made.flags.writeable = False
    return made


def window(height: int, width: int, top: int, left: int, stretch: int = 1) -> NDArray[np.int32]:
    """Returns the texture from row `top` and column `left` on, int32 [height, width]; `stretch` roughens it in x."""
    rows = (np.arange(height) + top) % SIDE
    columns = (np.arange(width) * stretch + left) % SIDE
    return texture()[rows[:, None], columns[None, :]]
