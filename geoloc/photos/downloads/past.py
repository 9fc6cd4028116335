"""What a pool says of photos that were downloaded before: their bytes, or why they were turned away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from geoloc.photos import quarantine
from geoloc.photos.catalog import CATALOG_FILE, read_table
from geoloc.photos.facts import PhotoFacts
from geoloc.photos.known import Lookup
from geoloc.photos.quarantine import PHOTO, Reason, Rejected
from geoloc.photos.shards import ShardReader

_COLUMNS = ("sha256", "input_sha256", "shard", "offset", "length", "latitude", "longitude")


@dataclass(frozen=True)
class Stored:
    """A photo of the pool. `read` gives its stored bytes."""

    read: Callable[[], bytes]
    facts: PhotoFacts


class Past:
    """The photos and the quarantine of a pool, as they are when they are asked for."""

    def __init__(self, pool: Path) -> None:
        self._pool = Path(pool)
        self._reader = ShardReader(self._pool)
        self._state: tuple[int, int] | None = None
        self._look()

    def photo(self, input_sha256: str) -> Stored | None:
        """The photo that came as a file with this SHA-256; None: the pool has none."""
        row = self._row(input_sha256)
        if row is None and self._look():  # committed since
            row = self._row(input_sha256)
        if row is None:
            return None
        made = {name: self._catalog[name][row].as_py() for name in _COLUMNS}
        place = (made["shard"], made["offset"], made["length"])
        facts = PhotoFacts(latitude=made["latitude"], longitude=made["longitude"])
        return Stored(lambda: self._reader.read(*place), facts)

    def turned_away(self, reference: str, photo_id: str | None, input_sha256: str) -> Rejected | None:
        """Why this input is in quarantine; None: it is not."""
        for row in self._away.rows(reference):
            if self._quarantine["photo_id"][row].as_py() == photo_id:
                reason, detail = (self._quarantine[name][row].as_py() for name in ("reason", "detail"))
                return Rejected(Reason(reason), detail, input_sha256)
        return None

    def _row(self, sha256: str) -> int | None:
        for lookup in (self._came_as, self._stored):
            for row in lookup.rows(sha256):
                return row
        return None

    def _look(self) -> bool:
        """Read catalog and quarantine where they have changed; whether they had."""
        path = self._pool / CATALOG_FILE
        found = path.stat() if path.is_file() else None
        state = None if found is None else (found.st_ino, found.st_mtime_ns)
        if state is not None and state == self._state:
            return False
        self._state = state
        empty = pa.table({name: pa.array([], pa.string()) for name in _COLUMNS})
        self._catalog = empty if state is None else read_table(self._pool, _COLUMNS)
        self._came_as, self._stored = Lookup(self._catalog["input_sha256"]), Lookup(self._catalog["sha256"])
        table = quarantine.read_table(self._pool)
        self._quarantine = table.filter(
            pc.and_(pc.equal(table["severity"], PHOTO), pc.is_null(table["mended_by"]))
        )
        self._away = Lookup(self._quarantine["reference"])
        return state is not None
