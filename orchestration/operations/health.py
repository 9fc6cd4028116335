"""The health of a build: drift of new photos, accuracy by region and calibration over time, and its indexes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from geoloc.evaluation.drift import Drift, drifts
from geoloc.evaluation.over_time import Dated, calibration_over_time, falls, regions_over_time
from geoloc.files import read_json, read_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.decoding import decode_rgb
from geoloc.photos.quarantine import Rejected
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.health import sampled_recall
from geoloc.retrieval.index import ReferenceIndex
from orchestration.assets.inputs import embedding_folders
from orchestration.lineage.build import Build
from orchestration.lineage.earlier import earlier_records
from orchestration.plan.chain import SPLITS_FILE
from orchestration.plan.checks import CALIBRATION, DRIFT, FRESH, INDEXES, REGIONS
from orchestration.stores.data_version import photos_of_version
from orchestration.workspace import WorkspaceError

_QUERIES = 200
_COLUMNS = (
    "photo_id", "photographer", "latitude", "longitude", "taken_at", "width", "height", "shard", "offset", "length",
)  # fmt: skip
_PICTURE = ("brightness", "contrast", "saturation")


@dataclass(frozen=True)
class Finding:
    """What one check found: whether it holds, in one line, and its table for people."""

    name: str
    passed: bool
    summary: str
    table: list[dict[str, Any]]


def health(build: Build) -> list[Finding]:
    """All findings of a build, in the order of HEALTH_CHECKS. Raises WorkspaceError if it has no evaluation yet."""
    build.built("evaluation")
    reports = {test: dated_reports(build, test) for test in _tests(build)}
    return [
        _drift(build), _regions(build, reports), _calibration(build, reports), _indexes(build), _freshness(build),
    ]  # fmt: skip


def new_photos(build: Build) -> tuple[frozenset[str], str]:
    """The photos that came since the build was made, with what they are new since: those that its splits do not have
    yet; else those that came with the data version of its splits. Empty where nothing is new."""
    known = set(read_parquet(build.folder("splits") / SPLITS_FILE, ["photo_id"])["photo_id"])
    there = set(read_catalog(build.workspace.pool, ["photo_id"])["photo_id"])
    if waiting := frozenset(there - known):
        return waiting, "since the splits were made"
    now = build.built("splits").inputs.get("data")
    for record in earlier_records(build, "splits"):
        if (version := record.inputs.get("data")) not in (None, now):
            try:
                return frozenset(
                    there - photos_of_version(build.workspace, str(version))
                ), f"since {version[:12]}"
            except WorkspaceError:  # not in DVC's cache any more
                continue
    return frozenset(), ""


def dated_reports(build: Build, test: str) -> list[Dated]:
    """The evaluations of a build on a test set that are kept, the oldest first: those that were replaced since are
    with their MLflow runs. Of several of one data version, the newest."""
    found: dict[str, Dated] = {}
    records = [*reversed(earlier_records(build, "evaluation")), build.built("evaluation")]
    for record in records:
        current = record is records[-1]
        kept = build.workspace.mlflow / "artifacts" / str(record.mlflow_run) / "artifacts"
        folder = (build.folder("evaluation") if current else kept) / test
        splits = [*earlier_records(build, "splits"), build.record("splits")]
        made_of = [one for one in splits if one and one.content == record.inputs.get("splits")]
        version = made_of[-1].inputs.get("data", "") if made_of else record.content
        if (folder / "evaluation.json").is_file():
            found.pop(version, None)
            found[version] = Dated(folder, record.started_at, version)
    return list(found.values())


def _tests(build: Build) -> list[str]:
    return [str(name) for name in read_json(build.folder("evaluation") / "evaluations.json", list)]


def _drift(build: Build) -> Finding:
    settings = build.settings.health
    new, since = new_photos(build)
    if not new:
        return Finding(DRIFT, True, "no photos are new", [])
    catalog = read_catalog(build.workspace.pool, _COLUMNS)
    splits = read_parquet(build.folder("splits") / SPLITS_FILE, ["photo_id", "split"])
    trained = set(splits.loc[splits["split"] == "train", "photo_id"]) - new
    photos = catalog[catalog["photo_id"].isin(new | trained)].reset_index(drop=True)
    is_new = photos["photo_id"].isin(new).to_numpy()
    seed = build.settings.seed
    found = drifts(_facts(photos), is_new, _owners(photos), settings, seed)
    some = _sample(is_new, settings.sample, seed)
    sampled, new_sampled = photos.iloc[some], is_new[some]
    found += drifts(_pictures(build, sampled), new_sampled, _owners(sampled), settings, seed)
    for model, folder in embedding_folders(build).items():
        embeddings = Embeddings.load(folder)
        position = embeddings.positions(sampled["photo_id"])
        known = position >= 0
        vectors = np.asarray(embeddings.vectors[position[known]], dtype=float)
        owners = _owners(sampled.iloc[np.flatnonzero(known)])
        (one,) = drifts({"embedding": vectors}, new_sampled[known], owners, settings, seed)
        found.append(Drift(**{**asdict(one), "what": f"embedding of {model}"}))
    if all(math.isnan(one.value) for one in found):
        few = f"{len(new):,} photos are new {since}: too few to tell of drift (health.least_photos is "
        return Finding(DRIFT, True, f"{few}{settings.least_photos})", _records([pd.DataFrame(found)]))
    drifted = [one for one in found if one.drifted]
    told = ", ".join(f"{one.what} ({one.measure} {one.value:.2f} above {one.bound:g})" for one in drifted)
    summary = f"{len(new):,} photos are new {since}: " + (
        f"drift of {told}" if drifted else "like those before"
    )
    return Finding(DRIFT, not drifted, summary, _records([pd.DataFrame(found)]))


def _facts(photos: pd.DataFrame) -> dict[str, Any]:
    taken = pd.to_datetime(photos["taken_at"], errors="coerce", utc=True)
    year = (taken - pd.Timestamp("1970-01-01", tz="UTC")).dt.total_seconds() / (365.25 * 86_400) + 1970
    return {
        "latitude": photos["latitude"],
        "longitude": photos["longitude"],
        "year": year,
        "hour": taken.dt.hour,
        "megapixels": photos["width"].astype(float) * photos["height"].astype(float) / 1e6,
    }


def _owners(photos: pd.DataFrame) -> pd.Series:
    return photos["photographer"].fillna("photo " + photos["photo_id"])


def _sample(is_new: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Positions of at most `size` new photos, and as many of the others."""
    generator = np.random.default_rng(seed)
    sides = [generator.permutation(np.flatnonzero(side))[:size] for side in (is_new, ~is_new)]
    return np.sort(np.concatenate(sides))


def _pictures(build: Build, photos: pd.DataFrame) -> dict[str, Any]:
    """Brightness, contrast and saturation of photos, in [0, 1]; NaN of one without readable pixels."""
    rows = []
    with ShardReader(build.workspace.pool) as reader:
        for row in photos.itertuples():
            try:
                pixels = decode_rgb(reader.read(str(row.shard), int(row.offset), int(row.length)))
            except (Rejected, OSError, ValueError, TypeError):
                rows.append((np.nan,) * len(_PICTURE))
                continue
            rgb = pixels[:: max(1, len(pixels) // 64), :: max(1, pixels.shape[1] // 64)].astype(float) / 255
            grey = rgb.mean(axis=2)
            rows.append((grey.mean(), grey.std(), (rgb.max(axis=2) - rgb.min(axis=2)).mean()))
    return {name: [row[i] for row in rows] for i, name in enumerate(_PICTURE)}


def _regions(build: Build, reports: dict[str, list[Dated]]) -> Finding:
    tables, worse = [], []
    for test, dated in reports.items():
        table = regions_over_time(dated)
        tables.append(table.assign(test=test))
        for row in falls(table, build.settings.health.accuracy_fall).itertuples():
            worse.append(f"{row.group}, {row.level}, {test}: {100 * row.before:.1f} to {100 * row.now:.1f} %")
    count = max(map(len, reports.values()), default=0)
    fallen = f"accuracy fell: {'; '.join(worse[:5])}" + (
        f" and {len(worse) - 5} more" if len(worse) > 5 else ""
    )
    summary = (
        fallen if worse else f"no region fell ({count} report{'s' * (count != 1)} kept, one a data version)"
    )
    return Finding(REGIONS, not worse, summary, _records(tables))


def _calibration(build: Build, reports: dict[str, list[Dated]]) -> Finding:
    tables = [calibration_over_time(dated).assign(test=test) for test, dated in reports.items()]
    bound = build.settings.health.calibration
    newest = [table.iloc[-1] for table in tables if len(table)]
    bad = [row for row in newest if row["error"] > bound and row["p"] <= build.settings.health.p]
    told = "; ".join(f"{row['test']} {row['error']:.3f} within {row['km']:g} km" for row in bad or newest)
    summary = f"expected calibration error {told or 'not measured'}, allowed {bound:g}"
    return Finding(CALIBRATION, not bad, summary, _records(tables))


def _indexes(build: Build) -> Finding:
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    if build.record("index") is not None:
        for model, folder in embedding_folders(build).items():
            saved = build.folder("index") / model
            if not saved.is_dir():
                continue
            index = ReferenceIndex.load(saved, mapped=True)
            recall = sampled_recall(index, Embeddings.load(folder), _QUERIES, build.settings.seed)
            least = min(build.settings.health.recall, build.settings.index.recall)
            rows.append(
                {"model": model, "references": len(index), "recall": recall, "retraining": index.retraining}
            )
            if recall is not None and recall < least:
                bad.append(
                    f"{model} finds {100 * recall:.1f} % of the nearest, at least {100 * least:g} % is wanted"
                )
            if index.retraining:
                bad.append(f"{model}: {index.retraining}")
    told = ", ".join(f"{row['model']} {100 * (row['recall'] or 0):.1f} %" for row in rows)
    summary = "; ".join(bad) or f"of the nearest references are found: {told or 'no index'}"
    return Finding(INDEXES, not bad, summary, rows)


def _freshness(build: Build) -> Finding:
    made, days = build.built("evaluation").started_at, build.settings.health.fresh_days
    age = (datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds() / 86_400
    old = days > 0 and age > days
    allowed = f", allowed {days} days" if days else ""
    return Finding(FRESH, not old, f"made {made}, {age:.1f} days ago{allowed}", [])


def _records(tables: Sequence[pd.DataFrame]) -> list[dict[str, Any]]:
    """The rows of tables as JSON values: NaN is None."""
    rows = [row for table in tables for row in table.to_dict("records")]
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]
