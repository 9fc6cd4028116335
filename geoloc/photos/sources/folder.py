"""Source: a folder of photos with EXIF GPS; sub-folders are albums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from geoloc.files import FileTooLargeError, sha256_bytes
from geoloc.photos.addresses import Address, Place, SourceError, as_place
from geoloc.photos.quarantine import FIELD, PHOTO, Reason, Rejected
from geoloc.photos.settings import IngestSettings
from geoloc.photos.sidecars import SIDECAR_SUFFIXES, Gathered, gather
from geoloc.photos.sources.candidates import SCHEMA, Candidates, fault, fault_table, read_file
from geoloc.photos.sources.fields import typed
from geoloc.photos.sources.walk import NAMED, Walk, printable
from geoloc.photos.warned import reading

_BATCH = 512


def folder_candidates(
    folder: Place | str,
    *,
    photographer: str | None = None,
    follow_links: bool = False,
    max_file_bytes: int = IngestSettings().max_file_bytes,
) -> Iterator[Candidates]:
    """Photos below `folder`, in order of their paths.

    photo_id: the path below `folder` (ingest puts the source's name in front); album: its folder, null at the top;
    coordinates, taken_at and heading from EXIF, else from XMP or a sidecar (geoloc.photos.sidecars). `photographer`
    took them all; if None, the first folder below names who did, and nobody is known at the top.

    Hidden folders, folders that cannot be read, and links to folders are not entered, and each is turned away; so is a
    link to a file outside. With `follow_links` links are followed, each folder once. Hidden files, and files that are
    no photos by their suffix, are counted in the notes. Raises SourceError where `folder` is no folder or not readable.
    """
    root = as_place(folder)
    if isinstance(root, Address):
        from geoloc.photos.sources.remote_folder import remote_folder_candidates  # which imports this module

        return remote_folder_candidates(root, photographer, max_file_bytes)
    if not root.is_dir():
        raise SourceError(f"{root} is not a folder")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise SourceError(f"{root} cannot be read: {error.strerror}") from None
    return _batches(Walk(root, follow_links), photographer, max_file_bytes)


def _batches(walk: Walk, photographer: str | None, most: int) -> Iterator[Candidates]:
    files = walk.photo_files()
    while names := list(islice(files, _BATCH)):
        yield photos_batch(walk.root, names, photographer, most, walk.take_faults())
    last = fault_table(walk.take_faults())
    notes = dict(walk.notes)
    if walk.not_entered > NAMED:
        notes["folders not entered that are named in quarantine only"] = walk.not_entered - NAMED
    yield Candidates(
        SCHEMA.empty_table(),
        faults=last,
        notes=notes,
        local_ids=True,
        photographer_folder=photographer is None,
        origin=walk.root,
    )


def photos_batch(
    root: Path, names: list[str], photographer: str | None, most: int, faults: list[dict[str, str | None]]
) -> Candidates:
    """Photos of a folder by their paths below it, and what was passed by on the way to them."""
    kept: list[str] = []
    facts: list[Gathered] = []
    sidecars = _Sidecars()
    for name in names:
        reference = printable(name)

        path = root / name

        def blame(
            reason: Reason,
            detail: str,
            *,
            severity: str = PHOTO,
            reference: str = reference,
            path: Path = path,
        ) -> None:
            content = _content(path, most)
            faults.append(
                fault(reference, reason, detail, photo_id=reference, severity=severity, content=content)
            )

        try:
            with reading(reference):
                found = gather(path, sidecars.of(path.parent), most)
        except Rejected as error:
            blame(error.reason, error.detail)
        except FileNotFoundError:
            blame(Reason.MISSING_FILE, "a link to nothing")
        except FileTooLargeError as error:
            blame(Reason.TOO_LARGE_FILE, str(error.strerror))
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
    reference = pa.array([printable(name) for name in kept], pa.string())
    folders = [printable(name).rpartition("/")[0] or None for name in kept]
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
        origin=root,
    )


def _content(path: Path, most: int) -> str | None:
    """A digest of a file that is turned away, or its size where it is not read."""
    try:
        return sha256_bytes(read_file(path, most))
    except Rejected:
        return str(path.stat().st_size)
    except OSError:
        return None


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
