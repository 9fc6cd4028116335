"""Neighbours and the cells of a partition: the probability that neighbours give each cell, and a search within cells.

The votes of the neighbours of a cell, w_i of equation 1, are the probability of the cell; so what scales and bounds a
classifier's probabilities (localizers/confidence) does so for neighbours. A share of PRIOR is spread as the references
are: a photo may be where none of its neighbours is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.by_class.probabilities import largest, log_probabilities, normalised
from geoloc.retrieval.density import neighbour_weights
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.neighbours import Neighbours

PRIOR = 0.1


def reference_cells(cells: NDArray[Any], neighbours: Neighbours) -> NDArray[np.int64]:
    """The cell of each neighbour, int64 [Q, k], from those of all references [R]; -1 in none, and for a missing one."""
    return np.append(np.asarray(cells, dtype=np.int64), -1)[neighbours.row]


def cell_votes(
    cell: NDArray[np.int64], similarity: NDArray[Any], prior: NDArray[np.float64], k: int, m: float
) -> NDArray[np.float32]:
    """The probability that the first `k` neighbours give each cell, float32 [Q, C].

    `cell`, `similarity` [Q, n] are those of the neighbours, most similar first; `prior` [C] sums to 1. Where no
    neighbour is in a cell it is the prior; a row of NaN for a query without neighbours.
    """
    weights = neighbour_weights(similarity[:, :k], m)
    found = cell[:, :k]
    inside = found >= 0
    votes = np.zeros((len(found), len(prior)))
    rows = np.broadcast_to(np.arange(len(found))[:, None], found.shape)
    np.add.at(votes, (rows[inside], found[inside]), weights[inside])
    total = votes.sum(axis=1, keepdims=True)
    votes = np.divide(votes, total, out=np.broadcast_to(prior, votes.shape).copy(), where=total > 0)
    mixed = ((1 - PRIOR) * votes + PRIOR * prior).astype(np.float32)
    mixed[weights.sum(axis=1) == 0] = np.nan
    return mixed


def share_of_cells(cells: NDArray[Any], count: int) -> NDArray[np.float64]:
    """The share of the references [R] in each of `count` cells, with one more in each, so that none is 0. Those in no
    cell do not count."""
    inside = np.bincount(cells[cells >= 0], minlength=count) + 1.0
    return np.asarray(inside / inside.sum())


def experts(by_class: NDArray[Any], by_neighbour: NDArray[Any], weight: float) -> NDArray[np.float32]:
    """The product of the classifier's probabilities to the power `weight` and the neighbours', normalised, [Q, C]. A
    row of NaN where either has none."""
    unread = np.isnan(by_class).any(axis=1) | np.isnan(by_neighbour).any(axis=1)
    made = np.full(by_class.shape, np.nan, dtype=np.float32)
    made[~unread] = normalised(
        weight * log_probabilities(by_class[~unread]) + log_probabilities(by_neighbour[~unread])
    )
    return made


class CellSearch:
    """Searches an index within cells (Kordopatis-Zilos et al., WACV 2021, search within the predicted cell).

    `cells` int [R] are the cells of the index's references, -1 for none.
    """

    def __init__(self, index: ReferenceIndex, cells: NDArray[Any], cell_count: int) -> None:
        self.index, self.cells = index, np.asarray(cells, dtype=np.int64)
        self.counts = np.bincount(self.cells[self.cells >= 0], minlength=cell_count)

    def search(
        self, vectors: NDArray[Any], probabilities: NDArray[Any], numbers: Sequence[int], k: int
    ) -> dict[int, Neighbours]:
        """The k nearest references in the n most probable cells that have any, for each n of `numbers`.

        `vectors` [Q, D], `probabilities` [Q, C]. Each cell is searched once, for all queries that ask for it.
        """
        shown = np.where(self.counts > 0, probabilities, -1.0)
        most = min(max(numbers), int((self.counts > 0).sum()))
        asked = largest(shown, most)  # [Q, most]
        count = len(vectors)
        row = np.full((count, most, k), -1, dtype=np.int64)
        ids = row.copy()
        similarity = np.full(row.shape, np.nan, dtype=np.float32)
        place = np.full((2, *row.shape), np.nan)
        for cell in np.unique(asked):
            query, slot = np.nonzero(asked == cell)
            width = int(min(k, self.counts[cell]))
            found = self.index.search(vectors[query], width, among=self.cells == cell)
            row[query, slot, :width], ids[query, slot, :width] = found.row, found.id
            similarity[query, slot, :width] = found.similarity
            place[0, query, slot, :width], place[1, query, slot, :width] = found.latitude, found.longitude

        def nearest(n: int) -> Neighbours:
            n = min(n, most)
            flat = similarity[:, :n].reshape(count, n * k)
            order = np.argsort(np.where(np.isnan(flat), np.inf, -flat), axis=1, kind="stable")[:, :k]

            def at(values: NDArray[Any]) -> NDArray[Any]:
                return np.take_along_axis(values[:, :n].reshape(count, n * k), order, axis=1)

            return Neighbours(
                at(row), at(ids), at(similarity), at(place[0]), at(place[1]),
                self.index.references["photo_id"].to_numpy(dtype=object), ("references outside the subset",),
            )  # fmt: skip

        return {n: nearest(n) for n in numbers}
