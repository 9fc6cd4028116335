"""What the trainings of models of time, albums and people share: their photos, and the measures of validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.context_inputs import ContextInputs
from geoloc.sphere import distance_km
from geoloc.training.source import Inputs, TrainingError
from geoloc.training.validation import DISTANCES_KM


@dataclass(frozen=True, eq=False)
class ContextPhotos:
    """N photos to learn from: `inputs`; `cells` int64 (N,), the true ones, -1 for none; `places` float64 (N, 2),
    latitude and longitude. Raises TrainingError for different lengths."""

    inputs: ContextInputs
    cells: NDArray[np.int64]
    places: NDArray[np.float64]

    def __post_init__(self) -> None:
        counts = {len(self.inputs.readable), len(self.cells), len(self.places)}
        if len(counts) > 1:
            raise TrainingError(
                f"inputs, cells and places must be of the same photos, got {len(self.inputs.readable)}, "
                f"{len(self.cells)} and {len(self.places)}"
            )

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Photos with inputs and a cell, bool (N,)."""
        return self.inputs.readable & (self.cells >= 0)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that training uses, in order."""
        own = self.cells.tobytes() + np.ascontiguousarray(self.places).tobytes()
        return sha256_bytes(self.inputs.fingerprint.encode() + own)


def check_cells(photos: ContextPhotos, cell_count: int, name: str) -> None:
    """Raise TrainingError for cells that a network does not have."""
    if len(photos) and (photos.cells.min() < -1 or photos.cells.max() >= cell_count):
        raise TrainingError(
            f"the {name} photos have cells {photos.cells.min()} to {photos.cells.max()}, the network has {cell_count}"
        )


@dataclass(frozen=True, eq=False)
class RowSource:
    """Batches of single photos: one tensor, their inputs float32 [B, D]."""

    photos: ContextPhotos
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """Batches of `rows` by position."""
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            inputs = self.photos.inputs.rows(self.rows[positions])
            yield Inputs((inputs,), positions, np.empty(0, dtype=np.int64))


def measures(
    probabilities: NDArray[np.float32], photos: ContextPhotos, points: NDArray[np.float64]
) -> dict[str, Any]:
    """The measures of N validation photos from probabilities float32 [N, C] and the answer of each cell, (C, 2).

    Accuracies are shares of all photos; one without an answer is wrong. `validation_loss` is the mean of -log p of the
    true cell over photos that have an answer and a cell; None if there is none.
    """
    answered = np.asarray(~np.isnan(probabilities).any(axis=1))
    answer = np.where(answered, np.nan_to_num(probabilities).argmax(axis=1), -1)
    where = np.where(answered[:, None], points[answer], np.nan)
    km = distance_km(photos.places[:, 0], photos.places[:, 1], where[:, 0], where[:, 1])
    known = np.flatnonzero(answered & (photos.cells >= 0))
    chances = np.maximum(probabilities[known, photos.cells[known]], np.finfo(np.float32).tiny)
    found: dict[str, Any] = {
        "validation_loss": float(-np.log(chances, dtype=np.float64).mean()) if len(known) else None,
        "validation_unreadable": int((~photos.inputs.readable).sum()),
        "accuracy": float(np.mean((answer == photos.cells) & answered)),
    }
    return found | {f"accuracy_{limit}km": float(np.mean(km <= limit)) for limit in DISTANCES_KM}
