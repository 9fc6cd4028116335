"""Where a photo is found in the files of a workspace: as bytes, by its id, or by its coordinates."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import sqlite3
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Sought:
    """A photo: its id, its stored bytes, and its coordinates in degrees."""

    photo_id: str
    data: bytes
    latitude: float
    longitude: float

    def patterns(self) -> dict[str, re.Pattern[bytes]]:
        """What to look for in bytes, by name."""
        encoded = base64.b64encode(self.data)[: len(self.data) // 3 * 4]  # in a page, or in a database
        texts = {
            form.format(value).encode()
            for value in (self.latitude, self.longitude)
            for form in ("{}", "{:.6f}", "{:.5f}")
        }
        return {
            "bytes": re.compile(b"|".join(map(re.escape, (self.data, encoded)))),
            "id": re.compile(rb"(?<![\w-])" + re.escape(self.photo_id.encode()) + rb"(?![\w-])"),
            "coordinates": re.compile(
                b"|".join(
                    map(re.escape, [*texts, *(struct.pack("<d", v) for v in (self.latitude, self.longitude))])
                )
            ),
        }


def traces(root: Path, sought: Sought) -> list[str]:
    """The files below a folder in which a photo is found, with what was found."""
    patterns = sought.patterns()
    found = []
    for above, _, names in os.walk(root):
        for name in names:
            path = Path(above) / name
            if path.is_symlink() or not path.is_file():
                continue
            for content in _contents(path):
                found += [
                    f"{path.relative_to(root)}: {what}"
                    for what, pattern in patterns.items()
                    if pattern.search(content)
                ]
    return sorted(set(found))


def _contents(path: Path) -> list[bytes]:
    """The bytes of a file, and what is compressed or coded in it, as text."""
    data = path.read_bytes()
    contents = [data]
    if data[:4] == b"PAR1":
        columns = pq.read_table(path).columns
        contents.append("\n".join(str(value) for column in columns for value in _values(column)).encode())
    if data[:15] == b"SQLite format 3":
        with contextlib.closing(sqlite3.connect(path)) as database:
            contents.append("\n".join(database.iterdump()).encode())
    if ".git/objects" in path.as_posix():
        with contextlib.suppress(zlib.error):
            contents.append(zlib.decompress(data))
    return contents


def _values(column: pa.ChunkedArray) -> list[object]:
    return column.to_pylist()
