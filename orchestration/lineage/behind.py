"""The photos behind an output: counts by split and source, and everything that is known of one photo."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geoloc.files import read_json, read_parquet
from geoloc.photos.catalog import CATALOG_FILE, read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.quarantine import PHOTO, read_quarantine
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.plan.chain import PAIRS_FILE, SPLITS_FILE, STAGES
from orchestration.workspace import Workspace

GONE = "not in the pool now"
"""The source of photos that the splits name and the catalog does not."""
LEARNT = {"train": "trained", "validation": "validated"}
"""What the photos of a split did to a network."""
_SHOWN = (
    "source",
    "photographer",
    "latitude",
    "longitude",
    "taken_at",
    "album",
    "licence",
    "sha256",
    "shard",
)


def photos_behind(build: Build, shared: bool = False) -> dict[str, Any]:
    """The photos of a build: `splits` counts them by split and source, `quarantined` by source.

    `shared`: of an output that all recipes share, so only `sources` counts them. Raises DamagedFile for a damaged
    table, FileNotFoundError for a pool without a catalog.
    """
    pool = build.workspace.pool
    catalog = read_catalog(pool, ["photo_id", "source"])
    away = read_quarantine(pool)
    record = None if shared else build.record("splits")
    found: dict[str, Any] = {
        "of": "the pool" if record is None else record.artefact,
        "data_version": None if record is None else record.inputs.get("data"),
        "photos": len(catalog),
        "sources": _counts(catalog["source"]),
        "quarantined": _counts(away.loc[away["severity"] == PHOTO, "source"]),
    }
    if record is not None:
        splits = _splits(build)
        source = splits["photo_id"].map(catalog.set_index("photo_id")["source"]).fillna(GONE)
        found["photos"] = len(splits)
        found["splits"] = {
            str(split): _counts(source[splits["split"] == split])
            for split in dict.fromkeys(["train", "validation", "test", *sorted(splits["split"].unique())])
        }
        found["sources"] = _counts(source)
    return found


def photos_lines(found: dict[str, Any]) -> Iterator[str]:
    """The counts of `photos_behind` as a table."""
    version = f", data version {found['data_version']}" if found["data_version"] else ""
    yield f"photos of {found['of']}: {found['photos']:,}{version}"
    sources = sorted({*found["sources"], *found["quarantined"]})
    rows = [("", *sources, "all")]
    parts = {**found.get("splits", {}), "all": found["sources"], "quarantined": found["quarantined"]}
    for name, counts in parts.items():
        rows.append((name, *(f"{counts.get(s, 0):,}" for s in sources), f"{sum(counts.values()):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield f"    {first:<{widths[0]}}  {'  '.join(cells)}"


def photo_ids(workspace: Workspace, text: str) -> list[str]:
    """The photos with this id, or whose bytes have this SHA-256 (or its first eight digits or more): of the pool, the
    overhead tiles, quarantine and the splits of builds."""
    found: set[str] = set()
    for pool in pools_of(workspace):
        catalog = read_catalog(pool, ["photo_id", "sha256"])
        match = catalog["photo_id"] == text
        if len(text) >= 8:
            match |= catalog["sha256"].str.startswith(text.lower()).fillna(False).astype(bool)
        found.update(catalog.loc[match, "photo_id"])
    away = read_quarantine(workspace.pool)
    if ((away["photo_id"] == text) | (away["reference"] == text)).any():
        found.add(text)
    if not found and any((_splits(build)["photo_id"] == text).any() for build in split_builds(workspace)):
        found.add(text)
    return sorted(found)


def near_photo_ids(workspace: Workspace) -> list[str]:
    """The ids among which a mistyped one is looked for; none of a pool that is too large to compare them all."""
    if not (workspace.pool / CATALOG_FILE).is_file():
        return []
    ids = read_catalog(workspace.pool, ["photo_id"])["photo_id"]
    return [str(one) for one in ids] if len(ids) <= 100_000 else []


def photo_facts(workspace: Workspace, photo_id: str) -> dict[str, Any]:
    """Everything known of a photo: its facts in the catalog (the photographer as the catalog's keyed hash), its
    quarantine, its pairs, and in each build its split and the outputs that it is in."""
    catalogs = [read_catalog(pool, ["photo_id", *_SHOWN]) for pool in pools_of(workspace)]
    rows = pd.concat([c[c["photo_id"] == photo_id] for c in catalogs]) if catalogs else pd.DataFrame()
    away = read_quarantine(workspace.pool)
    away = away[(away["photo_id"] == photo_id) | (away["reference"] == photo_id)]
    pairs = read_pairs(workspace.pool)
    return {
        "photo_id": photo_id,
        "in_pool": bool(len(rows)),
        "facts": {name: _plain(rows.iloc[0][name]) for name in _SHOWN} if len(rows) else {},
        "quarantine": away[["source", "reference", "reason", "severity", "detail"]].to_dict("records"),
        "overhead_tiles": pairs.loc[pairs["photo_id"] == photo_id, "overhead_id"].tolist(),
        "builds": {build.recipe: _in_build(build, photo_id) for build in split_builds(workspace)},
    }


def photo_lines(facts: dict[str, Any]) -> Iterator[str]:
    """The facts of a photo as text."""
    yield f"photo {facts['photo_id']}" + ("" if facts["in_pool"] else f": {GONE}")
    for name, value in facts["facts"].items():
        if value is not None:
            yield f"    {name} {value}"
    if facts["overhead_tiles"]:
        yield f"    overhead tiles {', '.join(facts['overhead_tiles'])}"
    for row in facts["quarantine"]:
        what = "quarantined" if row["severity"] == PHOTO else f"quarantine, {row['severity']} only"
        yield f"    {what}: {row['reason']} ({row['detail']}), {row['source']} {row['reference']}"
    if not facts["builds"]:
        yield "    in no build"
    for recipe, use in facts["builds"].items():
        if use["split"] is None:
            yield f"    {recipe}: not in its splits"
            continue
        why = f" ({use['reason']})" if use["reason"] else ""
        yield f"    {recipe}: split {use['split']}{why}; " + (
            ", ".join(use["used"]) or "used by nothing built"
        )


@dataclass(frozen=True)
class Use:
    """How photos went into an output directly, as in "trained default/classifier"; `part` names the part of it, and
    `photos` counts them."""

    stage: str
    part: str
    how: str
    photos: int


def direct_uses(build: Build, ids: Collection[str]) -> list[Use]:
    """The outputs of a build that some of the photos went into, in the order of the chain."""
    splits = _splits(build)
    rows = splits[splits["photo_id"].isin(list(ids))]
    made = {stage.name for stage in build.stages if build.record(stage.name)}
    pixels = rows["sha256"].notna()  # cells are fitted on places alone
    used = [Use("splits", "", "split by", len(rows))]
    used.append(Use("partition", "", "trained", int((rows["split"] == "train").sum())))
    for stage in ("features", "embeddings", "metric_embeddings", "external_embeddings"):
        used.append(Use(stage, "", "embedded in", int(pixels.sum())))
    for network in ("classifier", "metric"):
        for split, how in LEARNT.items():
            used.append(Use(network, "", how, int(((rows["split"] == split) & pixels).sum())))
    for table in sorted(build.folder("index").glob("*/references.parquet")) if "index" in made else ():
        there = read_parquet(table, ["photo_id"])["photo_id"].isin(list(ids))
        used.append(Use("index", f"/{table.parent.name}", "reference in", int(there.sum())))
    used += _of_pairs(build, ids) if "pairs" in made else []
    if "evaluation" in made:
        for test in read_json(build.folder("evaluation") / "evaluations.json", list):
            asked = _asked(build.folder("evaluation") / test, ids)
            used.append(Use("evaluation", f" {test}", "query of", asked))
    if "joint_evaluation" in made:
        used.append(Use("joint_evaluation", "", "query of", _asked(build.folder("joint_evaluation"), ids)))
    order = list(STAGES)
    return sorted(
        (use for use in used if use.photos and use.stage in made), key=lambda use: order.index(use.stage)
    )


def _asked(evaluation: Path, ids: Collection[str]) -> int:
    """How many of the photos an evaluation in a folder asked about; 0 if it asked about none."""
    file = evaluation / "per_photo.parquet"
    asked = read_parquet(file, ["photo_id"])["photo_id"] if file.is_file() else pd.Series(dtype="str")
    return int(asked[asked.isin(list(ids))].nunique())


def _in_build(build: Build, photo_id: str) -> dict[str, Any]:
    """The split of a photo in a build, why it is unused, and what it did for which outputs."""
    splits = _splits(build)
    rows = splits[splits["photo_id"] == photo_id]
    if rows.empty:
        return {"split": None, "reason": None, "used": []}
    used = [
        f"{use.how} {build.name(use.stage)}{use.part}"
        for use in direct_uses(build, [photo_id])
        if use.how not in ("split by", "embedded in")
    ]
    return {
        "split": str(rows["split"].iloc[0]),
        "reason": _plain(rows["reason"].iloc[0]),
        "used": used,
    }


def _of_pairs(build: Build, ids: Collection[str]) -> list[Use]:
    """What the pairs of street photos and overhead tiles did in the cross-view stages of a build."""
    pairs = read_parquet(build.folder("pairs") / PAIRS_FILE, ["photo_id", "overhead_id", "split"])
    wanted = list(ids)
    pairs = pairs[pairs["photo_id"].isin(wanted) | pairs["overhead_id"].isin(wanted)]

    def count(split: str) -> int:
        return int((pairs["split"] == split).sum())

    return [
        Use("pairs", "", "split by", len(pairs)),
        *(Use("cross_view_model", " in a pair", how, count(split)) for split, how in LEARNT.items()),
        Use("cross_view_evaluation", "", "query of", count("test")),
    ]


def _splits(build: Build) -> pd.DataFrame:
    return read_parquet(build.folder("splits") / SPLITS_FILE, ["photo_id", "split", "reason", "sha256"])


def split_builds(workspace: Workspace) -> Iterator[Build]:
    """The builds that have splits, by name."""
    for file in sorted(workspace.build.glob(f"*/splits/{SPLITS_FILE}")):
        yield Build(workspace, file.parent.parent.name)


def pools_of(workspace: Workspace) -> list[Path]:
    """The pools of the workspace that hold a catalog: the photos, and the overhead tiles."""
    pools = (workspace.pool, overhead_pool(workspace.pool))
    return [pool for pool in pools if (pool / CATALOG_FILE).is_file()]


def shard_photos(workspace: Workspace, shard: Path) -> list[str]:
    """The ids of the photos in a shard of the pool or of the overhead tiles."""
    catalog = read_catalog(shard.parent.parent, ["photo_id", "shard"])
    return catalog.loc[catalog["shard"] == shard.name, "photo_id"].tolist()


def made_of_other_splits(build: Build, record: Record) -> bool:
    """Whether an output was made from other splits than those that are there now."""
    now = build.record("splits")
    return "splits" in record.inputs and (now is None or now.content != record.inputs["splits"])


def _counts(values: pd.Series) -> dict[str, int]:
    return {str(name): int(n) for name, n in values.value_counts().sort_index().items()}


def _plain(value: Any) -> Any:
    """A cell of a table as JSON holds it."""
    if pd.isna(value):
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)
