"""Pairs of a street photo and the overhead tile of its place, for cross-view matching: data/pairs.parquet.

The tiles live in a pool of their own inside the pool, data/overhead/, with the same layout and filled by the same
`ingest`: so the catalog of street photos holds street photos only, and shards and quarantine work for both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geoloc.files import read_arrow
from geoloc.photos import quarantine
from geoloc.photos.catalog import durable_path, read_catalog
from geoloc.photos.pool import locked
from geoloc.photos.quarantine import FIELD, PAIR, Reason

PAIRS_FILE = "pairs.parquet"
OVERHEAD_FOLDER = "overhead"

SCHEMA = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("overhead_id", pa.string(), nullable=False),
        pa.field("heading", pa.float64()),
        pa.field("city", pa.string()),
        pa.field("split_city", pa.string()),
        pa.field("heading_reference", pa.string()),
        pa.field("tile_metres", pa.float64()),
    ]
)
"""photo_id: in the pool's catalog. overhead_id: in the catalog of data/overhead/. heading: degrees clockwise from
north in [0, 360), where the street camera looked; null: unknown. city: where the pair is. split_city: the city by which
a cross-view split groups the pair; equal to `city` unless the source has its own. heading_reference: true or magnetic
north; null: true. tile_metres: the width of the tile on the ground, in metres; null: unknown."""

LATER_COLUMNS = ("heading_reference", "tile_metres")
"""Columns that early pools lack. Missing reads as null, and a column of nulls is not written."""
REFERENCES = ("true", "magnetic")
MOST_TILE_METRES = 100_000.0

_KEY = ("photo_id", "overhead_id")
_REQUIRED = ("photo_id", "overhead_id")
_NUMBERS = {"heading": "degrees", "tile_metres": "metres"}


@dataclass(frozen=True)
class PairsSummary:
    """What became of every pair.

    dropped: pairs that were turned away, by reason. fields_dropped: pairs kept without a damaged field, by reason.
    """

    added: int = 0
    already_present: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    fields_dropped: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Pairs that are accounted for."""
        return self.added + self.already_present + sum(self.dropped.values())

    def __str__(self) -> str:
        lines = [f"pairs: {self.added} added, {self.already_present} already present,"
                 f" {sum(self.dropped.values())} dropped"]  # fmt: skip
        lines += [f"  dropped: {name} {count}" for name, count in sorted(self.dropped.items())]
        lines += [f"  kept without a field: {name} {count}" for name, count in self.fields_dropped.items()]
        return "\n".join(lines)


def overhead_pool(pool: Path) -> Path:
    """The pool of overhead tiles inside a pool."""
    return Path(pool) / OVERHEAD_FOLDER


def read_pairs(pool: Path) -> pd.DataFrame:
    """The pairs of a pool in the order in which they were added: photo_id, overhead_id, heading (float64, NaN:
    unknown), city, split_city, heading_reference, tile_metres (float64). Empty, with these columns, where there are
    none.
    """
    return _read(Path(pool)).to_pandas()


def add_pairs(pool: Path, table: pd.DataFrame, *, source: str = "pairs") -> PairsSummary:
    """Add pairs to a pool: columns photo_id, overhead_id and, where known, the others of SCHEMA.

    A pair is kept when its street photo is stored in the pool and its tile in the pool's overhead/. Everything else
    goes to the pool's quarantine with its reason (severity "pair"): an id that is missing or not stored (ingest may
    have turned the photo away, or found its bytes under another id), and a pair that is known with another heading or
    city, as rows are never rewritten. A heading outside [0, 360], one from another north than REFERENCES, and a
    tile_metres that is not above 0 and at most MOST_TILE_METRES are dropped and the pair kept; 360 is 0. A pair that
    was turned away earlier and is kept now is marked as mended. Pairs are written whole or not at all, and a second
    call with the same pairs changes nothing. `source` names where they come from, in quarantine.

    Raises ValueError for missing columns or an empty source, FileNotFoundError if either catalog is missing, and
    PoolBusyError while another process adds to the pool.
    """
    pool = Path(pool)
    absent = [name for name in _REQUIRED if name not in table.columns]
    if absent:
        raise ValueError(f"pairs need the columns {', '.join(_REQUIRED)}; missing: {', '.join(absent)}")
    if not source.strip():
        raise ValueError(f"source must be a name, got {source!r}")
    with locked(pool):
        return _add(pool, _typed(table), source)


def _add(pool: Path, given: pd.DataFrame, source: str) -> PairsSummary:
    old = _read(pool)
    reason = _why_not(pool, given)
    good = reason == ""
    degrees = given["degrees"].to_numpy()
    bad_heading = given["heading"].notna().to_numpy() & ~((degrees >= 0) & (degrees <= 360))  # false for NaN
    reference = given["heading_reference"]
    bad_north = (given["heading"].notna() & reference.notna() & ~reference.isin(REFERENCES)).to_numpy()
    bad_north = bad_north & ~bad_heading
    given["degrees"] = np.where(bad_heading | bad_north, np.nan, np.where(degrees == 360, 0.0, degrees))
    metres = given["metres"].to_numpy()
    bad_size = given["tile_metres"].notna().to_numpy() & ~((metres > 0) & (metres <= MOST_TILE_METRES))
    given["metres"] = np.where(bad_size, np.nan, metres)
    # A north is that of a heading.
    given["north"] = np.where(np.isnan(given["degrees"]) | ~reference.isin(REFERENCES), None, reference)
    present, conflict = _known(old.to_pandas(), given, good)
    reason[conflict] = Reason.PAIR_CONFLICT
    good &= ~conflict

    told = [
        _quarantined(given[reason == name], source, Reason(name), _DETAILS[Reason(name)], PAIR)
        for name in sorted(set(reason[~good]))
    ]
    dropped = {}
    for name, bad, detail in (
        (Reason.BAD_HEADING, bad_heading, "heading is {heading}"),
        (
            Reason.BAD_HEADING_REFERENCE,
            bad_north,
            "heading is from {heading_reference!r}, not true or magnetic north",
        ),
        (Reason.BAD_TILE_SIZE, bad_size, "the tile is {tile_metres} metres wide"),
    ):
        if (good & bad).any():
            dropped[str(name)] = int((good & bad).sum())
            told.append(_quarantined(given[good & bad], source, name, detail, FIELD))
    _write_quarantine(pool, source, told, pa.array(_references(given[good]), pa.string()))
    new = given[good & ~present]
    if len(new):
        made = pa.Table.from_pandas(_as_kept(new), SCHEMA, preserve_index=False)
        _write(pool, pa.concat_tables([old, made]))
    return PairsSummary(
        added=len(new),
        already_present=int((good & present).sum()),
        dropped={name: int((reason == name).sum()) for name in sorted(set(reason[~good]))},
        fields_dropped=dropped,
    )


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of SCHEMA as objects (None: unknown) as given, and those of _NUMBERS as numbers too."""
    made: dict[str, NDArray[Any]] = {}
    for name in SCHEMA.names:
        values = table[name].to_numpy(dtype=object) if name in table.columns else np.full(len(table), None)
        made[name] = values.copy()
        made[name][np.asarray(pd.isna(values), bool)] = None
    unknown = np.asarray(pd.isna(made["split_city"]), bool)
    made["split_city"][unknown] = made["city"][unknown]
    numbers = {
        number: pd.to_numeric(pd.Series(made[name], dtype=object), errors="coerce").to_numpy(np.float64)
        for name, number in _NUMBERS.items()
    }
    return pd.DataFrame(made, dtype=object).assign(**numbers)


def _as_kept(given: pd.DataFrame) -> pd.DataFrame:
    """The columns of SCHEMA with heading, its north and the tile's size as the pool has them."""
    kept = {"heading": given["degrees"], "tile_metres": given["metres"], "heading_reference": given["north"]}
    return given.assign(**kept)[list(SCHEMA.names)]


def _why_not(pool: Path, given: pd.DataFrame) -> NDArray[np.object_]:
    """Why each pair cannot be kept whatever else the pool has: a Reason, or "" where it can."""
    missing = given["photo_id"].isin([None, ""]) | given["overhead_id"].isin([None, ""])
    photos, tiles = _stored_ids(pool), _stored_ids(overhead_pool(pool))
    conditions = [missing, ~given["photo_id"].isin(photos), ~given["overhead_id"].isin(tiles)]
    reasons = [Reason.MISSING_ID, Reason.PAIR_WITHOUT_PHOTO, Reason.PAIR_WITHOUT_TILE]
    return np.select(conditions, [str(reason) for reason in reasons], default="").astype(object)


def _stored_ids(pool: Path) -> pd.Index:
    catalog = read_catalog(pool, ["photo_id", "shard"])
    return pd.Index(catalog["photo_id"][catalog["shard"].notna()].astype(object))


def _known(
    old: pd.DataFrame, given: pd.DataFrame, good: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each good pair is known as it is, and whether otherwise: from the pool, or from a row before it."""
    candidates = _as_kept(given[good])

    def both(name: str) -> NDArray[np.int64]:
        """A column of the old pairs and of the candidates behind them, as numbers; unknown is -1."""
        values = [old[name].to_numpy(dtype=object), candidates[name].to_numpy(dtype=object)]
        return pd.factorize(np.concatenate(values))[0].astype(np.int64)

    pair = both("photo_id") * (len(old) + len(candidates) + 1) + both("overhead_id")
    _, first_of, pair_of = np.unique(pair, return_index=True, return_inverse=True)
    first = first_of[pair_of]
    again = first != np.arange(len(first))
    same = np.ones(len(first), bool)
    for name in ("heading", "city", "split_city"):
        values = both(name)
        same &= values == values[first]
    for name in LATER_COLUMNS:  # what an early pool does not know contradicts nothing
        values = both(name)
        same &= (values == values[first]) | (values < 0) | (values[first] < 0)
    present, conflict = np.zeros(len(given), bool), np.zeros(len(given), bool)
    present[good], conflict[good] = (again & same)[len(old) :], (again & ~same)[len(old) :]
    return present, conflict


_DETAILS = {
    Reason.MISSING_ID: "a pair needs photo_id and overhead_id",
    Reason.PAIR_WITHOUT_PHOTO: "the pool stores no photo {photo_id}",
    Reason.PAIR_WITHOUT_TILE: "the pool's overhead/ stores no tile {overhead_id}",
    Reason.PAIR_CONFLICT: "the pair is known with another heading, city or size of its tile",
}


def _references(given: pd.DataFrame) -> list[str]:
    """Returns a readable reference of a pair: its ids, so that the same pair has the same reference in every table."""
    ids = zip(given["photo_id"], given["overhead_id"], strict=True)
    return [f"pair {photo or '(none)'} + {tile or '(none)'}" for photo, tile in ids]


def _quarantined(given: pd.DataFrame, source: str, reason: Reason, detail: str, severity: str) -> pa.Table:
    """Quarantine rows of pairs that share a reason; `detail` may name their columns in braces."""
    details = [detail.format(**row) for row in given.to_dict("records")]
    return quarantine.rows(
        source,
        pa.array(_references(given), pa.string()),
        pa.array(given["photo_id"].tolist(), pa.string()),
        reason,
        pa.array(details, pa.string()),
        severity,
    )


def _write_quarantine(pool: Path, source: str, told: list[pa.Table], kept: pa.Array) -> None:
    """Add rows, and mark those of pairs that are kept now as mended. Written only where something changed."""
    old = quarantine.read_table(pool)
    ended = pc.and_(
        pc.and_(pc.equal(old["source"], source), pc.equal(old["severity"], PAIR)),
        pc.is_in(old["reference"], value_set=kept),
    )
    mended_by = pc.if_else(ended, pc.coalesce(old["mended_by"], old["photo_id"]), old["mended_by"])
    away = old.set_column(old.schema.get_field_index("mended_by"), "mended_by", mended_by).cast(old.schema)
    if told:
        away = quarantine.merge(away, pa.concat_tables(told))
    if not away.equals(old):
        quarantine.write_table(pool, away)


def _read(pool: Path) -> pa.Table:
    path = pool / PAIRS_FILE
    return read_arrow(path, SCHEMA) if path.is_file() else SCHEMA.empty_table()


def _write(pool: Path, table: pa.Table) -> None:
    unused = [name for name in LATER_COLUMNS if table[name].null_count == table.num_rows]
    with durable_path(pool / PAIRS_FILE) as temporary:
        kept = table.cast(SCHEMA).drop_columns(unused).combine_chunks()
        pq.write_table(kept, temporary, compression="zstd")
