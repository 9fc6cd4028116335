"""What a pool knows when photos are added to it: which ids are taken, and which photos have which bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SAME_PLACE_DEGREES = 1e-4
"""About 11 m: a place that one table rounds to four decimals is the same place."""

_CHUNK = 1_000_000


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


class Lookup:
    """Where texts stand in a column: 16 bytes a row, not the texts again. Null is nowhere."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column
        rows = np.flatnonzero(column.is_valid().to_numpy())
        hashes = hashed(column)[rows]
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._rows = hashes[order], rows[order]

    def rows(self, text: str) -> list[int]:
        """Every row that holds `text`, in order."""
        wanted = _hashes(np.array([text], object))[0]
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        return [int(row) for row in self._rows[first:last] if self._column[int(row)].as_py() == text]

    def first_rows(self, texts: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
        """The first row of each text, int64[N]; -1: nowhere."""
        found = np.full(len(texts), -1, np.int64)
        if not len(self._hashes):
            return found
        wanted = hashed(texts)
        at = np.searchsorted(self._hashes, wanted, "left").clip(max=len(self._hashes) - 1)
        met = np.flatnonzero((self._hashes[at] == wanted) & texts.is_valid().to_numpy(zero_copy_only=False))
        rows = self._rows[at[met]]
        same = pc.equal(self._column.take(pa.array(rows)), texts.take(pa.array(met)))
        equal = np.asarray(same.to_numpy(zero_copy_only=False), bool)
        found[met[equal]] = rows[equal]
        for index in met[~equal]:  # two texts of one hash: once in billions
            found[index] = next(iter(self.rows(texts[int(index)].as_py())), -1)
        return found


class Known:
    """A pool's catalog as it was, and what this run has added to it.

    The methods that a run's threads call (`has_input`) read the pool only.
    """

    def __init__(self, catalog: pa.Table, source: str) -> None:
        self.source = source
        self._catalog = catalog
        self._own = np.asarray(pc.equal(catalog["source"], source).to_numpy(), bool)
        self._ids = Lookup(catalog["photo_id"])
        self._stored = Lookup(catalog["sha256"])
        self._inputs = Lookup(catalog["input_sha256"])
        self._latitude, self._longitude = catalog["latitude"].to_numpy(), catalog["longitude"].to_numpy()
        self._has_image = np.asarray(pc.is_valid(catalog["shard"]).to_numpy(), bool)
        self._new_ids: set[str] = set()
        self._new_bytes: dict[str, list[Label]] = {}
        self._met: set[str] = set()

    def own_rows(self, ids: pa.ChunkedArray) -> NDArray[np.int64]:
        """The row of the photo that this source calls by each id, int64[N]; -1: none."""
        if not self._own.any():
            return np.full(len(ids), -1, np.int64)
        found = self._ids.first_rows(ids)
        found[~self._own[found]] = -1
        missing = np.flatnonzero(found < 0)
        again = self._ids.first_rows(
            pc.binary_join_element_wise(self.source, ids.take(pa.array(missing)), "/")
        )
        found[missing] = np.where(self._own[again], again, -1)
        return found

    def at_same_place(
        self, rows: NDArray[np.int64], latitude: NDArray[np.float64], longitude: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether the pool has each row at these coordinates, bool[N]; false for row -1."""
        if not len(self._latitude):
            return np.zeros(len(rows), bool)
        east = np.abs(self._longitude[rows] - longitude) % 360
        near = (np.abs(self._latitude[rows] - latitude) <= SAME_PLACE_DEGREES) & (
            np.minimum(east, 360 - east) <= SAME_PLACE_DEGREES
        )
        return np.asarray((rows >= 0) & near, bool)

    def without_image(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row is a photo known by metadata only, bool[N]; false for row -1."""
        if not len(self._has_image):
            return np.zeros(len(rows), bool)
        return np.asarray((rows >= 0) & ~self._has_image[rows], bool)

    def has_input(self, sha256: str) -> str | None:
        """SHA-256 of the stored bytes of this source's photo that came as a file with this SHA-256; None: none did."""
        for lookup in (self._stored, self._inputs):
            for row in lookup.rows(sha256):
                if self._own[row]:
                    return str(self._catalog["sha256"][row].as_py())
        return None

    def of_bytes(self, sha256: str) -> list[Label]:
        """The photos with these stored bytes, of any source, first those of the pool."""
        return [*map(self._label, self._stored.rows(sha256)), *self._new_bytes.get(sha256, [])]

    def taken(self, ids: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether some photo has each id, bool[N]."""
        taken = self._ids.first_rows(ids) >= 0
        if self._new_ids:
            taken |= np.fromiter((photo in self._new_ids for photo in ids.to_pylist()), bool, len(ids))
        return taken

    def free_id(self, wanted: str, sha256: str) -> str:
        """An id that no photo has: the wanted one, else with the source's name, else with digits of its bytes."""
        return next(photo for photo in self._possible(wanted, sha256) if not self._is_taken(photo))

    def add(self, label: Label, sha256: str) -> None:
        """This run has added a photo with these stored bytes."""
        self.add_id(label.photo_id)
        self._new_bytes.setdefault(sha256, []).append(label)

    def add_id(self, photo_id: str) -> None:
        """This run has added a photo."""
        self._new_ids.add(photo_id)

    def calls(self, photo_id: str, wanted: str, sha256: str) -> bool:
        """Whether the pool's photo_id is what became of an id that this source gives to a photo with these bytes."""
        return photo_id in (wanted, f"{self.source}/{wanted}") or photo_id.startswith(
            f"{wanted}~{sha256[:8]}"
        )

    def met(self, photo_id: str) -> bool:
        """Whether this run has met a photo that its source calls so."""
        return photo_id in self._met

    def meet(self, photo_id: str) -> bool:
        """Whether this run meets the id for the first time; now it has met it."""
        if photo_id in self._met:
            return False
        self._met.add(photo_id)
        return True

    def _possible(self, wanted: str, sha256: str) -> Iterator[str]:
        yield wanted
        if not wanted.startswith(f"{self.source}/"):
            yield f"{self.source}/{wanted}"
        yield from (f"{wanted}~{sha256[:digits]}" for digits in range(8, 65, 8))
        yield from (f"{wanted}~{sha256}~{number}" for number in range(2, 1_000_000))

    def _is_taken(self, photo_id: str) -> bool:
        return photo_id in self._new_ids or bool(self._ids.rows(photo_id))

    def _label(self, row: int) -> Label:
        names = ("photo_id", "source", "latitude", "longitude", "photographer")
        return Label(*(self._catalog[name][row].as_py() for name in names))


def hashed(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """A 64-bit hash of each text, uint64[N]; equal texts have equal hashes."""
    made = np.empty(len(column), np.uint64)
    for start in range(
        0, len(column), _CHUNK
    ):  # as objects, a million at a time: they take ten times the memory
        part = column.slice(start, _CHUNK).to_pandas().to_numpy(object)
        part = np.array(["" if text is None or text != text else text for text in part], object)
        made[start : start + len(part)] = _hashes(part)
    return made


def _hashes(texts: NDArray[np.object_]) -> NDArray[np.uint64]:
    return pd.util.hash_array(texts, categorize=False)
