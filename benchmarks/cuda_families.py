"""What part branches of cuda.py trains: the families of models, their variants, and small inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cuda_table import Rows, sample_photos, sample_pool
from torch import nn

from geoloc.models.classifier import build_classifier
from geoloc.models.context_inputs import Embeddings, top_cells
from geoloc.models.cross_view import build_cross_view
from geoloc.models.metric import build_metric_network
from geoloc.models.sequence_network import build_sequence_network
from geoloc.models.settings import ModelSettings
from geoloc.models.time_network import build_time_network
from geoloc.partitions import S2Settings, partition_of
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pair_settings import PairSplitSettings
from geoloc.photos.pair_splits import joined_pairs, split_pairs
from geoloc.photos.pairs import overhead_pool
from geoloc.photos.sequences import Sequences
from geoloc.settings import parse, replace
from geoloc.training.classification import train_classifier
from geoloc.training.context import ContextPhotos
from geoloc.training.context_settings import SequenceModelSettings, TimeSettings
from geoloc.training.cross_view import shape_of, train_cross_view
from geoloc.training.cross_view_pairs import cross_view_pairs
from geoloc.training.cross_view_settings import CrossViewSettings
from geoloc.training.metric import train_metric
from geoloc.training.metric_settings import MetricSettings
from geoloc.training.posting_time import train_time_network
from geoloc.training.sequences import SequencePhotos, train_sequences
from geoloc.training.settings import TrainingSettings

LOSSES = (
    "soft_triplet", "hinge_triplet", "soft_sets", "dbl_pairs", "info_nce", "lifted", "angular", "contrastive",
    "multi_similarity", "circle",
)  # fmt: skip

PLAIN = {"model": {"backbone": "shufflenet_v2_x0_5", "resize_short_side": 72, "image_size": 64}}
SHARED: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-3, "progress_steps": 1, "select_by": "last"}


class Killed(Exception):
    """Raised by a progress report in place of a kill."""


@dataclass
class World:
    """The inputs of all families."""

    rows: Rows
    folder: Path
    runs: int = 0
    on_cpu: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pool = sample_pool(self.folder / "data")
        count = 64 if self.rows.quick else 256
        self.train, self.held_out = sample_photos(self.pool, count, count // 2)
        self.partition = partition_of(S2Settings(max_photos=count // 8, min_photos=2))
        self.partition.fit(self.train["latitude"], self.train["longitude"])
        self.cells = self.partition.cell_count
        table = split_pairs(joined_pairs(self.pool), PairSplitSettings(test=1), 0)
        names = ("photo_id", "shard", "offset", "length", "sha256")
        stored = read_catalog(self.pool, names), read_catalog(overhead_pool(self.pool), names)
        self.pairs = {
            split: cross_view_pairs(table[table["split"] == split].iloc[:count], *stored, split)
            for split in ("train", "validation", "test")
        }
        numbers = np.random.default_rng(0)
        lengths = numbers.integers(1, 9, count // 8)
        ends = np.cumsum(lengths)
        self.sequences = Sequences(
            numbers.permutation(ends[-1]).astype(np.int64), np.append(0, ends).astype(np.int64),
            np.concatenate([np.sort(numbers.uniform(0, 50, n)) for n in lengths]),
            np.arange(len(lengths)), np.full(ends[-1], None, dtype=object),
        )  # fmt: skip
        cell = numbers.integers(0, 5, ends[-1])
        vectors = numbers.normal(0, 1, (ends[-1], 16)).astype(np.float32)
        vectors[np.arange(ends[-1]), cell] += 3
        self.points = np.stack([np.zeros(5), np.arange(5) * 20.0], axis=1)
        self.albums = SequencePhotos(
            ContextPhotos(Embeddings(vectors), cell, self.points[cell]), self.sequences
        )
        times = pd.Series(
            pd.Timestamp("2015-03-01") + pd.to_timedelta(numbers.uniform(0, 9000, ends[-1]), "h")
        )
        likely = np.exp(vectors[:, :5]) / np.exp(vectors[:, :5]).sum(axis=1, keepdims=True)
        self.posted = ContextPhotos(top_cells(likely, times, 3), cell, self.points[cell])

    def work(self) -> Path:
        self.runs += 1
        return self.folder / f"run-{self.runs}"


Train = Callable[[World, dict[str, Any], Path, Callable[[dict[str, Any]], None]], nn.Module]
"""Trains a network by settings, which override the family's own, in a folder; `on_progress` is loop.train's."""


def classify(world: World, given: dict[str, Any], folder: Path, on_progress: Any) -> nn.Module:
    given = {"mode": "fine_tune", "batch_size": 32} | SHARED | given
    several = given.pop("several", False)
    settings = parse(TrainingSettings, given, "training")
    heads = {"fine": world.partition, "again": world.partition} if several else {"fine": world.partition}
    model = build_classifier(
        parse(ModelSettings, PLAIN["model"], "model"), dict.fromkeys(heads, world.cells), 0
    )
    taught = None
    if settings.distillation is not None:
        taught = np.random.default_rng(1).normal(size=(len(world.train), 24)).astype(np.float32)
        taught[3] = np.nan
    train_classifier(
        model, world.pool, world.train, world.held_out, heads, settings, 0, folder, on_progress, taught
    )
    return model


def match(world: World, given: dict[str, Any], folder: Path, on_progress: Any) -> nn.Module:
    given = {"batch_size": 32, "embedding_size": 32, "steps_per_epoch": 6} | SHARED | given
    settings = parse(MetricSettings, {"positives": {"other_photographers": False}} | given, "metric")
    network = parse(ModelSettings, PLAIN["model"], "model")
    if settings.batch_norm is not None:
        network = replace(network, batch_norm=settings.batch_norm)
    model = build_metric_network(network, 0, 32, settings.loss.scale if settings.loss.learnt_scale else None)
    train_metric(
        model,
        world.pool,
        world.train,
        world.held_out,
        {"fine": world.partition},
        settings,
        0,
        folder,
        on_progress,
    )
    return model


def cross(world: World, given: dict[str, Any], folder: Path, on_progress: Any) -> nn.Module:
    embedding = {} if "kind" in given else {"embedding_size": 32, "orientation": {"weight": 1}}
    settings = parse(CrossViewSettings, {"batch_size": 16} | PLAIN | embedding | SHARED | given, "cross_view")
    model = build_cross_view(settings.model, shape_of(settings), 0)
    train_cross_view(
        model, (world.pool, overhead_pool(world.pool)), world.pairs["train"], world.pairs["validation"], settings,
        0, folder, on_progress,
    )  # fmt: skip
    return model


def follow(world: World, given: dict[str, Any], folder: Path, on_progress: Any) -> nn.Module:
    settings = parse(SequenceModelSettings, {"batch_size": 8, "length": 8} | SHARED | given, "sequences")
    model = build_sequence_network(16, 5, settings.network, 0)
    train_sequences(model, world.albums, world.albums, world.points, settings, 0, folder, on_progress)
    return model


def by_time(world: World, given: dict[str, Any], folder: Path, on_progress: Any) -> nn.Module:
    given = {"network": {"hidden": 64, "dropout": 0.0}, "batch_size": 32} | SHARED | given
    settings = parse(TimeSettings, given, "time")
    assert settings.network is not None
    model = build_time_network(5, settings.network, 0)
    train_time_network(model, world.posted, world.posted, world.points, settings, 0, folder, on_progress)
    return model


BATCH_NORM = {"batch_norm": "eval"}
VARIANTS: list[tuple[str, Train, dict[str, Any]]] = [
    ("classification", classify, {}),
    ("classification, frozen", classify, {"mode": "frozen"}),
    ("classification, two heads, every option of the loss", classify,
     {"several": True, "label_smoothing_km": 50.0, "class_weights": "sqrt", "average_decay": 0.9, "gradient_clip": 1.0,
      "distillation": {"recipe": "teacher"}, "optimiser": "sgd"}),
    ("metric, mining", match, {"mining": {"every_epochs": 1}}),
    ("metric, algorithm 1", match, BATCH_NORM | {"chunk_size": 8}),
    ("metric, closest in radius", match,
     {"positives": {"kind": "closest_in_radius", "radius_km": 2000.0, "other_photographers": False}}),
    *((f"metric, {kind}", match, {"loss": {"kind": kind}, "epochs": 1, "steps_per_epoch": 4}) for kind in LOSSES),
    ("metric, learnt scale", match, {"loss": {"kind": "soft_triplet", "learnt_scale": True}, "optimiser": "adagrad"}),
    ("cross-view, plain tiles, orientation", cross, {}),
    ("cross-view, polar, mining by embedding", cross, {"polar": True, "mining": {"by": "embedding"}}),
    ("cross-view, one random negative", cross, {"negatives": "one", "loss": {"kind": "contrastive"}}),
    ("cross-view, shared but batch norm, grid 2", cross, {"towers": "shared_but_batch_norm", "grid": 2}),
    ("cross-view, classification", cross, {"kind": "classification"}),
    ("cross-view, hybrid", cross, {"kind": "hybrid"}),
    *((f"sequences, {kind}", follow, {"network": {"kind": kind, "hidden": 16}})
      for kind in ("lstm", "repeated", "bidirectional", "transformer")),
    ("time of posting", by_time, {}),
]  # fmt: skip
