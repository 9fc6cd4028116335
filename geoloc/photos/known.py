"""What a pool knows when photos are added to it: which ids are taken, and which photos have which bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geoloc.photos.catalog import SCHEMA, batches, count_photos
from geoloc.photos.lookup import Digests, Index, Rows, blank, digests

SAME_PLACE_DEGREES = 1e-4
"""About 11 m: a place that one table rounds to four decimals is the same place."""


@dataclass(frozen=True)
class Label:
    """What the pool says of one photo, as far as it tells two inputs with equal bytes apart."""

    photo_id: str
    source: str
    latitude: float
    longitude: float
    photographer: str | None

    def agrees(self, other: Label) -> bool:
        """Whether both may be true of one photo: the same place, and not two people."""
        people = {self.photographer, other.photographer} - {None}
        return len(people) < 2 and same_place(self.latitude, self.longitude, other.latitude, other.longitude)

    def __str__(self) -> str:
        return (
            f"{self.latitude:.6g}, {self.longitude:.6g} by {self.photographer or 'an unknown photographer'}"
        )


def same_place(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> bool:
    """Whether two positions in degrees are within SAME_PLACE_DEGREES in either coordinate; 180 E is 180 W."""
    east = abs(longitude - other_longitude) % 360
    return (
        abs(latitude - other_latitude) <= SAME_PLACE_DEGREES and min(east, 360 - east) <= SAME_PLACE_DEGREES
    )


@dataclass
class People:
    """How often photos with equal bytes have the same photographer in two sources."""

    same: dict[str, int] = field(default_factory=dict)
    different: dict[str, int] = field(default_factory=dict)

    def compare(self, label: Label, twin: Label) -> None:
        """Count a pair of labels of two sources; unknown photographers tell nothing."""
        if label.photographer is not None and twin.photographer is not None:
            counts = self.same if label.photographer == twin.photographer else self.different
            counts[twin.source] = counts.get(twin.source, 0) + 1

    def notes(self) -> dict[str, int]:
        """What there is to say, with its count."""
        told = "photos with the bytes of a photo of {} have another photographer there, of {} compared: the ids of one"
        told += " of the two sources may be malformed, or of another kind"
        return {
            told.format(source, count + self.same.get(source, 0)): count
            for source, count in self.different.items()
        }


class ByBytes:
    """Photos that have bytes, by the SHA-256 of what is stored and of the file that came; on disk, below `folder`."""

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._columns = ("sha256", "input_sha256", *(name for name in columns if "sha256" not in name))
        self._rows = Rows(folder, pa.schema([SCHEMA.field(name) for name in self._columns]))
        self._stored, self._came_as = Index(folder), Index(folder)

    def add(self, catalog: pa.Table) -> None:
        """Add those rows of a catalog that have bytes."""
        table = catalog.filter(pc.is_valid(catalog["sha256"]))
        numbers = np.arange(len(self._rows), len(self._rows) + table.num_rows)
        self._stored.add(digests(table["sha256"]), numbers)
        other = table["input_sha256"].is_valid().to_numpy()
        self._came_as.add(digests(table["input_sha256"].filter(pa.array(other))), numbers[other])
        self._rows.add(table)

    def add_one(self, row: dict[str, Any]) -> None:
        """Add one photo, by column, as far as it is looked up by its stored bytes."""
        self._stored.add_one(digests([row["sha256"]]), len(self._rows))
        self._rows.add_one(row)

    def settle(self) -> None:
        """Make it ready for threads that look up."""
        self._stored.settle()
        self._came_as.settle()

    def stored_as(self, sha256: str) -> list[dict[str, Any]]:
        """The photos with these stored bytes, in order."""
        return self._found(self._stored, "sha256", sha256)

    def came_as(self, sha256: str) -> list[dict[str, Any]]:
        """The photos that came as a file with these bytes, which are not those stored, in order."""
        return self._found(self._came_as, "input_sha256", sha256)

    def _found(self, index: Index, column: str, sha256: str) -> list[dict[str, Any]]:
        if not index:
            return []
        rows = map(self._rows.row, index.all(digests([sha256])))
        return [row for row in rows if row[column] == sha256]


_LABEL = ("photo_id", "source", "latitude", "longitude", "photographer")
_PLACE = np.dtype([("latitude", np.float64), ("longitude", np.float64), ("own", bool), ("image", bool)])
_THIS_RUN = np.iinfo(np.int64).max


class Known:
    """A pool's catalog as it was, and what this run has added to it.

    Memory stays bounded: what grows with the pool lies in files without a name in its folder. The methods that a run's
    threads call (`has_input`) read what was there before the run only.
    """

    def __init__(self, pool: Path, source: str) -> None:
        self.source = source
        self._ids, self._met = Index(pool), Index(pool)
        self._before, self._new = (ByBytes(pool, _LABEL) for _ in range(2))
        self._has_own = False
        self._places = blank(count_photos(pool), _PLACE, pool)
        start = 0
        for table in batches(pool, (*_LABEL, "sha256", "input_sha256", "shard")):
            self._ids.add(digests(table["photo_id"]), np.arange(start, start + table.num_rows))
            self._before.add(table)
            place = self._places[start : start + table.num_rows]
            place["latitude"], place["longitude"] = table["latitude"], table["longitude"]
            place["own"] = pc.equal(table["source"], source)
            place["image"] = pc.is_valid(table["shard"])
            self._has_own |= bool(place["own"].any())
            start += table.num_rows
        self._before.settle()

    def own_rows(self, ids: Digests, texts: pa.ChunkedArray) -> NDArray[np.int64]:
        """The row of the photo that this source calls by each id, int64[N]; -1: none."""
        if not self._has_own:
            return np.full(len(ids), -1, np.int64)
        found = self._own(self._ids.find(ids))
        missing = np.flatnonzero(found < 0)
        named = pc.binary_join_element_wise(self.source, texts.take(pa.array(missing)), "/")
        found[missing] = self._own(self._ids.find(digests(named)))
        return found

    def at_same_place(
        self, rows: NDArray[np.int64], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether the pool has each row at these coordinates, bool[N]; false for row -1."""
        place = self._at(rows)
        east = np.abs(place["longitude"] - longitude) % 360
        near = (np.abs(place["latitude"] - latitude) <= SAME_PLACE_DEGREES) & (
            np.minimum(east, 360 - east) <= SAME_PLACE_DEGREES
        )
        return np.asarray((rows >= 0) & near, bool)

    def without_image(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row is a photo known by metadata only, bool[N]; false for row -1."""
        return np.asarray((rows >= 0) & ~self._at(rows)["image"], bool)

    def has_input(self, sha256: str) -> str | None:
        """SHA-256 of the stored bytes of this source's photo that came as a file with this SHA-256; None: none did."""
        for rows in (self._before.stored_as(sha256), self._before.came_as(sha256)):
            for row in rows:
                if row["source"] == self.source:
                    return str(row["sha256"])
        return None

    def of_bytes(self, sha256: str) -> list[Label]:
        """The photos with these stored bytes, of any source, first those of the pool."""
        rows = [*self._before.stored_as(sha256), *self._new.stored_as(sha256)]
        return [Label(*(row[name] for name in _LABEL)) for row in rows]

    def taken(self, ids: Digests) -> NDArray[np.bool_]:
        """Whether some photo has each id, bool[N]."""
        return np.asarray(self._ids.find(ids) >= 0)

    def free_id(self, wanted: str, sha256: str) -> str:
        """An id that no photo has: the wanted one, else with the source's name, else with digits of its bytes."""
        return next(photo for photo in self._possible(wanted, sha256) if not self._is_taken(photo))

    def add(self, label: Label, sha256: str) -> None:
        """This run has added a photo with these stored bytes."""
        self._ids.add_one(digests([label.photo_id]), _THIS_RUN)
        self._new.add_one({"sha256": sha256, "input_sha256": None, **vars(label)})

    def add_ids(self, ids: Digests) -> None:
        """This run has added photos without bytes."""
        self._ids.add(ids, np.full(len(ids), _THIS_RUN))

    def calls(self, photo_id: str, wanted: str, sha256: str) -> bool:
        """Whether the pool's photo_id is what became of an id that this source gives to a photo with these bytes."""
        return photo_id in (wanted, f"{self.source}/{wanted}") or photo_id.startswith(
            f"{wanted}~{sha256[:8]}"
        )

    def met(self, ids: Digests) -> NDArray[np.bool_]:
        """Whether this run has met the photos that its source calls so, bool[N]."""
        return np.asarray(self._met.find(ids) >= 0)

    def meet(self, ids: Digests) -> None:
        """This run meets photos that its source calls so."""
        if len(ids) == 1:
            self._met.add_one(ids, 0)
        else:
            self._met.add(ids, np.zeros(len(ids), np.int64))

    def _own(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that are photos of this source before this run; -1 for the others."""
        before = np.where(rows < len(self._places), rows, -1)
        return np.where((before >= 0) & self._at(before)["own"], before, -1)

    def _at(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """What stands at rows before this run; anything for -1."""
        return self._places[rows] if len(self._places) else np.zeros(len(rows), _PLACE)

    def _possible(self, wanted: str, sha256: str) -> Iterator[str]:
        yield wanted
        if not wanted.startswith(f"{self.source}/"):
            yield f"{self.source}/{wanted}"
        yield from (f"{wanted}~{sha256[:digits]}" for digits in range(8, 65, 8))
        yield from (f"{wanted}~{sha256}~{number}" for number in range(2, 1_000_000))

    def _is_taken(self, photo_id: str) -> bool:
        return bool(self.taken(digests([photo_id]))[0])
