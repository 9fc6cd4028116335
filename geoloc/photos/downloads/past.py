"""What a pool says of photos that were downloaded before: their bytes, or why they were turned away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from geoloc.photos import quarantine
from geoloc.photos.catalog import CATALOG_FILE, batches
from geoloc.photos.facts import PhotoFacts
from geoloc.photos.known import ByBytes
from geoloc.photos.lookup import Index, digests
from geoloc.photos.quarantine import PHOTO, Reason, Rejected
from geoloc.photos.shards import ShardReader

_SHA256 = ("sha256", "input_sha256")
_COLUMNS = ("shard", "offset", "length", "latitude", "longitude")


@dataclass(frozen=True)
class Stored:
    """A photo of the pool. `read` gives its stored bytes."""

    read: Callable[[], bytes]
    facts: PhotoFacts


class Past:
    """The photos and the quarantine of a pool, as they are when they are asked for."""

    def __init__(self, pool: Path) -> None:
        self._pool = Path(pool)
        self._pool.mkdir(parents=True, exist_ok=True)
        self._reader = ShardReader(self._pool)
        self._photos, self._seen = ByBytes(self._pool, _COLUMNS), 0
        self._state: tuple[int, int] | None = None
        self._look()

    def photo(self, input_sha256: str) -> Stored | None:
        """The photo that came as a file with this SHA-256; None: the pool has none."""
        row = self._row(input_sha256)
        if row is None and self._look():  # committed since
            row = self._row(input_sha256)
        if row is None:
            return None
        place = (row["shard"], row["offset"], row["length"])
        facts = PhotoFacts(latitude=row["latitude"], longitude=row["longitude"])
        return Stored(lambda: self._reader.read(*place), facts)

    def turned_away(self, reference: str, photo_id: str | None, input_sha256: str) -> Rejected | None:
        """Why this input is in quarantine; None: it is not."""
        for row in self._away.all(digests([reference])):
            told = self._quarantine.slice(row, 1).to_pylist()[0]
            if (told["reference"], told["photo_id"]) == (reference, photo_id):
                return Rejected(Reason(told["reason"]), told["detail"], input_sha256)
        return None

    def _row(self, sha256: str) -> dict[str, Any] | None:
        return next(iter([*self._photos.came_as(sha256), *self._photos.stored_as(sha256)]), None)

    def _look(self) -> bool:
        """Read what catalog and quarantine have new; whether there was a change."""
        path = self._pool / CATALOG_FILE
        found = path.stat() if path.is_file() else None
        state = None if found is None else (found.st_ino, found.st_mtime_ns)
        if state is not None and state == self._state:
            return False
        self._state = state
        for table in batches(self._pool, (*_SHA256, *_COLUMNS), first=self._seen):
            self._photos.add(table)
            self._seen += table.num_rows
        table = quarantine.read_table(self._pool)
        self._quarantine = table.filter(
            pc.and_(pc.equal(table["severity"], PHOTO), pc.is_null(table["mended_by"]))
        )
        self._away = Index(self._pool)
        self._away.add(digests(self._quarantine["reference"]), np.arange(self._quarantine.num_rows))
        return state is not None
