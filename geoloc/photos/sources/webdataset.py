"""Source: a WebDataset tar set as img2dataset writes it: key.jpg, key.json and key.txt side by side."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc.photos.addresses import Place, SourceError, each_fetched
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import (
    FIELDS,
    SCHEMA,
    Candidates,
    Load,
    expand,
    fault,
    fault_table,
    lost,
)
from geoloc.photos.sources.fields import strings, typed
from geoloc.photos.sources.tars import Member, Sample, read_index

_BATCH = 512
_MAX_JSON_BYTES = 1024 * 1024


def webdataset_candidates(
    tars: str | Place | list[str | Place], *, columns: Mapping[str, str] | None = None
) -> Iterator[Candidates]:
    """Samples of uncompressed tars (a path, a pattern with `*` or `{00000..00010}`, or several, or addresses of these),
    in order; nothing is ever unpacked to disk, and of tars elsewhere one is there at a time.

    Fields are read from key.json: those of the catalog by their own names, or by another that `columns` gives
    ({"latitude": "lat"}). Without photo_id the key is the id, with the source's name in front (img2dataset numbers
    keys from 0 in every set, so give each set a source of its own). Members of a key may lie apart (geoloc.photos.
    sources.tars has the rules). Links, devices, and members with absolute names or names that lead out of the archive
    are quarantined. Raises SourceError for no tar or an unknown field.
    """
    mapping = json_fields(columns)
    return _batches(expand(tars, "tar"), mapping)


def json_fields(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Field -> name in the record. Raises SourceError for an unknown field."""
    for name in columns or {}:
        if name not in FIELDS:
            raise SourceError(f"columns.{name} is unknown; a record has the fields {', '.join(FIELDS)}")
    return {name: (columns or {}).get(name, name) for name in FIELDS}


def _batches(tars: list[Place], mapping: Mapping[str, str]) -> Iterator[Candidates]:
    for place, path in each_fetched(tars):
        if isinstance(path, SourceError):
            yield lost(place, path)
            continue
        index = read_index(path)
        yield Candidates(
            SCHEMA.empty_table(), faults=fault_table(index.faults), notes=index.notes, origin=place
        )
        for samples in _chunks(index.samples):
            yield replace(_candidates(path, samples, mapping), origin=place)


def _chunks(samples: list[Sample]) -> Iterator[list[Sample]]:
    for start in range(0, len(samples), _BATCH):
        yield samples[start : start + _BATCH]


def _candidates(path: Path, samples: list[Sample], mapping: Mapping[str, str]) -> Candidates:
    faults: list[dict[str, str | None]] = []
    kept: list[Member] = []
    records: list[dict[str, Any]] = []
    keys: list[str] = []

    def blame(what: str, reason: Reason, detail: str, content: str) -> None:
        faults.append(fault(f"{path.name}: {what}", reason, detail, content=content))

    with path.open("rb") as file:
        for sample in samples:
            if not sample.images:
                blame(sample.key, Reason.MISSING_FILE, f"no image among {sample.named()}", sample.named())
                continue
            image, *others = sample.images
            for other in others:
                detail = f"a second image of the key {sample.key}; {image.name} is the first"
                blame(other.name, Reason.DUPLICATE_ID, detail, f"{other.name} {other.offset} {other.size}")
            record = {} if sample.record is None else _record(file.fileno(), sample.record)
            if isinstance(record, str):
                blame(
                    sample.key, Reason.MALFORMED_RECORD, record, f"{image.name} {image.offset} {image.size}"
                )
                continue
            keys.append(sample.key)
            kept.append(image)
            records.append(record)
    raw = {name: strings([record.get(field) for record in records]) for name, field in mapping.items()}
    local = raw["photo_id"].null_count == len(kept)
    if local:
        raw["photo_id"] = pa.array(keys, pa.string())
    reference = pa.array([f"{path.name}: {key}" for key in keys], pa.string())
    table, field_faults, rows = typed(reference, raw)
    return Candidates(
        table,
        _loader(path, [kept[row] for row in rows.tolist()]),
        faults=pa.concat_tables([fault_table(faults), field_faults]),
        local_ids=local,
    )


def _record(descriptor: int, member: Member) -> dict[str, Any] | str:
    """The JSON of a sample, or what is wrong with it."""
    if member.size > _MAX_JSON_BYTES:
        return f"its JSON has {member.size} bytes"
    try:
        record = json.loads(os.pread(descriptor, member.size, member.offset))
    except (ValueError, RecursionError) as error:
        return f"its JSON cannot be read: {error}"[:300]
    return record if isinstance(record, dict) else "its JSON is no object"


def _loader(path: Path, images: list[Member]) -> Load:
    def load(row: int, most: int) -> bytes:
        image = images[row]
        if image.size > most:
            raise Rejected(Reason.TOO_LARGE_FILE, f"{image.size} bytes; the limit is {most} bytes")
        with path.open("rb") as file:
            data = os.pread(file.fileno(), image.size, image.offset)
        if len(data) < image.size:
            raise Rejected(
                Reason.TRUNCATED_IMAGE, f"the archive ends {image.size - len(data)} bytes before the image"
            )
        return data

    return load
