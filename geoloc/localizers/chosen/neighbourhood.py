"""An index and the cells that its references are in: the evidence for answers by neighbour, alone or with classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.by_class.probabilities import log_probabilities
from geoloc.localizers.chosen.cells import (
    CellSearch,
    cell_votes,
    experts,
    reference_cells,
    share_of_cells,
)
from geoloc.localizers.chosen.choice import PRODUCT, Choice, Evidence
from geoloc.retrieval.index import ReferenceIndex

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

COMBINED = "combined"
"""Neighbours and classes, in names of files; neighbours alone are choice.ALONE."""


@dataclass(frozen=True)
class Neighbourhood:
    """The index of one model, which of its references may be found, bool [R] (None: all), and the cells of the main
    partition that these are in. Make it with `over`."""

    index: ReferenceIndex
    partition: Partition
    search: CellSearch
    prior: NDArray[np.float64]
    among: NDArray[np.bool_] | None = None

    @classmethod
    def over(
        cls, index: ReferenceIndex, partition: Partition, among: NDArray[np.bool_] | None = None
    ) -> Neighbourhood:
        known = index.references
        cells = np.asarray(partition.assign(known["latitude"], known["longitude"]), dtype=np.int64)
        if among is not None:
            cells = np.where(among, cells, -1)
        count = partition.cell_count
        return cls(index, partition, CellSearch(index, cells, count), share_of_cells(cells, count), among)

    def evidence(
        self,
        vectors: NDArray[Any],
        k: int,
        by_class: NDArray[Any] | None = None,
        numbers: tuple[int, ...] = (),
    ) -> Evidence:
        """What photos are answered from: embeddings [N, D], and the class probabilities [N, C] for combinations, which
        search within each of `numbers` of cells."""
        found = self.index.search(vectors, min(k, len(self.index)), among=self.among)
        if by_class is None:
            return Evidence(found)
        by_class = np.nan_to_num(by_class)
        cell = reference_cells(self.search.cells, found)
        padded = np.append(by_class, np.zeros((len(by_class), 1), by_class.dtype), axis=1)  # of no cell: 0
        log_class = log_probabilities(np.take_along_axis(padded, cell, axis=1))
        within = self.search.search(vectors, by_class, numbers, k) if numbers else {}
        return Evidence(found, log_class, within)

    def probabilities(
        self, evidence: Evidence, choice: Choice, by_class: NDArray[Any] | None = None
    ) -> NDArray[np.float32]:
        """The probability of each cell of the main partition, [N, C]: by the neighbours, and with those by class their
        product."""
        found = evidence.neighbours
        cell = reference_cells(self.search.cells, found)
        votes = cell_votes(cell, found.similarity, self.prior, choice.k, choice.m)
        if by_class is None:
            return votes
        return experts(by_class, votes, choice.weight if choice.way == PRODUCT else 1.0)
