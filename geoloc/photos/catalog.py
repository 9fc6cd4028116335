"""The catalog: one row a photo, in data/catalog.parquet and, of over a million photos, in parts beside it.

The newest rows are in catalog.parquet, the earlier ones in data/catalog/, a million a file. catalog.parquet names these
parts in its metadata, so it alone says what the catalog is: it is replaced whole or not at all, and a part is written
once, before it is named. So a commit writes a million rows at most, and a new data version has only new parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.files import DamagedFile, arrow_batches, atomic_path, damage_named, read_arrow

SCHEMA = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("photographer", pa.string()),
        pa.field("latitude", pa.float64(), nullable=False),
        pa.field("longitude", pa.float64(), nullable=False),
        pa.field("taken_at", pa.timestamp("us")),
        pa.field("posted_at", pa.timestamp("us")),
        pa.field("album", pa.string()),
        pa.field("heading", pa.float32()),
        pa.field("prob_indoor", pa.float32()),
        pa.field("licence", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("heading_reference", pa.string()),
        pa.field("place_source", pa.string()),
        pa.field("time_source", pa.string()),
        pa.field("input_sha256", pa.string()),
        pa.field("url", pa.string()),
    ]
)
"""Columns of the catalog, in order. Unknown is null, never 0.

photographer: a keyed hash (geoloc.photos.photographers); null: unknown. latitude, longitude: degrees, WGS84.
taken_at: the camera's own clock; posted_at: UTC; both without zone. heading: degrees clockwise from north, where
the camera looked. sha256: of the stored bytes. phash: 64-bit perceptual hash of the stored picture, 16 hex digits.
shard: file name below shards/; offset, length: bytes. A photo known by metadata only has null in STORED_COLUMNS.
heading_reference: true or magnetic north. place_source, time_source: what the coordinates and taken_at were read
from (exif, xmp, takeout, table, ...). input_sha256: of the file as it came; null: as sha256, or unknown.
url: the address from which it was downloaded; null: it was not.
"""

COLUMNS = tuple(SCHEMA.names)
CATALOG_FILE = "catalog.parquet"
PARTS_FOLDER = "catalog"
PART_ROWS = 1_000_000
"""Rows of a part; catalog.parquet has the rest, and as many at most."""

STORED_COLUMNS = ("width", "height", "sha256", "phash", "shard", "offset", "length")
"""Null together, or known together."""

LATER_COLUMNS = ("heading_reference", "place_source", "time_source", "input_sha256", "url")
"""Columns that early catalogs lack. Missing reads as null, and a column of nulls is not written, so that a catalog that
has no use for one keeps its bytes."""

# Nullable integers: a float64 column would do for most offsets, but an offset is not a float.
_INTEGERS = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
# Every value of these differs, so a dictionary would only cost time and space.
_DISTINCT = {"photo_id", "sha256", "phash", "offset", "input_sha256", "url"}
_ROW_GROUP = 250_000
_PARTS_KEY = b"geoloc.parts"
_PART_NAME = re.compile(r"\d{6,}-[0-9a-f]{16}\.parquet")


class CatalogError(ValueError):
    """A table is no valid catalog. The message names the column and what is wrong."""


def empty_catalog() -> pd.DataFrame:
    """A catalog of no photos, with the columns and dtypes of `read_catalog`."""
    return _to_frame(SCHEMA.empty_table())


def read_catalog(pool: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The catalog of a pool, or some of its columns, in the order of ingest.

    Text is `str`, times datetime64[us], coordinates float64, heading and prob_indoor float32 (NaN: unknown), and
    width, height, offset and length nullable Int32 and Int64. Raises FileNotFoundError for a pool with no catalog and
    CatalogError for an unknown column.
    """
    if columns is not None and not set(columns) <= set(COLUMNS):
        unknown = ", ".join(sorted(set(columns) - set(COLUMNS)))
        raise CatalogError(f"the catalog has no column {unknown}; it has: {', '.join(COLUMNS)}")
    return _to_frame(read_table(pool, columns))


def write_catalog(pool: Path, frame: pd.DataFrame) -> None:
    """Write a catalog atomically; LATER_COLUMNS may be missing.

    Raises CatalogError where it breaks the schema or a photo_id is not unique.
    """
    frame = frame.assign(**{name: None for name in LATER_COLUMNS if name not in frame.columns})
    absent = [name for name in COLUMNS if name not in frame.columns]
    unknown = [str(name) for name in frame.columns if name not in COLUMNS]
    if absent or unknown:
        raise CatalogError(
            f"a catalog has exactly the columns {', '.join(COLUMNS)};"
            f" missing: {', '.join(absent) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    arrays = []
    for field in SCHEMA:
        try:
            arrays.append(pa.array(frame[field.name], type=field.type, from_pandas=True))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise CatalogError(f"catalog column {field.name} must be {field.type}: {error}") from None
    write_table(pool, pa.table(arrays, names=list(COLUMNS)))


def read_table(pool: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """As `read_catalog`, as an Arrow table."""
    path, names = _existing(pool), COLUMNS if columns is None else columns
    while True:
        parts = part_paths(pool)
        last = read_arrow(path, SCHEMA, names)
        if part_paths(pool) == parts:  # else an ingest made a part of these rows in between
            return pa.concat_tables([*(read_arrow(part, SCHEMA, names) for part in parts), last])


def batches(pool: Path, columns: Sequence[str], *, first: int = 0) -> Iterator[pa.Table]:
    """As `read_table` from row `first` on, in tables of bounded size; nothing for a pool with no catalog."""
    path = Path(pool) / CATALOG_FILE
    if not path.is_file():
        return
    for file in (*part_paths(pool), path):
        rows = _rows_of(file)
        if first < rows:
            yield from arrow_batches(file, SCHEMA, columns, first=first)
        first = max(first - rows, 0)


def count_photos(pool: Path) -> int:
    """The number of rows of a catalog; 0 for a pool with none."""
    path = Path(pool) / CATALOG_FILE
    return sum(map(_rows_of, (*part_paths(pool), path))) if path.is_file() else 0


def write_table(pool: Path, table: pa.Table) -> None:
    """As `write_catalog`, of an Arrow table that has the columns and types of SCHEMA."""
    check_table(table)
    _write(pool, [], table)
    remove_unnamed_parts(pool)


def append_table(pool: Path, table: pa.Table) -> None:
    """Add rows, of photos that the pool does not have, behind those of the catalog.

    The bytes are those of all rows written at once. Raises CatalogError where a row breaks the schema.
    """
    path = Path(pool) / CATALOG_FILE
    last = read_arrow(path, SCHEMA) if path.is_file() else SCHEMA.empty_table()
    both = pa.concat_tables([last, table.select(COLUMNS).cast(SCHEMA)])
    check_table(both)
    _write(pool, part_paths(pool) if path.is_file() else [], both)


def part_paths(pool: Path) -> list[Path]:
    """The parts that a catalog names, in order. Raises DamagedFile where a name is none."""
    path = _existing(pool)
    with damage_named(path):
        told = (pq.read_schema(path).metadata or {}).get(_PARTS_KEY, b"[]")
        names = json.loads(told)
    if not isinstance(names, list) or not all(_PART_NAME.fullmatch(str(name)) for name in names):
        raise DamagedFile(path, "it names parts that cannot be")
    return [path.parent / PARTS_FOLDER / name for name in names]


def remove_unnamed_parts(pool: Path) -> None:
    """Remove parts that the catalog does not name, as a killed process leaves. The caller has the pool locked."""
    folder = Path(pool) / PARTS_FOLDER
    if not folder.is_dir():
        return
    named = set(part_paths(pool)) if (Path(pool) / CATALOG_FILE).is_file() else set()
    for path in folder.iterdir():
        if path not in named and (_PART_NAME.fullmatch(path.name) or path.match(".*.part")):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _write(pool: Path, parts: list[Path], rows: pa.Table) -> None:
    """Write a catalog of parts that are there and of rows, of which a million make a part."""
    while rows.num_rows > PART_ROWS:
        parts = [*parts, _write_part(pool, len(parts), rows.slice(0, PART_ROWS))]
        rows = rows.slice(PART_ROWS)
    with durable_path(Path(pool) / CATALOG_FILE) as temporary:
        _write_rows(temporary, rows, [path.name for path in parts])


def _write_part(pool: Path, number: int, rows: pa.Table) -> Path:
    # named by content, so that another catalog of this pool never has another file of this name
    folder = Path(pool) / PARTS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{number:06d}.part"
    try:
        _write_rows(temporary, rows, [])
        with temporary.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        path = folder / f"{number:06d}-{digest[:16]}.parquet"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(folder)
    return path


def _write_rows(path: Path, rows: pa.Table, parts: list[str]) -> None:
    unused = [name for name in LATER_COLUMNS if rows[name].null_count == rows.num_rows]
    # how a table was put together must not show in its bytes
    table = rows.cast(SCHEMA).drop_columns(unused).combine_chunks()
    if parts:
        table = table.replace_schema_metadata({_PARTS_KEY: json.dumps(parts).encode()})
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=_ROW_GROUP,
        use_dictionary=[name for name in COLUMNS if name not in {*_DISTINCT, *unused}],
    )


def _existing(pool: Path) -> Path:
    path = Path(pool) / CATALOG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no photos have been ingested into this pool")
    return path


def _rows_of(path: Path) -> int:
    with damage_named(path):
        return int(pq.read_metadata(path).num_rows)


def check_table(table: pa.Table) -> None:
    """Raises CatalogError where a table is no valid catalog: nulls, bad coordinates, repeated ids, torn rows."""
    for field in SCHEMA:
        column = table[field.name]
        if not field.nullable and column.null_count:
            raise CatalogError(f"catalog column {field.name} has {column.null_count} nulls and may have none")
    for name, limit in (("latitude", 90.0), ("longitude", 180.0)):
        values = table[name].to_numpy()
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(values) <= limit)
        if bad.any():
            raise CatalogError(f"catalog column {name} must be within ±{limit:g}, got {values[bad][0]}")
    distinct = pc.count_distinct(table["photo_id"]).as_py()
    if distinct != table.num_rows:
        counts = pc.value_counts(table["photo_id"].combine_chunks())
        twice = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
        raise CatalogError(
            f"catalog column photo_id must be unique: {table.num_rows - distinct} repeats, as of {twice[0].as_py()!r}"
        )
    known = pc.is_valid(table["shard"])
    for name in STORED_COLUMNS:
        if not known.equals(pc.is_valid(table[name])):
            raise CatalogError(f"catalog columns shard and {name} must be null in the same rows")


@contextlib.contextmanager
def durable_path(path: Path) -> Iterator[Path]:
    """As `geoloc.files.atomic_path`, and on disk when the block ends: safe from a power cut too."""
    with atomic_path(path) as temporary:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a rename is only on disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=_INTEGERS.get, split_blocks=True, self_destruct=True)
