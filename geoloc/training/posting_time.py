"""Train the network that corrects an image model's answers by the time of posting (M2); a killed run is resumed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.losses.classification import cross_entropy
from geoloc.models.prediction import mixed_precision
from geoloc.models.time_network import TimeNetwork, time_probabilities
from geoloc.settings import settings_hash
from geoloc.training import loop
from geoloc.training.context import ContextPhotos, RowSource, check_cells, measures
from geoloc.training.context_settings import TimeSettings
from geoloc.training.loop import OnProgress, Task, TrainingResult, loop_fingerprint
from geoloc.training.samplers import epoch_starts, shuffled, without_lonely
from geoloc.training.source import Inputs, TrainingError


def train_time_network(
    model: TimeNetwork,
    train: ContextPhotos,
    validation: ContextPhotos | None,
    points: NDArray[np.float64],
    settings: TimeSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: OnProgress = lambda event: None,
) -> TrainingResult:
    """Train `model` in place; it ends in eval mode with the weights of the best epoch.

    `train` should be photos that the image model has not seen, by photographers that it has not seen: on its own
    training photos it is surer than it will ever be again. Their inputs are TopCells. `points` float64 (C, 2) is where
    each cell answers. `checkpoint_folder` makes the training resumable, see loop.train.

    Raises TrainingError if photos and network do not fit each other, or if no photo can be learnt from.
    """
    settings.check("time")
    for name, photos in (("training", train), ("validation", validation)):
        if photos is not None:
            check_cells(photos, model.cells, name)
            if photos.inputs.size != model.cells + 4:
                raise TrainingError(
                    f"the {name} photos have {photos.inputs.size} inputs, the network has {model.cells + 4}"
                )
    rows = np.flatnonzero(train.usable)
    if not len(rows):
        raise TrainingError(
            f"none of the {len(train)} photos of the time network has an answer of the image model, a time and a cell"
        )
    fingerprint = loop_fingerprint(model, settings, seed) | {
        "network settings": settings_hash(model.settings),
        "training photos": train.fingerprint,
        "validation photos": "none" if validation is None else validation.fingerprint,
    }
    examples = without_lonely(len(rows), settings.batch_size)

    def prepare(device: torch.device) -> Task:
        def loss_of(batch: Inputs) -> torch.Tensor:
            with mixed_precision(device, settings.precision):
                scores = model(batch.tensors[0])
            labels = torch.from_numpy(train.cells[rows[batch.positions]]).to(device)
            return cross_entropy(scores, labels)

        def validate() -> dict[str, Any]:
            assert validation is not None
            return measures(time_probabilities(model, validation.inputs), validation, points)

        return Task(
            RowSource(train, rows),
            lambda epoch: shuffled(len(rows), seed, epoch)[:examples],
            epoch_starts([examples] * settings.epochs, settings.batch_size),
            loss_of,
            validate if validation is not None and len(validation) else None,
        )

    result = loop.train(model, prepare, settings, seed, Path(checkpoint_folder), fingerprint, on_progress)
    left_out = {"training_unusable": len(train) - len(rows)}
    return dataclasses.replace(result, left_out=left_out | result.left_out)
