"""Part cross_view of cuda.py: cross-view recipes trained for longer, and on more pairs, than a CPU can."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from cuda_planet import PAIRS, SHARD
from cuda_table import ROOT, Rows, sample_pool

from geoloc.evaluation.cross_view import evaluate_cross_view
from geoloc.evaluation.measures.overhead import (
    ALL,
    BEST_THRESHOLD,
    FIXED_THRESHOLD,
    MEAN_ERROR,
    MEDIAN_ERROR,
    TOP_PERCENT,
)
from geoloc.models.cross_view import build_cross_view
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pair_splits import joined_pairs, split_pairs
from geoloc.photos.pairs import overhead_pool
from geoloc.settings import parse
from geoloc.training.cross_view import shape_of, train_cross_view
from geoloc.training.cross_view_pairs import CrossViewPairs, PairSource, cross_view_pairs
from geoloc.training.cross_view_settings import CrossViewSettings

MEASURES = ("R@1", "R@5", "R@10", TOP_PERCENT, FIXED_THRESHOLD, BEST_THRESHOLD, MEAN_ERROR, MEDIAN_ERROR)
HEADS = ("R@1", "R@5", "R@10", "top 1%", "verif.", "best", "mean°", "median°")
METHODS = ("1 rotation", "16 rotations", "16 rotations, averaged", "aligned")
WITH_HEAD: dict[str, Any] = {"orientation": {"weight": 1}}


@dataclass(frozen=True)
class Job:
    """One training: the section cross_view of a recipe, with changes, on the sample's pairs or the planet's."""

    recipe: str
    planet: bool
    seed: int
    changed: dict[str, Any] = field(default_factory=dict)
    ends: float = 0.0
    """When to stop, by time.time()."""
    folder: str = ""
    planet_folder: str = ""
    quick: bool = False

    @property
    def name(self) -> str:
        more = ", ".join(
            f"{key} {value}" for key, value in self.changed.items() if key not in ("epochs", "batch_size")
        )
        data = "planet" if self.planet else "sample"
        return f"{data} {self.recipe.removeprefix('cross_view_')}{' with ' + more if more else ''}, seed {self.seed}"


LONG = {"epochs": 30}
MANY = {"epochs": 15, "batch_size": 64}
GRID = MANY | {"grid": 3}
SINGLE = (
    "cross_view_siamese", "cross_view_siamese_dbl", "cross_view_triplet_dbl", "cross_view_edbl", "cross_view_hybrid",
    "cross_view_classification", "cross_view_ri360", "cross_view_ri360_or",
)  # fmt: skip
JOBS = (
    Job("cross_view_edbl", True, 0, GRID),
    Job("cross_view_edbl", True, 0, MANY),
    Job("cross_view", True, 0, GRID),
    Job("cross_view_edbl", True, 0, GRID | {"orientation": None}),
    Job("cross_view_edbl", False, 0, LONG),
    Job("cross_view_edbl", False, 0, LONG | {"grid": 3}),
    *(Job(name, False, 0, LONG) for name in SINGLE if name != "cross_view_edbl"),
    Job("cross_view_ri90_or", True, 0, GRID),
    Job("cross_view_edbl", True, 1, GRID),
    Job("cross_view_edbl", True, 1, MANY),
    *(Job(name, False, 1, LONG) for name in SINGLE),
    Job("cross_view_edbl", False, 1, LONG | {"grid": 3}),
    Job("cross_view", False, 0, LONG | {"grid": 3}),
    Job("cross_view_edbl", True, 0, GRID | {"backbone_learning_rate_share": 1.0}),
)
"""The most telling first: what has not begun when the time is over is left out."""


class TimeIsOver(Exception):
    """Raised by a progress report."""


def cross_view(rows: Rows, folder: Path, options: argparse.Namespace) -> None:
    """Print a row for each training, several at a time, and save all scores."""
    waited = time.time() + 90
    while options.planet is not None and not (options.planet / PAIRS).exists() and time.time() < waited:
        time.sleep(1)  # another process is drawing it
    jobs = [
        Job(**vars(job) | {"quick": rows.quick, "folder": str(folder), "ends": time.time() + options.seconds,
                           "planet_folder": str(options.planet)})
        for job in JOBS
        if not job.planet or (options.planet is not None and (options.planet / PAIRS).exists())
    ]  # fmt: skip
    jobs = jobs[:2] if rows.quick else jobs
    rows.title(
        f"Cross-view: {len(jobs)} trainings, {options.processes} at a time, at most {options.seconds:.0f} s; test "
        "pairs of cities never trained on, candidates: the tiles of the city"
    )
    print(f"{'':<76}{'':<24}" + "".join(f"{head:>9}" for head in HEADS) + "   (chance below)")
    sample_pool(folder / "data")
    everything = []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        running: dict[Future[tuple[str, pd.DataFrame]], Job] = {pool.submit(work, job): job for job in jobs}
        for done in as_completed(running):
            job = running[done]
            try:
                told, scores = done.result()
            except Exception as error:
                rows.failed.append(job.name)
                print(
                    f"{job.name:<76}FAILED: {type(error).__name__}: {str(error).splitlines()[0][:150]}",
                    flush=True,
                )
                continue
            print(f"{job.name}: {told}", flush=True)
            if len(scores):
                everything.append(scores.assign(job=job.name))
                _print(scores)
    if options.out is not None and everything:
        pd.concat(everything, ignore_index=True).to_csv(options.out / "cross_view.csv", index=False)


def _print(scores: pd.DataFrame) -> None:
    wide = scores[scores["group"] == ALL].pivot(index="method", columns="measure", values=["value", "chance"])
    chance = ""
    for method in METHODS:
        if method not in wide.index:
            continue
        line = "".join(_number(wide, method, "value", measure) for measure in MEASURES)
        chance = "".join(_number(wide, method, "chance", measure) for measure in MEASURES)
        print(f"{'':<76}{method:<24}{line}")
    print(f"{'':<76}{'chance':<24}{chance}", flush=True)


def _number(wide: pd.DataFrame, method: str, kind: str, measure: str) -> str:
    if (kind, measure) not in wide.columns or pd.isna(value := wide.loc[method, (kind, measure)]):
        return f"{'-':>9}"
    return f"{value:>9.1f}" if measure in (MEAN_ERROR, MEDIAN_ERROR) else f"{100 * value:>8.1f}%"


def work(job: Job) -> tuple[str, pd.DataFrame]:
    """Train and evaluate in a process of its own. Returns what is told of the training, and the scores."""
    started = time.time()
    if started > job.ends:
        return "not begun", pd.DataFrame()
    torch.set_num_threads(2)
    section = yaml.safe_load((ROOT / "recipes" / f"{job.recipe}.yaml").read_text())["cross_view"]
    quick: dict[str, Any] = {"epochs": 2, "batch_size": 8} if job.quick else {}
    settings = parse(CrossViewSettings, section | job.changed | quick | {"workers": 3}, "cross_view")
    pools, pairs = _planet(Path(job.planet_folder)) if job.planet else _sample(Path(job.folder), settings)
    if job.quick:
        pairs = {split: found.only(np.arange(min(24, len(found)))) for split, found in pairs.items()}
    model = build_cross_view(settings.model, shape_of(settings), job.seed)
    history: list[dict[str, Any]] = []

    def progress(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            history.append(event)
        if time.time() > job.ends:
            raise TimeIsOver

    work_folder = Path(job.folder) / job.name.replace(" ", "-").replace("/", "-")
    try:
        train_cross_view(
            model, pools, pairs["train"], pairs["validation"], settings, job.seed, work_folder, progress
        )
        how = ""
    except TimeIsOver:
        how = " (stopped: the time was over; the weights of the last step)"
    trained = time.time()
    model.eval()
    sources = [
        PairSource(*pools, pairs[split], model, None, None, 0.0, job.seed, 3, True)
        for split in ("test", "validation")
    ]
    scores = evaluate_cross_view(*sources, settings, job.seed).scores
    curve = " ".join(f"{event['loss']:.3f}" for event in history[:: max(1, len(history) // 6)])
    last = history[-1] if history else {}
    told = (
        f"{len(pairs['train']):,} training, {len(pairs['test']):,} test pairs; {len(history)} of {settings.epochs} "
        f"epochs in {trained - started:.0f} s{how}, evaluated in {time.time() - trained:.0f} s; "
        f"{last.get('photos_per_second', float('nan')):,.0f} pairs a second; loss {curve}; "
        f"validation verification {last.get('verification_accuracy', float('nan')):.3f}"
    )
    return told, scores


Stored = tuple[tuple[Path, Path], dict[str, CrossViewPairs]]


def _sample(folder: Path, settings: CrossViewSettings) -> Stored:
    """The committed sample, with the recipe's own split."""
    pool = folder / "data"
    table = split_pairs(joined_pairs(pool), settings.splits, 0)
    names = ("photo_id", "shard", "offset", "length", "sha256")
    stored = read_catalog(pool, names), read_catalog(overhead_pool(pool), names)
    found = {
        split: cross_view_pairs(table[table["split"] == split], *stored, split)
        for split in ("train", "validation", "test")
    }
    return (pool, overhead_pool(pool)), found


def _planet(folder: Path) -> Stored:
    table = pd.read_parquet(folder / PAIRS)
    stored = []
    for view, key in (("street", "photo_id"), ("overhead", "overhead_id")):
        kept = table[[key, f"{view}_offset", f"{view}_length"]].set_axis(
            ["photo_id", "offset", "length"], axis=1
        )
        stored.append(kept.assign(shard=SHARD))
    found = {
        split: cross_view_pairs(table[table["split"] == split], stored[0], stored[1], split)
        for split in ("train", "validation", "test")
    }
    return (folder / "street", folder / "overhead"), found
