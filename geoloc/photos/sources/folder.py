"""Source: a folder of photos with EXIF GPS; sub-folders are albums."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from PIL import Image

from geoloc.photos.decoding import DECODER_ERRORS, FORMATS, decoder_failure
from geoloc.photos.exif import ExifFacts, read_exif
from geoloc.photos.quarantine import Reason
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


def folder_candidates(folder: Path | str, *, photographer: str | None = None) -> Iterator[Candidates]:
    """Photos below `folder`, in order of their paths.

    photo_id: the path below `folder` (ingest puts the source's name in front); album: its folder, null at the top;
    coordinates, taken_at (DateTimeOriginal) and heading (GPSImgDirection) from EXIF. `photographer` took them all; if
    None, the first folder below names who did, and nobody is known at the top. Hidden files and folders are passed
    by, and links to folders; other files that are no photos by their suffix are counted in the notes. Raises
    SourceError where `folder` is no folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder")
    return _batches(root, photographer)


def _batches(root: Path, photographer: str | None) -> Iterator[Candidates]:
    notes: Counter[str] = Counter()
    files = _photo_files(root, notes)
    while names := list(islice(files, _BATCH)):
        yield _batch(root, names, photographer)
    yield Candidates(SCHEMA.empty_table(), notes=dict(notes))


def _photo_files(root: Path, notes: Counter[str]) -> Iterator[str]:
    """Paths below root, `/` between folders, in an order that does not depend on the file system."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.startswith("."):
                notes["hidden files passed by"] += 1
            elif path.suffix.lower() not in SUFFIXES:
                notes["files that are no photos by their suffix"] += 1
            else:
                yield path.relative_to(root).as_posix()


def _batch(root: Path, names: list[str], photographer: str | None) -> Candidates:
    faults, kept, facts = [], [], []
    for name in names:
        reference = _printable(name)
        try:
            found = _facts(root / name)
        except FileNotFoundError:
            faults.append(fault(reference, Reason.MISSING_FILE, "a link to nothing", photo_id=reference))
        except DECODER_ERRORS as error:
            if isinstance(error, PermissionError | IsADirectoryError):
                faults.append(
                    fault(reference, Reason.UNREADABLE_FILE, str(error.strerror), photo_id=reference)
                )
            else:
                why = decoder_failure(error)
                faults.append(fault(reference, why.reason, why.detail, photo_id=reference))
        else:
            if found.malformed:
                faults.append(
                    fault(reference, Reason.MALFORMED_COORDINATES, found.malformed, photo_id=reference)
                )
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
    )


def _facts(path: Path) -> ExifFacts:
    with Image.open(path, formats=FORMATS) as image:
        return read_exif(image)


def _printable(name: str) -> str:
    """A file name as UTF-8 text, also where its bytes are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
