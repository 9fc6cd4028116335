"""A linear SVM over cells on frozen features (Diving Deeper into IM2GPS, table 1)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from geoloc.localizers.frozen.base import FrozenClassifier


class FrozenSvm(FrozenClassifier):
    """A linear SVM with squared hinge ("L2") loss, each cell against all others, by scikit-learn's LinearSVC.

    `c` is the weight of the loss against the L2 penalty. Scores are margins, -inf for a cell without training
    photos. They are not probabilities; their softmax is a probability in form only, unless TemperatureScaling is fitted
    on validation photos. `converged` is whether every cell's weights converged within `max_iterations`.
    """

    kind = "svm"

    def __init__(self, cell_count: int, c: float = 1.0, max_iterations: int = 1000, seed: int = 0) -> None:
        super().__init__(cell_count)
        if not 0 < c < np.inf:
            raise ValueError(f"c must be above 0 and finite, got {c}")
        if max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
        self.c, self.max_iterations, self.seed = float(c), max_iterations, seed
        self._converged = True
        self._cells = np.empty(0, dtype=np.int32)  # [K] cells with training photos
        self._weights = np.empty((0, 0), dtype=np.float32)  # [K, D]
        self._biases = np.empty(0, dtype=np.float32)  # [K]

    @property
    def converged(self) -> bool:
        """Whether every cell's weights converged within `max_iterations`."""
        return self._converged

    def describe(self) -> str:
        """How it classifies, in a few words for a report."""
        told = "a linear SVM on frozen features"
        return told if self.converged else f"{told} (not converged in {self.max_iterations:,} iterations)"

    def _learn(self, vectors: NDArray[Any], cells: NDArray[np.int64]) -> None:
        svm = LinearSVC(C=self.c, loss="squared_hinge", max_iter=self.max_iterations, random_state=self.seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            svm.fit(vectors.astype(np.float64), cells)
        self._converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        weights, biases = svm.coef_, np.broadcast_to(svm.intercept_, len(svm.coef_))
        if len(svm.classes_) == 2:  # scikit-learn keeps the second against the first only
            weights, biases = np.concatenate([-weights, weights]), np.concatenate([-biases, biases])
        self._cells = svm.classes_.astype(np.int32)
        self._weights, self._biases = weights.astype(np.float32), biases.astype(np.float32)

    def _score(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        scores = np.full((len(vectors), self.cell_count), -np.inf, dtype=np.float32)
        scores[:, self._cells] = vectors.astype(np.float32) @ self._weights.T + self._biases
        return scores

    def predict_probabilities(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """The softmax of the margins, float32 [N, C]: 0 for a cell without training photos; NaN rows stay."""
        scores = self.scores(vectors)
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=1, keepdims=True))

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"cells": self._cells, "weights": self._weights, "biases": self._biases}

    def _restore(self, state: dict[str, NDArray[Any]], learned: dict[str, Any]) -> None:
        self._cells, self._weights, self._biases = (state[name] for name in ("cells", "weights", "biases"))
        self._converged = bool(learned["converged"])

    def _settings(self) -> dict[str, Any]:
        return {"c": self.c, "max_iterations": self.max_iterations, "seed": self.seed}

    def _learned(self) -> dict[str, Any]:
        return {"converged": self.converged}

    def __repr__(self) -> str:
        return super().__repr__() + ("" if self.converged else ", not converged")
