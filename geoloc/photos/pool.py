"""A pool that is being added to: one at a time, whole shards first, then the catalog that names them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from geoloc.photos import catalog, quarantine
from geoloc.photos.decoding import StoredPhoto
from geoloc.photos.lookup import Index, digests
from geoloc.photos.shards import SHARD_PATTERN, SHARDS_FOLDER, ShardWriter

_SHARD_NAME = re.compile(r"photos-(\d{6,})\.tar")
_FROM_SOURCE = ("photo_id", "photographer", "latitude", "longitude", "taken_at", "posted_at", "album", "heading",
                "prob_indoor", "licence", "heading_reference", "place_source", "time_source", "url")  # fmt: skip


class PoolBusyError(RuntimeError):
    """Another process is adding to the pool."""


@contextlib.contextmanager
def locked(pool: Path) -> Iterator[None]:
    """Hold the pool for writing. The lock is on the folder itself, so it leaves no file in the data version, and the
    system drops it when the process ends, however it ends. Raises PoolBusyError where another holds it."""
    pool.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(pool, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PoolBusyError(f"another ingest is adding to {pool}: wait until it ends") from None
        yield
    finally:
        os.close(descriptor)


class PoolAppender:
    """Appends to a pool that the caller has locked.

    Photos go into an open shard; `commit` makes the shard durable under its name, then quarantine, then the catalog,
    so that the catalog never names what is not there. What a killed process left behind (a shard that no catalog
    names, temporary files) is removed at the next start.
    """

    def __init__(self, pool: Path, source: str) -> None:
        self.pool = pool
        self.source = source
        has_catalog = (pool / catalog.CATALOG_FILE).is_file()
        self.quarantine = quarantine.read_table(pool)
        # as it was before this run, where only what this run does not tell again can be mended
        self._before = self.quarantine
        self._told = quarantine.SCHEMA.empty_table()
        self._away_ids = Index(pool)
        self._away_ids.add(digests(self._before["photo_id"]), np.zeros(self._before.num_rows, np.int64))
        self._first_time = not (has_catalog and (pool / quarantine.QUARANTINE_FILE).is_file())
        self._rows: list[pa.Table] = []
        self._away: list[pa.Table] = []
        self._kept: list[pa.Table] = []
        self._shard: ShardWriter | None = None
        self._next = remove_leftovers(pool)

    @property
    def shard_size(self) -> int:
        """Bytes in the open shard; 0 where none is open."""
        return 0 if self._shard is None else self._shard.size

    @property
    def waiting(self) -> int:
        """Catalog rows that are not committed yet."""
        return sum(table.num_rows for table in self._rows)

    def store(self, photo_id: str, photo: StoredPhoto) -> tuple[str, int, int]:
        """Write a photo into the open shard: shard, offset, length."""
        if self._shard is None:
            self._shard = ShardWriter(self.pool, SHARD_PATTERN.format(self._next))
        return (self._shard.name, *self._shard.add(photo_id, photo.bytes))

    def add_rows(self, table: pa.Table, stored: Sequence[tuple[object, ...]] | None) -> None:
        """Catalog rows for screened candidates.

        `stored` gives STORED_COLUMNS and input_sha256 of each; None for metadata only.
        """
        count = table.num_rows
        if count == 0:
            return
        columns: dict[str, object] = {name: table[name] for name in _FROM_SOURCE}
        columns["source"] = pa.repeat(self.source, count)
        for position, name in enumerate((*catalog.STORED_COLUMNS, "input_sha256")):
            values = [None] * count if stored is None else [row[position] for row in stored]
            columns[name] = pa.array(values, catalog.SCHEMA.field(name).type)
        made = pa.table({name: columns[name] for name in catalog.COLUMNS})
        self._rows.append(made.cast(catalog.SCHEMA))

    def turn_away(self, rows: pa.Table) -> None:
        """Rows for quarantine."""
        if rows.num_rows:
            self._away.append(rows.cast(quarantine.SCHEMA))

    def keep(self, kept: pa.Table) -> None:
        """These inputs are in the pool: an earlier quarantine of them is mended. As `quarantine.mend` has it."""
        if self._before.num_rows and kept.num_rows:
            away = self._away_ids.find(digests(kept["photo_id"])) >= 0
            if away.any():
                self._kept.append(kept.filter(pa.array(away)))

    def commit(self) -> None:
        """Make everything so far durable, in an order that is right at every moment."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None
            self._next += 1
        if self._kept:
            self._before = quarantine.mend(self._before, self.source, pa.concat_tables(self._kept))
        if self._away:
            self._told = quarantine.merge(self._told, pa.concat_tables(self._away))
        away = quarantine.merge(self._before, self._told)
        if self._first_time or not away.equals(self.quarantine):
            quarantine.write_table(self.pool, away)
        if self._first_time or self._rows:
            catalog.append_table(self.pool, pa.concat_tables([catalog.SCHEMA.empty_table(), *self._rows]))
        self.quarantine = away
        self._rows, self._away, self._kept, self._first_time = [], [], [], False

    def abandon(self) -> None:
        """Drop the open shard; what is committed stays."""
        if self._shard is not None:
            self._shard.discard()
            self._shard = None


def remove_leftovers(pool: Path) -> int:
    """Remove what a killed process left behind in a locked pool: temporary files, and shards that no catalog names.
    Returns the number of the next shard."""
    shards = pool / SHARDS_FOLDER
    shards.mkdir(exist_ok=True)
    for leftover in (*pool.glob(".*.part"), *shards.glob(".*.part")):
        leftover.unlink()
    catalog.remove_unnamed_parts(pool)
    named: set[str | None] = set()
    for table in catalog.batches(pool, ["shard"]):
        named.update(table["shard"].unique().to_pylist())
    last = -1
    for path in sorted(shards.iterdir()):
        match = _SHARD_NAME.fullmatch(path.name)
        if match and path.name not in named:
            path.unlink()
        elif match:
            last = max(last, int(match[1]))
    for name in named:  # also those that are not on this disk
        match = _SHARD_NAME.fullmatch(name or "")
        last = max(last, int(match[1])) if match else last
    return last + 1
