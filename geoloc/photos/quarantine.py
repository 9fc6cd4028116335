"""Quarantine: data/quarantine.parquet, every input that was turned away or lost a field, with its reason."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.photos.catalog import durable_path

QUARANTINE_FILE = "quarantine.parquet"
PHOTO, FIELD, PAIR = "photo", "field", "pair"
"""Severities: the photo was turned away; it was kept, and only a field of it was dropped; or it was kept, and only its
pairing with an overhead tile was turned away (geoloc.photos.pairs)."""

SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("photo_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
    ]
)
"""reference: its position in the source (a path, or a file and its row). reason: a `Reason`. detail: for people."""

_KEY = ("source", "reference", "reason", "severity")


class Reason(StrEnum):
    """Why an input is in quarantine. These codes are stable: people count and filter by them."""

    UNREADABLE_IMAGE = "unreadable_image"
    TRUNCATED_IMAGE = "truncated_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    OVERSIZED_IMAGE = "oversized_image"
    DECOMPRESSION_BOMB = "decompression_bomb"
    TOO_LARGE_FILE = "too_large_file"
    TOO_SMALL_IMAGE = "too_small_image"
    MISSING_FILE = "missing_file"
    UNREADABLE_FILE = "unreadable_file"
    UNSAFE_PATH = "unsafe_path"
    UNREADABLE_ARCHIVE = "unreadable_archive"
    UNSAFE_ARCHIVE_MEMBER = "unsafe_archive_member"
    MALFORMED_RECORD = "malformed_record"
    UNDECODABLE_TEXT = "undecodable_text"
    MISSING_COORDINATES = "missing_coordinates"
    MALFORMED_COORDINATES = "malformed_coordinates"
    NON_FINITE_COORDINATES = "non_finite_coordinates"
    OUT_OF_RANGE_COORDINATES = "out_of_range_coordinates"
    ZERO_COORDINATES = "zero_coordinates"
    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    BAD_SIDECAR = "bad_sidecar"
    CONFLICTING_LABEL = "conflicting_label"
    HIDDEN_FOLDER = "hidden_folder"
    LINKED_FOLDER = "linked_folder"
    UNREADABLE_FOLDER = "unreadable_folder"
    LINK_OUTSIDE = "link_outside"
    BAD_TIME = "bad_time"
    BAD_HEADING = "bad_heading"
    BAD_PROBABILITY = "bad_probability"
    PAIR_WITHOUT_PHOTO = "pair_without_photo"
    PAIR_WITHOUT_TILE = "pair_without_tile"
    PAIR_CONFLICT = "pair_conflict"


class Rejected(Exception):
    """A photo that must go to quarantine."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def read_quarantine(pool: Path) -> pd.DataFrame:
    """The quarantine of a pool: source, reference, photo_id, reason, detail, severity; empty where there is none."""
    return read_table(pool).to_pandas()


def read_table(pool: Path) -> pa.Table:
    """As `read_quarantine`, as an Arrow table."""
    path = Path(pool) / QUARANTINE_FILE
    return pq.read_table(path) if path.is_file() else SCHEMA.empty_table()


def write_table(pool: Path, table: pa.Table) -> None:
    """Write the quarantine whole, atomically and durably."""
    with durable_path(Path(pool) / QUARANTINE_FILE) as temporary:
        pq.write_table(table.cast(SCHEMA).combine_chunks(), temporary, compression="zstd")


def merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """The rows of both, each once, sorted by source and reference.

    Two rows are the same when source, reference, reason and severity are: a second ingest repeats nothing. Sorted,
    because a run that was killed and resumed meets its inputs in another order, and must end with the same file.
    """
    if new.num_rows == 0:
        return old
    both = pa.concat_tables([old, new])
    both = both.append_column("position", pa.array(np.arange(both.num_rows)))
    first = both.group_by(list(_KEY)).aggregate([("position", "min")])
    unique = both.take(first["position_min"]).drop_columns("position")
    return unique.sort_by([(name, "ascending") for name in _KEY])


def without(table: pa.Table, source: str, references: pa.ChunkedArray | pa.Array) -> pa.Table:
    """The table less the turned-away photos of `source` at `references`: they are in the pool now."""
    if table.num_rows == 0 or len(references) == 0:
        return table
    gone = pc.and_(
        pc.and_(pc.equal(table["source"], source), pc.equal(table["severity"], PHOTO)),
        pc.is_in(table["reference"], value_set=references),
    )
    return table.filter(pc.invert(gone))


def rows(
    source: str,
    reference: pa.Array,
    photo_id: pa.Array,
    reason: Reason,
    detail: pa.Array | str,
    severity: str = PHOTO,
) -> pa.Table:
    """Quarantine rows that share a reason."""
    count = len(reference)
    detail = pa.repeat(detail, count) if isinstance(detail, str) else detail
    return pa.table(
        [
            pa.repeat(source, count),
            reference,
            photo_id,
            pa.repeat(str(reason), count),
            detail,
            pa.repeat(severity, count),
        ],
        schema=SCHEMA,
    )


def count_reasons(quarantine: pd.DataFrame) -> pd.DataFrame:
    """How often each reason stands in quarantine: columns reason, count. A photo that was kept without one damaged
    field, or without its overhead tile, is told apart from one that was turned away.
    """
    kept = {PHOTO: "", FIELD: " (field left out, photo kept)", PAIR: " (pair left out, photo kept)"}
    reason = quarantine["reason"] + quarantine["severity"].map(kept).astype("str")
    counts = reason.value_counts().sort_index()
    return counts.rename_axis("reason").reset_index(name="count")
