"""Probabilities of cells: their checks, logarithms and top-k, as every localizer by class needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Probabilities = Mapping[str, NDArray[Any]]
"""Probabilities of N photos by partition name: float [N, C], a row of NaN for an unreadable photo."""

CELLS_AT_ONCE = 1 << 24
"""Probabilities that are held at once, over all partitions: about 1 GB with what is computed from them."""
_SMALLEST = float(np.finfo(np.float32).tiny)
"""Below this a softmax in float32 underflows to 0; a cell that lost its last digits is not impossible."""


def photo_parts(photos: int, cells: int, batch: int = 1) -> Iterator[slice]:
    """Consecutive slices of `photos` photos with at most about CELLS_AT_ONCE probabilities of `cells` cells.

    Each is a multiple of `batch` photos, so that a network sees the same batches as without parts. No photos are one
    empty slice.
    """
    step = max(CELLS_AT_ONCE // max(cells, 1) // batch, 1) * batch
    for start in range(0, max(photos, 1), step):
        yield slice(start, min(start + step, photos))


def checked_probabilities(
    probabilities: NDArray[Any], cell_count: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Probabilities of N photos over C cells, float [N, C], with rows of NaN set to 0; and which rows, bool [N].

    A row with a NaN is a photo that could not be read. Raises ValueError for another number of cells, or for rows
    that are not probabilities: negative, or with a sum other than 1 (for example logits).
    """
    p = np.asarray(probabilities)
    if p.ndim != 2 or p.shape[1] != cell_count:
        raise ValueError(f"probabilities must have shape (N, {cell_count}), got {p.shape}")
    unread = np.isnan(p).any(axis=1)
    p = np.where(unread[:, None], 0, p)
    sums = p.sum(axis=1, dtype=np.float64)
    # Half-precision networks give sums off by a few thousandths.
    if (p < 0).any() or (np.abs(sums[~unread] - 1) > 0.02).any():
        raise ValueError("probabilities must be at least 0 and sum to 1 a photo: apply a softmax to logits")
    return p, unread


def checked_groups(
    probabilities: Sequence[NDArray[Any]], cell_counts: Sequence[int]
) -> tuple[list[FloatArray], NDArray[np.bool_]]:
    """Log-probabilities [N, C_i] of the same N photos over several partitions, and the photos unread in any, [N].

    Rows of unread photos are those of a uniform distribution, so that they stay finite. Raises ValueError as
    `checked_probabilities`, and for another number of partitions or of photos.
    """
    if len(probabilities) != len(cell_counts):
        raise ValueError(
            f"probabilities must be given for {len(cell_counts)} partitions, got {len(probabilities)}"
        )
    checked = [checked_probabilities(p, count) for p, count in zip(probabilities, cell_counts, strict=True)]
    counts = sorted({len(p) for p, _ in checked})
    if len(counts) > 1:
        raise ValueError(f"probabilities must be of the same photos in every partition, got {counts} photos")
    unread = np.logical_or.reduce([missing for _, missing in checked])
    logs = []
    for p, _ in checked:
        log = log_probabilities(p)
        log[unread] = -np.log(p.shape[1])
        logs.append(log)
    return logs, unread


def log_probabilities(probabilities: NDArray[Any]) -> FloatArray:
    """Natural logarithms, float64, of probabilities; an underflowed 0 counts as float32's smallest normal number,
    so that one partition cannot veto all the others."""
    return np.asarray(np.log(np.maximum(probabilities, _SMALLEST), dtype=np.float64))


def normalised(log_scores: FloatArray) -> FloatArray:
    """Probabilities of rows of log-scores [N, K] (a softmax); -inf gives 0. Every row needs a finite score."""
    shifted = np.exp(log_scores - log_scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def largest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Columns of the `count` largest values of each row, largest first, of equals the first column first.

    A partial sort finds the threshold; only columns above it, and the first of those at it, are sorted.
    """
    if count >= values.shape[1]:
        return np.argsort(-values, axis=1, kind="stable")[:, :count]
    threshold = -np.partition(-values, count - 1, axis=1)[:, count - 1 : count]
    above = values > threshold
    room = count - above.sum(axis=1, keepdims=True)
    equal = values == threshold
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= room))
    columns = np.nonzero(chosen)[1].reshape(len(values), count)
    order = np.argsort(-np.take_along_axis(values, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
