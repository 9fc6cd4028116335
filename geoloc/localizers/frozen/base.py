"""The interface of classifiers on frozen features. The network is not trained; the input is stored embeddings.

Diving Deeper into IM2GPS, section IV.A and table 1: k nearest neighbours by L2 distance, and a multi-class linear SVM
with L2 loss, on features of a network trained for something else. They answer through ClassLocalizer, as networks do.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from geoloc.files import atomic_path, damage_named

FROZEN_APPROACHES = {"svm": "SVM", "knn": "kNN"}
"""Kinds of classifiers on frozen features, and what they are called in the names of methods."""

FORMAT = 1
_METADATA_KEY = "geoloc"


class FrozenClassifier(ABC):
    """A classifier over the `cell_count` cells of a partition, from embeddings [N, D], as they are stored.

    After `fit`, `dimension` is D, `photos` the number of training photos, and `outside` the number left out because
    they are in no cell. A kind implements `_learn`, `_score`, and `_state`, `_restore`, `_settings` for its file.
    """

    kind: ClassVar[str]

    def __init__(self, cell_count: int) -> None:
        if cell_count < 1:
            raise ValueError(f"cell_count must be at least 1, got {cell_count}")
        self.cell_count = cell_count
        self.dimension = self.photos = self.outside = 0

    @property
    def converged(self) -> bool:
        """False if fitting stopped before it converged."""
        return True

    @abstractmethod
    def describe(self) -> str:
        """How it classifies, in a few words for a report."""

    @abstractmethod
    def _learn(self, vectors: NDArray[Any], cells: NDArray[np.int64]) -> None:
        """Fit on float [N, D] and cells int64 [N], all at least 0, of at least two different cells."""

    @abstractmethod
    def _score(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Returns scores [N, C] of finite vectors, higher for more likely cells."""

    @abstractmethod
    def _state(self) -> dict[str, NDArray[Any]]:
        """Returns the fitted parameters as arrays."""

    @abstractmethod
    def _restore(self, state: dict[str, NDArray[Any]], learned: dict[str, Any]) -> None:
        """Restore the fitted parameters from `_state` and `_learned`."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without cell_count, as JSON values."""

    def _learned(self) -> dict[str, Any]:
        """Returns further fitted values, as JSON values."""
        return {}

    def fit(self, vectors: NDArray[Any], cells: ArrayLike) -> Self:
        """Fit on N training photos: embeddings float [N, D], cells int [N], -1 for none. Returns itself.

        Raises ValueError for vectors that are not finite [N, D], for cells that are not N numbers below `cell_count`,
        and if fewer than two cells have photos.
        """
        found, classes = np.asarray(vectors), np.asarray(cells, dtype=np.int64)
        if found.ndim != 2 or classes.shape != (len(found),):
            raise ValueError(f"vectors (N, D) and cells (N,) must fit, got {found.shape} and {classes.shape}")
        if len(classes) and (classes.min() < -1 or classes.max() >= self.cell_count):
            raise ValueError(
                f"cells must be from -1 (in none) to {self.cell_count - 1}, got {classes.min()} to {classes.max()}"
            )
        inside = classes >= 0
        found, classes = found[inside], classes[inside]
        if not np.isfinite(found).all():
            raise ValueError("vectors must be finite: leave unreadable photos out before fitting")
        if len(np.unique(classes)) < 2:
            raise ValueError(
                f"a {self.kind} classifier needs photos in at least 2 cells, got {len(np.unique(classes))} in "
                f"{len(classes)} photos"
            )
        self.dimension, self.photos, self.outside = found.shape[1], len(found), int((~inside).sum())
        self._learn(found, classes)
        return self

    def scores(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Scores of each cell, float32 [N, C]; a row of NaN (an unreadable photo) stays one.

        Raises ValueError before `fit`, and for vectors of another length.
        """
        if not self.dimension:
            raise ValueError(
                f"this {self.kind} classifier is not fitted yet: call fit with training photos first"
            )
        found = np.asarray(vectors)
        if found.ndim != 2 or found.shape[1] != self.dimension:
            raise ValueError(f"vectors must have shape (N, {self.dimension}), got {found.shape}")
        read = np.isfinite(found).all(axis=1)
        scores = np.full((len(found), self.cell_count), np.nan, dtype=np.float32)
        if read.any():
            scores[read] = self._score(found[read])
        return scores

    @abstractmethod
    def predict_probabilities(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities of cells, float32 [N, C], each row with sum 1; a row of NaN stays one."""

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, atomically; equal classifiers, equal bytes. Raises ValueError before `fit`."""
        if not self.dimension:
            raise ValueError(f"this {self.kind} classifier is not fitted yet: there is nothing to save")
        metadata = {
            "format": FORMAT,
            "kind": f"frozen {self.kind}",
            "cell_count": self.cell_count,
            "settings": self._settings(),
            "learned": self._learned(),
            "counts": {"dimension": self.dimension, "photos": self.photos, "outside": self.outside},
        }
        state = {name: np.ascontiguousarray(value) for name, value in self._state().items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary, {_METADATA_KEY: json.dumps(metadata, sort_keys=True)})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load what `save` wrote. Raises FileNotFoundError for a missing file, DamagedFile for another kind."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path} is missing: no frozen {cls.kind} classifier was saved there")
        with damage_named(path):
            with safe_open(path, framework="numpy") as file:
                metadata = json.loads((file.metadata() or {}).get(_METADATA_KEY, "{}"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if metadata.get("kind") != f"frozen {cls.kind}" or metadata.get("format") != FORMAT:
                raise ValueError(
                    f"it is not a frozen {cls.kind} classifier of format {FORMAT}; its header has kind "
                    f"{metadata.get('kind')!r}, format {metadata.get('format')}"
                )
            made = cls(metadata["cell_count"], **metadata["settings"])
            for name, count in metadata["counts"].items():
                setattr(made, name, count)
            made._restore(state, metadata["learned"])
        return made

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings().items())
        told = f"{type(self).__name__}({self.cell_count} cells, {settings})"
        if not self.dimension:
            return f"{told}, not fitted"
        outside = f", {self.outside:,} in no cell left out" if self.outside else ""
        return f"{told}: {self.photos:,} photos, {self.dimension} dimensions{outside}"
