"""Tombstones: data/tombstones.parquet, keyed digests of what was taken down, so that it does not come back.

A digest tells nobody without the pool's key which photo or person it stands for.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geoloc.files import read_arrow
from geoloc.photos.batches import Batch
from geoloc.photos.catalog import durable_path
from geoloc.photos.quarantine import digest

TOMBSTONES_FILE = "tombstones.parquet"
PHOTO, PHOTOGRAPHER = "photo", "photographer"
SCHEMA = pa.schema(
    [
        pa.field("digest", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("s"), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""digest: of the bytes of a photo, stored or as they came, of the source and id of one without bytes, or of a
photographer. at: UTC."""


class Tombstones:
    """The tombstones of a pool, as far as ingest asks. `key` is the pool's key of photographers."""

    def __init__(self, pool: Path, key: bytes) -> None:
        self._key = key
        self._digests = set(read_tombstones(pool)["digest"].to_pylist())

    def has_bytes(self, *sha256: str | None) -> bool:
        """Whether a photo with one of these SHA-256 was taken down."""
        return self._has(bytes_text(one) for one in sha256 if one)

    def staying(self, batch: Batch, source: str) -> NDArray[np.int64]:
        """The rows of a batch but those of photographers who were taken down, and of photos without bytes that were."""
        people = batch.table["photographer"].to_pylist()
        gone = {who for who in set(people) if who is not None and self._has([photographer_text(who)])}
        stays = [
            row
            for row, (who, name) in enumerate(zip(people, batch.ids, strict=True))
            if who not in gone and (batch.pictured[row] or not self._has([name_text(source, name)]))
        ]
        return np.array(stays, np.int64)

    def _has(self, texts: Iterable[str]) -> bool:
        return bool(self._digests) and any(digest(self._key, text) in self._digests for text in texts)


def bytes_text(sha256: str) -> str:
    """What a digest of a photo's bytes is made from."""
    return f"tombstone of bytes {sha256}"


def name_text(source: str, photo_id: str) -> str:
    """What a digest of a photo without bytes is made from."""
    return f"tombstone of name {source!r} {photo_id!r}"


def photographer_text(photographer: str) -> str:
    """What a digest of a photographer is made from."""
    return f"tombstone of photographer {photographer}"


def read_tombstones(pool: Path) -> pa.Table:
    """The tombstones of a pool; empty if there are none."""
    path = Path(pool) / TOMBSTONES_FILE
    return read_arrow(path, SCHEMA) if path.is_file() else SCHEMA.empty_table()


def add_tombstones(pool: Path, digests: Iterable[tuple[str, str]], at: datetime, reason: str) -> None:
    """Add tombstones (digest, kind), durably; those that are there stay as they are. The caller has the pool locked."""
    old = read_tombstones(pool)
    known = set(old["digest"].to_pylist())
    new = [(one, kind) for one, kind in dict.fromkeys(digests) if one not in known]
    if not new:
        return
    rows = [
        {"digest": one, "kind": kind, "at": at.replace(tzinfo=None), "reason": reason} for one, kind in new
    ]
    table = pa.concat_tables([old, pa.Table.from_pylist(rows, schema=SCHEMA)]).sort_by("digest")
    with durable_path(Path(pool) / TOMBSTONES_FILE) as temporary:
        pq.write_table(table.combine_chunks(), temporary, compression="zstd")


def without(table: pa.Table, column: str, values: Iterable[str]) -> pa.Table:
    """The rows of a table whose `column` is none of `values`."""
    return table.filter(pc.invert(pc.is_in(table[column], value_set=pa.array(list(values), pa.string()))))
