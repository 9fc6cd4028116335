"""k nearest neighbours over cells on frozen features (Diving Deeper into IM2GPS, table 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from geoloc.localizers.frozen.base import FrozenClassifier


class FrozenKnn(FrozenClassifier):
    """The cells of the `k` training photos with the least L2 distance vote; each vote counts alike.

    `scores` and probabilities are shares of the votes. Fewer training photos than k all vote.
    """

    kind = "knn"

    def __init__(self, cell_count: int, k: int = 10) -> None:
        super().__init__(cell_count)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k
        self._vectors: NDArray[Any] = np.empty((0, 0), dtype=np.float32)
        self._cells = np.empty(0, dtype=np.int32)

    def describe(self) -> str:
        """How it classifies, in a few words for a report."""
        return f"the {self.k} training photos with the nearest frozen features vote"

    def _learn(self, vectors: NDArray[Any], cells: NDArray[np.int64]) -> None:
        self._vectors, self._cells = np.array(vectors), cells.astype(np.int32)
        # Exact: an approximate search would be another method than the one published.
        self._search = NearestNeighbors(n_neighbors=min(self.k, len(cells)), algorithm="brute")
        self._search.fit(self._vectors.astype(np.float32))

    def _score(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        near = self._search.kneighbors(vectors.astype(np.float32), return_distance=False)
        votes = np.zeros((len(vectors), self.cell_count), dtype=np.float32)
        np.add.at(votes, (np.arange(len(vectors))[:, None], self._cells[near]), 1)
        return np.asarray(votes / near.shape[1])

    def predict_probabilities(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Shares of the votes of each cell, float32 [N, C]; a row of NaN (an unreadable photo) stays one."""
        return self.scores(vectors)

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"vectors": self._vectors, "cells": self._cells}

    def _restore(self, state: dict[str, NDArray[Any]], learned: dict[str, Any]) -> None:
        self._learn(state["vectors"], state["cells"].astype(np.int64))

    def _settings(self) -> dict[str, Any]:
        return {"k": self.k}
