"""What the sections of sample_planet.py share: rows of tables, intervals and verdicts, and the built workspace."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sample_calibration as probe
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from geoloc.evaluation.measures.accuracy import error_km, within
from geoloc.evaluation.measures.bootstrap import (
    interval,
    photographer_clusters,
    resampled_means,
)
from geoloc.evaluation.measures.intervals import differences, shares
from geoloc.evaluation.result import Evaluation
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.sample import SOURCE

FloatArray = NDArray[np.float64]
MODELS = {"L": "embeddings", "backbone": "features"}  # the stage that embeds photos by each
RESAMPLES = 1000
MAX_HAMMING = 6  # near-duplicates, as in params.yaml


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


def around(row: Row, wanted: float) -> Row:
    """A judged row: holds if the interval contains the setting, or is within a tenth of it."""
    near = row.low - 0.1 * wanted <= wanted <= row.high + 0.1 * wanted
    return dataclasses.replace(row, holds=bool(near), wanted=f"about {100 * wanted:g} %")


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
