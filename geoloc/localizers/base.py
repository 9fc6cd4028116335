"""The interface of localizers, and their answers: places, confidence, alternatives and evidence.

A localizer turns a model's output for N photos (probabilities of cells, or embeddings) into N answers. It never
raises for a photo that it cannot place: that answer is NaN (abstained), and evaluation counts it as wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.retrieval.neighbours import Neighbours

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Alternatives:
    """Up to A places for each of N photos, best first; the first is the answer. NaN beyond the last.

    `weight` is in the units of the answer's confidence and falls from left to right.
    """

    latitude: FloatArray  # [N, A] degrees
    longitude: FloatArray  # [N, A]
    weight: NDArray[np.float32]  # [N, A]


@dataclass(frozen=True)
class CellEvidence:
    """Evidence for answers by class: the most probable cells of each photo, best first; -1 and NaN beyond the last."""

    cell: NDArray[np.int64]  # [N, A]
    probability: NDArray[np.float32]  # [N, A]


@dataclass(frozen=True)
class Answers:
    """Answers for N photos. NaN coordinates mean abstained; then confidence is 0.

    `confidence` is in [0, 1] and ranks the answers of one localizer; each localizer documents what it measures.
    `cells` or `neighbours` are the evidence, whichever the localizer used. Raises ValueError for arrays of different
    lengths, or an answer with only one coordinate.
    """

    latitude: FloatArray  # [N] degrees
    longitude: FloatArray  # [N]
    confidence: NDArray[np.float32]  # [N]
    alternatives: Alternatives | None = None
    cells: CellEvidence | None = None
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        count = len(self.latitude)
        lengths = {
            "longitude": len(self.longitude),
            "confidence": len(self.confidence),
            "alternatives": count if self.alternatives is None else len(self.alternatives.latitude),
            "cells": count if self.cells is None else len(self.cells.cell),
            "neighbours": count if self.neighbours is None else len(self.neighbours),
        }
        wrong = {name: length for name, length in lengths.items() if length != count}
        if wrong:
            raise ValueError(f"latitude has {count} answers, but {wrong}")
        if (np.isnan(self.latitude) != np.isnan(self.longitude)).any():
            raise ValueError("an answer has both coordinates or, abstaining, neither")

    def __len__(self) -> int:
        return len(self.latitude)

    def __repr__(self) -> str:
        return f"Answers({len(self):,} photos, {int(self.abstained.sum()):,} abstained)"

    @property
    def abstained(self) -> NDArray[np.bool_]:
        """[N] True where there is no answer."""
        return np.isnan(self.latitude)

    def take(self, photos: ArrayLike) -> Answers:
        """Returns the answers for some photos, by position or mask, with their alternatives and evidence."""
        chosen = np.asarray(photos)

        def pick(value: Any) -> Any:
            if value is None or isinstance(value, Neighbours):
                return None if value is None else value.take(chosen)
            return type(value)(*(getattr(value, f.name)[chosen] for f in fields(value)))

        return Answers(
            self.latitude[chosen],
            self.longitude[chosen],
            self.confidence[chosen],
            pick(self.alternatives),
            pick(self.cells),
            pick(self.neighbours),
        )

    def spread(self, positions: ArrayLike, count: int) -> Answers:
        """Returns answers for `count` photos: these at `positions` int [N], abstentions elsewhere.

        Use it where some queries could not be read: accuracies still count every query. Raises ValueError for
        positions that repeat, are out of range, or are not N.
        """
        place = np.asarray(positions, dtype=np.int64)
        if place.shape != (len(self),) or len(np.unique(place)) != len(place):
            raise ValueError(f"positions must be {len(self)} different numbers, got {place.shape}")
        if len(place) and (place.min() < 0 or place.max() >= count):
            raise ValueError(f"positions must be from 0 to {count - 1}")

        def scatter(values: NDArray[Any], missing: Any) -> NDArray[Any]:
            out = np.full((count, *values.shape[1:]), missing, dtype=values.dtype)
            out[place] = values
            return out

        a, c, n = self.alternatives, self.cells, self.neighbours
        return Answers(
            scatter(self.latitude, np.nan),
            scatter(self.longitude, np.nan),
            scatter(self.confidence, 0.0),
            None
            if a is None
            else Alternatives(*(scatter(x, np.nan) for x in (a.latitude, a.longitude, a.weight))),
            None if c is None else CellEvidence(scatter(c.cell, -1), scatter(c.probability, np.nan)),
            None
            if n is None
            else Neighbours(
                scatter(n.row, -1),
                scatter(n.id, -1),
                scatter(n.similarity, np.nan),
                scatter(n.latitude, np.nan),
                scatter(n.longitude, np.nan),
                n.reference_photo_ids,
            ),
        )

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Returns the answers for the photos of all parts, in order; the parts are of one localizer by class, so none
        has neighbours. Raises ValueError for no parts, or parts with neighbours."""
        if not parts or any(part.neighbours is not None for part in parts):
            raise ValueError("answers are joined from at least one part, and without neighbours")

        def join(of: Sequence[Any]) -> Any:
            if any(one is None for one in of):
                return None
            return type(of[0])(*(np.concatenate([getattr(one, f.name) for one in of]) for f in fields(of[0])))

        return cls(
            np.concatenate([part.latitude for part in parts]),
            np.concatenate([part.longitude for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            join([part.alternatives for part in parts]),
            join([part.cells for part in parts]),
        )

    @classmethod
    def none(cls, count: int) -> Answers:
        """Returns `count` abstentions."""
        return cls(np.full(count, np.nan), np.full(count, np.nan), np.zeros(count, dtype=np.float32))


class Localizer(ABC):
    """Answers where photos were taken. `name` is in the literature's notation: [L]359C, [L]NN, [L]kNN σ=4.

    The input of `locate` depends on the localizer (probabilities or embeddings), one row per photo.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The model in brackets, then the approach."""

    @abstractmethod
    def locate(self, evidence: NDArray[Any], /, *args: Any, **kwargs: Any) -> Answers:
        """One answer for each row of `evidence`."""

    @abstractmethod
    def describe(self) -> str:
        """What it does, in a sentence for a report."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}: {self.describe()})"
