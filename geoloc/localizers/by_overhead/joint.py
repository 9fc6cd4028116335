"""Photo and overhead together: an overhead index asked inside the region that the photo classifier thinks likely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex
from geoloc.localizers.by_overhead.localizer import OverheadAnswers, locate_by_overhead
from geoloc.partitions.base import Partition

DEFAULT_MASS = 0.9


def locate_jointly(
    index: OverheadIndex,
    embedder: CrossViewEmbedder,
    photos: NDArray[np.float32],
    probabilities: NDArray[np.floating],
    partition: Partition,
    k: int = 10,
    mass: float = DEFAULT_MASS,
) -> OverheadAnswers:
    """Answers for photos by their embeddings (Q, D) and a photo classifier's probabilities (Q, C) of the cells of
    `partition`: as locate_by_overhead, among the tiles of the most probable cells that hold `mass` of a photo's
    probability. Raises the errors of locate_by_overhead and log_priors."""
    places = index.tiles[["latitude", "longitude"]]
    cell = np.asarray(partition.assign(places["latitude"], places["longitude"]), dtype=np.int64)
    return locate_by_overhead(index, embedder, photos, k, log_priors(probabilities, cell, mass))


def log_priors(
    probabilities: NDArray[np.floating], cell: NDArray[np.int64], mass: float = DEFAULT_MASS
) -> NDArray[np.float64]:
    """The log prior of each of N tiles, float64 (Q, N), from a classifier's probabilities of C cells (Q, C) and the
    cell of each tile int64 (N,), -1 for none.

    A cell's probability is shared by its tiles. Only the most probable cells count, as many as hold `mass` of a photo's
    probability: tiles elsewhere have -inf. So have all tiles of a photo with NaN. Raises ValueError for a mass outside
    (0, 1].
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass must be above 0 and at most 1, got {mass:g}")
    p = np.nan_to_num(np.asarray(probabilities, dtype=np.float64), nan=0.0)
    order = np.argsort(-p, axis=1, kind="stable")
    before = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1)
    before = np.concatenate([np.zeros((len(p), 1)), before[:, :-1]], axis=1)
    likely = np.zeros(p.shape, dtype=bool)
    np.put_along_axis(likely, order, before < mass - 1e-12, axis=1)
    tiles = np.bincount(cell[cell >= 0], minlength=p.shape[1])
    with np.errstate(divide="ignore"):
        each = np.where(likely & (p > 0), np.log(p) - np.log(np.maximum(tiles, 1)), -np.inf)
    return np.asarray(np.where(cell[None, :] >= 0, each[:, np.maximum(cell, 0)], -np.inf))
