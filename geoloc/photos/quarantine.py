"""Quarantine: data/quarantine.parquet, every input that was turned away or lost a field, with its reason."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.files import read_arrow
from geoloc.photos.catalog import durable_path

QUARANTINE_FILE = "quarantine.parquet"
PHOTO, FIELD, LABEL, PAIR = "photo", "field", "label", "pair"
"""Severities: the photo was turned away; it was kept, and only a field of it was dropped; it is in the pool, and
another photo with its bytes has another id or label; or it was kept, and only its pairing with an overhead tile was
turned away (geoloc.photos.pairs)."""

SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("photo_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("origin", pa.string()),
        pa.field("content", pa.string()),
        pa.field("mended_by", pa.string()),
    ]
)
"""reference: its position in the source (a path, or a file and its row). reason: a `Reason`. detail: for people.
origin, content: keyed digests of where the file with that position lies, and of what was there; null in rows of early
pools. mended_by: the photo of the pool that the same origin gave under the same id later; null: still turned away."""

_LATER_COLUMNS = ("origin", "content", "mended_by")
_KEY = ("source", "reference", "reason", "severity", "origin", "content")
_AS_BEFORE = ("source", "reference", "photo_id", "reason", "severity")
_DIGEST_BYTES = 8


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
    DUPLICATE_PHOTO = "duplicate_photo"
    BAD_SIDECAR = "bad_sidecar"
    CONFLICTING_LABEL = "conflicting_label"
    HIDDEN_FOLDER = "hidden_folder"
    LINKED_FOLDER = "linked_folder"
    UNREADABLE_FOLDER = "unreadable_folder"
    LINK_OUTSIDE = "link_outside"
    BAD_TIME = "bad_time"
    BAD_HEADING = "bad_heading"
    BAD_PROBABILITY = "bad_probability"
    HTTP_GONE = "http_gone"
    HTTP_REFUSED = "http_refused"
    HTTP_UNAVAILABLE = "http_unavailable"
    REDIRECT_REFUSED = "redirect_refused"
    BAD_ADDRESS = "bad_address"
    NOT_A_PHOTO = "not_a_photo"
    PAIR_WITHOUT_PHOTO = "pair_without_photo"
    PAIR_WITHOUT_TILE = "pair_without_tile"
    PAIR_CONFLICT = "pair_conflict"
    BAD_HEADING_REFERENCE = "bad_heading_reference"
    BAD_TILE_SIZE = "bad_tile_size"


class Rejected(Exception):
    """A photo that must go to quarantine. input_sha256: of the file as it came, where a source knows it."""

    def __init__(self, reason: Reason, detail: str, input_sha256: str | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.input_sha256 = input_sha256

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def read_quarantine(pool: Path, *, mended: bool = False) -> pd.DataFrame:
    """The quarantine of a pool, columns as SCHEMA; empty if there is none. `mended`: also what was mended since."""
    table = read_table(pool)
    return (table if mended else table.filter(pc.is_null(table["mended_by"]))).to_pandas()


def read_table(pool: Path) -> pa.Table:
    """As `read_quarantine` with mended rows, as an Arrow table."""
    path = Path(pool) / QUARANTINE_FILE
    return read_arrow(path, SCHEMA) if path.is_file() else SCHEMA.empty_table()


def write_table(pool: Path, table: pa.Table) -> None:
    """Write the quarantine whole, atomically and durably."""
    with durable_path(Path(pool) / QUARANTINE_FILE) as temporary:
        pq.write_table(table.cast(SCHEMA).combine_chunks(), temporary, compression="zstd")


def merge(old: pa.Table, new: pa.Table) -> pa.Table:
    """The rows of both, each once, sorted by source and reference.

    Two rows are the same when source, reference, reason, severity, origin and content are: a second ingest of the same
    files repeats nothing, and another file of the same name has rows of its own. A row that is reported again is no
    longer mended. Sorted, because a run that was killed and resumed meets its inputs in another order, and must end
    with the same file.
    """
    if new.num_rows == 0:
        return old
    both = pa.concat_tables([_not_told_again(old, new), new])
    both = both.append_column("position", pa.array(np.arange(both.num_rows)))
    last = both.group_by(list(_KEY)).aggregate([("position", "max")])
    unique = both.take(last["position_max"]).drop_columns("position")
    return unique.sort_by([(name, "ascending") for name in _KEY])


def _not_told_again(old: pa.Table, new: pa.Table) -> pa.Table:
    """`old` without the rows of early pools, which have no digests, that `new` has with digests."""
    early = pc.is_null(old["content"])
    if not pc.any(early).as_py():
        return old
    keys = [old.select(_AS_BEFORE).to_pandas(), new.select(_AS_BEFORE).to_pandas().drop_duplicates()]
    told = keys[0].merge(keys[1], how="left", on=list(_AS_BEFORE), indicator=True)["_merge"].eq("both")
    return old.filter(pc.invert(pc.and_(early, pa.array(told.to_numpy(bool)))))


def mend(table: pa.Table, source: str, kept: pa.Table) -> pa.Table:
    """The table with rows marked as mended: photos that `source` turned away, and that `kept` has now.

    `kept`: columns origin, photo_id (as the source calls it), mended_by (as the pool calls it). A row without an id,
    and one whose id is another photo's, is never marked: nothing says which input became good.
    """
    if table.num_rows == 0 or kept.num_rows == 0:
        return table
    unclear = [str(Reason.DUPLICATE_ID), str(Reason.CONFLICTING_LABEL)]
    open_rows = pc.and_(
        pc.and_(pc.equal(table["source"], source), pc.equal(table["severity"], PHOTO)),
        pc.and_(
            pc.is_null(table["mended_by"]),
            pc.invert(pc.is_in(table["reason"], value_set=pa.array(unclear, pa.string()))),
        ),
    )
    first = {
        (origin, photo_id): mended_by
        for origin, photo_id, mended_by in reversed(list(zip(*kept.to_pydict().values(), strict=True)))
        if photo_id is not None
    }
    rows = np.flatnonzero(open_rows.to_numpy())
    marks = table["mended_by"].to_pylist()
    pairs = zip(
        *(table[name].take(pa.array(rows)).to_pylist() for name in ("origin", "photo_id")), strict=True
    )
    for row, pair in zip(rows.tolist(), pairs, strict=True):
        marks[row] = first.get(pair, marks[row])
    position = table.schema.get_field_index("mended_by")
    return table.set_column(position, SCHEMA.field("mended_by"), pa.array(marks, pa.string()))


def digests(rows: pa.Table, key: bytes, *more: str) -> pa.Array:
    """A keyed digest of all that each row holds, and of `more`: 16 hex digits.

    Keyed, so that nobody without the key can try what a row may have said.
    """
    columns = [
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column for column in rows.columns
    ]
    values = zip(*(column.to_pylist() for column in columns), strict=True)
    return pa.array([digest(key, repr((*more, *row))) for row in values], pa.string())


def digest(key: bytes, text: str) -> str:
    """A keyed digest of a text: 16 hex digits."""
    secret = hashlib.sha256(key).digest()
    return hashlib.blake2b(
        text.encode("utf-8", "backslashreplace"), key=secret, digest_size=_DIGEST_BYTES
    ).hexdigest()


def rows(
    source: str,
    reference: pa.Array,
    photo_id: pa.Array,
    reason: Reason,
    detail: pa.Array | str,
    severity: str = PHOTO,
    origin: str | None = None,
    content: pa.Array | None = None,
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
            pa.array([origin] * count, pa.string()),
            pa.nulls(count, pa.string()) if content is None else content,
            pa.nulls(count, pa.string()),
        ],
        schema=SCHEMA,
    )


def count_reasons(quarantine: pd.DataFrame) -> pd.DataFrame:
    """How often each reason stands in quarantine: columns reason, count. A photo that was kept without one damaged
    field, or without its overhead tile, or beside another label, is told apart from one that was turned away.
    """
    kept = {
        PHOTO: "",
        FIELD: " (field left out, photo kept)",
        LABEL: " (both recorded, nothing turned away)",
        PAIR: " (pair left out, photo kept)",
    }
    reason = quarantine["reason"] + quarantine["severity"].map(kept).astype("str")
    counts = reason.value_counts().sort_index()
    return counts.rename_axis("reason").reset_index(name="count")
