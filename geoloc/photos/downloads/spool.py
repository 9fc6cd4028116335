"""The spool: downloads that are not in the pool yet, in a few files: a killed run asks for none of them again."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from io import RawIOBase
from pathlib import Path

from geoloc.files import disk_full_named, sha256_bytes
from geoloc.photos.downloads.answer import Answer
from geoloc.photos.quarantine import Reason

_SUFFIX = ".spool"
_LONGEST_HEADER = 64 * 1024


@dataclass(frozen=True)
class Kept:
    """An answer on disk: `answer` is without its bytes, which are `length` bytes at `offset` of `path`."""

    answer: Answer
    sha256: str | None
    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The photo. Raises OSError where the spool has lost it."""
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), self.length, self.offset)
        if len(data) != self.length:
            raise OSError(f"{self.path} was cut short")
        return data


class Spool:
    """Answers in a folder: a file a batch, and in it for each answer a line of JSON and the photo's bytes.

    Written in order and never rewritten: what a killed process left ends with at most one torn answer, which its
    length tells. `found`: by address, what earlier runs left.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._numbers = sorted(int(path.stem) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit())
        self.found: dict[str, Kept] = {}
        for number in self._numbers:
            self.found |= {kept.answer.url: kept for kept in _read(self._path(number))}
        self._next = (self._numbers[-1] if self._numbers else 0) + 1

    def part(self) -> Part:
        """A new file of answers."""
        self._next += 1
        return Part(self._path(self._next - 1))

    def remove(self) -> None:
        """Remove all of it: everything is in the pool."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}{_SUFFIX}"


class Part:
    """A file of the spool that is being written; `kept` has its answers by address. It is there until all who hold it
    have released it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._holders = 0
        self.kept: dict[str, Kept] = {}

    def add(self, answer: Answer) -> None:
        """Keep an answer, whole or not at all. Raises DiskFullError."""
        sha256 = sha256_bytes(answer.data) if answer.reason is None else None
        header = _header(answer, sha256)
        with self._lock, disk_full_named(self._path.parent), self._path.open("ab", buffering=0) as file:
            start = file.tell()
            try:
                _write_all(file, header + answer.data)
            except OSError:
                file.truncate(start)  # half an answer would swallow the next
                raise
            end = file.tell()
        length = len(answer.data)
        self.kept[answer.url] = Kept(replace(answer, data=b""), sha256, self._path, end - length, length)

    def hold(self) -> None:
        """Somebody needs its answers."""
        self._holders += 1

    def release(self) -> bool:
        """One who held it has its answers in the pool; whether nobody holds it any more, and so it is removed."""
        self._holders -= 1
        if self._holders == 0:
            self._path.unlink(missing_ok=True)
        return self._holders == 0


def _write_all(file: RawIOBase, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]


def _header(answer: Answer, sha256: str | None) -> bytes:
    asked_at = None if answer.asked_at is None else answer.asked_at.isoformat()
    reason = None if answer.reason is None else str(answer.reason)
    made = {
        **answer.__dict__,
        "asked_at": asked_at,
        "reason": reason,
        "sha256": sha256,
        "data": len(answer.data),
    }
    return json.dumps(made).encode() + b"\n"


def _read(path: Path) -> list[Kept]:
    """The whole answers of a file, to its end or to where it is torn."""
    found: list[Kept] = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while line := file.readline(_LONGEST_HEADER):
            try:
                made = json.loads(line)
                sha256, length = made.pop("sha256"), int(made.pop("data"))
                made["reason"] = None if made["reason"] is None else Reason(made["reason"])
                if made["asked_at"] is not None:
                    made["asked_at"] = datetime.fromisoformat(made["asked_at"])
                answer = Answer(**made)
            except (ValueError, KeyError, TypeError):  # torn: a process was killed while it wrote this
                break
            offset = file.tell()
            if not 0 <= length <= size - offset:
                break
            found.append(Kept(answer, sha256, path, offset, length))
            file.seek(offset + length)
    return found
