"""Which layer to embed with: the networks NetA to NetF of the dissertation's chapter 4, R@k of each of their layers.

    python benchmarks/which_layer.py [--workspace DIR] [--recipe default] [--nets NetA,NetE] [--figures DIR]
    python benchmarks/which_layer.py --layout cars-196 --folder ~/cars196 --backbone vgg16_bn --weights registry

Each network is trained with the soft triplet loss on classes, NetA-classes with cross-entropy (figure 4.3); then every
layer's output, pooled, is the embedding. Of a workspace, whose splits and partition must be built, the classes are
cells: half of them, drawn by the seed, are trained on with the training photos, and the test is on the photos of the
other cells that are not for training: other cells by other photographers. There a photo by the query's photographer, or
near-duplicate of it, is neither right nor wrong. A published collection has its own training and test classes.

Prints R@1 of each layer before training and after the last epoch, and the last layer against the one before the fully
connected ones. --figures writes figures 4.2 to 4.5 and all numbers (recall.csv).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.evaluation.retrieval_sets.base import ClassSet
from geoloc.evaluation.retrieval_sets.layouts import LAYOUTS, read_set
from geoloc.evaluation.which_layer import NETS, ImageFiles, Photos, penultimate_gain, photos_of_set, study
from geoloc.files import atomic_path
from geoloc.losses.settings import MetricLossSettings
from geoloc.models.settings import ModelSettings
from geoloc.photos.owners import photographer_keys
from geoloc.reports.layer_figures import epochs_figure, layers_figure
from geoloc.training.metric_photos import NEAR_DUPLICATES
from geoloc.training.metric_settings import MetricSettings
from orchestration.assets.inputs import load_partitions, read_photos, stored, with_pixels
from orchestration.lineage.build import Build
from orchestration.tables import markdown
from orchestration.workspace import Workspace

FIGURES = {
    "4.3": ("NetA-classes", "NetA"),
    "4.4": ("NetA", "NetB", "NetC"),
    "4.5": ("NetA", "NetD", "NetE", "NetF"),
}


def of_workspace(build: Build, unseen: float, seed: int) -> tuple[Path, Photos, Photos]:
    """The pool of a workspace, and photos of cells to train on and of others to test on."""
    photos = with_pixels(build.workspace.pool, stored(read_photos(build.folder("splits"))))
    partition = next(iter(load_partitions(build.folder("partition")).values()))
    cells = partition.assign(photos["latitude"], photos["longitude"]).astype(np.int64)
    order = np.random.default_rng(seed).permutation(partition.cell_count)
    hidden = np.isin(cells, order[: round(unseen * partition.cell_count)])
    split = photos["split"].to_numpy()
    copies = photos[NEAR_DUPLICATES].fillna(photos["photo_id"])

    def part(kept: NDArray[np.bool_]) -> Photos:
        chosen = photos[kept].reset_index(drop=True)
        classes = np.unique(cells[kept], return_inverse=True)[1].astype(np.int64)
        people = np.asarray(photographer_keys(chosen))
        return Photos(chosen, classes, (people, copies[kept].to_numpy(dtype=str)))

    somewhere = (cells >= 0) & (split != "unused")
    train = part(somewhere & ~hidden & (split == "train"))
    return build.workspace.pool, train, part(somewhere & hidden & (split != "train"))


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path, help="with built splits and partition (default: here)")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--layout", choices=LAYOUTS[:3], help="or a published collection of images by class")
    parser.add_argument("--folder", type=Path, help="where that lies")
    parser.add_argument("--nets", default=",".join(net.name for net in NETS), help="default: all")
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--weights", default="package")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--pooling", default="max", choices=("max", "average"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--classes", type=int, default=8, help="classes of a batch")
    parser.add_argument("--images", type=int, default=4, help="images a class of a batch")
    parser.add_argument("--size", type=int, default=512, help="dimensions of the fully connected layers")
    parser.add_argument("--unseen", type=float, default=0.5, help="share of a workspace's cells to test on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=Path, metavar="DIR")
    options = parser.parse_args()
    if (options.layout is None) != (options.folder is None) or (options.workspace and options.layout):
        parser.error("give --workspace, or --layout with --folder")
    names = options.nets.split(",")
    if unknown := [name for name in names if name not in [net.name for net in NETS]]:
        parser.error(f"--nets must be of {', '.join(net.name for net in NETS)}; got {unknown[0]}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    pool: Path | ImageFiles
    if options.layout is None:
        build = Build(Workspace.open(options.workspace or Path()), options.recipe)
        pool, train, test = of_workspace(build, options.unseen, options.seed)
    else:
        collection = read_set(options.layout, options.folder)
        assert isinstance(collection, ClassSet)
        pool = ImageFiles(options.folder)
        train, test = (photos_of_set(collection, options.folder, part) for part in (True, False))
    model = ModelSettings(
        backbone=options.backbone, weights=options.weights, pooling=options.pooling, image_size=options.image_size,
        resize_short_side=options.image_size,
    )  # fmt: skip
    metric = MetricSettings(
        start="none", epochs=options.epochs, batch_size=options.classes * options.images, optimiser="adamw",
        images_per_group=options.images, learning_rate=options.learning_rate, embedding_size=options.size,
        select_by="last", loss=MetricLossSettings(distance="squared_euclidean"),
    )  # fmt: skip
    print(
        f"{options.backbone} ({options.weights}), {options.image_size} px, {options.pooling} pooling, "
        f"{options.epochs} epochs, batches of {options.classes} x {options.images}, seed {options.seed}"
    )
    for name, photos in (("train", train), ("test", test)):
        print(f"{name}: {len(photos.rows):,} photos of {len(np.unique(photos.classes))} classes")
    tables = []
    for net in [net for net in NETS if net.name in names]:
        with tempfile.TemporaryDirectory() as scratch:
            say = lambda line: print(line, flush=True)  # noqa: E731
            tables.append(study(net, model, metric, pool, train, test, options.seed, Path(scratch), say))
    table = pd.concat(tables, ignore_index=True)
    print(f"\nR@1, per cent\n\n{_layers(table)}\n")
    gain = penultimate_gain(table)
    if len(gain):
        cells = [[row.net, *(f"{100 * value:.1f}" for value in row[2:])] for row in gain.itertuples()]
        heads = [name.replace("_", ", ") for name in gain.columns[1:]]
        print(
            f"The last layer, and the one before the fully connected ones\n\n{markdown(cells, ['', *heads])}"
        )
    if options.figures:
        _write(options.figures, table)


def _layers(table: pd.DataFrame) -> str:
    """R@1 of each layer, as a Markdown table."""
    ones = table[table["k"] == 1].set_index(["net", "layer", "part", "epoch"])["recall"]
    rows = []
    for net, of_net in table.groupby("net", sort=False):
        last = of_net["epoch"].max()
        for layer in dict.fromkeys(of_net["layer"]):
            values = [ones[net, layer, part, epoch] for part in ("train", "test") for epoch in (0, last)]
            rows.append([net, layer, *(f"{100 * value:.1f}" for value in values)])
    return markdown(rows, ["", "layer", "train, before", "train", "test, before", "test"])


def _write(folder: Path, table: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "recall.csv", index=False)
    there = list(dict.fromkeys(table["net"]))
    pictures = {"figure-4.2": layers_figure(table, there[0])}
    for number, nets in FIGURES.items():
        if shown := [net for net in nets if net in there]:
            pictures[f"figure-{number}"] = epochs_figure(table, shown)
    for name, data in pictures.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            temporary.write_bytes(data)


if __name__ == "__main__":
    main()
