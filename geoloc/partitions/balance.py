"""How evenly photos are spread over cells, and a sample in which they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


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


def balanced_sample(cells: ArrayLike, per_cell: int, seed: int) -> NDArray[np.int64]:
    """Rows of a sample with the same number of photos from every cell, int64, ascending.

    Diving Deeper into IM2GPS, section III, balances its 37 cities so. `cells` int (N,) as `Partition.assign`
    gives; photos in no cell (-1) are left out, and a cell with fewer than `per_cell` gives all it has. Raises
    ValueError where per_cell is below 1.
    """
    if per_cell < 1:
        raise ValueError(f"per_cell must be at least 1, got {per_cell}")
    values = np.asarray(cells)
    rows = np.random.default_rng(seed).permutation(len(values))
    rows = rows[values[rows] >= 0]
    rows = rows[np.argsort(values[rows], kind="stable")]  # each cell's photos together, in random order
    ordered = values[rows]
    rank = np.arange(len(rows)) - np.searchsorted(ordered, ordered, side="left")
    return np.sort(rows[rank < per_cell])
