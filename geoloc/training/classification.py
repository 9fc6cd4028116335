"""Train a classifier over cells: frozen features or fine-tuning, resumed where an earlier run was killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.losses.classification import class_weights, unit_vectors
from geoloc.losses.heads import HeadLoss
from geoloc.memory import freed_memory_kept
from geoloc.models.batches import PhotoReader
from geoloc.models.classifier import Classifier
from geoloc.partitions.base import Partition
from geoloc.settings import replace, settings_hash, used
from geoloc.training.averages import WeightAverage
from geoloc.training.checkpoints import (
    CHECKPOINT,
    CheckpointError,
    Progress,
    load_best,
    load_checkpoint,
    remove_others,
)
from geoloc.training.determinism import choose_device, deterministic
from geoloc.training.loop import PROJECTION, Loop
from geoloc.training.optimisers import make_optimiser
from geoloc.training.photo_data import (
    LabelledPhotos,
    PhotoSource,
    Source,
    TrainingError,
    cached_features,
    label,
)
from geoloc.training.settings import TrainingSettings
from geoloc.training.validation import ValidatedHead, validate


@dataclass(frozen=True)
class TrainingResult:
    """What a training did. `history` has a record an epoch: epoch, step, loss, learning_rate, and the measures of
    training.validation. `best_epoch` is the one whose weights the model has; `left_out` counts photos by reason."""

    history: list[dict[str, Any]]
    best_epoch: int
    epochs: int
    steps: int
    stopped_early: bool
    resumed_at_step: int | None
    left_out: dict[str, int] = field(default_factory=dict)


def train_classifier(
    model: Classifier,
    pool: Path | str | PhotoReader,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    partitions: Mapping[str, Partition],
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: Callable[[dict[str, Any]], None] = lambda event: None,
    teacher: NDArray[np.floating] | None = None,
) -> TrainingResult:
    """Train `model`, in place, on photos of `pool`; it ends in eval mode with the weights of the best epoch.

    `partitions` are those of the model's heads, by name and in order. `train` and `validation` (may be empty) need
    photo_id, shard, offset, length, latitude, longitude; the cells of a partition are those in the column
    `cell_<name>` where given, else as it assigns. A photo in no cell of a partition does not train that head, one in
    none at all and one that is unreadable train nothing; all are counted.

    `checkpoint_folder` makes the training resumable: run again with the same arguments and an equal model, it goes on,
    and ends with the same bytes as if it had never been killed (same machine, same thread count). A checkpoint of
    another training is not mixed in: the training starts afresh, and says so.

    `teacher` [N, D] are a larger network's embeddings of the photos of `train`, NaN where it has none, and needed where
    the settings have a distillation.

    `on_progress` gets dicts by "kind": message (message); features (done, total, photos_per_second); step (epoch, step,
    steps, loss, learning_rate, photos_per_second); epoch (a record of the history, best, photos_per_second).

    Raises TrainingError where model, partitions and photos do not fit each other, where fewer than two cells of a
    partition have photos, or when the loss is no longer finite.
    """
    settings.check("training")
    folder = Path(checkpoint_folder)
    folder.mkdir(parents=True, exist_ok=True)
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

    device = choose_device(settings.device)
    trained = "backbone" if settings.mode == "fine_tune" else "head"
    _set_learning(model, settings)
    fingerprint = _fingerprint(model, settings, seed, photos, held_out, partitions)
    if taught is not None:
        fingerprint["teacher"] = sha256_bytes(taught.tobytes())
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]

    with deterministic(device), freed_memory_kept():
        optimiser = make_optimiser(model, settings)
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        average = WeightAverage(model, settings.average_decay) if settings.average_decay else None
        progress = _take_up(folder, fingerprint, model, optimiser, scaler, average, on_progress)
        resumed_at = progress.step or None
        sources: list[Source] = []
        for name, group in (("training", photos), ("validation", held_out)):
            if progress.finished:
                break
            augmentation = settings.augmentation if (name, trained) == ("training", "backbone") else None
            source = PhotoSource(
                Path(pool) if isinstance(pool, str) else pool,
                group,
                model,
                augmentation,
                seed,
                settings.workers,
                settings.channels_last,
            )
            if trained == "backbone":
                sources.append(source)
                continue
            model.eval()
            cache = folder / f"features-{name}.safetensors"
            key = settings_hash(fingerprint, name)
            sources.append(
                cached_features(
                    model, source, settings.batch_size, device, settings.precision, cache, key, on_progress
                )
            )
        if not progress.finished:
            loop = Loop(
                model=model,
                source=sources[0],
                photos=photos,
                losses=_losses(counts, partitions, settings, device),
                validate=_validation(model, sources[1], held_out, partitions, settings, device),
                settings=settings,
                seed=seed,
                device=device,
                folder=folder,
                fingerprint=fingerprint,
                optimiser=optimiser,
                scaler=scaler,
                average=average,
                teacher=taught,
                on_progress=on_progress,
            )
            loop.run(progress)
    if progress.best_epoch is not None and progress.best_epoch != len(progress.history):
        load_best(folder, model, progress.best_epoch)
    elif average is not None:
        average.apply(model)
    if taught is not None:
        del model._modules[PROJECTION]
    model.eval()
    for cache in folder.glob("features-*.safetensors"):
        cache.unlink()
    left_out["training_unreadable"] = len(progress.unreadable)
    return TrainingResult(
        history=progress.history,
        best_epoch=progress.best_epoch or len(progress.history),
        epochs=len(progress.history),
        steps=progress.step,
        stopped_early=len(progress.history) < settings.epochs,
        resumed_at_step=resumed_at,
        left_out=left_out,
    )


def _check_heads(model: Classifier, partitions: Mapping[str, Partition], settings: TrainingSettings) -> None:
    try:
        model.check_heads({name: partition.cell_count for name, partition in partitions.items()})
    except ValueError as error:
        raise TrainingError(str(error)) from None
    unknown = [name for name in settings.head_weights if name not in partitions]
    if unknown:
        raise TrainingError(
            f"training.head_weights.{unknown[0]} is of no partition; the partitions are: {', '.join(partitions)}"
        )
    if not any(_head_weights(partitions, settings).values()):
        raise TrainingError("training.head_weights must leave a head that learns, got 0 for all")


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
    """How many photos are in no cell of any partition, and, of several partitions, in none of each."""
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
    """The teacher's embeddings as float32, None where none are wanted. Raises TrainingError where they do not fit."""
    if settings.distillation is None:
        return None
    if teacher is None or teacher.ndim != 2 or len(teacher) != photos:
        got = "none" if teacher is None else f"shape {teacher.shape}"
        raise TrainingError(
            f"training.distillation needs an embedding of each of {photos} training photos, got {got}"
        )
    if np.isnan(teacher).any(axis=1).all():
        raise TrainingError(f"the teacher has embedded none of the {photos} training photos")
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
        model.freeze_backbone(settings.trainable_blocks)
    else:
        model.requires_grad_(False)  # pooling too: its output is computed once
        model.head.requires_grad_(True)


def _fingerprint(
    model: Classifier,
    settings: TrainingSettings,
    seed: int,
    photos: LabelledPhotos,
    held_out: LabelledPhotos,
    partitions: Mapping[str, Partition],
) -> dict[str, str]:
    """What must be the same for a checkpoint to go on, each as a hash, by a name that a message can use."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    plain = replace(model.settings, weights="none")  # its content is in the weights' hash
    return {
        "initial weights": digest.hexdigest(),
        "model settings": settings_hash(plain, model.preprocess),
        "training settings": settings_hash(used(settings)),
        "seed": str(seed),
        "training photos": photos.fingerprint,
        "validation photos": held_out.fingerprint,
        "partitions": settings_hash(
            [
                [name, partition.tokens(), np.asarray(partition.centroids()).astype(str).tolist()]
                for name, partition in partitions.items()
            ]
        ),
    }


def _take_up(
    folder: Path,
    fingerprint: dict[str, str],
    model: Classifier,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: WeightAverage | None,
    on_progress: Callable[[dict[str, Any]], None],
) -> Progress:
    """Where an earlier run of this training was, or a fresh start with the reason for it."""
    try:
        averaged = None if average is None else average.tensors
        progress = load_checkpoint(folder, fingerprint, model, optimiser, scaler, averaged)
    except CheckpointError as error:
        on_progress({"kind": "message", "message": f"the training starts afresh: {error}"})
        (folder / CHECKPOINT).unlink()
        progress = None
    if progress is None:
        remove_others(folder, None)
        return Progress()
    on_progress({"kind": "message", "message": f"the training goes on at step {progress.step}"})
    remove_others(folder, progress.best_epoch)
    return progress


def _validation(
    model: Classifier,
    source: Source,
    photos: LabelledPhotos,
    partitions: Mapping[str, Partition],
    settings: TrainingSettings,
    device: torch.device,
) -> Callable[[], dict[str, Any]] | None:
    """What measures the model as it is; None without validation photos."""
    if not len(photos):
        return None
    network = model if settings.mode == "fine_tune" else model.classify
    kind = getattr(torch, settings.precision)

    def forward(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, kind, enabled=settings.precision != "float32"):
            return model.split(network(inputs.to(device, non_blocking=True)))

    weights = _head_weights(partitions, settings)
    heads = {name: ValidatedHead(p.centroids(), weights[name]) for name, p in partitions.items()}
    return lambda: validate(forward, source, photos, heads, settings.batch_size)
