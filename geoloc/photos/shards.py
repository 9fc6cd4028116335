"""Shards: immutable tar files in WebDataset layout that hold the photos, and reading one photo by its place."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tarfile
import threading
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from geoloc.photos.catalog import sync_folder

SHARDS_FOLDER = "shards"
SHARD_PATTERN = "photos-{:06d}.tar"
_PART = ".part"
_LONGEST_KEY = 90  # a tar header holds a name of 100 bytes


def member_key(photo_id: str) -> str:
    """The name of a photo's members in a shard, without extension.

    WebDataset takes all up to the first dot as the key and slashes as folders, so everything but letters, digits,
    - and _ is percent-encoded; `urllib.parse.unquote` gives the id back. An id too long for a tar header is replaced
    by `sha256-` and its SHA-256.
    """
    key = quote(photo_id, safe="").replace(".", "%2E").replace("~", "%7E")
    return key if len(key) <= _LONGEST_KEY else "sha256-" + hashlib.sha256(photo_id.encode()).hexdigest()


class ShardWriter:
    """Writes one shard under a temporary name; `close` makes it durable and gives it its own.

    Equal photos in equal order give equal bytes: members have no owner and no time. Use as a context manager: a
    shard whose block raises is removed.
    """

    def __init__(self, pool: Path, name: str) -> None:
        self.name = name
        self.path = Path(pool) / SHARDS_FOLDER / name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists, and a shard is never rewritten")
        self._temporary = self.path.with_name(f".{name}{_PART}")
        self._file = self._temporary.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        self.photos = 0
        self._open = True

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def add(self, photo_id: str, data: bytes) -> tuple[int, int]:
        """Append a photo; offset and length of its bytes in the shard."""
        member = tarfile.TarInfo(f"{member_key(photo_id)}.jpg")
        member.size = len(data)
        member.mode = 0o644
        self._tar.addfile(member, io.BytesIO(data))
        self.photos += 1
        # addfile pads to a block of 512 bytes after the data
        return self._file.tell() - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, len(data)

    def close(self) -> None:
        """Finish the shard: on disk, then under its name."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.rename(self.path)
        sync_folder(self.path.parent)
        self._open = False

    def discard(self) -> None:
        """Remove what was written; the shard never was."""
        with contextlib.suppress(OSError):  # a full disk, which does not take what is still to be written
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            if kind is None:
                self.close()
            else:
                self.discard()


class ShardReader:
    """Reads photos of a pool by place, with `pread` on descriptors that stay open (64 at most by default).

    Threads may share one: pread has no file position. A forked child may use its parent's, and then opens files of
    its own. Pickles as its pool alone. Use as a context manager, or call `close`.
    """

    def __init__(self, pool: Path, most_open: int = 64) -> None:
        if most_open < 1:
            raise ValueError(f"most_open must be at least 1, got {most_open}")
        self.pool = Path(pool)
        self._most_open = most_open
        self._process = os.getpid()
        self._lock = threading.Lock()
        # shard -> [descriptor, readers at this moment]: one is closed only while nobody reads from it, as its
        # number could be another file's by then
        self._files: OrderedDict[str, list[int]] = OrderedDict()

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """`length` bytes at `offset` of `shard`.

        Raises FileNotFoundError for a missing shard, ValueError for a place or a name that cannot be, EOFError
        where the shard ends too early.
        """
        entry = self._take(shard)
        try:
            return _pread(entry[0], shard, int(offset), int(length))
        finally:
            with self._lock:
                entry[1] -= 1
                self._shrink(self._most_open)

    def close(self) -> None:
        """Close the files; a later read opens them again."""
        with self._lock:
            self._shrink(0)

    def _take(self, shard: str) -> list[int]:
        if self._process != os.getpid():
            # The parent's lock may have been held, by a thread that does not live on in this child.
            self._process, self._lock, self._files = os.getpid(), threading.Lock(), OrderedDict()
        with self._lock:
            entry = self._files.get(shard)
            if entry is None:
                entry = [_open(self.pool, shard), 0]
                self._files[shard] = entry
            self._files.move_to_end(shard)
            entry[1] += 1
            return entry

    def _shrink(self, most: int) -> None:
        for shard in [name for name, entry in self._files.items() if entry[1] == 0]:
            if len(self._files) <= most:
                break
            os.close(self._files.pop(shard)[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_files"):
            self.close()

    def __getstate__(self) -> tuple[Path, int]:
        return self.pool, self._most_open

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _open(pool: Path, shard: str) -> int:
    if Path(shard).name != shard or shard in ("", ".", ".."):
        raise ValueError(f"a shard is a file name below {SHARDS_FOLDER}/, got {shard!r}")
    return os.open(pool / SHARDS_FOLDER / shard, os.O_RDONLY | os.O_CLOEXEC)


def _pread(descriptor: int, shard: str, offset: int, length: int) -> bytes:
    if offset < 0 or length < 0:
        raise ValueError(f"offset and length must be at least 0, got {offset} and {length}")
    parts, got = [], 0
    while got < length:  # a read of more than 2 GB, or one that a signal cut short, comes in pieces
        part = os.pread(descriptor, length - got, offset + got)
        if not part:
            raise EOFError(
                f"{shard} ends before byte {offset + length}: the shard is damaged or not all there"
            )
        parts.append(part)
        got += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
