"""How good a classifier is on validation photos: loss, accuracy by cell and within 25 and 750 km."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.losses.classification import cross_entropy
from geoloc.sphere import distance_km
from geoloc.training.photo_data import LabelledPhotos, Source

DISTANCES_KM = (25, 750)


def validate(
    forward: Callable[[torch.Tensor], torch.Tensor],
    source: Source,
    photos: LabelledPhotos,
    centroids: NDArray[np.float64],
    batch_size: int,
) -> dict[str, Any]:
    """Measure `forward` (inputs to logits [B, C]) on all `photos`; `centroids` (C, 2) are the cells' answers.

    Accuracies are shares of all photos: an unreadable one is wrong, one in no cell is wrong by cell and may be right by
    distance. The loss is the plain mean over readable photos in a cell, None if there is none.
    """
    answers = np.full(len(photos), -1, dtype=np.int64)
    losses, in_cell, unreadable = 0.0, 0, 0
    for batch in source.batches(np.arange(len(photos)), batch_size, 0):
        unreadable += len(batch.unreadable)
        if not len(batch.positions):
            continue
        with torch.inference_mode():
            logits = forward(batch.tensor).float()
            answers[batch.positions] = logits.argmax(dim=1).cpu().numpy()
            cells = photos.cells[batch.positions]
            labels = torch.from_numpy(cells[cells >= 0]).to(logits.device)
            if len(labels):
                chosen = logits[torch.from_numpy(cells >= 0).to(logits.device)]
                losses += float(cross_entropy(chosen, labels)) * len(labels)
                in_cell += len(labels)
    answered = answers >= 0
    where = np.full((len(photos), 2), np.nan)
    where[answered] = centroids[answers[answered]]
    distance = distance_km(photos.rows["latitude"], photos.rows["longitude"], where[:, 0], where[:, 1])
    measures: dict[str, Any] = {
        "validation_loss": losses / in_cell if in_cell else None,
        "accuracy": float(np.mean((answers == photos.cells) & answered)),
        "validation_unreadable": unreadable,
    }
    for km in DISTANCES_KM:
        measures[f"accuracy_{km}km"] = float(np.mean(distance <= km))  # NaN is not
    return measures
