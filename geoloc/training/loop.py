"""The loop of steps and epochs, with checkpoints, validation and early stopping."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoloc.losses.classification import unit_vectors
from geoloc.losses.distillation import cosine_distillation
from geoloc.losses.heads import HeadLoss, sum_of_heads
from geoloc.models.classifier import Classifier
from geoloc.training.averages import WeightAverage
from geoloc.training.checkpoints import Progress, remove_others, save_best, save_checkpoint
from geoloc.training.optimisers import set_learning_rate
from geoloc.training.photo_data import LabelledPhotos, Source, TrainingError
from geoloc.training.samplers import epoch_order, epoch_starts
from geoloc.training.schedules import learning_rate_share
from geoloc.training.settings import TrainingSettings

PROJECTION = "projection"
"""The layer that a model has while it learns from a teacher, from its features to the teacher's."""
OnProgress = Callable[[dict[str, Any]], None]


@dataclass
class Loop:
    """One training: what it works on, and `run`. `validate` gives the measures of an epoch, None without photos;
    `teacher` [N, D] the embeddings to distil, which model.projection is compared with."""

    model: Classifier
    source: Source
    photos: LabelledPhotos
    losses: Mapping[str, HeadLoss]
    validate: Callable[[], dict[str, Any]] | None
    settings: TrainingSettings
    seed: int
    device: torch.device
    folder: Path
    fingerprint: dict[str, str]
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    teacher: NDArray[np.float32] | None
    on_progress: OnProgress

    def run(self, progress: Progress) -> None:
        """Train from where `progress` is to the end, and move it; the model then has the last step's weights, and not
        their average.

        Raises TrainingError when the loss is no longer finite.
        """
        settings = self.settings
        self._learning = [p for p in self.model.parameters() if p.requires_grad]
        self._labels = torch.from_numpy(self.photos.cells)
        self._places = unit_vectors(self.photos.rows[["latitude", "longitude"]])
        self._starts = epoch_starts(self.photos.cells[:, 0], settings)
        self._waiting: tuple[int, int, float, torch.Tensor] | None = None
        while not progress.finished:
            self._epoch(progress)

    def _epoch(self, progress: Progress) -> None:
        """The rest of the epoch under way, then its measures and its checkpoint."""
        settings = self.settings
        self.model.train()
        order = epoch_order(self.photos.cells[:, 0], settings, self.seed, progress.epoch)
        order = order[progress.epoch_step * settings.batch_size :]
        self._reported, self._clock = progress.photos, time.perf_counter()
        started, photos_before = time.perf_counter(), progress.photos
        for batch in self.source.batches(order, settings.batch_size, progress.epoch):
            if len(batch.unreadable):
                progress.unreadable = sorted({*progress.unreadable, *batch.unreadable.tolist()})
            if len(batch.positions):
                taken = torch.from_numpy(batch.positions)
                self._step(progress, batch.tensor, taken)
            progress.step += 1
            progress.epoch_step += 1
            if settings.checkpoint_steps and progress.step % settings.checkpoint_steps == 0:
                self._settle(progress)
                self._save(progress)
        self._settle(progress)
        if not progress.photos:
            raise TrainingError(f"none of the {len(self.photos)} training photos is readable")
        speed = (progress.photos - photos_before) / max(time.perf_counter() - started, 1e-9)
        self._end_epoch(progress, speed)

    def _step(self, progress: Progress, inputs: torch.Tensor, taken: torch.Tensor) -> None:
        """One step of the optimiser; its random numbers (dropout) are a function of seed and step."""
        settings = self.settings
        rate = settings.learning_rate * learning_rate_share(settings, progress.step, self._starts)
        set_learning_rate(self.optimiser, rate)
        torch.manual_seed(int(np.random.SeedSequence([self.seed, progress.step]).generate_state(1)[0]))
        inputs = inputs.to(self.device, non_blocking=True)
        labels = self._labels[taken].to(self.device, non_blocking=True)
        places = self._places[taken].to(self.device, non_blocking=True)
        autocast = settings.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, settings.precision), enabled=autocast):
            features = inputs if settings.mode == "frozen" else self.model.embed(inputs)
            scores = self.model.classify(features)
        loss = sum_of_heads(self.losses, self.model.split(scores), labels, places)
        if self.teacher is not None and settings.distillation is not None:
            teacher = torch.from_numpy(self.teacher[taken.numpy()]).to(self.device, non_blocking=True)
            projected = self.model.get_submodule(PROJECTION)(features.float())
            loss = loss + settings.distillation.weight * cosine_distillation(projected, teacher)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if settings.gradient_clip:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self._learning, settings.gradient_clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, progress.step)
        # A loss is read when the next step is under way, so that an accelerator never waits for us.
        self._settle(progress)
        self._waiting = (progress.step, len(labels), rate, loss.detach())
        if self.device.type == "cpu":
            self._settle(progress)

    def _settle(self, progress: Progress) -> None:
        """Read the loss of the last step, check it, count it, report it."""
        if self._waiting is None:
            return
        (step, count, rate, loss), self._waiting = self._waiting, None
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
                    "steps": self._starts[-1],
                    "loss": value,
                    "learning_rate": rate,
                    "photos_per_second": (progress.photos - self._reported) / max(now - self._clock, 1e-9),
                }
            )
            self._reported, self._clock = progress.photos, now

    def _end_epoch(self, progress: Progress, speed: float) -> None:
        settings = self.settings
        share = learning_rate_share(settings, progress.step - 1, self._starts)
        record: dict[str, Any] = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.loss_sum / progress.photos,
            "learning_rate": settings.learning_rate * share,
        }
        # What is measured is what is kept: the average, where there is one.
        with self.average.in_place(self.model) if self.average is not None else contextlib.nullcontext():
            if self.validate is not None:
                self.model.eval()
                record |= self.validate()
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
        """Whether the last epoch is the best; of equal ones the first is."""
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
