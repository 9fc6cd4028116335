"""The catalog: one row a photo, in data/catalog.parquet; its schema, and reading and writing it whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.files import atomic_path, read_arrow

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
    path = Path(pool) / CATALOG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: no photos have been ingested into this pool")
    return read_arrow(path, SCHEMA, COLUMNS if columns is None else columns)


def write_table(pool: Path, table: pa.Table) -> None:
    """As `write_catalog`, of an Arrow table that has the columns and types of SCHEMA."""
    check_table(table)
    unused = [name for name in LATER_COLUMNS if table[name].null_count == table.num_rows]
    path = Path(pool) / CATALOG_FILE
    with durable_path(path) as temporary:
        pq.write_table(
            # how a table was put together must not show in its bytes
            table.cast(SCHEMA).drop_columns(unused).combine_chunks(),
            temporary,
            compression="zstd",
            row_group_size=_ROW_GROUP,
            use_dictionary=[name for name in COLUMNS if name not in {*_DISTINCT, *unused}],
        )


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
