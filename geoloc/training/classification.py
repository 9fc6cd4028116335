"""Train a classifier over cells: on frozen features or by fine-tuning; a killed run is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.losses.classification import class_weights, unit_vectors
from geoloc.losses.distillation import cosine_distillation
from geoloc.losses.heads import HeadLoss, sum_of_heads
from geoloc.models.classifier import Classifier
from geoloc.models.engine import ExportedNetwork
from geoloc.models.prediction import mixed_precision
from geoloc.partitions.base import Partition
from geoloc.photos.shards import ShardReader
from geoloc.settings import replace, settings_hash
from geoloc.training import loop
from geoloc.training.loop import OnProgress, Task, TrainingResult, loop_fingerprint
from geoloc.training.photo_data import LabelledPhotos, PhotoSource, cached_features, label
from geoloc.training.samplers import curriculum_length, curriculum_order, epoch_starts, without_lonely
from geoloc.training.settings import TrainingSettings
from geoloc.training.source import Inputs, Source, TrainingError
from geoloc.training.validation import ValidatedHead, validate

PROJECTION = "projection"
"""The name of the layer from a model's features to the teacher's; the model has it during distillation only."""


def train_classifier(
    model: Classifier,
    pool: Path | str | ShardReader,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    partitions: Mapping[str, Partition],
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: OnProgress = lambda event: None,
    teacher: NDArray[np.floating] | None = None,
    frozen_engine: ExportedNetwork | None = None,
) -> TrainingResult:
    """Train `model` in place on photos of `pool`; it ends in eval mode with the weights of the best epoch.

    `partitions` are those of the model's heads, by name and in order. `train` and `validation` (may be empty) need the
    columns photo_id, shard, offset, length, latitude, longitude. The cells of a partition are taken from the column
    `cell_<name>` if it exists, else from the partition itself. A photo in no cell of a partition does not train that
    head. Photos in no cell at all and unreadable photos train nothing. All are counted.

    `checkpoint_folder` makes the training resumable, see loop.train.

    `teacher` [N, D] are a larger network's embeddings of the training photos, NaN if a photo has none; required if the
    settings have a distillation.

    `frozen_engine` is the exported graph of the same network, which computes the features of frozen training; None:
    torch does.

    `on_progress` receives the dicts of loop.train and of photo_data.cached_features.

    Raises TrainingError if model, partitions and photos do not fit each other, if fewer than two cells of a partition
    have photos, or if the loss is no longer finite.
    """
    settings.check("training")
    folder = Path(checkpoint_folder)
    _check_heads(model, partitions, settings)
    everything = label(train, partitions, "training")
    held_out = label(validation, partitions, "validation")
    inside = np.any(everything.cells >= 0, axis=1)
    photos = everything.only(inside)
    counts = {
        name: np.bincount(cells[cells >= 0], minlength=partitions[name].cell_count)
        for name, cells in zip(partitions, photos.cells.T, strict=True)
    }
    for name, of_head in counts.items():
        _check_cells(name, len(everything), of_head)
    left_out = _in_no_cell("training", everything, partitions) | _in_no_cell(
        "validation", held_out, partitions
    )
    taught = _teacher(teacher, len(everything), settings)
    if taught is not None:
        taught = taught[inside]
        left_out["training_no_teacher"] = int(np.isnan(taught).any(axis=1).sum())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.add_module(PROJECTION, torch.nn.Linear(model.embedding_size, taught.shape[1]))
    _set_learning(model, settings)
    fingerprint = loop_fingerprint(model, settings, seed)
    fingerprint |= _fingerprint(model, photos, held_out, partitions, taught)

    def source(name: str, group: LabelledPhotos) -> Source:
        """Photos (augmented for training), or their features if the backbone is frozen."""
        frozen = settings.mode == "frozen"
        stored = PhotoSource(
            Path(pool) if isinstance(pool, str) else pool,
            group.rows,
            model.preprocess,
            None if frozen or name == "validation" else settings.augmentation,
            seed,
            settings.workers,
            settings.channels_last,
        )
        if not frozen:
            return stored
        cache, key = folder / f"features-{name}.safetensors", settings_hash(fingerprint, name)
        network = model if frozen_engine is None else frozen_engine
        size, precision = settings.batch_size, settings.precision
        return cached_features(
            network, model.embedding_size, stored, size, precision, cache, key, on_progress
        )

    def prepare(device: torch.device) -> Task:
        losses = _losses(counts, partitions, settings, device)
        return Task(
            source("training", photos),
            lambda epoch: _epoch_order(photos.cells[:, 0], settings, seed, epoch),
            _epoch_starts(photos.cells[:, 0], settings),
            _loss_of(model, photos, losses, taught, settings, device),
            _validation(model, source("validation", held_out), held_out, partitions, settings, device),
        )

    result = loop.train(model, prepare, settings, seed, folder, fingerprint, on_progress)
    if taught is not None:
        del model._modules[PROJECTION]
    for cache in folder.glob("features-*.safetensors"):
        cache.unlink()
    return dataclasses.replace(result, left_out=left_out | result.left_out)


def _loss_of(
    model: Classifier,
    photos: LabelledPhotos,
    losses: Mapping[str, HeadLoss],
    taught: NDArray[np.float32] | None,
    settings: TrainingSettings,
    device: torch.device,
) -> Callable[[Inputs], torch.Tensor]:
    """The loss of a batch of photos, or of their features if the backbone is frozen: the loss of the heads plus,
    with a teacher, the distillation loss."""
    every_cell = torch.from_numpy(photos.cells)
    every_place = unit_vectors(photos.rows[["latitude", "longitude"]])

    def loss_of(batch: Inputs) -> torch.Tensor:
        (inputs,) = batch.tensors
        taken = torch.from_numpy(batch.positions)
        cells = every_cell[taken].to(device, non_blocking=True)
        places = every_place[taken].to(device, non_blocking=True)
        with mixed_precision(device, settings.precision):
            features = inputs if settings.mode == "frozen" else model.embed(inputs)
            scores = model.classify(features)
        loss = sum_of_heads(losses, model.split(scores), cells, places)
        if taught is None or settings.distillation is None:
            return loss
        teacher = torch.from_numpy(taught[batch.positions]).to(device, non_blocking=True)
        projected = model.get_submodule(PROJECTION)(features.float())
        return loss + settings.distillation.weight * cosine_distillation(projected, teacher)

    return loss_of


def _epoch_order(
    cells: NDArray[np.int64], settings: TrainingSettings, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The photos of an epoch in order, by their cells in the main partition."""
    order = curriculum_order(cells, settings.curriculum, seed, epoch)
    return order[: _taken(len(order), settings)]


def _epoch_starts(cells: NDArray[np.int64], settings: TrainingSettings) -> list[int]:
    lengths = [curriculum_length(cells, settings.curriculum, 1 + e) for e in range(settings.epochs)]
    return epoch_starts([_taken(length, settings) for length in lengths], settings.batch_size)


def _taken(photos: int, settings: TrainingSettings) -> int:
    """How many photos of an epoch are trained on: all for a head alone, which has no batch norm."""
    return without_lonely(photos, settings.batch_size) if settings.mode == "fine_tune" else photos


def _check_heads(model: Classifier, partitions: Mapping[str, Partition], settings: TrainingSettings) -> None:
    try:
        model.check_heads({name: partition.cell_count for name, partition in partitions.items()})
    except ValueError as error:
        raise TrainingError(str(error)) from None
    unknown = [name for name in settings.head_weights if name not in partitions]
    if unknown:
        raise TrainingError(
            f"training.head_weights.{unknown[0]} is not a partition; the partitions are: {', '.join(partitions)}"
        )
    if not any(_head_weights(partitions, settings).values()):
        raise TrainingError("training.head_weights must be above 0 for at least one partition, got 0 for all")


def _head_weights(partitions: Iterable[str], settings: TrainingSettings) -> dict[str, float]:
    return {name: settings.head_weights.get(name, 1.0) for name in partitions}


def _check_cells(name: str, photos: int, counts: NDArray[np.int64]) -> None:
    if not counts.any():
        raise TrainingError(f"none of the {photos} training photos is in a cell of the partition {name}")
    if (counts > 0).sum() == 1:
        raise TrainingError(
            f"all {int(counts.sum())} training photos are in cell {int(counts.argmax())} of the partition {name}: a "
            "classifier needs photos in at least two; make the partition finer"
        )


def _in_no_cell(what: str, photos: LabelledPhotos, partitions: Iterable[str]) -> dict[str, int]:
    """The number of photos in no cell of any partition and, if there are several partitions, in no cell of each."""
    outside = photos.cells < 0
    counted = {f"{what}_no_cell": int(outside.all(axis=1).sum())}
    if outside.shape[1] > 1:
        counted |= {
            f"{what}_no_cell_{name}": int(n) for name, n in zip(partitions, outside.sum(axis=0), strict=True)
        }
    return counted


def _teacher(
    teacher: NDArray[np.floating] | None, photos: int, settings: TrainingSettings
) -> NDArray[np.float32] | None:
    """The teacher's embeddings as float32; None without a distillation. Raises TrainingError if they do not fit."""
    if settings.distillation is None:
        return None
    if teacher is None or teacher.ndim != 2 or len(teacher) != photos:
        got = "none" if teacher is None else f"shape {teacher.shape}"
        raise TrainingError(
            f"training.distillation needs an embedding of each of {photos} training photos, got {got}"
        )
    if np.isnan(teacher).any(axis=1).all():
        raise TrainingError(f"the teacher has no embedding of any of the {photos} training photos")
    return teacher.astype(np.float32)


def _losses(
    counts: Mapping[str, NDArray[np.int64]],
    partitions: Mapping[str, Partition],
    settings: TrainingSettings,
    device: torch.device,
) -> dict[str, HeadLoss]:
    losses = {}
    for name, weight in _head_weights(counts, settings).items():
        weights = class_weights(counts[name], settings.class_weights)
        losses[name] = HeadLoss(
            weight,
            None if weights is None else weights.to(device),
            settings.label_smoothing,
            settings.label_smoothing_km,
            unit_vectors(partitions[name].centroids()).to(device) if settings.label_smoothing_km else None,
        )
    return losses


def _set_learning(model: Classifier, settings: TrainingSettings) -> None:
    """Choose the weights that learn."""
    if settings.mode == "fine_tune":
        model.requires_grad_(True)
        try:
            model.freeze_backbone(settings.trainable_blocks)
        except ValueError as error:
            raise TrainingError(f"training.{error}") from None
    else:
        model.requires_grad_(False)  # pooling too: its output is computed only once
        model.head.requires_grad_(True)


def _fingerprint(
    model: Classifier,
    photos: LabelledPhotos,
    held_out: LabelledPhotos,
    partitions: Mapping[str, Partition],
    taught: NDArray[np.float32] | None,
) -> dict[str, str]:
    """What must be equal to resume from a checkpoint, in addition to loop_fingerprint."""
    plain = replace(model.settings, weights="none")  # the hash of the weights covers it
    found = {
        "model settings": settings_hash(plain, model.preprocess),
        "training photos": photos.fingerprint,
        "validation photos": held_out.fingerprint,
        "partitions": settings_hash(
            [
                [name, partition.tokens(), np.asarray(partition.centroids()).astype(str).tolist()]
                for name, partition in partitions.items()
            ]
        ),
    }
    return found if taught is None else found | {"teacher": sha256_bytes(taught.tobytes())}


def _validation(
    model: Classifier,
    source: Source,
    photos: LabelledPhotos,
    partitions: Mapping[str, Partition],
    settings: TrainingSettings,
    device: torch.device,
) -> Callable[[], dict[str, Any]] | None:
    """A function that measures the model; None without validation photos."""
    if not len(photos):
        return None
    network = model if settings.mode == "fine_tune" else model.classify

    def forward(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with mixed_precision(device, settings.precision):
            return model.split(network(inputs.to(device, non_blocking=True)))

    weights = _head_weights(partitions, settings)
    heads = {name: ValidatedHead(p.centroids(), weights[name]) for name, p in partitions.items()}
    return lambda: validate(forward, source, photos, heads, settings.batch_size)
