"""Source: a folder of photos with EXIF GPS; sub-folders are albums."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from geoloc.photos.formats import PHOTO_SUFFIXES
from geoloc.photos.quarantine import FIELD, PHOTO, Reason, Rejected
from geoloc.photos.sidecars import SIDECAR_SUFFIXES, Gathered, gather
from geoloc.photos.sources.candidates import SCHEMA, Candidates, SourceError, fault, fault_table, read_file
from geoloc.photos.sources.fields import typed

_BATCH = 512


def folder_candidates(folder: Path | str, *, photographer: str | None = None) -> Iterator[Candidates]:
    """Photos below `folder`, in order of their paths.

    photo_id: the path below `folder` (ingest puts the source's name in front); album: its folder, null at the top;
    coordinates, taken_at and heading from EXIF, else from XMP or a sidecar (geoloc.photos.sidecars). `photographer`
    took them all; if None, the first folder below names who did, and nobody is known at the top. Hidden files and
    folders are passed by, and links to folders; other files that are no photos by their suffix are counted in the
    notes. Raises SourceError where `folder` is no folder.
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
            elif path.suffix.lower() not in PHOTO_SUFFIXES:
                notes["files that are no photos by their suffix"] += 1
            else:
                yield path.relative_to(root).as_posix()


def _batch(root: Path, names: list[str], photographer: str | None) -> Candidates:
    faults: list[dict[str, str | None]] = []
    kept: list[str] = []
    facts: list[Gathered] = []
    sidecars = _Sidecars()
    for name in names:
        reference = _printable(name)

        def blame(reason: Reason, detail: str, *, severity: str = PHOTO, reference: str = reference) -> None:
            faults.append(fault(reference, reason, detail, photo_id=reference, severity=severity))

        path = root / name
        try:
            found = gather(path, sidecars.of(path.parent))
        except Rejected as error:
            blame(error.reason, error.detail)
        except FileNotFoundError:
            blame(Reason.MISSING_FILE, "a link to nothing")
        except OSError as error:
            blame(Reason.UNREADABLE_FILE, str(error.strerror or error))
        else:
            for detail in found.unread:
                blame(Reason.BAD_SIDECAR, detail[:300], severity=FIELD)
            if found.facts.problem is not None:
                blame(*found.facts.problem)
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
            "latitude": pa.array([found.facts.latitude for found in facts], pa.float64()),
            "longitude": pa.array([found.facts.longitude for found in facts], pa.float64()),
            "taken_at": pa.array([found.facts.taken for found in facts], pa.string()),
            "album": pa.array(folders, pa.string()),
            "heading": pa.array([found.facts.heading for found in facts], pa.float64()),
            "heading_reference": pa.array([found.facts.heading_reference for found in facts], pa.string()),
            "place_source": pa.array([found.place_source for found in facts], pa.string()),
            "time_source": pa.array([found.time_source for found in facts], pa.string()),
        },
    )
    return Candidates(
        table,
        load=lambda row, most: read_file(root / kept[row], most),
        faults=pa.concat_tables([fault_table(faults), field_faults]),
        local_ids=True,
        photographer_folder=photographer is None,
    )


class _Sidecars:
    """Names of the sidecar files in a folder; of one folder at a time, as photos come folder by folder."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._names: frozenset[str] = frozenset()

    def of(self, folder: Path) -> frozenset[str]:
        if folder != self._folder:
            with os.scandir(folder) as entries:
                self._names = frozenset(e.name for e in entries if e.name.lower().endswith(SIDECAR_SUFFIXES))
            self._folder = folder
        return self._names


def _printable(name: str) -> str:
    """A file name as UTF-8 text, also where its bytes are none."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
