"""The photo files of `geoloc locate`: read before any network is loaded, and never waited for. A light module."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoloc.photos.decoding import Limits, UnreadablePhoto, checked_pixels
from geoloc.photos.quarantine import Reason
from orchestration.errors import UsageError

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class ReadPhoto:
    """One photo file: its name, its pixels uint8 [H, W, 3], or why there are none, for people and as a `Reason`."""

    name: str
    pixels: NDArray[np.uint8] | None = None
    error: str | None = None
    reason: Reason | None = None


def read_photo(
    file: Path, prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None
) -> ReadPhoto:
    """Read a photo file with the checks and limits of photos that enter the pool. Raises nothing for a bad one.

    `prepare` is applied to the pixels, such as to keep less of them.
    """
    name = _printable(file)
    try:
        pixels = checked_pixels(_bytes(file))
        return ReadPhoto(name, pixels if prepare is None else prepare(pixels))
    except UnreadablePhoto as error:
        return ReadPhoto(name, None, str(error), error.reason)
    except (FileNotFoundError, NotADirectoryError) as error:
        return ReadPhoto(name, None, error.strerror, Reason.MISSING_FILE)
    except OSError as error:
        return ReadPhoto(name, None, error.strerror or str(error), Reason.UNREADABLE_FILE)
    except ValueError as error:  # a path with a null byte
        return ReadPhoto(name, None, str(error), Reason.UNREADABLE_FILE)


def photo_files(folder: Path) -> list[Path]:
    """The files of an album's folder by name, numbers in names by value, without hidden ones. Raises UsageError for
    no folder, or an empty one."""
    if not folder.is_dir():
        raise UsageError(f"--album must be a folder of photos, got {folder}")
    files = [one for one in folder.iterdir() if not one.is_dir() and not one.name.startswith(".")]
    if not files:
        raise UsageError(f"--album {folder} has no files")
    return sorted(files, key=_by_number)


def _by_number(file: Path) -> tuple[list[str | int], str]:
    """A sort key: cameras count, so IMG_9 comes before IMG_10. Text and numbers alternate, so like meets like."""
    parts = re.split(r"([0-9]+)", file.name)
    return [int(part) if number else part for number, part in zip(cycle((False, True)), parts)], file.name


def _bytes(file: Path) -> bytes:
    """The bytes of a regular file. Raises OSError, and UnreadablePhoto for one that is larger than a photo may be."""
    kind = stat.S_IFMT(file.stat().st_mode)
    if kind != stat.S_IFREG:  # opening a pipe or a device can wait for ever
        raise OSError(0, f"it is {KINDS.get(kind, 'no regular file')}, not a photo file")
    # Non-blocking, should it have become a pipe meanwhile.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        size, limit = os.fstat(stream.fileno()).st_size, Limits().max_file_bytes
        if size > limit:  # before it fills the memory
            raise UnreadablePhoto(Reason.TOO_LARGE_FILE, f"{size} bytes; the limit is {limit}")
        return stream.read(limit + 1)


def _printable(file: Path) -> str:
    """The path as text that can be printed: bytes of its name that are no UTF-8 are written as \\udcXX."""
    return str(file).encode("utf-8", "backslashreplace").decode()
