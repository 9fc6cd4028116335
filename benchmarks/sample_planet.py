"""Is the sample planet a good instrument? The calibration study, one table per section.

    python benchmarks/sample_planet.py [--workspace DIR] [--photos N] [--sections 2 3 ...]

Needs a workspace with a built recipe on photos of the sample planet (default: this repository after `make demo`), and
only reads it. Sections 1 and 9 draw their own photos in a temporary folder: `--photos` for the speed, `--pairs` for the
overhead probe. `--seed` is that of the workspace's sample, whose truth is made again without drawing. If other code
made the sample, give its truth.csv with `--truth` instead.

Intervals are 95 % intervals by photographer: of shares and their paired differences those of
geoloc.evaluation.measures.intervals, of other numbers the bootstrap's. A verdict compares an interval with a target:
"holds" or "DOES NOT HOLD". Targets were set before anything was measured, except for mean colour at city level (see
docs/sample-planet.md). Rows without a verdict are for information.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sample_calibration as probe
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.spatial import KDTree
from scipy.stats import rankdata

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.accuracy import error_km, within
from geoloc.evaluation.measures.baselines import share_within
from geoloc.evaluation.measures.bootstrap import (
    interval,
    photographer_clusters,
    resampled_means,
    resampled_medians,
)
from geoloc.evaluation.measures.intervals import differences, shares
from geoloc.evaluation.result import Evaluation
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.land import is_land
from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer
from geoloc.partitions import S2Settings, load_partition, partition_of
from geoloc.photos.catalog import read_catalog
from geoloc.photos.consistency import CHECKS, find_inconsistencies
from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.sample import SOURCE, SampleSettings
from geoloc.sample.dirt import DIRT, NOT_KEPT, ODD
from geoloc.sample.geography import cities
from geoloc.settings import replace
from geoloc.sphere import EARTH_RADIUS_KM, LEVELS_KM, distance_km, unit_vectors

FloatArray = NDArray[np.float64]
LEVELS = list(LEVELS_KM)
CITY, CONTINENT = LEVELS.index("city"), LEVELS.index("continent")
MODELS = {"L": "embeddings", "backbone": "features"}  # the stage that embeds photos by each

RESAMPLES = 1000
WANTED_SPEED = 150.0  # photos a second on two cores
MOST_CITIES = (
    0.05  # "almost no cities": at city level, mean colour is at most this far above a random reference
)
PERMUTATIONS = 500
SAME_PLACE_M = 40.0
CANDIDATES = 50
MAX_HAMMING = 6  # near-duplicates, as in params.yaml
DIRT_RECALL = 0.8  # of what can be found at all
DRAWS = 5  # random parts of the photographers that are averaged


@dataclass(frozen=True)
class Row:
    """A line of a table. `holds` None: not judged. `percent`: an estimate in [0, 1] is printed as per cent."""

    what: str
    n: int
    estimate: float
    low: float = np.nan
    high: float = np.nan
    holds: bool | None = None
    percent: bool = True
    wanted: str = ""

    def __str__(self) -> str:
        def number(value: float) -> str:
            return f"{100 * value:.1f}" if self.percent else f"{value:.4g}"

        bounds = "" if np.isnan(self.low) else f"{number(self.low)} to {number(self.high)}"
        verdict = {None: "", True: "holds", False: "DOES NOT HOLD"}[self.holds]
        wanted = f" ({self.wanted})" if self.wanted else ""
        return (
            f"{self.what:<66}{self.n:>7}{number(self.estimate):>10}{bounds:>20}  {verdict}{wanted}".rstrip()
        )


def show(title: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> list[Row]:
    """Print a table."""
    print(f"\n== {title}")
    print(f"{'':<66}{'n':>7}{'estimate':>10}{'95 % interval':>20}  verdict (wanted)")
    for row in rows:
        print(row)
    for note in notes:
        print(f"   {note}")
    sys.stdout.flush()
    return list(rows)


def means(values: ArrayLike, clusters: ArrayLike, seed: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns the means of columns (N, K) and their intervals, (K,) each: those of shares or of differences of shares,
    and the bootstrap's for other numbers."""
    clusters = photographer_clusters(clusters)  # of a part of the photos: numbered without gaps
    table = np.asarray(values, np.float64).reshape(len(clusters), -1)
    if table.min() >= 0 and table.max() <= 1:
        low, high = shares(table, clusters).interval()
    elif np.abs(table).max() <= 1:
        low, high = differences(table, clusters).interval()
    else:
        low, high = interval(resampled_means(table, clusters, resamples=RESAMPLES, seed=seed))
    return table.mean(axis=0), low, high


def mean_row(what: str, values: ArrayLike, clusters: ArrayLike, seed: int, **more: Any) -> Row:
    estimate, low, high = means(values, clusters, seed)
    return Row(what, len(np.asarray(clusters)), float(estimate[0]), float(low[0]), float(high[0]), **more)


def above(row: Row, limit: float = 0.0) -> Row:
    """A judged row: holds if the whole interval is above the limit."""
    return dataclasses.replace(row, holds=bool(row.low > limit), wanted=row.wanted or f"above {limit:g}")


def below(row: Row, limit: float) -> Row:
    shown = f"{100 * limit:g} %" if row.percent else f"{limit:g}"
    return dataclasses.replace(row, holds=bool(row.high < limit), wanted=row.wanted or f"below {shown}")


def ratio_row(what: str, over: ArrayLike, under: ArrayLike, clusters: ArrayLike, seed: int) -> Row:
    """Returns the ratio of two means on the same photos."""
    table = np.stack([np.asarray(over, np.float64), np.asarray(under, np.float64)], axis=1)
    drawn = resampled_means(table, photographer_clusters(clusters), resamples=RESAMPLES, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = interval(drawn[:, 0] / drawn[:, 1])
        estimate = table[:, 0].mean() / table[:, 1].mean()
    return Row(what, len(table), float(estimate), float(low), float(high), percent=False)


def area_row(
    what: str, alike: FloatArray, positive: NDArray[np.bool_], owners: Sequence[ArrayLike], seed: int
) -> Row:
    """Returns the area under the ROC curve of pairs. A pair has several owners (two photographers, a place): the
    interval is the widest of those clustered by each.
    """
    on, off = probe.placements(alike[positive], alike[~positive])
    table = np.zeros((len(alike), 4))
    table[positive, 0], table[positive, 1] = on, 1.0
    table[~positive, 2], table[~positive, 3] = off, 1.0
    area = float(on.mean())
    lows, highs = [], []
    for owner in owners:
        drawn = resampled_means(table, photographer_clusters(owner), resamples=RESAMPLES, seed=seed)
        low, high = interval(drawn[:, 0] / drawn[:, 1] + drawn[:, 2] / drawn[:, 3] - area)
        lows.append(float(low))
        highs.append(float(high))
    return Row(what, len(alike), area, min(lows), max(highs), percent=False)


class Workspace:
    """What the study reads from a built workspace. Loaded on first use, never written."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self.pool, self.build = folder / "data", folder / "build" / recipe
        if not self.build.is_dir():
            raise SystemExit(f"{self.build} is missing: build the recipe first (make demo)")

    @cached_property
    def catalog(self) -> pd.DataFrame:
        whole = read_catalog(self.pool)
        return whole[whole["source"] == SOURCE].reset_index(drop=True)

    @cached_property
    def split(self) -> pd.Series:
        splits = pd.read_parquet(self.build / "splits" / "splits.parquet").set_index("photo_id")["split"]
        return splits.reindex(self.catalog["photo_id"]).reset_index(drop=True)

    def photos(self, split: str) -> pd.DataFrame:
        """Returns the catalog rows of a split that have embeddings, in the catalog's order; `row` is their position."""
        rows = self.catalog.assign(row=np.arange(len(self.catalog)))[(self.split == split).to_numpy()]
        readable = self.embeddings["L"].positions(rows["photo_id"]) >= 0
        return rows[readable].reset_index(drop=True)

    @cached_property
    def embeddings(self) -> dict[str, Embeddings]:
        return {name: Embeddings.load(self.build / stage) for name, stage in MODELS.items()}

    def vectors(self, model: str, photo_ids: pd.Series) -> NDArray[np.float32]:
        return self.embeddings[model].subset(photo_ids).vectors.astype(np.float32)

    @cached_property
    def references(self) -> pd.DataFrame:
        return ReferenceIndex.load(self.build / "index" / "classifier").references

    @cached_property
    def evaluation(self) -> Evaluation:
        return Evaluation.load(self.build / "evaluation" / "test")

    @cached_property
    def queries(self) -> pd.DataFrame:
        """The photos of the test set, in the order of the evaluation."""
        ids = self.evaluation.per_photo["photo_id"].drop_duplicates()
        rows = self.catalog.assign(row=np.arange(len(self.catalog))).set_index("photo_id", drop=False)
        return rows.loc[ids].reset_index(drop=True)

    @cached_property
    def pictures(self) -> NDArray[np.uint8]:
        """Every photo at the most common size, uint8 [N, S, S, 3]."""
        side = int(self.catalog["width"].mode()[0])
        made = np.empty((len(self.catalog), side, side, 3), np.uint8)
        with ShardReader(self.pool) as reader:
            places = self.catalog[["shard", "offset", "length"]].itertuples(index=False)
            for row, place in enumerate(places):
                image = Image.open(io.BytesIO(reader.read(*place))).convert("RGB")
                made[row] = np.asarray(image if image.size == (side, side) else image.resize((side, side)))
        return made

    @cached_property
    def own(self) -> NDArray[np.int64]:
        """The photographer of each photo of the catalog, as numbers."""
        return photographer_clusters(self.catalog["photographer"])


def places(rows: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    return rows["latitude"].to_numpy(np.float64), rows["longitude"].to_numpy(np.float64)


def hits_of(answers: Any, queries: pd.DataFrame) -> FloatArray:
    """Returns whether each answer is right at each level, (N, L)."""
    return within(error_km(*places(queries), answers.latitude, answers.longitude)).astype(np.float64)


# 1


def drawn(folder: Path, *arguments: object) -> dict[str, Any]:
    """Run `sample_calibration.timed_sample` in its own process: drawing processes inherit their parent's imports, and
    this script imports much that `geoloc sample` does not.
    """
    code = (
        "import json, sys; from sample_calibration import timed_sample;"
        "print(json.dumps(timed_sample(sys.argv[1], *json.loads(sys.argv[2]))))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(folder.resolve()), json.dumps(arguments)],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parent,
    )
    made: dict[str, Any] = json.loads(told.stdout)
    return made


def speed(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Photos per second, without tiles; and whether one process and two write the same bytes."""
    two = drawn(folder / "speed", options.photos, 3, 2)
    rate = two["photos"] / two["photos_s"]
    pictures = two["photos"] + two["tiles"]
    digests = []
    for processes in (1, 2):
        drawn(folder / f"{processes}", 150, 5, processes)
        digests.append(_digest(folder / f"{processes}"))
    same = digests[0] == digests[1]
    wanted = f"at least {WANTED_SPEED:g}"
    rows = [
        Row("photos a second, two processes, their start included", two["photos"], rate, percent=False,
            holds=rate >= WANTED_SPEED, wanted=wanted),
        Row("photos a second, once both have started", two["photos"], two["later"], percent=False),
        Row("tiles a second", two["tiles"], two["tiles"] / max(two["tiles_s"], 1e-9), percent=False),
        Row("pictures in two seconds of processor time", pictures, 2 * pictures / two["processor_s"], percent=False),
        Row("seconds for the whole sample, files written", pictures, two["whole_s"], percent=False),
        Row("files equal, of one process and of two, per cent", digests[0][1], float(same), holds=same, wanted="all"),
    ]  # fmt: skip
    load = f"load of this machine at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return show("1. Speed: photos of 128 px through make_sample", rows, (load,))


def _digest(folder: Path) -> tuple[str, int]:
    """Returns a hash of all files' names and bytes, and the number of files."""
    digest, files = hashlib.sha256(), sorted(p for p in folder.rglob("*") if p.is_file())
    for path in files:
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest(), len(files)


# 2


def trivial(space: Workspace, seed: int) -> list[Row]:
    """Mean colour compared with the pipeline's models, and all with baselines and the ceiling."""
    queries, train = space.queries, space.photos("train")
    colours = space.pictures.reshape(len(space.pictures), -1, 3).mean(axis=1)
    known = colours[train["row"]]
    spread = known.std(axis=0)
    nearest = KDTree(known / spread).query(colours[queries["row"]] / spread)[1]
    answers = {
        "mean colour NN": _answers(
            train["latitude"].to_numpy()[nearest], train["longitude"].to_numpy()[nearest]
        )
    }
    chosen = [
        m for m in space.evaluation.methods if m.startswith("[L]") and (m.endswith("C") or m.endswith("]NN"))
    ]
    for method in [*chosen, *(m for m in space.evaluation.methods if m == "[backbone]NN")]:
        told = space.evaluation.per_photo[space.evaluation.per_photo["method"] == method]
        answers[method] = _answers(told["latitude"].to_numpy(), told["longitude"].to_numpy())
    partition = load_partition(space.build / "partition" / "fine")
    cell = partition.assign(*places(queries))
    inside = np.where(cell[:, None] >= 0, partition.centroids()[cell], np.nan)
    answers["ceiling of the partition"] = _answers(inside[:, 0], inside[:, 1])
    found = evaluate(
        answers, queries, space.references, {partition.kind: partition},
        replace(EvaluationSettings(), resamples=RESAMPLES), seed=seed,
    )  # fmt: skip
    table, compared = found.accuracy, found.comparisons

    def at(method: str, level: str, frame: pd.DataFrame = table, column: str = "method") -> Row:
        r = frame[(frame[column] == method) & (frame["level"] == level)].iloc[0]
        return Row(f"{method}, {level}", int(r["n"]), r["accuracy"], r["low"], r["high"])

    def less(one: str, other: str, level: str) -> Row:
        r = compared[
            (compared["method"] == one) & (compared["other"] == other) & (compared["level"] == level)
        ]
        if len(r):
            sign, r = 1, r.iloc[0]
        else:
            sign = -1
            r = compared[
                (compared["method"] == other) & (compared["other"] == one) & (compared["level"] == level)
            ].iloc[0]
        low, high = sorted((sign * r["low"], sign * r["high"]))
        return Row(f"{one} less {other}, {level}", int(r["n"]), sign * r["difference"], low, high)

    everyone = _colour_among_others(space, colours, seed)
    colour, best = "mean colour NN", next((m for m in chosen if m.endswith("]NN")), chosen[0])
    rows = [at(method, level) for method in answers for level in LEVELS]
    rows += [
        at(base, level, found.baselines, "baseline")
        for base in ("random reference", "best constant point")
        for level in LEVELS
    ]
    rows += [
        above(less(colour, "random reference", "continent")),
        below(less(colour, "random reference", "city"), MOST_CITIES),
        *(above(less(m, colour, level)) for m in chosen for level in ("city", "country", "continent")),
        *(
            less(m, "best constant point", level)
            for m in chosen
            for level in ("city", "country", "continent")
        ),
        *(above(less("ceiling of the partition", best, level)) for level in LEVELS),
    ]
    notes = (
        f"mean colour needs no training: its last rows have all {len(space.catalog):,} photos as queries, among other",
        "photographers' photos, against a random one of these",
    )
    return show("2. Nothing is trivial: accuracy of the test photos, per cent", rows + everyone, notes)


def _colour_among_others(space: Workspace, colours: FloatArray, seed: int) -> list[Row]:
    """Each photo's nearest by mean colour among other photographers' photos, minus a random one of these."""
    features = colours / colours.std(axis=0)
    # Copies by others are left out, as in splits: they are no evidence about colour.
    alike = near_duplicate_groups(space.catalog["phash"], space.catalog["sha256"], MAX_HAMMING)
    latitude, longitude = places(space.catalog)
    hits = np.zeros((len(features), len(LEVELS)))
    for start in range(0, len(features), 512):
        part = slice(start, start + 512)
        apart = ((features[part, None] - features[None]) ** 2).sum(axis=-1)
        apart[space.own[part, None] == space.own[None]] = np.inf
        apart[alike[part, None] == alike[None]] = np.inf
        to = apart.argmin(axis=1)
        hits[part] = within(distance_km(latitude[part], longitude[part], latitude[to], longitude[to]))
    by_chance = share_within(latitude, longitude, latitude, longitude, own=(space.own, space.own))
    rows = [
        mean_row(f"mean colour NN among others, {level}", hits[:, i], space.own, seed)
        for i, level in enumerate(LEVELS)
    ]
    continent, city = (
        mean_row(f"the same less a random photo, {LEVELS[i]}", (hits - by_chance)[:, i], space.own, seed)
        for i in (CONTINENT, CITY)
    )
    return [*rows, above(continent), below(city, MOST_CITIES)]


def _answers(latitude: FloatArray, longitude: FloatArray) -> Answers:
    return Answers(latitude=latitude, longitude=longitude, confidence=np.zeros(len(latitude), np.float32))


# 3


def more_references(space: Workspace, seed: int) -> list[Row]:
    """[L]NN and [L]kNN with parts of the reference photographers."""
    queries, references = space.queries, space.references
    vectors = space.vectors("L", queries["photo_id"])
    own = photographer_clusters(queries["photographer"])
    names = np.unique(references["photographer"].astype(str))
    parts = (1 / 8, 1 / 4, 1 / 2, 1.0)
    hits = {part: np.zeros((2, len(queries), len(LEVELS))) for part in parts}
    for draw in range(DRAWS):
        order = np.random.default_rng([seed, 3, draw]).permutation(names)
        for part in parts:
            if part == 1.0 and draw:
                hits[part] *= (draw + 1) / draw  # the same photographers in every draw
                continue
            taken = references[
                references["photographer"].astype(str).isin(order[: max(1, round(part * len(order)))])
            ]
            index = ReferenceIndex.build(space.embeddings["L"], taken, seed=seed)
            for row, localizer in enumerate((NearestLocalizer(index), DensityLocalizer(index, sigma=4.0))):
                hits[part][row] += hits_of(localizer.locate(vectors), queries)
    rows = []
    for number, method in enumerate(("[L]NN", "[L]kNN σ=4")):
        rows += [
            mean_row(
                f"{method}, {part:g} of the photographers, {level}",
                hits[part][number][:, i] / DRAWS,
                own,
                seed,
            )
            for level, i in (("city", CITY), ("continent", CONTINENT))
            for part in parts
        ]
    for number, method in enumerate(("[L]NN", "[L]kNN σ=4")):
        more = (hits[1.0] - hits[1 / 8])[number] / DRAWS
        rows += [
            above(mean_row(f"{method}: all less 1/8, {level}", more[:, i], own, seed))
            for i, level in enumerate(LEVELS)
        ]
    notes = (
        f"nested parts, mean of {DRAWS} draws; the model is the same, trained on all training photographers",
    )
    return show("3. More reference photos help: accuracy, per cent", rows, notes)


# 4


def finer_cells(space: Workspace, seed: int) -> list[Row]:
    """Linear softmax classifiers on stored embeddings, over a coarse, a middle and a fine partition."""
    train, validation, queries = space.photos("train"), space.photos("validation"), space.queries
    own = photographer_clusters(queries["photographer"])
    # A cell has at most the number of training photos divided by these.
    sizes = {"coarse": 5, "middle": 30, "fine": 180}
    partitions = {}
    for name, cells in sizes.items():
        limits = S2Settings(max_photos=max(2, len(train) // cells), min_photos=2)
        partitions[name] = partition_of(limits).fit(*places(train))
    rows, judged = [], []
    for model in MODELS:
        inputs = [space.vectors(model, part["photo_id"]) for part in (train, validation, queries)]
        hits = {}
        for name, partition in partitions.items():
            told = _softmax(
                inputs,
                partition.assign(*places(train)),
                partition.assign(*places(validation)),
                partition.cell_count,
            )
            answer = partition.centroids()[told]
            hits[name] = hits_of(_answers(answer[:, 0], answer[:, 1]), queries)
            rows += [
                mean_row(
                    f"[{model}] {name}, {partition.cell_count} cells, {level}", hits[name][:, i], own, seed
                )
                for i, level in enumerate(LEVELS)
            ]
        for i, level in enumerate(LEVELS):
            row = mean_row(
                f"[{model}] fine less coarse, {level}", (hits["fine"] - hits["coarse"])[:, i], own, seed
            )
            if level in ("street", "city"):
                row = above(row)
            elif level == "continent":
                row = dataclasses.replace(row, holds=bool(row.high < 0), wanted="below 0")
            judged.append(row)
    for name, partition in partitions.items():
        best = partition.ceiling(*places(queries))
        rows += [Row(f"ceiling, {name}, {level}", len(queries), best[level]) for level in LEVELS]
    notes = ("[L] has seen the training photos with labels of its own partition; [backbone] has seen none",)
    return show("4. Finer cells: accuracy of linear classifiers, per cent", rows + judged, notes)


def _softmax(
    inputs: Sequence[NDArray[np.float32]], labels: NDArray[np.int32], check: NDArray[np.int32], cells: int
) -> NDArray[np.int64]:
    """Returns the most probable cell of each query, by multinomial regression on 128 principal components. The weight
    decay is the best one on the validation photos.
    """
    middle = inputs[0].mean(axis=0)
    turned = np.linalg.svd(inputs[0] - middle, full_matrices=False)[2][:128].T
    scale = ((inputs[0] - middle) @ turned).std(axis=0).mean()  # one scale: whitening would amplify noise
    x, other, query = (torch.from_numpy((part - middle) @ turned / scale) for part in inputs)
    y, seen = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(labels >= 0)
    checked = torch.from_numpy(check >= 0)
    entropy = torch.nn.functional.cross_entropy
    best: tuple[float, NDArray[np.int64]] = (np.inf, np.zeros(len(query), np.int64))
    weight = torch.zeros((x.shape[1], cells), requires_grad=True)
    bias = torch.zeros(cells, requires_grad=True)
    for decay in (1e-1, 1e-2, 1e-3, 1e-4):  # each starts from the result of the stronger one
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=25, line_search_fn="strong_wolfe")

        def loss(
            weight: Any = weight, bias: Any = bias, decay: float = decay, optimiser: Any = optimiser
        ) -> Any:
            optimiser.zero_grad()
            value = entropy(x[seen] @ weight + bias, y[seen]) + decay * (weight * weight).sum() / 2
            value.backward()
            return value

        optimiser.step(loss)
        with torch.no_grad():
            target = torch.from_numpy(check.astype(np.int64))[checked]
            left = float(entropy(other[checked] @ weight + bias, target))
            if left < best[0]:
                best = left, (query @ weight + bias).argmax(dim=1).numpy()
    return best[1]


# 5


def leaks(space: Workspace, seed: int) -> list[Row]:
    """Each photo's nearest neighbour among all other photos, and among other photographers' photos."""
    ids = space.embeddings["L"].photo_ids
    rows_of = space.catalog[space.catalog["photo_id"].isin(set(ids))].reset_index(drop=True)
    own = photographer_clusters(rows_of["photographer"])
    rows, judged = [], []
    for model in MODELS:
        index = ReferenceIndex.build(space.embeddings[model], rows_of, seed=seed)
        localizer = NearestLocalizer(index, alternatives=1)
        vectors = space.vectors(model, rows_of["photo_id"])
        names = {"exclude_photos": rows_of["photo_id"].to_numpy(object)}
        leaking = hits_of(localizer.locate(vectors, **names), rows_of)
        names["exclude_photographers"] = rows_of["photographer"].to_numpy(object)
        honest = hits_of(localizer.locate(vectors, **names), rows_of)
        for title, hits in (("all other photos", leaking), ("other photographers' photos only", honest)):
            rows += [
                mean_row(f"[{model}]NN among {title}, {level}", hits[:, i], own, seed)
                for i, level in enumerate(LEVELS)
            ]
        ratio = ratio_row(
            f"[{model}]NN: ratio of the two, city", leaking[:, CITY], honest[:, CITY], own, seed
        )
        judged.append(above(ratio, 1.0))
    notes = ("on the real Im2GPS3k, with an ImageNet backbone: 9.44 against 3.37 per cent, 2.8 times",)
    return show("5. Leaking photographers: accuracy, per cent, each photo a query", rows + judged, notes)


# 6


def posting_times(space: Workspace, seed: int) -> list[Row]:
    """How well the UTC hour of posting predicts the longitude."""
    rows_of = space.catalog[space.catalog["posted_at"].notna()].reset_index(drop=True)
    own = photographer_clusters(rows_of["photographer"])
    hour = rows_of["posted_at"].dt.hour.to_numpy(np.int64)
    longitude = rows_of["longitude"].to_numpy(np.float64)
    band = np.floor((longitude + 180) / 15).astype(np.int64) % 24
    rng = np.random.default_rng([seed, 6])
    real = probe.mutual_information(hour, band)
    at_home = np.argsort(own, kind="stable")
    by_chance = [
        probe.mutual_information(hour[probe.blocks_permuted(own, rng)], band[at_home])
        for _ in range(PERMUTATIONS)
    ]
    most = float(np.quantile(by_chance, 0.99))
    # Five folds by photographer: the probe never sees the habits of the photographers it is tested on.
    fold = np.random.default_rng([seed, 61]).permutation(own.max() + 1)[own] % 5
    told, constant = np.zeros(len(hour)), np.zeros(len(hour))
    for part in range(5):
        known, asked = fold != part, fold == part
        told[asked] = probe.longitude_by_hour(hour[known], longitude[known])[hour[asked]]
        grid = np.arange(-180.0, 180.0, 15.0)
        constant[asked] = grid[np.argmin(probe.turn_between(longitude[known][:, None], grid).mean(axis=0))]
    by_hour, by_none = probe.turn_between(told, longitude), probe.turn_between(constant, longitude)
    rows = [
        Row("mutual information of hour and 15 degrees of longitude, bits", len(hour), real, percent=False,
            holds=real > most, wanted=f"above {most:.3g}, 99 % of permuted photographers"),
        Row("the same, photographers permuted, mean", PERMUTATIONS, float(np.mean(by_chance)), percent=False),
        mean_row("degrees off, best constant longitude", by_none, own, seed, percent=False),
        mean_row("degrees off, longitude by hour of posting", by_hour, own, seed, percent=False),
        above(mean_row("degrees gained by the hour", by_none - by_hour, own, seed, percent=False)),
    ]  # fmt: skip
    return show("6. The time of posting predicts the longitude", rows)


# 7


def albums(space: Workspace, seed: int) -> list[Row]:
    """How near the neighbour in the album is, and how much it helps."""
    table = space.catalog.assign(row=np.arange(len(space.catalog)), time=space.catalog["taken_at"])
    table["time"] = table["time"].fillna(space.catalog["posted_at"])
    table = table[table["album"].notna() & (table["album"] != "") & table["time"].notna()]
    table = table.sort_values(["photographer", "album", "time", "photo_id"], kind="stable").reset_index(
        drop=True
    )
    pairs = []
    for step in (1, -1):
        other = table.shift(step)
        # At least a minute apart: the next photo of a burst is the same picture, which needs no album.
        together = (other["album"] == table["album"]) & (other["photographer"] == table["photographer"])
        together &= (other["time"] - table["time"]).abs() > pd.Timedelta(minutes=1)
        pairs.append(pd.DataFrame({"row": table["row"], "other": other["row"], "kept": together}))
    links = pd.concat(pairs)
    links = links[links["kept"]].astype({"other": np.int64})
    place = {name: space.catalog[name].to_numpy(np.float64) for name in ("latitude", "longitude")}
    queries = space.queries
    own = photographer_clusters(queries["photographer"])
    first = links.drop_duplicates("row").set_index("row")["other"].reindex(queries["row"]).to_numpy()
    has = ~np.isnan(first)
    asked = queries[has].reset_index(drop=True)
    to = first[has].astype(np.int64)
    km = distance_km(*places(asked), place["latitude"][to], place["longitude"][to])
    near = within(km).astype(np.float64)
    random = share_within(*places(asked), *places(queries))
    clusters = photographer_clusters(asked["photographer"])
    other = np.random.default_rng([seed, 7]).permutation(len(queries))[: len(asked)]
    random_km = distance_km(*places(asked), *(values[other] for values in places(queries)))
    rows = []
    for title, distance in (
        ("the neighbour in the album", km),
        ("a random photo of the test set", random_km),
    ):
        low, high = interval(resampled_medians(distance, clusters, resamples=RESAMPLES, seed=seed))
        rows.append(
            Row(
                f"median km to {title}",
                len(km),
                float(np.median(distance)),
                float(low),
                float(high),
                percent=False,
            )
        )
    for i, km_of in enumerate(LEVELS_KM.values()):
        title = f"within {km_of:g} km: neighbour less random photo"
        rows.append(above(mean_row(title, near[:, i] - random[:, i], clusters, seed)))
    index = ReferenceIndex.build(space.embeddings["L"], space.references, seed=seed)
    judged, shown = [], []
    for model in MODELS:
        if model != "L":
            index = ReferenceIndex.build(space.embeddings[model], space.references, seed=seed)
        positions = space.embeddings[model].positions(space.catalog["photo_id"])
        vectors = space.embeddings[model].vectors.astype(np.float32)
        mean = vectors[positions[queries["row"]]].copy()
        link = links[links["row"].isin(set(queries["row"])) & (positions[links["other"]] >= 0)]
        slot = pd.Index(queries["row"]).get_indexer(link["row"])
        np.add.at(mean, slot, vectors[positions[link["other"]]])
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        localizer = NearestLocalizer(index, alternatives=1)
        alone = hits_of(localizer.locate(vectors[positions[queries["row"]]]), queries)
        together = hits_of(localizer.locate(mean), queries)
        shown += _whole_albums(space, model, queries, alone, own, seed)
        for i, level in enumerate(LEVELS):
            rows.append(
                mean_row(f"[{model}]NN of the photo and its neighbours, {level}", together[:, i], own, seed)
            )
            row = mean_row(
                f"[{model}]NN: with neighbours less alone, {level}", (together - alone)[:, i], own, seed
            )
            judged.append(above(row) if model == "L" and level in ("city", "country", "continent") else row)
    notes = (
        "the whole album: embeddings less the references' mean, which all share, averaged over all of the album",
    )
    return show("7. Album neighbours", rows + judged + shown, notes)


def _whole_albums(
    space: Workspace, model: str, queries: pd.DataFrame, alone: FloatArray, own: NDArray[np.int64], seed: int
) -> list[Row]:
    """Another probe, not judged: nearest neighbour of the mean of centred embeddings of the whole album."""
    known = space.vectors(model, space.references["photo_id"])
    middle = known.mean(axis=0)
    held = space.catalog[space.embeddings[model].positions(space.catalog["photo_id"]) >= 0]
    centred = space.vectors(model, held["photo_id"]) - middle
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    named = held["album"].notna() & (held["album"] != "")
    album = held["photographer"].astype(str) + " " + held["album"].astype(str)
    code, names = pd.factorize(album.where(named, held["photo_id"]))
    sums = np.zeros((len(names), centred.shape[1]), np.float32)
    np.add.at(sums, code, centred)
    asked = code[pd.Index(held["photo_id"]).get_indexer(queries["photo_id"])]
    nearest = (
        sums[asked] @ ((known - middle) / np.linalg.norm(known - middle, axis=1, keepdims=True)).T
    ).argmax(axis=1)
    latitude, longitude = (values[nearest] for values in places(space.references))
    gained = hits_of(_answers(latitude, longitude), queries) - alone
    return [
        mean_row(f"[{model}]NN: whole album, centred, less alone, {level}", gained[:, i], own, seed)
        for i, level in enumerate(LEVELS)
    ]


# 8


def headings(space: Workspace, truth: pd.DataFrame | None, seed: int) -> list[Row]:
    """Are photos from one place more alike if their headings are similar?"""
    table = space.catalog.assign(row=np.arange(len(space.catalog)))
    table = table[table["heading"].notna() & (table["prob_indoor"].fillna(0) < 0.5)]
    if truth is not None:
        outdoor = set(truth.loc[truth["subject"] == "outdoor", "photo_id"])
        table = table[table["photo_id"].isin(outdoor)]
    limit = SAME_PLACE_M / 1000 / EARTH_RADIUS_KM
    pairs = KDTree(unit_vectors(*places(table))).query_pairs(limit, output_type="ndarray")
    one, two = (table.iloc[side] for side in pairs.T)
    apart = probe.turn_between(one["heading"], two["heading"])
    kept = (one["photographer"].to_numpy() != two["photographer"].to_numpy()) & ((apart < 30) | (apart > 90))
    one, two, same = one[kept], two[kept], (apart < 30)[kept]
    spot = [f"{a:.2f} {b:.2f}" for a, b in zip(one["latitude"], one["longitude"], strict=True)]
    metres = 1000 * distance_km(*places(one), *places(two))
    if not same.any() or same.all():
        return show("8. Heading: too few pairs", [Row("pairs", len(same), np.nan, holds=False)])
    rows = [Row("pairs within 30 degrees of each other, per cent", len(same), same.mean())]
    small = probe.grey_thumbnails(space.pictures)
    views = {"grey thumbnails": (small[one["row"]] * small[two["row"]]).sum(axis=1)}
    for model in MODELS:
        a, b = (space.vectors(model, side["photo_id"]) for side in (one, two))
        views[f"[{model}]"] = (a * b).sum(axis=1, dtype=np.float64)
    for most in (SAME_PLACE_M, 20.0, 10.0):  # nearer pairs are fewer and share more of their view: not judged
        at = metres <= most
        owners = (one["photographer"][at], two["photographer"][at], np.array(spot)[at])
        if not same[at].any() or same[at].all():
            continue
        for name, alike in views.items():
            row = area_row(
                f"area under the curve within {most:g} m, {name}", alike[at], same[at], owners, seed
            )
            rows.append(above(row, 0.5) if most == SAME_PLACE_M else row)
    notes = (
        "pairs of two photographers' outdoor photos, by recorded place and heading;",
        "the interval is the widest by either photographer or by the spot",
    )
    return show("8. Heading: pairs within 30 against pairs above 90 degrees", rows, notes)


# 9


def overhead(options: argparse.Namespace, folder: Path, seed: int) -> list[Row]:
    """Rank the right tile among tiles of the same city by layout alone."""
    made = options.pairs_folder or folder / "pairs"
    if not made.exists():
        drawn(made, options.pairs, 11, options.processes, True)
    photos, truth = (pd.read_csv(made / name).set_index("photo_id") for name in ("photos.csv", "truth.csv"))
    pairs = pd.read_csv(made / "pairs.csv").set_index("photo_id")
    pairs = pairs.join(photos[["file", "photographer"]]).join(truth[["east_m", "north_m"]])
    files = pd.read_csv(made / "overhead.csv").set_index("photo_id").loc[pairs["overhead_id"], "file"]
    city, heading = pairs["city"].to_numpy(), pairs["heading"].to_numpy(np.float64)
    photo = probe.centred(probe.photo_sectors(_read(made, pairs["file"])), city)
    polar = probe.tile_polar(_read(made, files), probe.PAIRS.metres_per_pixel)
    level = polar.mean(axis=1)
    polar -= (level - probe.centred(level, city))[:, None]
    owner = photographer_clusters(pairs["photographer"])
    tested = np.random.default_rng([seed, 9]).permutation(owner.max() + 1)[owner] % 3 == 0
    a, b = photo[~tested], probe.ahead(polar[~tested], heading[~tested])
    fitted = probe.LayoutProbe.fit(np.concatenate([a, a[:, ::-1]]), np.concatenate([b, b[:, ::-1]]))
    seen = fitted.photo_side(photo)
    where = pairs[["east_m", "north_m"]].to_numpy(np.float64)
    rng = np.random.default_rng([seed, 91])
    better: dict[str, list[float]] = {"right": [], "turned": [], "other photo": [], "other tile": []}
    asked = []
    for row in np.flatnonzero(tested):
        far = np.hypot(*(where - where[row]).T) > 150  # beyond its tile
        others = np.flatnonzero(tested & (city == city[row]) & far)
        if len(others) < CANDIDATES + 1:
            continue
        chosen = rng.choice(others, CANDIDATES + 1, replace=False)
        others, strange = chosen[:-2], chosen[-2:]  # 49 others, and two of other places
        asked.append(row)
        turned = heading[row] + rng.uniform(60, 300)
        for name, query, right, towards in (
            ("right", row, row, heading[row]),
            ("turned", row, row, turned),
            ("other photo", strange[0], row, heading[row]),
            ("other tile", row, strange[1], heading[row]),
        ):
            tiles = polar[np.append(right, others)]
            scores = fitted.score(
                seen[query], fitted.tile_side(probe.ahead(tiles, np.full(len(tiles), towards)))
            )
            better[name].append(float((scores[1:] >= scores[0]).sum()))
    if not asked:
        return show("9. Overhead layout: too few pairs", [Row("queries", 0, np.nan, holds=False)])
    clusters = photographer_clusters(pairs["photographer"].to_numpy()[asked])
    rank = {name: np.array(values) for name, values in better.items()}
    first = {name: (values == 0).astype(np.float64) for name, values in rank.items()}
    titles = {
        "right": "the right heading",
        "turned": "a wrong heading",
        "other photo": "another place's photo, right heading",
        "other tile": "another place's tile, right heading",
    }
    rows = [
        mean_row(f"right tile first, {title}", first[name], clusters, seed) for name, title in titles.items()
    ]
    rows += [
        mean_row(
            f"share of the others ranked before it, {title}", rank[name] / (CANDIDATES - 1), clusters, seed
        )
        for name, title in titles.items()
    ]
    rows += [
        above(mean_row("first: right heading less chance", first["right"] - 1 / CANDIDATES, clusters, seed)),
        *(above(mean_row(f"first: right heading less {titles[name]}", first["right"] - first[name], clusters, seed))
          for name in titles if name != "right"),
    ]  # fmt: skip
    note = f"{int((~tested).sum())} pairs fit the probe; {CANDIDATES} candidates of the same city, more than 150 m off"
    return show(
        "9. Overhead layout: per cent", rows, (note, "chance: 2 per cent first, half of the others before it")
    )


def _read(folder: Path, files: Sequence[str]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(Image.open(folder / file).convert("RGB")) for file in files])


# 10


def remade(space: Workspace, options: argparse.Namespace) -> pd.DataFrame | None:
    """Returns the truth of the workspace's photos, with `version` and `row` (of photos.csv, from 1); None if it does
    not match.
    """
    if options.truth:
        truth = pd.read_csv(
            options.truth, dtype={"kind": str}, keep_default_na=False, na_values={"true_latitude": ""}
        )
        photos = pd.read_csv(options.truth.with_name("photos.csv"), dtype=str, keep_default_na=False)
        return truth.assign(version=1, row=np.arange(len(truth)) + 1, photographer=photos["photographer"])
    numbers = space.catalog["photo_id"].str.extract(r"^p(\d+)-(\d+)$").dropna().astype(np.int64)
    made = []
    for version, part in numbers.groupby(0)[1]:
        count = options.sample_photos or int(part.max()) + 1
        records, truth = probe.remake(count, options.seed, SampleSettings(), int(version))
        both = space.catalog.merge(records.drop_duplicates("photo_id"), on="photo_id", suffixes=("", "_made"))
        same = np.isclose(both["latitude"], both["latitude_made"]) & np.isclose(
            both["longitude"], both["longitude_made"]
        )
        if len(both) < 0.95 * len(part) or same.mean() < 0.999:
            print(
                f"   the truth made again does not match version {version}: {same.sum()} of {len(part)} places agree"
            )
            return None
        made.append(truth.assign(version=version, row=np.arange(len(truth)) + 1))
    return pd.concat(made, ignore_index=True)


def dirt(space: Workspace, truth: pd.DataFrame | None, seed: int) -> list[Row]:
    """Recall of ingest and the consistency checks for each kind of dirt, and their precision."""
    if truth is None:
        return show(
            "10. Dirt",
            [Row("the truth of these photos is not known (--truth, --seed)", 0, np.nan, holds=False)],
        )
    quarantine = read_quarantine(space.pool)
    quarantine = quarantine[quarantine["source"] == SOURCE]
    where = quarantine["reference"].str.extract(r"photos(?:-(\d+))?\.csv.*?row (\d+)").astype("Int64")
    key = list(zip(where[0].fillna(1), where[1], strict=True))
    reason: dict[tuple[int, int], dict[str, str]] = {}
    for place, why, severity in zip(key, quarantine["reason"], quarantine["severity"], strict=True):
        reason.setdefault((int(place[0]), int(place[1])), {})[severity] = why
    told = [reason.get((int(v), int(r)), {}) for v, r in zip(truth["version"], truth["row"], strict=True)]
    kind = truth["kind"].to_numpy(object)
    on_top = np.isin(kind, NOT_KEPT)
    away = np.array(["photo" in t for t in told])
    bad_time = np.array([t.get("field") == "bad_time" for t in told])
    kept = truth["photo_id"].isin(set(space.catalog["photo_id"])).to_numpy() & ~on_top
    flags = find_inconsistencies(space.catalog)
    flagged = {check: truth["photo_id"].isin(set(flags.loc[flags["check"] == check, "photo_id"])).to_numpy() & kept
               for check in CHECKS}  # fmt: skip
    any_place = np.any([flagged[c] for c in CHECKS if c != "posted_before_taken"], axis=0)
    no_time = (
        truth["photo_id"]
        .isin(set(space.catalog.loc[space.catalog["taken_at"].isna(), "photo_id"]))
        .to_numpy()
    )
    group = near_duplicate_groups(space.catalog["phash"], space.catalog["sha256"], MAX_HAMMING)
    twin = pd.Series(group, index=space.catalog["photo_id"])
    again = truth["near_duplicate_of"].fillna("").to_numpy(object)
    alike = np.array(
        [
            a != "" and twin.get(a, -1) == twin.get(b, -2)
            for a, b in zip(again, truth["photo_id"], strict=True)
        ]
    )
    own = photographer_clusters(truth["photographer"])
    finders: dict[str, tuple[str, NDArray[np.bool_]]] = {name: ("turned away", away) for name in NOT_KEPT}
    finders |= {
        name: ("checks of places", any_place)
        for name in ("swapped coordinates", "wrong coordinates", "gps noise")
    }
    finders |= {
        "missing time": ("no taken_at", no_time & ~bad_time),
        "impossible time": ("bad_time", bad_time | flagged["posted_before_taken"]),
    }
    finders |= {name: ("kept, as they should be", kept & ~away) for name in ODD}
    finders |= {
        "exact copy": ("not stored twice", ~kept & ~away),
        "near copy": ("near-duplicate of its original", alike),
    }
    rows = []
    for name in DIRT:
        at = kind == name
        if not at.any():
            continue
        title, found = finders[name]
        row = mean_row(f"recall: {name} ({title})", found[at], own[at], seed)
        judged = name in (*NOT_KEPT, *ODD, "missing time", "exact copy")
        if judged:
            row = dataclasses.replace(row, holds=bool(row.estimate == 1.0), wanted="all")
        elif name != "gps noise":
            row = dataclasses.replace(
                row, holds=bool(row.estimate >= DIRT_RECALL), wanted=f"at least {100 * DIRT_RECALL:g} %"
            )
        rows.append(row)
    for check in CHECKS:
        for name in ("swapped coordinates", "wrong coordinates"):
            at = kind == name
            if check != "posted_before_taken" and at.any():
                rows.append(mean_row(f"recall: {name} ({check} alone)", flagged[check][at], own[at], seed))
    burst = (again != "") & (kind == "") & kept
    if burst.any():
        rows.append(
            mean_row("recall: bursts (near-duplicate of their first)", alike[burst], own[burst], seed)
        )
    wrong = np.isin(kind, ("swapped coordinates", "wrong coordinates", "gps noise"))
    for title, found, right in (
        ("turned away by ingest", away, on_top),
        ("bad_time of ingest", bad_time, kind == "impossible time"),
        *(
            (f"check {c}", flagged[c], wrong if c != "posted_before_taken" else kind == "impossible time")
            for c in CHECKS
        ),
        ("all checks of places", any_place, wrong),
    ):
        if found.any():
            row = mean_row(f"precision: {title}", right[found], own[found], seed)
            if not title.startswith("check "):
                row = dataclasses.replace(
                    row, holds=bool(row.estimate >= DIRT_RECALL), wanted=f"at least {100 * DIRT_RECALL:g} %"
                )
            rows.append(row)
        else:
            rows.append(Row(f"precision: {title} (finds nothing)", 0, np.nan))
    notes = ("gps noise of 200 to 500 m is within what streets allow: nothing here can find it",)
    return show("10. Dirt: per cent", rows, notes)


# 11


def statistics(
    space: Workspace, truth: pd.DataFrame | None, options: argparse.Namespace, seed: int
) -> list[Row]:
    """The distribution of photos over photographers, subjects, hours and the Earth."""
    if truth is None:
        return show(
            "11. Statistics",
            [Row("the truth of these photos is not known (--truth, --seed)", 0, np.nan, holds=False)],
        )
    settings = SampleSettings()
    good = truth[(truth["version"] == 1) & ~truth["kind"].isin(NOT_KEPT)].reset_index(drop=True)
    own = photographer_clusters(good["photographer"])
    taken = space.catalog.set_index("photo_id")["taken_at"].reindex(good["photo_id"])
    hour = (taken.dt.hour + taken.dt.minute / 60).to_numpy(np.float64)
    up = good["sun_elevation"].to_numpy(np.float64)
    outdoor = (good["subject"] == "outdoor").to_numpy()
    sound = outdoor & ~np.isnan(hour) & (good["kind"] != "impossible time").to_numpy()
    day = sound & (hour >= 9) & (hour < 16)
    night = sound & ((hour < 4) | (hour >= 22))
    by_night = [night] if night.any() else []
    counts = np.bincount(own)
    exponent = probe.zipf_exponent(counts)
    busiest = np.sort(counts)[::-1][: max(1, len(counts) // 10)].sum()
    again = good["near_duplicate_of"].fillna("").to_numpy(object)
    burst = (again != "") & (good["kind"] != "near copy").to_numpy()
    land = is_land(good["true_latitude"], good["true_longitude"])
    rows = [
        Row("Zipf exponent of photos a photographer", len(counts), exponent, percent=False,
            holds=abs(exponent - settings.zipf_exponent) < 0.15, wanted=f"{settings.zipf_exponent:g} ± 0.15"),
        Row("photos by the busiest tenth of photographers", len(counts), busiest / counts.sum()),
        _around(mean_row("pictures without a cue", ~outdoor, own, seed), settings.no_cue_share),
        _around(mean_row("photos that repeat the one before (bursts)", burst, own, seed), settings.burst_share),
        above(mean_row("sun up, outdoors, local clock 9 to 16", up[day] > 0, own[day], seed), 0.9),
        *(below(mean_row("sun up, outdoors, local clock 22 to 4", up[at] > 0, own[at], seed), 0.2) for at in by_night),
        mean_row("outdoors with the sun above -6 degrees", up[sound] > -6, own[sound], seed),
        above(mean_row("true places on land (quarter-degree raster)", land, own, seed), 0.8),
    ]  # fmt: skip
    table = cities(settings.cities, options.seed).assign(place=lambda t: t["name"] + ", " + t["country_code"])
    weight = table.groupby("place")["weight"].sum()
    here = pd.Index(weight.index).get_indexer(good["city"])
    if (here >= 0).all():
        # Cities are resampled: resampling photographers would make ties and so lower the correlation.
        ranks = [rankdata(weight), rankdata(np.bincount(here, minlength=len(weight)))]
        x, y = (rank - rank.mean() for rank in ranks)
        products = np.stack([x, y, x * y, x * x, y * y], axis=1)
        drawn = resampled_means(products, np.arange(len(x)), resamples=RESAMPLES, seed=seed)
        low, high = interval(_correlation(drawn))
        row = Row(
            "rank correlation of photos and weights of cities (over cities)",
            len(x), float(_correlation(products.mean(axis=0))), float(low), float(high), percent=False,
        )  # fmt: skip
        rows.append(above(row, 0.3))
    else:
        rows.append(
            Row("photos in cities that this code would not draw", int((here < 0).sum()), (here < 0).mean())
        )
    notes = ("the raster has cells of 28 km: a shore may count as sea",)
    return show("11. Statistics", rows, notes)


def _correlation(moments: FloatArray) -> FloatArray:
    """Returns the correlation from means of x, y, xy, xx, yy in the last axis."""
    x, y, xy, xx, yy = np.moveaxis(moments, -1, 0)
    return np.asarray((xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y)))


def _around(row: Row, wanted: float) -> Row:
    """A judged row: holds if the interval contains the setting, or is within a tenth of it."""
    near = row.low - 0.1 * wanted <= wanted <= row.high + 0.1 * wanted
    return dataclasses.replace(row, holds=bool(near), wanted=f"about {100 * wanted:g} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workspace", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--recipe", default="default", help="whose build is studied")
    parser.add_argument("--photos", type=int, default=2000, help="photos drawn to measure the speed")
    parser.add_argument(
        "--pairs", type=int, default=2400, help="photos drawn with tiles for the overhead probe"
    )
    parser.add_argument("--pairs-folder", type=Path, help="such a sample that is already drawn")
    parser.add_argument(
        "--processes", type=int, default=None, help="that draw these pairs (default: one a core)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the workspace's sample (geoloc sample --seed)"
    )
    parser.add_argument("--sample-photos", type=int, help="photos of each version (default: from the ids)")
    parser.add_argument(
        "--truth", type=Path, help="truth.csv of the workspace's sample, beside its photos.csv"
    )
    parser.add_argument("--sections", type=int, nargs="*", default=list(range(1, 12)), metavar="N")
    options = parser.parse_args()
    space = Workspace(options.workspace, options.recipe)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    torch.manual_seed(0)
    seed = 1
    print(f"the sample planet: {len(space.catalog):,} photos, {len(space.queries)} of them in the test set")
    print("generated photos: no figure here is comparable with a paper's")
    with tempfile.TemporaryDirectory(prefix="geoloc-planet-") as temporary:
        folder = Path(temporary)
        truth = remade(space, options)
        sections: dict[int, Callable[[], list[Row]]] = {
            1: lambda: speed(options, folder),
            2: lambda: trivial(space, seed),
            3: lambda: more_references(space, seed),
            4: lambda: finer_cells(space, seed),
            5: lambda: leaks(space, seed),
            6: lambda: posting_times(space, seed),
            7: lambda: albums(space, seed),
            8: lambda: headings(space, truth, seed),
            9: lambda: overhead(options, folder, seed),
            10: lambda: dirt(space, truth, seed),
            11: lambda: statistics(space, truth, options, seed),
        }
        rows = []
        for number in options.sections:
            started = time.perf_counter()
            rows += sections[number]()
            print(f"section {number}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    judged = [row for row in rows if row.holds is not None]
    failed = [row for row in judged if not row.holds]
    print(f"\n{len(judged) - len(failed)} of {len(judged)} hold" + ("; these do not:" if failed else ""))
    for row in failed:
        print(row)


if __name__ == "__main__":
    main()
