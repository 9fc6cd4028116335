"""Quantised retrieval: the answer is the cell of the nearest reference, not its coordinates (PlaNet, figure 9c)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import NearestLocalizer, NeighbourLocalizer
from geoloc.partitions.base import Partition
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.neighbours import Neighbours
from geoloc.retrieval.quantised import in_cells


class QuantisedLocalizer(NeighbourLocalizer):
    """Answers with the centroid of the cell that the most similar reference is in.

    So it is as coarse as a classifier over the same cells, and what is left between the two is not the cells.
    Confidence is that of NearestLocalizer. A photo whose nearest reference is in no cell has no answer.
    """

    def __init__(self, index: ReferenceIndex, partition: Partition, model_name: str = "L") -> None:
        self.index, self.partition = index, partition
        self._nearest = NearestLocalizer(index, model_name)

    @property
    def name(self) -> str:
        """For example [L]NN in 359C, over the cells of [L]359C."""
        return f"{self._nearest.name} in {self.partition.cell_count}C"

    @property
    def k(self) -> int:
        """Neighbours that `locate_neighbours` wants."""
        return self._nearest.k

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        return f"{self._nearest.describe()}, answered with the centroid of its cell, of {self.partition.cell_count:,}"

    def locate_neighbours(self, neighbours: Neighbours) -> Answers:
        """Returns answers from neighbours already found."""
        answers = self._nearest.locate_neighbours(in_cells(neighbours, self.partition))
        return replace(answers, confidence=np.where(answers.abstained, np.float32(0), answers.confidence))
