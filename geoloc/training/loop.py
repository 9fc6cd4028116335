"""The training loop, for any network: steps, epochs, checkpoints, exact resumption, validation, early stopping.

It knows nothing about what is learned. A family of models (classification.py is one) is a plain function that makes a
`Task` and calls `train`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoloc.memory import freed_memory_kept
from geoloc.settings import settings_hash, used
from geoloc.training.averages import WeightAverage
from geoloc.training.checkpoints import (
    CHECKPOINT,
    CheckpointError,
    Progress,
    load_best,
    load_checkpoint,
    remove_others,
    save_best,
    save_checkpoint,
)
from geoloc.training.determinism import choose_device, deterministic
from geoloc.training.loop_settings import LoopSettings
from geoloc.training.optimisers import make_optimiser, set_learning_rate
from geoloc.training.schedules import learning_rate_share
from geoloc.training.source import Inputs, Source, TrainingError

OnProgress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """What a network learns, as far as the loop needs it.

    `order(epoch)` (epochs from 1) returns the positions in `source` of an epoch's examples, int64, in order. It must
    return the same at every call, also after a kill. Each settings.batch_size of them are one step. `epoch_starts` are
    the steps before each epoch and after the last (samplers.epoch_starts). `loss_of(batch)` returns the mean loss of a
    batch, a scalar; tensors are on the training's device and the model is in training mode. `validate()` measures the
    model in eval mode and returns the measures that settings.select_by chooses from; None without validation examples.
    """

    source: Source
    order: Callable[[int], NDArray[np.int64]]
    epoch_starts: Sequence[int]
    loss_of: Callable[[Inputs], torch.Tensor]
    validate: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training. `history` has one record per epoch: epoch, step, loss, learning_rate, and the
    measures of the task's validation. `best_epoch` is the epoch whose weights the model has. `left_out` counts
    unused examples by reason."""

    history: list[dict[str, Any]]
    best_epoch: int
    epochs: int
    steps: int
    stopped_early: bool
    resumed_at_step: int | None
    left_out: dict[str, int] = field(default_factory=dict)


def train(
    model: nn.Module,
    prepare: Callable[[torch.device], Task],
    settings: LoopSettings,
    seed: int,
    folder: Path,
    fingerprint: dict[str, str],
    on_progress: OnProgress = lambda event: None,
) -> TrainingResult:
    """Train `model` in place; it ends in eval mode, on the training's device, with the weights of the best epoch.

    Weights with requires_grad learn. `prepare` makes the task; it is called once the model is on its device and has the
    weights to continue from, and not at all if the training is already finished.

    `folder` makes the training resumable. A second run with an equal model and an equal `fingerprint` continues the
    first one and ends with the same bytes as if it had never been killed (same machine, same number of threads).
    `fingerprint` holds, under names for messages, all that must be equal: `loop_fingerprint` and what the family adds.
    A checkpoint with another fingerprint is not used: the training restarts, with a message.

    `on_progress` receives dicts by "kind": message (message); step (epoch, step, steps, loss, learning_rate,
    photos_per_second; these are examples if they are not photos); epoch (a record of the history, best,
    photos_per_second).

    Raises TrainingError if no example is readable or the loss is no longer finite, ValueError for a missing device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = choose_device(settings.device)
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    with deterministic(device), freed_memory_kept():
        optimiser = make_optimiser(model, settings)
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        average = WeightAverage(model, settings.average_decay) if settings.average_decay else None
        run = _Run(
            model, settings, seed, device, folder, fingerprint, optimiser, scaler, average, on_progress
        )
        progress = run.take_up()
        resumed_at = progress.step or None
        if not progress.finished:
            run.to_the_end(prepare(device), progress)
    if progress.best_epoch is not None and progress.best_epoch != len(progress.history):
        load_best(folder, model, progress.best_epoch)
    elif average is not None:
        average.apply(model)
    model.eval()
    return TrainingResult(
        history=progress.history,
        best_epoch=progress.best_epoch or len(progress.history),
        epochs=len(progress.history),
        steps=progress.step,
        stopped_early=len(progress.history) < settings.epochs,
        resumed_at_step=resumed_at,
        left_out={"training_unreadable": len(progress.unreadable)},
    )


def loop_fingerprint(model: nn.Module, settings: LoopSettings, seed: int) -> dict[str, str]:
    """The part of the fingerprint that every family has: the initial weights, the settings, the seed."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {
        "initial weights": digest.hexdigest(),
        "training settings": settings_hash(used(settings)),
        "seed": str(seed),
    }


@dataclass
class _Run:
    """The state of a running training, including the last step, whose loss is not read yet."""

    model: nn.Module
    settings: LoopSettings
    seed: int
    device: torch.device
    folder: Path
    fingerprint: dict[str, str]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    on_progress: OnProgress
    waiting: tuple[int, int, float, torch.Tensor] | None = None
    """The last step: its number, examples, learning rate, and loss (on the device)."""

    def take_up(self) -> Progress:
        """The progress of an earlier run of this training, or a new one; reports which."""
        averaged = None if self.average is None else self.average.tensors
        try:
            progress = load_checkpoint(
                self.folder, self.fingerprint, self.model, self.optimiser, self.scaler, averaged
            )
        except CheckpointError as error:
            self.on_progress(
                {"kind": "message", "message": f"the training restarts from the beginning: {error}"}
            )
            (self.folder / CHECKPOINT).unlink()
            progress = None
        if progress is None:
            remove_others(self.folder, None)
            return Progress()
        self.on_progress({"kind": "message", "message": f"the training resumes at step {progress.step}"})
        remove_others(self.folder, progress.best_epoch)
        return progress

    def to_the_end(self, task: Task, progress: Progress) -> None:
        """Train from `progress` to the end, and update it. The model then has the weights of the last step, not
        their average."""
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        self.steps = task.epoch_starts[-1]
        while not progress.finished:
            self._epoch(task, progress)

    def _epoch(self, task: Task, progress: Progress) -> None:
        """Train the rest of the current epoch, then measure and save a checkpoint."""
        settings = self.settings
        self.model.train()
        order = task.order(progress.epoch)[progress.epoch_step * settings.batch_size :]
        self.reported, self.clock = progress.photos, time.perf_counter()
        started, photos_before = time.perf_counter(), progress.photos
        for batch in task.source.batches(order, settings.batch_size, progress.epoch):
            if len(batch.unreadable):
                progress.unreadable = sorted({*progress.unreadable, *batch.unreadable.tolist()})
            if len(batch.positions):
                self._step(task, progress, batch)
            progress.step += 1
            progress.epoch_step += 1
            if settings.checkpoint_steps and progress.step % settings.checkpoint_steps == 0:
                self._settle(progress)
                self._save(progress)
        self._settle(progress)
        if not progress.photos:
            raise TrainingError(f"none of the {len(task.source)} training photos is readable")
        speed = (progress.photos - photos_before) / max(time.perf_counter() - started, 1e-9)
        self._end_epoch(task, progress, speed)

    def _step(self, task: Task, progress: Progress, batch: Inputs) -> None:
        """One step of the optimiser. Its random numbers (dropout) are a function of seed and step."""
        settings = self.settings
        rate = settings.learning_rate * learning_rate_share(settings, progress.step, task.epoch_starts)
        set_learning_rate(self.optimiser, rate)
        torch.manual_seed(int(np.random.SeedSequence([self.seed, progress.step]).generate_state(1)[0]))
        tensors = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch.tensors)
        loss = task.loss_of(replace(batch, tensors=tensors))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if settings.gradient_clip:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.learning, settings.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, progress.step)
        # A loss is read after the next step has started, so that an accelerator never waits for us.
        self._settle(progress)
        self.waiting = (progress.step, len(batch.positions), rate, loss.detach())
        if self.device.type == "cpu":
            self._settle(progress)

    def _settle(self, progress: Progress) -> None:
        """Read, check, count and report the loss of the last step."""
        if self.waiting is None:
            return
        (step, count, rate, loss), self.waiting = self.waiting, None
        value = float(loss)
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at epoch {progress.epoch}, step {step + 1}, learning rate {rate:g}: lower "
                "training.learning_rate, set training.gradient_clip, or use training.precision float32"
            )
        progress.loss_sum += value * count
        progress.photos += count
        if (step + 1) % self.settings.progress_steps == 0:
            now = time.perf_counter()
            self.on_progress(
                {
                    "kind": "step",
                    "epoch": progress.epoch,
                    "step": step + 1,
                    "steps": self.steps,
                    "loss": value,
                    "learning_rate": rate,
                    "photos_per_second": (progress.photos - self.reported) / max(now - self.clock, 1e-9),
                }
            )
            self.reported, self.clock = progress.photos, now

    def _end_epoch(self, task: Task, progress: Progress, speed: float) -> None:
        settings = self.settings
        share = learning_rate_share(settings, progress.step - 1, task.epoch_starts)
        record: dict[str, Any] = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.loss_sum / progress.photos,
            "learning_rate": settings.learning_rate * share,
        }
        # Measure what is kept: the average, if there is one.
        with self.average.in_place(self.model) if self.average is not None else contextlib.nullcontext():
            if task.validate is not None:
                self.model.eval()
                record |= task.validate()
            progress.history.append(record)
            better = self._is_better(progress)
            if better:
                save_best(self.folder, self.model, progress.epoch)
                progress.best_epoch = progress.epoch
        patience = settings.early_stopping_epochs
        waited = progress.epoch - (progress.best_epoch or progress.epoch)
        progress.finished = progress.epoch >= settings.epochs or bool(patience and waited >= patience)
        progress.epoch, progress.epoch_step, progress.loss_sum, progress.photos = (
            progress.epoch + 1,
            0,
            0.0,
            0,
        )
        self._save(progress)
        remove_others(self.folder, progress.best_epoch)
        self.on_progress({"kind": "epoch", **record, "best": better, "photos_per_second": speed})

    def _is_better(self, progress: Progress) -> bool:
        """Whether the last epoch is the best; the first of equal ones is. Lower is better for a loss, else higher."""
        key = self.settings.select_by
        values = [record.get(key) for record in progress.history]
        if key == "last" or values[-1] is None:
            return False
        if progress.best_epoch is None:
            return True
        best = values[progress.best_epoch - 1]
        return bool(values[-1] < best if key == "validation_loss" else values[-1] > best)

    def _save(self, progress: Progress) -> None:
        average = None if self.average is None else self.average.tensors
        save_checkpoint(
            self.folder, self.fingerprint, self.model, self.optimiser, self.scaler, progress, average
        )
