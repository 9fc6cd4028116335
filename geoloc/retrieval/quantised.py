"""Quantised retrieval: a neighbour says only in which cell it is (PlaNet, figure 9c)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from geoloc.partitions.base import Answer, Partition
from geoloc.retrieval.neighbours import Neighbours


def in_cells(neighbours: Neighbours, partition: Partition, answer: Answer = "centroid") -> Neighbours:
    """Returns the neighbours with the place of their cell (its centroid or its centre) instead of their own.

    So a search is as coarse as a classifier over the same cells. A neighbour in no cell keeps its rank and id, and
    loses its coordinates (NaN), as a missing one has none.
    """
    latitude, longitude = (np.full(neighbours.row.shape, np.nan) for _ in range(2))
    found = neighbours.row >= 0
    cell = np.full(neighbours.row.shape, -1, dtype=np.int64)
    cell[found] = partition.assign(neighbours.latitude[found], neighbours.longitude[found])
    inside = cell >= 0
    latitude[inside], longitude[inside] = partition.answers(answer)[cell[inside]].T
    return replace(neighbours, latitude=latitude, longitude=longitude)
