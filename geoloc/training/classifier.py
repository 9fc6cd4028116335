"""Train a classifier over cells: frozen features or fine-tuning, resumed where an earlier run was killed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from geoloc.losses.classification import class_weights
from geoloc.memory import freed_memory_kept
from geoloc.models.batches import PhotoReader
from geoloc.models.classifier import Classifier
from geoloc.partitions.base import Partition
from geoloc.settings import settings_hash
from geoloc.training.checkpoints import (
    CHECKPOINT,
    CheckpointError,
    Progress,
    load_best,
    load_checkpoint,
    remove_others,
)
from geoloc.training.determinism import choose_device, deterministic
from geoloc.training.loop import Loop
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
from geoloc.training.validation import validate


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
    partition: Partition,
    settings: TrainingSettings,
    seed: int,
    checkpoint_folder: Path | str,
    on_progress: Callable[[dict[str, Any]], None] = lambda event: None,
) -> TrainingResult:
    """Train `model`, in place, on photos of `pool`; it ends in eval mode with the weights of the best epoch.

    `train` and `validation` (may be empty) need photo_id, shard, offset, length, latitude, longitude; `cell` is taken
    where given, else assigned by `partition`. Photos in no cell do not train; unreadable ones neither; both
    are counted. `checkpoint_folder` makes the training resumable: run again with the same arguments and an equal model,
    it goes on, and ends with the same bytes as if it had never been killed (same machine, same thread count). A
    checkpoint of another training is not mixed in: the training starts afresh, and says so.

    `on_progress` gets dicts by "kind": message (message); features (done, total, photos_per_second); step (epoch, step,
    steps, loss, learning_rate, photos_per_second); epoch (a record of the history, best, photos_per_second).

    Raises TrainingError where model, partition and photos do not fit each other, where fewer than two cells have
    photos, or when the loss is no longer finite.
    """
    settings.validate("training")
    folder = Path(checkpoint_folder)
    folder.mkdir(parents=True, exist_ok=True)
    if model.cell_count != partition.cell_count:
        raise TrainingError(
            f"the model has {model.cell_count} cells, the partition {partition.cell_count}: build the model for it"
        )
    everything = label(train, partition, "training")
    held_out = label(validation, partition, "validation")
    photos = everything.only(everything.cells >= 0)
    counts = np.bincount(photos.cells, minlength=partition.cell_count)
    _check_cells(everything, counts)
    left_out = {
        "training_no_cell": int((everything.cells < 0).sum()),
        "validation_no_cell": int((held_out.cells < 0).sum()),
    }

    device = choose_device(settings.device)
    trained = "backbone" if settings.mode == "fine_tune" else "head"
    _set_learning(model, settings)
    fingerprint = _fingerprint(model, settings, seed, photos, held_out, partition)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]

    with deterministic(device), freed_memory_kept():
        optimiser = make_optimiser(model, settings)
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        progress = _take_up(folder, fingerprint, model, optimiser, scaler, on_progress)
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
            weights = class_weights(counts, settings.class_weights)
            loop = Loop(
                model=model,
                source=sources[0],
                photos=photos,
                weights=None if weights is None else weights.to(device),
                validate=_validation(model, sources[1], held_out, partition, settings, device),
                settings=settings,
                seed=seed,
                device=device,
                folder=folder,
                fingerprint=fingerprint,
                optimiser=optimiser,
                scaler=scaler,
                on_progress=on_progress,
            )
            loop.run(progress)
    if progress.best_epoch is not None and progress.best_epoch != len(progress.history):
        load_best(folder, model, progress.best_epoch)
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


def _check_cells(photos: LabelledPhotos, counts: Any) -> None:
    if not counts.any():
        raise TrainingError(f"none of the {len(photos)} training photos is in a cell of the partition")
    if (counts > 0).sum() == 1:
        raise TrainingError(
            f"all {int(counts.sum())} training photos are in cell {int(counts.argmax())}: a classifier "
            "needs photos in at least two; make the partition finer"
        )


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
    partition: Partition,
) -> dict[str, str]:
    """What must be the same for a checkpoint to go on, each as a hash, by a name that a message can use."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    plain = dataclasses.replace(model.settings, weights="none")  # its content is in the weights' hash
    # Settings that do not change the result: a training may go on with others.
    ruling = dataclasses.replace(settings, workers=0, checkpoint_steps=0, progress_steps=1)
    return {
        "initial weights": digest.hexdigest(),
        "model settings": settings_hash(plain, model.preprocess),
        "training settings": settings_hash(ruling),
        "seed": str(seed),
        "training photos": photos.fingerprint,
        "validation photos": held_out.fingerprint,
        "partition": settings_hash(
            partition.tokens(), np.asarray(partition.centroids()).astype(str).tolist()
        ),
    }


def _take_up(
    folder: Path,
    fingerprint: dict[str, str],
    model: Classifier,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    on_progress: Callable[[dict[str, Any]], None],
) -> Progress:
    """Where an earlier run of this training was, or a fresh start with the reason for it."""
    try:
        progress = load_checkpoint(folder, fingerprint, model, optimiser, scaler)
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
    partition: Partition,
    settings: TrainingSettings,
    device: torch.device,
) -> Callable[[], dict[str, Any]] | None:
    """What measures the model as it is; None without validation photos."""
    if not len(photos):
        return None
    network = model if settings.mode == "fine_tune" else model.classify
    kind = getattr(torch, settings.precision)

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, kind, enabled=settings.precision != "float32"):
            logits: torch.Tensor = network(inputs.to(device, non_blocking=True))
            return logits

    return lambda: validate(forward, source, photos, partition.centroids(), settings.batch_size)
