"""Labelled photos for training: validated tables, and batches of photos or of cached features."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.models.batches import Batch, iter_batches
from geoloc.models.classifier import Classifier
from geoloc.models.engine import ExportedNetwork
from geoloc.models.prediction import mixed_precision, run_network
from geoloc.models.preprocess import Preprocess
from geoloc.models.settings import Augmentation
from geoloc.models.weights import read_safetensors
from geoloc.partitions.base import Partition
from geoloc.photos.shards import ShardReader
from geoloc.training.checkpoints import save_state
from geoloc.training.loop import OnProgress
from geoloc.training.source import Inputs, TrainingError

_PLACE = ("photo_id", "shard", "offset", "length")
_WHERE = ("latitude", "longitude")


@dataclass(frozen=True)
class LabelledPhotos:
    """N photos and their cells: `rows` (photo_id, shard, offset, length, latitude, longitude) and `cells` int64 (N,
    H), one column per partition, in order, -1 if the photo is in no cell."""

    rows: pd.DataFrame
    cells: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, kept: NDArray[Any]) -> LabelledPhotos:
        """The photos for which `kept` is true."""
        return LabelledPhotos(self.rows[kept].reset_index(drop=True), self.cells[kept])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the photos in order, their storage locations and their cells."""
        names = [*_PLACE, *_WHERE, *(["sha256"] if "sha256" in self.rows.columns else [])]
        hashes = pd.util.hash_pandas_object(self.rows[names].astype("str"), index=False).to_numpy()
        return sha256_bytes(hashes.tobytes() + self.cells.tobytes())


def label(frame: pd.DataFrame, partitions: Mapping[str, Partition], name: str) -> LabelledPhotos:
    """Photos with their cells in each partition: from the column `cell_<partition>` if it exists, else from the
    partition.

    Raises TrainingError for missing columns and for cells that a partition does not have.
    """
    absent = [column for column in (*_PLACE, *_WHERE) if column not in frame.columns]
    if absent:
        raise TrainingError(f"the {name} photos need the columns {', '.join(absent)}")
    rows = frame.reset_index(drop=True)
    columns = []
    for title, partition in partitions.items():
        given = f"cell_{title}"
        if given in rows.columns:
            cells = rows[given].to_numpy(dtype=np.int64, na_value=-1)
        else:
            cells = partition.assign(rows["latitude"], rows["longitude"]).astype(np.int64)
        if len(cells) and (cells.max() >= partition.cell_count or cells.min() < -1):
            raise TrainingError(
                f"the {name} photos have cells {cells.min()} to {cells.max()}, the partition {title} has "
                f"{partition.cell_count}: they were assigned by another partition"
            )
        columns.append(cells)
    return LabelledPhotos(rows, np.stack(columns, axis=1))


@dataclass(frozen=True)
class PhotoSource:
    """Batches of stored photos, decoded on demand: one tensor, uint8 [B, 3, S, S].

    `rows` has the columns shard, offset, length; `preprocess` is the network's; `augmentation` changes photos at
    random, by seed, epoch and position. `channels_last` is the memory layout.
    """

    pool: Path | ShardReader
    rows: pd.DataFrame
    preprocess: Preprocess
    augmentation: Augmentation | None
    seed: int
    workers: int
    channels_last: bool

    def __len__(self) -> int:
        return len(self.rows)

    def decoded(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Batch]:
        """Decoded batches, augmented if the source has an augmentation."""
        return iter_batches(
            self.pool,
            self.rows,
            self.preprocess,
            batch_size,
            self.workers,
            order=order,
            augmentation=self.augmentation,
            seed=self.seed,
            epoch=epoch,
        )

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """Decoded batches in the memory layout of the source."""
        for batch in self.decoded(order, batch_size, epoch):
            images = batch.images if self.channels_last else batch.images.contiguous()
            yield Inputs((images,), batch.row_indices, batch.unreadable_indices)


@dataclass(frozen=True)
class FeatureSource:
    """Batches of precomputed pooled features: one tensor, float32 [B, D]."""

    features: torch.Tensor
    readable: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.readable)

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """Batches of rows of the features."""
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            kept = positions[self.readable[positions]]
            unreadable = positions[~self.readable[positions]]
            yield Inputs((self.features[torch.from_numpy(kept)],), kept, unreadable)


def cached_features(
    model: Classifier | ExportedNetwork,
    width: int,
    source: PhotoSource,
    batch_size: int,
    precision: str,
    cache: Path,
    fingerprint: str,
    on_progress: OnProgress,
) -> FeatureSource:
    """Pooled features [N, width] of the photos of `source` in its first epoch; read from the file `cache` if it has the
    fingerprint, else computed and written.

    The model runs as in models.prediction.run_network. `on_progress` receives dicts of kind features: done, total,
    photos_per_second.
    """
    count = len(source)
    if cache.exists():
        tensors, metadata = read_safetensors(cache)
        if metadata is not None and metadata.get("fingerprint") == fingerprint:
            return FeatureSource(tensors["features"], tensors["readable"].numpy().astype(bool))

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        with mixed_precision(images.device, precision):
            pooled = model.embed(images)
        return {"features": pooled.float()}

    features = torch.zeros((count, width), dtype=torch.float32)
    readable = np.zeros(count, dtype=bool)
    started, done = time.perf_counter(), 0
    decoded = source.decoded(np.arange(count), batch_size, epoch=0)
    for batch, found in run_network(model, forward, decoded, source.channels_last):
        done += len(batch.row_indices) + len(batch.unreadable_indices)
        if found is not None:
            features[torch.from_numpy(batch.row_indices)] = torch.from_numpy(found["features"])
            readable[batch.row_indices] = True
        on_progress(
            {
                "kind": "features",
                "done": done,
                "total": count,
                "photos_per_second": done / max(time.perf_counter() - started, 1e-9),
            }
        )
    tensors = {"features": features, "readable": torch.from_numpy(readable.astype(np.uint8))}
    save_state(cache, tensors, {"kind": "features", "fingerprint": fingerprint})
    return FeatureSource(features, readable)
