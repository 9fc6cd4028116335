"""The first steps of the full recipes: builds the published networks and trains them for two or three steps.

    python benchmarks/first_steps.py [--recipes planet_full ...] [--steps 2] [--photos FOLDER] [--largest-batch 4]

A recipe's network is built with the published number of cells of each head. geoloc's own training code trains it with
the recipe's loss, optimiser, schedule, curriculum and augmentation, for `--steps` steps. What is missing is replaced,
and the output reports it: photos by generated pictures (`--photos` takes JPEGs of a folder instead), initial weights by
random ones (those of another recipe or of a file are used if that recipe is built or the file exists; `--fetch`
downloads those of a registry), batches by smaller ones.

The partitions are of the recipes' kinds and have exactly the published number of cells: they are fitted on as many
places, with thresholds that leave one in each cell. An epoch has twice as many photos as the first head has cells.
Schedules that count epochs give the rates for such a short epoch.

Prints: weights; the learning rate, loss and seconds of each step; the plain cross-entropy of the first photos of the
pool, summed over the heads, before and after, and that of a guess (the sum of ln cells); how many of the trainable
tensors have changed; the peak of resident memory. Each recipe runs in its own process. Exits with 1 if a recipe fails,
a number is not finite or nothing changed.

A recipe with a section metric also trains that network, on photos of as many cells as a batch has, or 8. Chunks, if it
has them, are at most half a batch. Printed before and after is its loss over one batch.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from geoloc.losses.metric import metric_loss
from geoloc.models.batches import iter_batches
from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.embedder import Embedder
from geoloc.models.hierarchy import nested_parents
from geoloc.models.metric import MetricNetwork, build_metric_network
from geoloc.models.settings import RECIPE
from geoloc.partitions import partition_of
from geoloc.partitions.base import Partition
from geoloc.partitions.cities import non_overlapping_cities
from geoloc.partitions.settings import CitiesSettings, KindSettings, PartitionSettings
from geoloc.photos.shards import ShardWriter
from geoloc.settings import replace
from geoloc.training.classification import train_classifier
from geoloc.training.metric import train_metric
from geoloc.training.metric_photos import metric_photos
from geoloc.training.metric_settings import CLASSIFIER, MetricSettings
from orchestration.plan.chain import MODEL_FILE, output_folder, value_at
from orchestration.plan.settings import BuildSettings, known_recipes, load_settings, weights_file
from orchestration.workspace import Workspace

PUBLISHED_HEADS = {
    "planet_full": {"fine": 26_263},  # section 4
    "revisiting_1060_full": {"fine": 1060},  # figure 2, as the next three
    "revisiting_l7011_full": {"finest": 7011},
    "revisiting_l359_full": {"coarse": 359},
    "revisiting_r_full": {"finest": 7011},
    **{f"revisiting_{name}_full": {"finest": 17_000} for name in ("r1", "r2", "r3")},  # dissertation 5.3.1
    "revisiting_m_full": {
        "finest": 7011, "finer": 1693, "fine": 1060, "coarse": 359, "coarser": 80, "coarsest": 10,
    },
    "cities_alexnet_full": {"cities": 37},  # section III
    "cities_googlenet_full": {"cities": 37},
    "m1_coarse_full": {"coarse": 538},  # table 1
    "m1_fine_full": {"fine": 6565},
    "m1_finep_full": {"finep": 4771},
    "m1_coarse_cycles_full": {"coarse": 538},
    "m1_fine_cycles_full": {"fine": 6565},
    "m1_finep_cycles_full": {"finep": 4771},
}  # fmt: skip
"""Numbers of cells of the published partitions, in the recipe's order: read from the papers, not from the recipes."""

PLANETS_CELLS = 26_263
"""Number of cells of the finest partition in recipes that are no published row: PlaNet's."""
PICTURES = 16


LEAST_CELLS = 8
"""Cells with photos for a metric network; as many as a batch has if that is more."""


class EnoughSteps(Exception):
    """Raised to end a training after the wanted steps."""


@dataclass(frozen=True)
class FirstSteps:
    """Result of the first steps of a recipe: see the module. `steps` has rate, loss and seconds of each. A metric
    network has no `heads`."""

    heads: dict[str, int]
    weights: int
    photos: int
    batch_size: int
    notes: tuple[str, ...]
    steps: tuple[tuple[float, float, float], ...]
    before: float
    after: float
    moved: tuple[int, int]
    peak_gb: float

    @property
    def sound(self) -> bool:
        """Whether all numbers are finite and some tensor has changed."""
        numbers = [self.before, self.after, *(value for step in self.steps for value in step)]
        return all(map(math.isfinite, numbers)) and self.moved[0] > 0


def places(settings: KindSettings, count: int, seed: int) -> NDArray[np.float64]:
    """Returns `count` places, degrees, (count, 2): all over the Earth, or the largest cities that do not overlap."""
    if isinstance(settings, CitiesSettings):
        return np.asarray(non_overlapping_cities(settings.radius_km, 15_000).places[:count])
    # A Fibonacci lattice keeps places far apart: kmeans makes one cell of places that are near each other.
    number = np.random.default_rng(seed).permutation(count)
    latitude = np.degrees(np.arcsin(2 * (number + 0.5) / count - 1))
    longitude = (number * 180 * (3 - 5**0.5)) % 360 - 180
    return np.stack([latitude, longitude], axis=1)


def one_place_a_cell(settings: PartitionSettings, places_of_cell: int, cells: int) -> KindSettings:
    """Returns the recipe's settings of its kind, with thresholds that leave at most this many places in a cell."""
    changes: dict[str, dict[str, Any]] = {
        "s2": {"max_photos": places_of_cell, "min_photos": 1, "max_level": 30},
        # A box is split until it has fewer photos than the threshold.
        "latlon": {"max_photos": places_of_cell + 1, "min_photos": 1, "min_area_km2": 0.001},
        "delaunay": {"max_photos": places_of_cell, "min_photos": 1, "min_area_km2": 0.001},
        "cities": {"min_photos": 1},
        "kmeans": {"cells": cells, "min_photos": 1},
    }
    return replace(settings.chosen, **changes[settings.kind])


def partitions_with(
    settings: BuildSettings, heads: Mapping[str, int], at: NDArray[np.float64]
) -> dict[str, Partition]:
    """Returns fitted partitions of the recipe's kinds with exactly these numbers of cells.

    Of a hierarchical recipe only the finest is exact: nested cells need the same places, so each next partition has ten
    times the places per cell.
    """
    made: dict[str, Partition] = {}
    for number, (name, one) in enumerate(settings.partitions.items()):
        nested = settings.model.softmax == "hierarchical"
        some = at if nested else at[: heads[name]]
        chosen = one_place_a_cell(one, 10**number if nested else 1, heads.get(name, 0))
        made[name] = partition_of(chosen).fit(some[:, 0], some[:, 1])
    for name, cells in heads.items():
        if made[name].cell_count != cells:
            raise ValueError(f"{name} has {made[name].cell_count:,} cells, wanted {cells:,}")
    return made


def pictures(folder: Path | None) -> list[bytes]:
    """Returns JPEGs: the first ones of a folder by name, or generated ones."""
    if folder is not None:
        found = sorted(folder.glob("*.jpg"))[:PICTURES]
        if not found:
            raise SystemExit(f"{folder} has no .jpg")
        return [path.read_bytes() for path in found]
    rng = np.random.default_rng(0)
    made = []
    for _ in range(PICTURES):
        stream = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((456, 342), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        made.append(stream.getvalue())
    return made


def pool_of(folder: Path, photos: list[bytes], at: NDArray[np.float64], seed: int) -> pd.DataFrame:
    """Write a shard of pictures; returns its rows, in random order: one per place, and as many more at a few places."""
    with ShardWriter(folder, "photos-000000.tar") as shard:
        stored = [shard.add(f"p{i}", data) for i, data in enumerate(photos)]
    rng = np.random.default_rng(seed)
    more = np.minimum(rng.zipf(1.5, len(at)) - 1, len(at) - 1)
    place = rng.permutation(np.concatenate([np.arange(len(at)), more]))
    offset, length = np.array([stored[i % len(stored)] for i in range(len(place))]).T
    return pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(len(place))],
            "shard": "photos-000000.tar",
            "offset": offset,
            "length": length,
            "latitude": at[place, 0],
            "longitude": at[place, 1],
        }
    )


def weights_at_hand(
    workspace: Workspace, settings: BuildSettings, fetch: bool, key: str = "model.weights"
) -> tuple[str, str]:
    """Returns the replacement for the setting `key`, of initial weights, and a note about it; the note is empty if
    nothing was replaced."""
    wanted = value_at(settings, key)
    if wanted in ("none", "package") or (wanted == "registry" and fetch):
        return wanted, ""
    absent = "not asked for"
    if wanted != "registry":
        built = wanted == CLASSIFIER or wanted.startswith(RECIPE)
        file = (
            weights_file(workspace, settings, key) if wanted.startswith(RECIPE) else workspace.root / wanted
        )
        if wanted == CLASSIFIER:
            file = output_folder(workspace, settings.recipe, wanted) / MODEL_FILE
        if file is not None and file.is_file():
            return str(file), ""
        absent = "not built" if built else "missing"
    return "none", f"random weights in place of {wanted} ({absent})"


def cross_entropy(
    model: Classifier, pool: Path, rows: pd.DataFrame, partitions: Mapping[str, Partition]
) -> float:
    """Cross-entropy by torch's function: mean over the photos, sum over the heads. Batch norm uses this batch."""
    batch = next(iter_batches(pool, rows, model.preprocess, len(rows)))
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    total = 0.0
    with torch.no_grad():
        scores = model.split(model.classify(model.embed(batch.images)))
        for name, partition in partitions.items():
            cells = torch.from_numpy(partition.assign(rows["latitude"], rows["longitude"]).astype(np.int64))
            if (cells >= 0).any():
                total += float(functional.cross_entropy(scores[name], cells, ignore_index=-1))
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return total


def first_steps(
    workspace: Workspace,
    recipe: str,
    heads: Mapping[str, int],
    steps: int,
    largest_batch: int,
    photos: list[bytes],
    fetch: bool = False,
) -> FirstSteps:
    """Build the recipe's network with these cells and train it for `steps` steps, as described in the module.

    `heads` may leave out all but the finest of a hierarchical recipe. Raises what building and training raise.
    """
    settings = load_settings(workspace, recipe)
    if settings.training.mode != "fine_tune":
        raise ValueError(
            f"{recipe} trains in the mode {settings.training.mode}, whose features have no first steps"
        )
    weights, note = weights_at_hand(workspace, settings, fetch)
    batch_size = min(settings.training.batch_size, largest_batch)
    notes = [note] if note else []
    if batch_size < settings.training.batch_size:
        notes.append(f"batches of {batch_size} in place of {settings.training.batch_size}")
    first = next(iter(settings.partitions.values()))
    at = places(first.chosen, max(heads.values()), settings.seed)
    partitions = partitions_with(settings, heads, at)
    counts = {name: partition.cell_count for name, partition in partitions.items()}
    parents = nested_parents(partitions) if settings.model.softmax == "hierarchical" else None
    model = build_classifier(replace(settings.model, weights=weights), counts, settings.seed, parents)
    training = replace(
        settings.training,
        batch_size=batch_size,
        progress_steps=1,
        checkpoint_steps=0,
        device="cpu",
    )
    done: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        pool = Path(name)
        rows = pool_of(pool, photos, at, settings.seed)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.requires_grad_(True)
        before = cross_entropy(model, pool, rows[:batch_size], partitions)
        start = {key: value.detach().clone() for key, value in model.named_parameters()}
        with contextlib.suppress(EnoughSteps):
            train_classifier(
                model, pool, rows, rows[:0], partitions, training, settings.seed, pool / "work",
                follow(done, steps, batch_size),
            )  # fmt: skip
        if len(done) < steps:
            raise ValueError(
                f"{recipe} ended after {len(done)} steps, wanted {steps}: its epochs are too short"
            )
        after = cross_entropy(model, pool, rows[:batch_size], partitions)
    return found_of(model, start, counts, len(rows), batch_size, notes, done, before, after)


def follow(
    done: list[tuple[float, float, float]], steps: int, batch_size: int
) -> Callable[[dict[str, Any]], None]:
    """Returns a follower of a training that adds rate, loss and seconds of each step to `done` and ends it after
    `steps`."""

    def on_progress(event: dict[str, Any]) -> None:
        if event["kind"] == "step":
            done.append((event["learning_rate"], event["loss"], batch_size / event["photos_per_second"]))
            if len(done) == steps:
                raise EnoughSteps

    return on_progress


def found_of(
    model: Embedder,
    start: Mapping[str, torch.Tensor],
    heads: dict[str, int],
    photos: int,
    batch_size: int,
    notes: list[str],
    steps: list[tuple[float, float, float]],
    before: float,
    after: float,
) -> FirstSteps:
    """Returns the result for a trained model, whose weights were `start`."""
    learning = {key: value for key, value in model.named_parameters() if value.requires_grad}
    moved = sum(not torch.equal(value, start[key]) for key, value in learning.items())
    return FirstSteps(
        heads,
        sum(value.numel() for value in model.parameters()),
        photos,
        batch_size,
        tuple(notes),
        tuple(steps),
        before,
        after,
        (moved, len(learning)),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,  # Linux counts in KiB
    )


def metric_first_steps(
    workspace: Workspace,
    recipe: str,
    steps: int,
    largest_batch: int,
    photos: list[bytes],
    fetch: bool = False,
) -> FirstSteps:
    """As `first_steps`, for the recipe's metric network. Raises ValueError if the recipe has none."""
    settings = load_settings(workspace, recipe)
    wanted = settings.metric
    if wanted is None:
        raise ValueError(f"{recipe} has no section metric")
    weights, note = weights_at_hand(workspace, settings, fetch, "metric.start")
    batch_size = min(wanted.batch_size, largest_batch)
    each = min(wanted.images_per_group, batch_size // 2)
    notes = [note] if note else []
    if batch_size < wanted.batch_size:
        groups = wanted.batch_size // wanted.images_per_group
        notes.append(
            f"{batch_size // each} × {each} photos a batch in place of {groups} × {wanted.images_per_group}"
        )
    metric = replace(
        wanted,
        batch_size=batch_size,
        images_per_group=each,
        chunk_size=None if wanted.chunk_size is None else min(wanted.chunk_size, batch_size // 2),
        steps_per_epoch=steps,
        progress_steps=1,
        checkpoint_steps=0,
        device="cpu",
    )
    cells = max(LEAST_CELLS, batch_size // each)
    at = places(next(iter(settings.partitions.values())).chosen, cells, settings.seed)
    partitions = partitions_with(settings, dict.fromkeys(settings.partitions, cells), at)
    scale = metric.loss.scale if metric.loss.learnt_scale else None
    fixed = {
        "weights": weights,
        "softmax": "flat",
        "batch_norm": metric.batch_norm or settings.model.batch_norm,
    }
    model = build_metric_network(
        replace(settings.model, **fixed), settings.metric_seed, metric.embedding_size, scale
    )
    done: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        pool = Path(name)
        rows = pool_of(pool, photos, np.repeat(at, each, axis=0), settings.seed)
        rows["photographer"] = rows["photo_id"]  # one each, so that all pairs of a cell are positives
        some = rows.groupby(["latitude", "longitude"]).head(each)[:batch_size]
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        before = loss_over(model, pool, some, partitions, metric)
        start = {key: value.detach().clone() for key, value in model.named_parameters()}
        with contextlib.suppress(EnoughSteps):
            train_metric(
                model, pool, rows, rows[:0], partitions, metric, settings.metric_seed, pool / "work",
                follow(done, steps, batch_size),
            )  # fmt: skip
        after = loss_over(model, pool, some, partitions, metric)
    return found_of(model, start, {}, len(rows), batch_size, notes, done, before, after)


def loss_over(
    model: MetricNetwork,
    pool: Path,
    rows: pd.DataFrame,
    partitions: Mapping[str, Partition],
    settings: MetricSettings,
) -> float:
    """The metric loss over some photos, by the network in eval mode."""
    batch = next(iter_batches(pool, rows, model.preprocess, len(rows)))
    known = metric_photos(rows, partitions, settings.positives, "first")
    with torch.no_grad():
        embeddings = model.eval().embed(batch.images)
        relations = known.relations(np.arange(len(rows)), settings.positives)
        return float(metric_loss(settings.loss, model.scale)(embeddings, relations))


def report(recipe: str, found: FirstSteps, seconds: float) -> str:
    """Returns the lines to print for a recipe."""
    heads = ", ".join(f"{name} {cells:,}" for name, cells in found.heads.items())
    guess = sum(math.log(cells) for cells in found.heads.values())
    what = f"; cells {heads}; {found.photos:,} photos an epoch" if heads else f"; {found.photos:,} photos"
    measured, of_guess = ("cross-entropy", f", {guess:.4f} of a guess") if heads else ("loss", "")
    lines = [f"{recipe}: {found.weights:,} weights{what}" + "".join(f"; {note}" for note in found.notes)]
    for number, (rate, loss, step_s) in enumerate(found.steps, 1):
        lines.append(f"  step {number}: learning rate {rate:.3g}, loss {loss:.4f}, {step_s:.1f} s")
    lines.append(
        f"  {measured} {found.before:.4f} before, {found.after:.4f} after{of_guess}; "
        f"{found.moved[0]} of {found.moved[1]} tensors moved; peak {found.peak_gb:.2f} GB; {seconds:.0f} s in all"
        + ("" if found.sound else "; NOT SOUND")
    )
    return "\n".join(lines)


def run(recipe: str, root: Path, steps: int, largest_batch: int, photos: Path | None, fetch: bool) -> None:
    """Run one recipe in its own process, so that the memory peak is its own. Exits with 1 if it is not sound."""
    started = time.perf_counter()
    workspace = Workspace.open(root)
    settings = load_settings(workspace, recipe)
    heads = PUBLISHED_HEADS.get(recipe, {next(iter(settings.partitions)): PLANETS_CELLS})
    found = first_steps(workspace, recipe, heads, steps, largest_batch, pictures(photos), fetch)
    print(report(recipe, found, time.perf_counter() - started), flush=True)
    sound = found.sound
    if settings.metric is not None:
        started = time.perf_counter()
        found = metric_first_steps(workspace, recipe, steps, largest_batch, pictures(photos), fetch)
        print(report(f"{recipe}, [{settings.metric.name}]", found, time.perf_counter() - started), flush=True)
        sound &= found.sound
    if not sound:
        sys.exit(1)


def main() -> int:
    """Run the recipes one after the other. Returns 1 if one failed."""
    workspace = Workspace.open(Path(__file__).resolve().parents[1])
    full = [name for name in known_recipes(workspace) if name.endswith("_full")]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=known_recipes(workspace), default=full)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs; default: generated")
    parser.add_argument("--largest-batch", type=int, default=4, help="largest number of photos per step")
    parser.add_argument("--fetch", action="store_true", help="download weights from the registry")
    options = parser.parse_args()
    print(f"{'photos of a folder' if options.photos else 'generated photos'}, on the processor")
    failed = []
    for recipe in options.recipes:
        arguments = (
            recipe, workspace.root, options.steps, options.largest_batch, options.photos, options.fetch
        )  # fmt: skip
        # Forking saves each process the seconds of importing torch. Safe: nothing was computed yet, so no threads run.
        process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
        process.start()
        process.join()
        if process.exitcode != 0:
            failed.append(recipe)
            print(f"{recipe}: FAILED, exit code {process.exitcode}", flush=True)
    print(f"{len(options.recipes) - len(failed)} of {len(options.recipes)} recipes ran their first steps")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
