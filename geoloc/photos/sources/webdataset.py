"""Source: a WebDataset tar set as img2dataset writes it: key.jpg, key.json and key.txt side by side."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import (
    FIELDS,
    SCHEMA,
    Candidates,
    Load,
    SourceError,
    expand,
    fault,
    fault_table,
)
from geoloc.photos.sources.fields import strings, typed
from geoloc.photos.sources.pictures import SUFFIXES

_BATCH = 512
_MAX_JSON_BYTES = 1024 * 1024
_IMAGE_EXTENSIONS = frozenset(suffix[1:] for suffix in SUFFIXES)


@dataclass
class _Sample:
    """The members of one key: the position of its image in the tar, and its JSON."""

    key: str
    image: tuple[int, int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    problem: tuple[Reason, str] | None = None


def webdataset_candidates(
    tars: str | Path | list[str | Path], *, columns: Mapping[str, str] | None = None
) -> Iterator[Candidates]:
    """Samples of uncompressed tars (a path, a pattern, or several), in order; nothing is ever unpacked to disk.

    Fields are read from key.json: those of the catalog by their own names, or by another that `columns` gives
    ({"latitude": "lat"}). Without photo_id the key is the id, with the source's name in front (img2dataset numbers
    keys from 0 in every set, so give each set a source of its own). Links, devices, and members with absolute names
    or names that lead out of the archive are quarantined. Raises SourceError for no tar or an unknown field.
    """
    mapping = json_fields(columns)
    return _batches(expand(tars, "tar"), mapping)


def json_fields(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Field -> name in the record. Raises SourceError for an unknown field."""
    for name in columns or {}:
        if name not in FIELDS:
            raise SourceError(f"columns.{name} is unknown; a record has the fields {', '.join(FIELDS)}")
    return {name: (columns or {}).get(name, name) for name in FIELDS}


def _batches(tars: list[Path], mapping: Mapping[str, str]) -> Iterator[Candidates]:
    for path in tars:
        faults: list[dict[str, str | None]] = []
        samples = _samples(path, faults)
        while batch := list(islice(samples, _BATCH)):
            yield _candidates(path, batch, faults, mapping)
            faults.clear()
        if faults:
            yield Candidates(SCHEMA.empty_table(), faults=fault_table(faults), origin=path)


def _samples(path: Path, faults: list[dict[str, str | None]]) -> Iterator[_Sample]:
    """Consecutive members of one key, as WebDataset groups them."""
    sample: _Sample | None = None
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                # the list of members would grow with the archive
                tar.members = []  # type: ignore[attr-defined]
                if member.isdir():
                    continue
                unsafe = _unsafe(member)
                if unsafe:
                    faults.append(
                        fault(f"{path.name}: {_printable(member.name)}", Reason.UNSAFE_ARCHIVE_MEMBER, unsafe)
                    )
                    continue
                key, extension = _split(member.name)
                if sample is not None and sample.key != key:
                    yield sample
                    sample = None
                sample = sample or _Sample(key)
                _take(sample, extension, member, tar)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        faults.append(fault(f"{path.name}: {_end(sample)}", Reason.UNREADABLE_ARCHIVE, str(error)[:300]))
    if sample is not None:
        yield sample


def _take(sample: _Sample, extension: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    if extension in _IMAGE_EXTENSIONS:
        sample.image = (member.offset_data, member.size)
    elif extension == "json":
        if member.size > _MAX_JSON_BYTES:
            sample.problem = (Reason.MALFORMED_RECORD, f"its JSON has {member.size} bytes")
            return
        stream = tar.extractfile(member)
        try:
            facts = json.loads(stream.read() if stream else b"")
        except (ValueError, RecursionError) as error:
            sample.problem = (Reason.MALFORMED_RECORD, f"its JSON cannot be read: {error}"[:300])
            return
        if isinstance(facts, dict):
            sample.facts = facts
        else:
            sample.problem = (Reason.MALFORMED_RECORD, "its JSON is no object")


def _candidates(
    path: Path, samples: list[_Sample], faults: list[dict[str, str | None]], mapping: Mapping[str, str]
) -> Candidates:
    faults = list(faults)
    kept = []
    for sample in samples:
        reason, detail = sample.problem or (Reason.MISSING_FILE, "no image beside its metadata")
        if sample.problem or sample.image is None:
            faults.append(fault(f"{path.name}: {sample.key}", reason, detail, photo_id=None))
        else:
            kept.append(sample)
    raw = {
        name: strings([sample.facts.get(json_name) for sample in kept]) for name, json_name in mapping.items()
    }
    local = raw["photo_id"].null_count == len(kept)
    if local:
        raw["photo_id"] = pa.array([sample.key for sample in kept], pa.string())
    reference = pa.array([f"{path.name}: {sample.key}" for sample in kept], pa.string())
    table, field_faults, rows = typed(reference, raw)
    places = [kept[row].image for row in rows.tolist()]
    return Candidates(
        table,
        _loader(path, places),
        faults=pa.concat_tables([fault_table(faults), field_faults]),
        local_ids=local,
        origin=path,
    )


def _loader(path: Path, places: list[tuple[int, int] | None]) -> Load:
    def load(row: int, most: int) -> bytes:
        place = places[row]
        assert place is not None
        offset, size = place
        if size > most:
            raise Rejected(Reason.TOO_LARGE_FILE, f"{size} bytes; the limit is {most} bytes")
        with path.open("rb") as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) < size:
            raise Rejected(
                Reason.TRUNCATED_IMAGE, f"the archive ends {size - len(data)} bytes before the image"
            )
        return data

    return load


def _unsafe(member: tarfile.TarInfo) -> str | None:
    name = PurePosixPath(member.name)
    if member.issym() or member.islnk():
        return f"a link to {_printable(member.linkname)[:200]}"
    if not member.isreg() or member.issparse():
        return "no plain file"
    if name.is_absolute() or "\\" in member.name:
        return "an absolute name" if name.is_absolute() else "a name with a backslash"
    return "points outside the archive" if ".." in name.parts else None


def _split(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key runs to the first dot of the last part."""
    folder, slash, last = _printable(name).removeprefix("./").rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension.lower()


def _end(sample: _Sample | None) -> str:
    return "its beginning" if sample is None else f"after {sample.key}"


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
