"""Source: a folder of photos with EXIF GPS; sub-folders are albums."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
from PIL import Image

from geoloc.files import FileTooLargeError, UnfitFileError, open_regular, sha256_bytes
from geoloc.photos.decoding import DECODER_ERRORS, FORMATS, decoder_failure
from geoloc.photos.exif import ExifFacts, read_exif
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.settings import IngestSettings
from geoloc.photos.sources.candidates import SCHEMA, Candidates, SourceError, fault, fault_table, read_file
from geoloc.photos.sources.fields import typed

# heic, heif and raw formats are here although nothing reads them: such a photo belongs in quarantine, not ignored
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".avif",
        ".heic",
        ".heif",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".orf",
        ".rw2",
    ]
)
_BATCH = 512
_NAMED = 20
"""How many of the folders that are not entered are named on the screen; quarantine has them all."""

Faults: TypeAlias = list[dict[str, str | None]]


def folder_candidates(
    folder: Path | str,
    *,
    photographer: str | None = None,
    follow_links: bool = False,
    max_file_bytes: int = IngestSettings().max_file_bytes,
) -> Iterator[Candidates]:
    """Photos below `folder`, in order of their paths.

    photo_id: the path below `folder` (ingest puts the source's name in front); album: its folder, null at the top;
    coordinates, taken_at (DateTimeOriginal) and heading (GPSImgDirection) from EXIF. `photographer` took them all; if
    None, the first folder below names who did, and nobody is known at the top.

    Hidden folders, folders that cannot be read, and links to folders are not entered, and each is turned away; so is a
    link to a file outside. With `follow_links` links are followed, each folder once. Hidden files, and files that are
    no photos by their suffix, are counted in the notes. Raises SourceError where `folder` is no folder or not readable.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise SourceError(f"{root} cannot be read: {error.strerror}") from None
    return _batches(_Walk(root, follow_links), photographer, max_file_bytes)


def _batches(walk: _Walk, photographer: str | None, most: int) -> Iterator[Candidates]:
    files = walk.photo_files()
    while names := list(islice(files, _BATCH)):
        yield _batch(walk.root, names, photographer, most, walk.take_faults())
    last = fault_table(walk.take_faults())
    notes = dict(walk.notes)
    if walk.not_entered > _NAMED:
        notes["folders not entered that are named in quarantine only"] = walk.not_entered - _NAMED
    yield Candidates(
        SCHEMA.empty_table(),
        faults=last,
        notes=notes,
        local_ids=True,
        photographer_folder=photographer is None,
        origin=walk.root,
    )


class _Walk:
    """The way through a folder: which files to read, and what is passed by on the way."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self._follow = root, follow_links
        self.notes: Counter[str] = Counter()
        self.not_entered = 0
        self._faults: Faults = []
        self._inside = root.resolve()

    def take_faults(self) -> Faults:
        """What was passed by since the last call."""
        faults, self._faults = self._faults, []
        return faults

    def photo_files(self) -> Iterator[str]:
        """Paths below root, `/` between folders, in an order that does not depend on the file system."""
        entered: set[tuple[int, int]] = set()
        links: deque[str] = deque()
        waiting = [""]
        while waiting or links:  # links last: a folder is best known by its own name
            linked = not waiting
            folder = waiting.pop() if waiting else links.popleft()
            try:
                found = (self.root / folder).stat()
                if (found.st_dev, found.st_ino) in entered:
                    self._pass_by(
                        folder, Reason.LINKED_FOLDER, "a link to a folder that is read under another name"
                    )
                    continue
                entered.add((found.st_dev, found.st_ino))
                with os.scandir(self.root / folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                why = str(error.strerror) if not linked else f"a link: {error.strerror}"
                self._pass_by(folder, Reason.UNREADABLE_FOLDER, why)
                continue
            folders = []
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not _is_folder(entry):
                    if self._is_photo(name, entry):
                        yield name
                elif entry.name.startswith("."):
                    self._pass_by(name, Reason.HIDDEN_FOLDER, "a hidden folder is not entered")
                elif not entry.is_symlink():
                    folders.append(name)
                elif self._follow:
                    links.append(name)
                else:
                    why = "a link to a folder is entered with --follow-links only"
                    self._pass_by(name, Reason.LINKED_FOLDER, why)
            waiting.extend(reversed(folders))

    def _is_photo(self, name: str, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith("."):
            self.notes["hidden files passed by"] += 1
            return False
        if Path(entry.name).suffix.lower() not in SUFFIXES:
            self.notes["files that are no photos by their suffix"] += 1
            return False
        if entry.is_symlink() and not self._follow:
            path = self.root / name
            if path.exists() and not path.resolve().is_relative_to(self._inside):
                shown = _printable(name)
                why = "a link out of the folder is followed with --follow-links only"
                self._faults.append(fault(shown, Reason.LINK_OUTSIDE, why, photo_id=shown))
                return False
        return True

    def _pass_by(self, folder: str, reason: Reason, why: str) -> None:
        shown = _printable(folder) + "/"
        self._faults.append(fault(shown, reason, why))
        self.not_entered += 1
        if self.not_entered <= _NAMED:  # by its own name: this is for the screen, and never stored
            self.notes[f"folder not entered: {shown} ({why})"] += 1


def _batch(root: Path, names: list[str], photographer: str | None, most: int, faults: Faults) -> Candidates:
    kept, facts = [], []
    for name in names:
        reference = _printable(name)
        try:
            found = _facts(root / name, most)
        except Rejected as why:
            content = _content(root / name, most)
            faults.append(fault(reference, why.reason, why.detail, photo_id=reference, content=content))
        else:
            kept.append(name)
            facts.append(found)
    reference = pa.array([_printable(name) for name in kept], pa.string())
    folders = [_printable(name).rpartition("/")[0] or None for name in kept]
    if photographer is not None:
        people: list[str | None] = [photographer] * len(kept)
    else:
        people = [None if place is None else place.split("/")[0] for place in folders]
    table, field_faults, _ = typed(
        reference,
        {
            "photo_id": reference,
            "photographer": pa.array(people, pa.string()),
            "latitude": pa.array([found.latitude for found in facts], pa.float64()),
            "longitude": pa.array([found.longitude for found in facts], pa.float64()),
            "taken_at": pa.array([found.taken for found in facts], pa.string()),
            "album": pa.array(folders, pa.string()),
            "heading": pa.array([found.heading for found in facts], pa.float64()),
        },
    )
    return Candidates(
        table,
        load=lambda row, most: read_file(root / kept[row], most),
        faults=pa.concat_tables([fault_table(faults), field_faults]),
        local_ids=True,
        photographer_folder=photographer is None,
        origin=root,
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _facts(path: Path, most: int) -> ExifFacts:
    """What a photo's EXIF says. Raises Rejected."""
    try:
        with open_regular(path, most) as stream:
            if not os.fstat(stream.fileno()).st_size:
                raise Rejected(Reason.UNREADABLE_IMAGE, "the file is empty")
            try:
                with Image.open(stream, formats=FORMATS) as image:
                    found = read_exif(image)
            except DECODER_ERRORS as error:
                raise decoder_failure(error) from None
    except FileNotFoundError:
        raise Rejected(Reason.MISSING_FILE, "a link to nothing") from None
    except FileTooLargeError as error:
        raise Rejected(Reason.TOO_LARGE_FILE, str(error.strerror)) from None
    except OSError as error:
        raise Rejected(Reason.UNREADABLE_FILE, str(error.strerror or error)) from None
    if found.malformed:
        raise Rejected(Reason.MALFORMED_COORDINATES, found.malformed)
    return found


def _content(path: Path, most: int) -> str | None:
    """A digest of a file that is turned away, or its size where it is not read."""
    try:
        return sha256_bytes(read_file(path, most))
    except (Rejected, UnfitFileError):
        return str(path.stat().st_size)
    except OSError:
        return None


def _printable(name: str) -> str:
    """A file name as UTF-8 text, also where its bytes are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
