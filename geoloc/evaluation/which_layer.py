"""Which layer to embed with: networks trained with a metric loss, or as classifiers, and R@k of each of their layers on
what they were trained on and on classes that they never saw (dissertation, chapter 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from geoloc.evaluation.measures.retrieval import recall_at_k
from geoloc.evaluation.retrieval_sets.base import ClassSet
from geoloc.losses.classification import cross_entropy
from geoloc.models.batches import iter_batches
from geoloc.models.embedder import build_backbone
from geoloc.models.layers import LayerEmbedder, layer_names, pooled_layers
from geoloc.models.metric import MetricNetwork, build_metric_network
from geoloc.models.prediction import mixed_precision, run_network
from geoloc.models.settings import LayerSettings, ModelSettings
from geoloc.settings import replace
from geoloc.training import loop
from geoloc.training.loop import OnProgress, Task, loop_fingerprint
from geoloc.training.metric import train_metric
from geoloc.training.metric_settings import MetricSettings, PositivesSettings
from geoloc.training.photo_data import PhotoSource
from geoloc.training.samplers import epoch_starts
from geoloc.training.source import Inputs

CLASS = "class"
KS = (1, 2, 4, 8, 16, 32)
PENULTIMATE = "pooling"
"""The layer before the fully connected ones: pool5.3 of the dissertation's VGG-16."""
_FIRST_CONNECTED = 6


@dataclass(frozen=True)
class Net:
    """One of the dissertation's networks: the number of fully connected layers after pooling (fc6, fc7, fc8, with ReLU
    between them), what starts from random weights besides these, and the loss. A classifier's last layer has an output
    for each class of the training photos."""

    name: str
    connected: int
    scratch: Literal["nothing", "last block", "backbone"] = "nothing"
    loss: Literal["metric", "classification"] = "metric"


NETS = (
    Net("NetA", 1),
    Net("NetB", 1, "last block"),
    Net("NetC", 1, "backbone"),
    Net("NetD", 0),
    Net("NetE", 2),
    Net("NetF", 3),
    Net("NetA-classes", 2, loss="classification"),  # figure 4.3
)


@dataclass(frozen=True, eq=False)
class Photos:
    """N photos with a class each: `rows` (photo_id, shard, offset, length), `classes` int64 (N,) from 0, and `apart`,
    groups (N,) whose members are neither right nor wrong for each other, such as a photographer's."""

    rows: pd.DataFrame
    classes: NDArray[np.int64]
    apart: tuple[ArrayLike, ...] = ()


@dataclass(frozen=True)
class ImageFiles:
    """Image files below a folder, read in place of a pool's shards."""

    folder: Path

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """The bytes of the file `shard`."""
        return (self.folder / shard).read_bytes()


def photos_of_set(collection: ClassSet, folder: Path, train: bool) -> Photos:
    """The training or test part of a collection of images by class, for ImageFiles(folder)."""
    paths, classes = collection.part(train)
    names = [path.relative_to(folder).as_posix() for path in paths]
    sizes = [path.stat().st_size for path in paths]
    rows = pd.DataFrame({"photo_id": names, "shard": names, "offset": 0, "length": sizes})
    return Photos(rows, np.unique(classes, return_inverse=True)[1].astype(np.int64))


def make_net(
    net: Net, settings: ModelSettings, seed: int, size: int, classes: int | None = None
) -> MetricNetwork:
    """A network before training, with fully connected layers of `size`; the last one of a classifier is of `classes`.
    Raises the errors of build_backbone."""
    scratch = replace(settings, weights="none")
    start = scratch if net.scratch == "backbone" else settings
    model = build_metric_network(start, seed, size if net.connected else None)
    if net.scratch == "last block":
        fresh, _ = build_backbone(scratch, seed + 2)
        model.backbone.blocks[-1].load_state_dict(fresh.blocks[-1].state_dict())
    if net.connected > 1:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 3)
            sizes = [size] * (net.connected - 2) + [size if classes is None else classes]
            further = [part for wide in sizes for part in (nn.ReLU(), nn.Linear(size, wide))]
        model.projection = nn.Sequential(model.projection, *further)
    return model


def layers_of(model: MetricNetwork, net: Net, pooling: Literal["average", "max"]) -> dict[str, LayerEmbedder]:
    """The layers of a network from input to output, by name: the backbone's, `pooling` for its last map, and fc6, fc7,
    ... for the fully connected ones."""
    paths = {name: name for name in layer_names(model) if name != "projection"}
    if net.connected == 1:
        paths[f"fc{_FIRST_CONNECTED}"] = "projection"
    elif net.connected:
        paths |= {f"fc{_FIRST_CONNECTED + i}": f"projection.{2 * i}" for i in range(net.connected)}
    return {
        name: LayerEmbedder(model, LayerSettings(name=path, pooling=pooling)) for name, path in paths.items()
    }


def recall_by_layer(
    model: MetricNetwork,
    layers: dict[str, LayerEmbedder],
    pool: Any,
    photos: Photos,
    ks: Sequence[int] = KS,
    batch_size: int = 32,
) -> dict[str, dict[int, float]]:
    """R@k of photos by the embeddings of each layer, all from one pass. Unreadable photos are left out; those whose
    embedding by a layer has no direction are wrong."""

    def forward(images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = pooled_layers(model, images, list(layers.values()))
        return {name: nn.functional.normalize(x.float()) for name, x in zip(layers, found, strict=True)}

    kept: list[NDArray[np.int64]] = []
    vectors: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    batches = iter_batches(pool, photos.rows, model.preprocess, batch_size)
    for batch, outputs in run_network(model, forward, batches):
        if outputs is not None:
            kept.append(batch.row_indices)
            for name, values in outputs.items():
                vectors[name].append(values)
    rows = np.concatenate(kept)
    apart = [np.asarray(group)[rows] for group in photos.apart]
    return {
        name: recall_at_k(np.nan_to_num(np.concatenate(parts)), photos.classes[rows], ks, apart)
        for name, parts in vectors.items()
    }


@dataclass(frozen=True)
class _Classes:
    """Stands for a partition whose cells are the classes; the photos' cells are given."""

    cell_count: int


def study(
    net: Net,
    settings: ModelSettings,
    metric: MetricSettings,
    pool: Any,
    train: Photos,
    test: Photos,
    seed: int,
    scratch: Path,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Train one network on `train`, and measure R@k of each of its layers on `train` and `test` before and after each
    epoch: columns net, layer, part, epoch (0: before), k, recall.

    `metric.positives` are replaced by the classes; a classifier takes all but loss and positives from `metric`, and its
    batches are of photos in random order. `scratch` is an empty folder for checkpoints. Raises the errors of
    train_metric.
    """
    size = metric.embedding_size or 512
    classifies = net.loss == "classification"
    count = int(train.classes.max()) + 1
    model = make_net(net, settings, seed, size, count if classifies else None)
    layers = layers_of(model, net, "max" if settings.pooling == "max" else "average")
    rows: list[dict[str, Any]] = []

    def measured(epoch: int) -> None:
        for part, photos in (("train", train), ("test", test)):
            for layer, found in recall_by_layer(model, layers, pool, photos).items():
                place = {"net": net.name, "layer": layer, "part": part, "epoch": epoch}
                rows.extend({**place, "k": k, "recall": value} for k, value in found.items())

    def progress(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            say(f"{net.name}: epoch {event['epoch']}, loss {event['loss']:.4f}")
            measured(event["epoch"])

    measured(0)
    if classifies:
        _train_classes(model, pool, train, metric, seed, scratch, progress)
        return pd.DataFrame(rows)
    photographers = train.apart[0] if train.apart else None
    frame = train.rows.assign(
        **{f"cell_{CLASS}": train.classes}, latitude=0.0, longitude=0.0, photographer=photographers
    )
    positives = PositivesSettings(kind="cell", partition=CLASS, other_photographers=photographers is not None)
    wanted = replace(
        metric,
        positives=positives,
        embedding_size=size if net.connected else None,
        select_by="last",
        early_stopping_epochs=0,
    )
    classes: Any = _Classes(count)
    train_metric(model, pool, frame, frame[:0], {CLASS: classes}, wanted, seed, scratch, progress)
    return pd.DataFrame(rows)


def _train_classes(
    model: MetricNetwork,
    pool: Any,
    photos: Photos,
    settings: MetricSettings,
    seed: int,
    folder: Path,
    on_progress: OnProgress,
) -> None:
    """Train a network whose outputs are the logits of the classes."""

    def order(epoch: int) -> NDArray[np.int64]:
        numbers = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), epoch]))
        return numbers.permutation(len(photos.rows))

    def prepare(device: torch.device) -> Task:
        def loss_of(batch: Inputs) -> torch.Tensor:
            (images,) = batch.tensors
            with mixed_precision(device, settings.precision):
                logits = model.embed(images)
            return cross_entropy(logits, torch.from_numpy(photos.classes[batch.positions]).to(device))

        source = PhotoSource(
            pool,
            photos.rows,
            model.preprocess,
            settings.augmentation,
            seed,
            settings.workers,
            settings.channels_last,
        )
        steps = epoch_starts([len(photos.rows)] * settings.epochs, settings.batch_size)
        return Task(source, order, steps, loss_of)

    wanted = replace(settings, select_by="last", early_stopping_epochs=0)
    loop.train(model, prepare, wanted, seed, folder, loop_fingerprint(model, wanted, seed), on_progress)


def penultimate_gain(table: pd.DataFrame, k: int = 1) -> pd.DataFrame:
    """R@k of the last layer and of the one before the fully connected ones after the last epoch: a row a net that has
    both, columns net, train_last, train_penultimate, test_last, test_penultimate."""
    rows = []
    last = table[(table["epoch"] == table.groupby("net")["epoch"].transform("max")) & (table["k"] == k)]
    for net, of_net in last.groupby("net", sort=False):
        layers = list(dict.fromkeys(of_net["layer"]))
        if layers[-1] == PENULTIMATE:
            continue
        value = of_net.set_index(["part", "layer"])["recall"]
        rows.append(
            {"net": net}
            | {
                f"{part}_{name}": float(value[part, layer])
                for part in ("train", "test")
                for name, layer in (("last", layers[-1]), ("penultimate", PENULTIMATE))
            }
        )
    return pd.DataFrame(rows)
