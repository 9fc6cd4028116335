"""Files that are either complete or missing: atomic writes, and content hashes of files and folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pandas as pd  # takes half a second, which `geoloc --help` avoids


class UnfitFileError(OSError):
    """A file that is not read although it could be opened. `strerror` says why, without the path."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(None, why, str(path))

    def __str__(self) -> str:
        return f"{self.filename} is {self.strerror}"


class NotAFileError(UnfitFileError):
    """The path names something else than a file: a folder, a pipe, a socket, a device."""


class FileTooLargeError(UnfitFileError):
    """The file is larger than the caller reads."""


@contextlib.contextmanager
def open_regular(path: Path | str, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """A file, open for reading; anything else is not opened, so a pipe never blocks and no device is touched.

    Raises NotAFileError for what is no regular file, FileTooLargeError above `most_bytes`, before any byte is read, and
    OSError.
    """
    path = Path(path)
    _check_regular(path, path.stat().st_mode)
    # not to block if a pipe takes the file's place between these two lines
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        _check_regular(path, found.st_mode)
        if most_bytes is not None and found.st_size > most_bytes:
            raise FileTooLargeError(path, _too_large(found.st_size, most_bytes))
        yield stream


def read_regular(path: Path | str, most_bytes: int) -> bytes:
    """The bytes of a file. Raises as `open_regular`; memory is never more than `most_bytes`, also if the file grows."""
    with open_regular(path, most_bytes) as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise FileTooLargeError(Path(path), _too_large(len(data), most_bytes))
    return data


def _too_large(size: int, most: int) -> str:
    return f"{size} bytes large; the limit is {most} bytes"


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    raise NotAFileError(path, f"{kinds.get(stat.S_IFMT(mode), 'something else')}, not a file")


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends, removed if it raises.

    Readers see the old file or the new one, never a partial one. Parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name per write: two threads may write the same path, and the last to finish wins.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """A new temporary folder beside `folder`; replaces it when the block ends, removed if it raises.

    A process killed at any moment leaves the old folder, the new one or, between two renames, none: never a partial
    one.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    temporary.chmod(0o755)
    old = temporary.with_suffix(".old")
    try:
        yield temporary
        if folder.is_dir():
            folder.rename(
                old
            )  # deleting it in place would expose a partial folder to readers, or leave one after a kill
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically, keys sorted, indent 2, so that equal values give equal bytes. Raises ValueError for
    NaN."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The value of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: Path | str, frame: pd.DataFrame) -> None:
    """Write a data frame to Parquet atomically, without its index."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, compression="zstd")


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def content_hash(*paths: Path | str) -> str:
    """SHA-256 over files and folders: relative names and bytes, in sorted order; times and owners do not count.

    Raises FileNotFoundError for a missing path.
    """
    digest = hashlib.sha256()
    for path in (Path(p).absolute() for p in paths):  # "." has a name too
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing, so it has no content hash")
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            name = file.relative_to(path.parent).as_posix()
            with file.open("rb") as stream:
                inner = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{name}\0{inner}\n".encode())
    return digest.hexdigest()
