"""Image files that belong to the rows of a table: by the path that a row gives, or by the photo's id."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from geoloc.files import FileTooLargeError
from geoloc.photos.addresses import DEEPEST, Address, Entry, Place, SourceError, listed, read
from geoloc.photos.formats import PHOTO_SUFFIXES, READ_SUFFIXES
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import read_file


def read_picture(folder: Place, name: str, max_file_bytes: int) -> bytes:
    """The image file that a table calls `name`. Raises as `safe_path` and `read_file`; FileNotFoundError."""
    if isinstance(folder, Path):
        return read_file(find_file(folder, name), max_file_bytes)
    try:
        return read(folder / safe_path(Path(), name).as_posix(), max_file_bytes)
    except FileTooLargeError as error:
        raise Rejected(Reason.TOO_LARGE_FILE, str(error.strerror)) from None
    except SourceError as error:
        raise Rejected(Reason.UNREADABLE_FILE, str(error)[:300]) from None


def safe_path(folder: Path, name: str) -> Path:
    """The file `name` in `folder`. Raises Rejected for an absolute name or one that leads out of the folder."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or "\0" in name:
        raise Rejected(Reason.UNSAFE_PATH, f"{name[:200]!r} is not a path below the folder of photos")
    if ".." in posix.parts or ".." in windows.parts:
        raise Rejected(Reason.UNSAFE_PATH, f"{name[:200]!r} points outside the folder of photos")
    return folder / posix


def find_file(folder: Path, name: str) -> Path:
    """The file that a table calls `name`, where the file system has it in another Unicode form or the table came from
    Windows. Raises as `safe_path`."""
    path = safe_path(folder, name)
    if path.exists() or (name.isascii() and "\\" not in name):
        return path
    slashed = name.replace("\\", "/")
    others = (slashed, unicodedata.normalize("NFC", slashed), unicodedata.normalize("NFD", slashed))
    return next((found for found in (folder / other for other in others) if found.exists()), path)


def id_key(photo_id: str) -> str:
    """What `files_by_id` finds a photo's file by: its id in Unicode's form NFC."""
    return unicodedata.normalize("NFC", photo_id)


def files_by_id(folder: Place) -> dict[str, str]:
    """Image files anywhere below a folder, by `id_key` of the file name without suffix; of equal names the first in
    order of paths, and a format that is read before a raw one.

    Values are paths below the folder. Raises SourceError where it is no folder.
    """
    if isinstance(folder, Address):
        return _named(((place, [entry.name for entry in entries]) for place, entries in below(folder)))
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder of photos")
    return _named(_walked(folder))


def _walked(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        below = os.path.relpath(place, folder)
        yield "" if below == "." else below, sorted(files)


def _named(folders: Iterable[tuple[str, list[str]]]) -> dict[str, str]:
    found: dict[str, str] = {}
    unread: dict[str, str] = {}
    for place, files in folders:
        for name in files:
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a Path for each of millions is slow
            if suffix.lower() in PHOTO_SUFFIXES and not name.startswith("._"):
                kind = found if suffix.lower() in READ_SUFFIXES else unread
                kind.setdefault(id_key(stem), f"{place}/{name}" if place else name)
    return {**unread, **found}


def below(root: Address) -> Iterator[tuple[str, list[Entry]]]:
    """Each folder from `root` down, by its path below it, with the files in it. Raises SourceError where `root` cannot
    be listed."""
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        entries = listed(root / folder if folder else root)
        yield folder, [entry for entry in entries if not entry.is_folder]
        deepest = folder.count("/") >= DEEPEST
        names = [entry.name for entry in entries if entry.is_folder and not deepest]
        waiting.extend(f"{folder}/{name}" if folder else name for name in reversed(names))
