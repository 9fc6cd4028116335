"""Source: MP-16 as msgpack shards: a stream of records with id, latitude, longitude and the image's bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import pyarrow as pa

from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import SCHEMA, Candidates, Load, expand, fault, fault_table
from geoloc.photos.sources.fields import strings, typed
from geoloc.photos.sources.webdataset import json_fields

_BATCH_RECORDS = 256
_BATCH_BYTES = 64 * 1024 * 1024
MOST_IMAGE_BYTES = 256 * 1024 * 1024
"""A record past this ends its shard: it is not read into memory to find where it ends."""


def mp16_candidates(
    shards: str | Path | list[str | Path], *, columns: Mapping[str, str] | None = None, image: str = "image"
) -> Iterator[Candidates]:
    """Records of msgpack shards (a path, a pattern, or several), in order, streamed.

    As Müller-Budack et al. (Geolocation Estimation of Photos using a Hierarchical Model, ECCV 2018) publish MP-16:
    maps with `id`, `latitude`, `longitude`, `image`; `columns` names other keys. A shard that breaks off or breaks
    the syntax is read up to there. Raises SourceError for no shard or an unknown field.
    """
    mapping = json_fields({"photo_id": "id", **(columns or {})})
    return _batches(expand(shards, "msgpack shard"), mapping, image)


def _batches(shards: list[Path], mapping: Mapping[str, str], image: str) -> Iterator[Candidates]:
    for path in shards:
        batch: list[tuple[int, dict[str, Any]]] = []
        faults: list[dict[str, str | None]] = []
        size = 0
        for number, record in _records(path, faults):
            if not isinstance(record, dict):
                faults.append(fault(_reference(path, number), Reason.MALFORMED_RECORD, "no map"))
                continue
            batch.append((number, record))
            data = record.get(image)
            size += len(data) if isinstance(data, bytes) else 0
            if len(batch) == _BATCH_RECORDS or size >= _BATCH_BYTES:
                yield _candidates(path, batch, faults, mapping, image)
                batch, faults[:], size = [], [], 0
        yield _candidates(path, batch, faults, mapping, image)


def _records(path: Path, faults: list[dict[str, str | None]]) -> Iterator[tuple[int, Any]]:
    number = 0
    with path.open("rb") as stream:
        unpacker = msgpack.Unpacker(
            stream,
            raw=False,
            unicode_errors="replace",
            strict_map_key=True,
            max_buffer_size=MOST_IMAGE_BYTES + 1024 * 1024,
            max_bin_len=MOST_IMAGE_BYTES,
            max_str_len=64 * 1024,
            max_array_len=1024,
            max_map_len=1024,
            max_ext_len=1024,
        )
        try:
            for record in unpacker:
                number += 1
                yield number, record
            left = stream.tell() - unpacker.tell()
            problem = f"it ends within a record, {left} bytes long" if left else None
        except (ValueError, msgpack.UnpackException, msgpack.BufferFull, OSError) as error:
            problem = f"{type(error).__name__}: {error}"[:300]
    if problem:
        faults.append(fault(f"{path.name}: after record {number}", Reason.UNREADABLE_ARCHIVE, problem))


def _candidates(
    path: Path,
    batch: list[tuple[int, dict[str, Any]]],
    faults: list[dict[str, str | None]],
    mapping: Mapping[str, str],
    image: str,
) -> Candidates:
    if not batch:
        return Candidates(SCHEMA.empty_table(), faults=fault_table(faults), origin=path)
    raw = {name: strings([record.get(key) for _, record in batch]) for name, key in mapping.items()}
    reference = pa.array([_reference(path, number) for number, _ in batch], pa.string())
    table, field_faults, rows = typed(reference, raw)
    images = [batch[row][1].get(image) for row in rows.tolist()]
    return Candidates(
        table,
        _loader(images),
        faults=pa.concat_tables([fault_table(faults), field_faults]),
        origin=path,
    )


def _loader(images: list[Any]) -> Load:
    def load(row: int, most: int) -> bytes:
        data = images[row]
        if not isinstance(data, bytes):
            raise Rejected(Reason.MISSING_FILE, "the record has no image bytes")
        if len(data) > most:
            raise Rejected(Reason.TOO_LARGE_FILE, f"{len(data)} bytes; the limit is {most} bytes")
        return data

    return load


def _reference(path: Path, number: int) -> str:
    return f"{path.name}: record {number}"
