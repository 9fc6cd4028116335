"""How evenly photos are spread over cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def effective_classes(counts: ArrayLike) -> float:
    """exp(entropy) of the shares that `counts` (C,) make: how many classes of equal size would be as hard to guess.

    C where all are equal, 1.0 where one has everything, 0.0 where all counts are zero. Raises ValueError for
    counts that are negative or not finite.
    """
    values = np.asarray(counts, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("effective_classes needs counts that are finite and not negative")
    total = values.sum()
    if total == 0:
        return 0.0
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
