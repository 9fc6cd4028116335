"""Measures of a classifier on validation photos: loss, accuracy by cell and within 25 and 750 km."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.losses.classification import cross_entropy
from geoloc.sphere import distance_km
from geoloc.training.photo_data import LabelledPhotos
from geoloc.training.source import Source

DISTANCES_KM = (25, 750)


@dataclass(frozen=True)
class ValidatedHead:
    """What measures a head: `centroids` (C, 2), the answers of its cells, and its `weight` in the loss."""

    centroids: NDArray[np.float64]
    weight: float = 1.0


def validate(
    forward: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
    source: Source,
    photos: LabelledPhotos,
    heads: Mapping[str, ValidatedHead],
    batch_size: int,
) -> dict[str, Any]:
    """Measure `forward` (inputs to scores [B, C] by head) on all `photos`.

    Accuracies are shares of all photos. An unreadable photo is wrong. A photo in no cell is wrong by cell and may be
    right by distance. Accuracies without the name of a head are those of the first head. A head's loss is the plain
    mean over readable photos in its cells, None if there are none; `validation_loss` is the weighted sum over heads
    with a loss.
    """
    tallies = {name: _Tally(len(photos)) for name in heads}
    unreadable = 0
    for batch in source.batches(np.arange(len(photos)), batch_size, 0):
        unreadable += len(batch.unreadable)
        if not len(batch.positions):
            continue
        with torch.inference_mode():
            scores = forward(*batch.tensors)
            for h, name in enumerate(heads):
                tallies[name].add(scores[name].float(), batch.positions, photos.cells[batch.positions, h])
    measures: dict[str, Any] = {"validation_loss": None, "validation_unreadable": unreadable}
    for h, (name, head) in enumerate(heads.items()):
        loss, accuracies = tallies[name].measures(photos, h, head.centroids)
        if loss is not None and head.weight:
            measures["validation_loss"] = (measures["validation_loss"] or 0.0) + head.weight * loss
        if h == 0:
            measures |= accuracies
        if len(heads) > 1:
            measures |= {f"{name}_validation_loss": loss}
            measures |= {f"{name}_{measure}": value for measure, value in accuracies.items()}
    return measures


class _Tally:
    """Answers and losses of one head, per photo."""

    def __init__(self, count: int) -> None:
        self.answers = np.full(count, -1, dtype=np.int64)
        self.losses, self.in_cell = 0.0, 0

    def add(self, scores: torch.Tensor, positions: NDArray[np.int64], cells: NDArray[np.int64]) -> None:
        self.answers[positions] = scores.argmax(dim=1).cpu().numpy()
        inside = cells >= 0
        labels = torch.from_numpy(cells[inside]).to(scores.device)
        if len(labels):
            chosen = scores[torch.from_numpy(inside).to(scores.device)]
            self.losses += float(cross_entropy(chosen, labels)) * len(labels)
            self.in_cell += len(labels)

    def measures(
        self, photos: LabelledPhotos, head: int, centroids: NDArray[np.float64]
    ) -> tuple[float | None, dict[str, float]]:
        answered = self.answers >= 0
        where = np.full((len(photos), 2), np.nan)
        where[answered] = centroids[self.answers[answered]]
        distance = distance_km(photos.rows["latitude"], photos.rows["longitude"], where[:, 0], where[:, 1])
        accuracies = {"accuracy": float(np.mean((self.answers == photos.cells[:, head]) & answered))}
        for km in DISTANCES_KM:
            accuracies[f"accuracy_{km}km"] = float(np.mean(distance <= km))  # NaN is not
        return self.losses / self.in_cell if self.in_cell else None, accuracies
