"""Where texts stand among rows without end: tables on disk that memory holds a part of, in files without a name."""

from __future__ import annotations

import mmap
import secrets
import tempfile
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

Digests = NDArray[np.uint64]
"""128 bits of each text, [N, 2], keyed anew in each process: two texts of one digest, among a hundred million, would be
met in one pool of 10^22, and nobody can make two."""

_KEYS = tuple(secrets.token_hex(8) for _ in range(2))
_CHUNK = 250_000
_MOST_SORTED = 4_000_000
"""Rows that are sorted at once: 200 MB of memory."""
_MOST_SINGLE = 50_000
"""Rows added one by one that wait in memory."""


def digests(texts: pa.Array | pa.ChunkedArray | Sequence[str]) -> Digests:
    """A digest of each text, [N, 2]; of null as of ''."""
    made = np.empty((len(texts), 2), np.uint64)
    for start in range(0, len(texts), _CHUNK):  # as objects they take ten times the memory
        if isinstance(texts, pa.Array | pa.ChunkedArray):
            part = np.array(texts.slice(start, _CHUNK).fill_null("").to_pylist(), object)
        else:
            part = np.array(texts[start : start + _CHUNK], object)
        for half, key in enumerate(_KEYS):
            made[start : start + len(part), half] = pd.util.hash_array(part, hash_key=key, categorize=False)
    return made


def first_ones(of: Digests) -> NDArray[np.int64]:
    """Where each row's digest stands for the first time, int64[N]."""
    order = np.lexsort((of[:, 1], of[:, 0]))
    new = np.ones(len(of), bool)
    new[1:] = (of[order][1:] != of[order][:-1]).any(axis=1)
    first = np.empty(len(of), np.int64)
    first[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return first


class Index:
    """Numbers by digest, 24 bytes each, in sorted pieces that lie in files without a name below `folder`.

    A piece has 4 million at most, so that memory is bounded; files without a name are gone when the process ends,
    however it ends. Threads may look up while nobody adds, once `settle` was called.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pieces: list[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]] = []
        self._waiting: list[tuple[Digests, NDArray[np.int64]]] = []
        self._single: dict[tuple[int, int], list[int]] = {}

    def add(self, of: Digests, numbers: NDArray[np.int64]) -> None:
        """Add N numbers under N digests."""
        self._waiting.append((of, numbers))
        if sum(len(rows) for _, rows in self._waiting) >= _MOST_SORTED:
            self.settle()

    def add_one(self, of: Digests, number: int) -> None:
        """Add a number under a digest [1, 2]."""
        self._single.setdefault(_key(of), []).append(number)
        if len(self._single) >= _MOST_SINGLE:
            keys = np.array(
                [key for key, numbers in self._single.items() for _ in numbers], np.uint64
            ).reshape(-1, 2)
            self.add(keys, np.array([n for numbers in self._single.values() for n in numbers], np.int64))
            self._single = {}

    def __bool__(self) -> bool:
        return bool(self._pieces or self._waiting or self._single)

    def all(self, of: Digests) -> list[int]:
        """Every number under a digest [1, 2], in order."""
        self.settle()
        high, low = of[0]
        found = list(self._single.get(_key(of), ()))
        for highs, lows, numbers in self._pieces:
            first, last = (int(np.searchsorted(highs, high, side)) for side in ("left", "right"))
            found += numbers[first:last][lows[first:last] == low].tolist()
        return sorted(found)

    def find(self, of: Digests) -> NDArray[np.int64]:
        """A number under each digest, int64[N]; -1: none."""
        self.settle()
        found = np.full(len(of), -1, np.int64)
        if len(self._single):
            found[:] = [self._single.get(key, (-1,))[0] for key in map(tuple, of.tolist())]
        order = np.argsort(of[:, 0])  # neighbours are found near each other: eight times as fast
        for highs, lows, numbers in self._pieces:
            open_ones = order[found[order] < 0]
            at = np.searchsorted(highs, of[open_ones, 0])
            while len(open_ones):
                inside = at < len(highs)
                open_ones, at = open_ones[inside], at[inside]
                alike = highs[at] == of[open_ones, 0]
                open_ones, at = open_ones[alike], at[alike]
                met = lows[at] == of[open_ones, 1]
                found[open_ones[met]] = numbers[at[met]]
                open_ones, at = open_ones[~met], at[~met] + 1  # one half in common: once in 10^4 pools
        return found

    def settle(self) -> None:
        """Sort what was added, and put pieces together that are as small as it."""
        if not self._waiting:
            return
        of = np.concatenate([made for made, _ in self._waiting])
        numbers = np.concatenate([rows for _, rows in self._waiting])
        self._waiting = []
        piece = (of[:, 0], of[:, 1], numbers)
        while self._pieces and len(self._pieces[-1][0]) <= min(len(piece[0]), _MOST_SORTED - len(piece[0])):
            last = self._pieces.pop()
            piece = tuple(np.concatenate(both) for both in zip(last, piece, strict=True))  # type: ignore[assignment]
        order = np.argsort(piece[0], kind="stable")
        self._pieces.append(tuple(mapped(column[order], self._folder) for column in piece))  # type: ignore[arg-type]


class Rows:
    """Arrow rows that are only added to, in files without a name below `folder`."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema
        self._tables: list[pa.Table] = []
        self._ends: list[int] = []
        self._recent: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return self._on_disk + len(self._recent)

    @property
    def _on_disk(self) -> int:
        return self._ends[-1] if self._ends else 0

    def add(self, table: pa.Table) -> None:
        """Add rows that have the columns of the schema."""
        if self._recent:
            recent, self._recent = self._recent, []
            self.add(pa.Table.from_pylist(recent, schema=self._schema))
        if table.num_rows:
            self._tables.append(_mapped_table(table.select(self._schema.names), self._folder))
            self._ends.append(self._on_disk + table.num_rows)

    def add_one(self, row: dict[str, Any]) -> None:
        """Add one row, by column."""
        self._recent.append(row)
        if len(self._recent) >= _MOST_SINGLE:
            self.add(self._schema.empty_table())

    def row(self, number: int) -> dict[str, Any]:
        """A row by its number, by column."""
        if number >= self._on_disk:
            return self._recent[number - self._on_disk]
        piece = bisect_right(self._ends, number)
        start = self._ends[piece - 1] if piece else 0
        found: dict[str, Any] = self._tables[piece].slice(number - start, 1).to_pylist()[0]
        return found


def mapped(array: NDArray[Any], folder: Path) -> NDArray[Any]:
    """The array from a file without a name, which the system may drop from memory. Raises OSError for a full disk."""
    if not array.size:
        return array
    with _nameless(folder) as file:
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        return np.asarray(np.memmap(file, array.dtype, "r", shape=array.shape))


def blank(count: int, dtype: np.dtype[Any], folder: Path) -> NDArray[Any]:
    """As `mapped`, of zeros [count] to be written."""
    if not count:
        return np.empty(0, dtype)
    with _nameless(folder) as file:
        file.truncate(count * dtype.itemsize)
        return np.asarray(np.memmap(file, dtype, "r+", shape=(count,)))


def _mapped_table(table: pa.Table, folder: Path) -> pa.Table:
    with _nameless(folder) as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=len(table))
        file.flush()
        return pa.ipc.open_file(pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))).read_all()


def _nameless(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


def _key(of: Digests) -> tuple[int, int]:
    return (int(of[0, 0]), int(of[0, 1]))
