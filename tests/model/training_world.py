"""A tiny world to train on: photos whose colour is their cell, kept in memory, and four cells on the equator."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from geoloc.models.classifier import Classifier, build_classifier, save_model
from geoloc.models.settings import Augmentation, ModelSettings
from geoloc.training.classification import train_classifier
from geoloc.training.settings import TrainingSettings

LONGITUDES = (0.0, 0.1, 20.0, 90.0)  # the first two cells are 11 km apart
COLOURS = ((220, 40, 40), (40, 200, 40), (50, 50, 220), (210, 210, 60))


class FourCells:
    """As much of a partition as training asks for."""

    cell_count = 4

    def assign(self, latitude: Any, longitude: Any) -> np.ndarray:
        distance = np.abs(np.asarray(longitude)[:, None] - np.array(LONGITUDES))
        return np.where(distance.min(axis=1) < 0.01, distance.argmin(axis=1), -1).astype(np.int32)

    def centroids(self) -> np.ndarray:
        return np.array([[0.0, longitude] for longitude in LONGITUDES])

    def tokens(self) -> list[str]:
        return ["a", "b", "c", "d"]


class MemoryPool:
    """Photos in memory, read as from a shard."""

    def __init__(self) -> None:
        self.photos: list[bytes] = []

    def add(self, cells: list[int], seed: int) -> pd.DataFrame:
        """Photos of these cells as a frame."""
        rng = np.random.default_rng(seed)
        start = len(self.photos)
        for cell in cells:
            noise = rng.normal(0, 25, (44, 50, 3)) + np.array(COLOURS[cell])
            stream = io.BytesIO()
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(stream, "JPEG")
            self.photos.append(stream.getvalue())
        positions = np.arange(start, len(self.photos))
        return pd.DataFrame(
            {
                "photo_id": [f"p{i}" for i in positions],
                "shard": "memory.tar",
                "offset": positions,
                "length": 1,
                "latitude": 0.0,
                "longitude": np.array(LONGITUDES)[cells],
            }
        )

    def read(self, shard: str, offset: int, length: int) -> bytes:
        return self.photos[offset]


TINY = ModelSettings(
    backbone="shufflenet_v2_x0_5", resize_short_side=40, image_size=32, dropout=0.2, batch_norm="train"
)
# No batch norm, so that its features tell colours apart before any training.
PLAIN = ModelSettings(backbone="squeezenet1_1", resize_short_side=40, image_size=32)
FINE_TUNE = TrainingSettings(
    mode="fine_tune",
    epochs=3,
    batch_size=4,
    learning_rate=2e-3,
    optimiser="adamw",
    schedule="cosine",
    warm_up_epochs=0.5,
    gradient_clip=5.0,
    label_smoothing=0.1,
    class_weights="sqrt",
    augmentation=Augmentation(),
    device="cpu",
    checkpoint_steps=2,
    progress_steps=1,
)


def tiny_model(settings: ModelSettings = TINY) -> Classifier:
    """The same model each time."""
    return build_classifier(settings, {"fine": 4}, seed=3)


def world() -> tuple[MemoryPool, pd.DataFrame, pd.DataFrame]:
    """Pool, training photos (18) and validation photos (8)."""
    pool = MemoryPool()
    return pool, pool.add([0, 1, 2, 3, 0, 1] * 3, seed=0), pool.add([0, 1, 2, 3] * 2, seed=1)


def main(folder: Path, settings: TrainingSettings, kill_at: int | None) -> None:
    """Train and save; with `kill_at`, die by SIGKILL when that step is reported."""
    torch.set_num_threads(1)
    pool, train, validation = world()

    def on_progress(event: dict[str, Any]) -> None:
        if event["kind"] == "step" and event["step"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    model = tiny_model()
    train_classifier(
        model, pool, train, validation, {"fine": FourCells()}, settings, 11, folder / "work", on_progress
    )
    save_model(folder / "model.safetensors", model)
