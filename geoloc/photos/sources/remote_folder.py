"""Source: a folder of photos on a server or in a bucket, read as a folder on disk is, a few photos at a time."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from geoloc.files import FileTooLargeError, disk_full_named
from geoloc.photos.addresses import DEEPEST, Address, Entry, SourceError, fetch, listed
from geoloc.photos.formats import PHOTO_SUFFIXES
from geoloc.photos.quarantine import Reason
from geoloc.photos.sidecars import sidecar_names
from geoloc.photos.sources.candidates import SCHEMA, Candidates, fault, fault_table
from geoloc.photos.sources.folder import photos_batch

_AT_A_TIME = 16
_MOST_PHOTOS = 256
_MOST_BYTES = 256 * 1024 * 1024
_UNKNOWN_BYTES = 4 * 1024 * 1024
"""What a photo counts as where the server does not tell its size."""

_MAX_SIDECAR_BYTES = 16 * 1024 * 1024


def remote_folder_candidates(root: Address, photographer: str | None, most: int) -> Iterator[Candidates]:
    """As `folder_candidates`. At most 256 photos, with their sidecars, are on disk at a time. Raises SourceError where
    the folder cannot be listed."""
    return _batches(_Walk(root, listed(root)), photographer, most)


@dataclass
class _Photo:
    folder: str
    entry: Entry
    sidecars: tuple[str, ...]

    @property
    def name(self) -> str:
        return _join(self.folder, self.entry.name)


@dataclass
class _Walk:
    """The way through the folder: photos in order of their paths, and what is passed by."""

    root: Address
    top: list[Entry]
    notes: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, str | None]] = field(default_factory=list)

    def photos(self) -> Iterator[_Photo]:
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                entries = listed(self.root / folder) if folder else self.top
            except SourceError as error:
                self.faults.append(fault(f"{folder}/", Reason.UNREADABLE_FOLDER, str(error)[:300]))
                continue
            names = frozenset(entry.name for entry in entries if not entry.is_folder)
            folders = []
            for entry in entries:
                name = _join(folder, entry.name)
                if entry.is_folder and entry.name.startswith("."):
                    why = "a hidden folder is not entered"
                    self.faults.append(fault(f"{name}/", Reason.HIDDEN_FOLDER, why))
                elif entry.is_folder and name.count("/") >= DEEPEST:
                    why = f"over {DEEPEST} folders deep"
                    self.faults.append(fault(f"{name}/", Reason.UNREADABLE_FOLDER, why))
                elif entry.is_folder:
                    folders.append(name)
                elif entry.name.startswith("."):
                    self.notes["hidden files passed by"] += 1
                elif Path(entry.name).suffix.lower() not in PHOTO_SUFFIXES:
                    self.notes["files that are no photos by their suffix"] += 1
                else:
                    beside = tuple(other for other in sidecar_names(entry.name, names) if other is not None)
                    yield _Photo(folder, entry, beside)
            waiting.extend(reversed(folders))

    def take_faults(self) -> list[dict[str, str | None]]:
        faults, self.faults = self.faults, []
        return faults


def _batches(walk: _Walk, photographer: str | None, most: int) -> Iterator[Candidates]:
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fetch") as threads:
        for photos in _groups(walk):
            with tempfile.TemporaryDirectory(prefix="geoloc-", ignore_cleanup_errors=True) as folder:
                local = Path(folder)
                fetched = list(threads.map(partial(_fetch, walk.root, local, most), photos))
                faults = [*walk.take_faults(), *(why for why in fetched if why is not None)]
                names = [photo.name for photo, why in zip(photos, fetched, strict=True) if why is None]
                yield replace(photos_batch(local, names, photographer, most, faults), origin=walk.root)
    yield Candidates(
        SCHEMA.empty_table(),
        faults=fault_table(walk.take_faults()),
        notes=walk.notes,
        local_ids=True,
        photographer_folder=photographer is None,
        origin=walk.root,
    )


def _groups(walk: _Walk) -> Iterator[list[_Photo]]:
    group: list[_Photo] = []
    size = 0
    for photo in walk.photos():
        group.append(photo)
        size += _UNKNOWN_BYTES if photo.entry.size is None else photo.entry.size
        if len(group) == _MOST_PHOTOS or size >= _MOST_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _fetch(root: Address, local: Path, most: int, photo: _Photo) -> dict[str, str | None] | None:
    """Fetch a photo and its sidecars below `local`; returns why it could not be."""

    def lost(reason: Reason, detail: str) -> dict[str, str | None]:
        return fault(photo.name, reason, detail, photo_id=photo.name, content=str(photo.entry.size))

    size = photo.entry.size
    if size is not None and size > most:
        return lost(Reason.TOO_LARGE_FILE, f"{size} bytes large; the limit is {most} bytes")
    folder = local / photo.folder
    try:
        with disk_full_named(local):
            folder.mkdir(parents=True, exist_ok=True)
        fetch(root / photo.name, folder / photo.entry.name, most)
        for name in photo.sidecars:
            fetch(root / _join(photo.folder, name), folder / name, _MAX_SIDECAR_BYTES)
    except FileTooLargeError as error:
        return lost(Reason.TOO_LARGE_FILE, str(error.strerror))
    except SourceError as error:
        return lost(Reason.UNREADABLE_FILE, str(error)[:300])
    except OSError as error:  # a name that the disk does not take
        return lost(Reason.UNREADABLE_FILE, str(error.strerror or error))
    return None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
