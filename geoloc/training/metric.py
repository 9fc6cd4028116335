"""Train a network whose embeddings of photos of one place are near each other; a killed run is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional

from geoloc.losses.metric import metric_loss
from geoloc.models.metric import MetricNetwork
from geoloc.models.prediction import mixed_precision
from geoloc.partitions.base import Partition
from geoloc.photos.shards import ShardReader
from geoloc.settings import replace, settings_hash
from geoloc.sphere import distance_km
from geoloc.training import loop
from geoloc.training.chunks import check_no_batch_statistics, in_chunks
from geoloc.training.groups import Groups, Mined
from geoloc.training.loop import OnProgress, Task, TrainingResult, loop_fingerprint
from geoloc.training.metric_photos import MetricPhotos, metric_photos
from geoloc.training.metric_settings import MetricSettings
from geoloc.training.mining import MINED, embed_all, mine, mined_at, similarity_blocks
from geoloc.training.photo_data import PhotoSource
from geoloc.training.samplers import epoch_starts
from geoloc.training.source import Inputs, TrainingError

CITY_KM = 25


def train_metric(
    model: MetricNetwork,
    pool: Path | str | ShardReader,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    partitions: Mapping[str, Partition],
    settings: MetricSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: OnProgress = lambda event: None,
) -> TrainingResult:
    """Train `model` in place on photos of `pool`; it ends in eval mode with the weights of the best epoch.

    `train` and `validation` (may be empty) need the columns of metric_photos. Their cells are taken from the column
    `cell_<name>` if it exists, else from the partition of settings.positives. `checkpoint_folder` makes the training
    resumable, and `on_progress` receives dicts, see loop.train.

    Raises TrainingError if model, photos and settings do not fit each other, or if the loss is no longer finite.
    """
    settings.check("metric")
    folder = Path(checkpoint_folder)
    if model.projected_to != settings.embedding_size:
        raise TrainingError(
            f"metric.embedding_size is {settings.embedding_size}, the network was built with {model.projected_to}"
        )
    if (model.scale is not None) != settings.loss.learnt_scale:
        raise TrainingError(
            f"metric.loss.learnt_scale is {str(settings.loss.learnt_scale).lower()}, but the network was built "
            f"{'without' if model.scale is None else 'with'} a scale that learns"
        )
    if settings.batch_norm not in (None, model.settings.batch_norm):
        raise TrainingError(
            f"metric.batch_norm is {settings.batch_norm}, the network was built with {model.settings.batch_norm}"
        )
    everything = metric_photos(train, partitions, settings.positives, "training")
    held_out = metric_photos(validation, partitions, settings.positives, "validation")
    by_cell = settings.positives.kind == "cell"
    photos = everything.only(everything.cell >= 0) if by_cell else everything
    groups = Groups(photos, settings)
    left_out = {
        "training_no_cell": len(everything) - len(photos),
        "training_no_positive": groups.without_positive,
    }
    model.requires_grad_(True)
    try:
        model.freeze_backbone(settings.trainable_blocks)
    except ValueError as error:
        raise TrainingError(f"metric.{error}") from None
    if settings.chunk_size is not None:
        _check_chunks(model)
    fingerprint = loop_fingerprint(model, settings, seed) | {
        "model settings": settings_hash(replace(model.settings, weights="none"), model.preprocess),
        "training photos": photos.fingerprint,
        "validation photos": held_out.fingerprint,
    }

    def source(group: MetricPhotos, augmented: bool) -> PhotoSource:
        return PhotoSource(
            Path(pool) if isinstance(pool, str) else pool,
            group.labelled.rows,
            model.preprocess,
            settings.augmentation if augmented else None,
            seed,
            settings.workers,
            settings.channels_last,
        )

    def vectors_of(group: MetricPhotos) -> NDArray[np.float32]:
        at_once = min(settings.chunk_size or settings.batch_size, 64)
        return embed_all(model, source(group, augmented=False), at_once, settings.precision)

    def prepare(device: torch.device) -> Task:
        def order(epoch: int) -> NDArray[np.int64]:
            return groups.order(seed, epoch, mined(epoch))

        def mined(epoch: int) -> Mined | None:
            if settings.mining is None and settings.positives.kind != "closest_in_radius":
                return None
            every = 1 if settings.mining is None else settings.mining.every_epochs
            return mined_at(
                folder,
                epoch,
                every,
                settings_hash(fingerprint),
                lambda: mine(vectors_of(photos), photos, settings, device),
            )

        def validate() -> dict[str, Any]:
            return validation_measures(vectors_of(held_out), held_out, settings, device)

        return Task(
            source(photos, augmented=True),
            order,
            epoch_starts([groups.steps * settings.batch_size] * settings.epochs, settings.batch_size),
            _loss_of(model, photos, settings, device),
            validate if len(held_out) else None,
        )

    result = loop.train(model, prepare, settings, seed, folder, fingerprint, on_progress)
    (folder / MINED).unlink(missing_ok=True)
    return dataclasses.replace(result, left_out=left_out | result.left_out)


def _check_chunks(model: MetricNetwork) -> None:
    was_training = model.training
    try:
        check_no_batch_statistics(model.train(), "metric.chunk_size")
    except ValueError as error:
        raise TrainingError(str(error)) from None
    finally:
        model.train(was_training)


def _loss_of(
    model: MetricNetwork, photos: MetricPhotos, settings: MetricSettings, device: torch.device
) -> Callable[[Inputs], torch.Tensor]:
    """The loss of a batch of photos."""
    loss = metric_loss(settings.loss, model.scale)

    def embed(images: torch.Tensor) -> torch.Tensor:
        with mixed_precision(device, settings.precision):
            return model.embed(images)

    def loss_of(batch: Inputs) -> torch.Tensor:
        (images,) = batch.tensors
        chunk_size = settings.chunk_size
        embeddings = embed(images) if chunk_size is None else in_chunks(embed, images, chunk_size)
        relations = photos.relations(batch.positions, settings.positives).to(device)
        if settings.positives.kind == "closest_in_radius":
            unit = functional.normalize(embeddings.detach().float())
            relations = relations.closest(unit @ unit.T, settings.positives.closest)
        return loss(embeddings, relations)

    return loss_of


def validation_measures(
    vectors: NDArray[np.float32], photos: MetricPhotos, settings: MetricSettings, device: torch.device
) -> dict[str, Any]:
    """Retrieval among N photos by embeddings (N, D), each against all others by other photographers that are no
    near-duplicates of it.

    `recall_at_1` is the share of photos, among those with a positive, whose most similar photo is one; None if none has
    one. `accuracy_25km` is the share of all photos whose most similar photo was taken within 25 km. An unreadable photo
    is wrong.
    """
    everyone = np.arange(len(photos))
    apart = replace(settings.positives, other_photographers=True)
    hits, possible, near = 0, 0, 0
    places = photos.labelled.rows[["latitude", "longitude"]].to_numpy(dtype=np.float64)
    for rows, similarities in similarity_blocks(vectors, device):
        positive = photos.related(rows, everyone, apart)[0]
        allowed = photos.photographer[rows, None] != photos.photographer
        allowed &= photos.copy[rows, None] != photos.copy
        best = similarities.masked_fill(~torch.from_numpy(allowed), -torch.inf).max(dim=1)
        answered, nearest = (best.values > -torch.inf).numpy(), best.indices.numpy()
        hits += int((positive[np.arange(len(rows)), nearest] & answered).sum())
        possible += int(positive.any(axis=1).sum())
        km = distance_km(places[rows, 0], places[rows, 1], places[nearest, 0], places[nearest, 1])
        near += int(((km <= CITY_KM) & answered).sum())
    return {
        "recall_at_1": hits / possible if possible else None,
        "accuracy_25km": near / len(photos),
        "validation_unreadable": int(np.isnan(vectors).any(axis=1).sum()),
    }
