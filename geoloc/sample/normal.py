"""Normal deviates from hashes of whole numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sample.hashing import uniform


def normal(key: ArrayLike, stream: int) -> NDArray[np.float64]:
    """Returns a normal deviate (mean 0, variance 1) from a hash of each key, float64. Box and Muller (1958).

    Different streams of one key give independent numbers.
    """
    radius = np.sqrt(-2.0 * np.log1p(-uniform(key, stream, 1)))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(key, stream, 2)))
