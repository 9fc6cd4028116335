"""Source: MP-16 as msgpack shards: a stream of records with id and image, and coordinates in them or in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.files import open_regular
from geoloc.photos.addresses import Place, SourceError, as_place, each_fetched, fetched, listed
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import (
    SCHEMA,
    Candidates,
    Load,
    expand,
    fault,
    fault_table,
    lost,
    shown,
)
from geoloc.photos.sources.delimited import delimiter_of, first_row, read_blocks
from geoloc.photos.sources.fields import strings, text, typed
from geoloc.photos.sources.webdataset import json_fields

_BATCH_RECORDS = 256
_BATCH_BYTES = 64 * 1024 * 1024
_MOST_VALUES = 100_000
"""Values in a record: lists within lists take fifty times the memory that they take in the file."""

MOST_IMAGE_BYTES = 256 * 1024 * 1024
"""A record past this ends its shard: it is not read into memory to find where it ends."""

_PLACES = {"photo_id": "IMG_ID", "latitude": "LAT", "longitude": "LON"}
_PHOTOGRAPHER = "AUTHOR"
_FROM_TABLE = "table"


def mp16_candidates(
    shards: str | Place | list[str | Place],
    *,
    columns: Mapping[str, str] | None = None,
    image: str = "image",
    table: Place | str | None = None,
) -> Iterator[Candidates]:
    """Records of msgpack shards (a path, a pattern, several, or addresses of these), in order, streamed.

    As Müller-Budack et al. (Geolocation Estimation of Photos using a Hierarchical Model, ECCV 2018) publish MP-16:
    maps with `id`, `image` and, in some versions, `latitude` and `longitude`; `columns` names other keys. Text may have
    msgpack's old type, which does not tell it from bytes. A record without coordinates takes those of its id in
    `table`, a CSV with IMG_ID, LAT, LON and perhaps AUTHOR (default: the one such CSV in the folder of the shards). A
    shard that breaks off or breaks the syntax is read up to there. Raises SourceError for no shard, an unknown field or
    a table without these columns.
    """
    mapping = json_fields({"photo_id": "id", **(columns or {})})
    paths = expand(shards, "msgpack shard")
    places = found_table(paths) if table is None else as_place(table)
    return _batches(paths, mapping, image, None if places is None else open_places(places))


class Places:
    """Coordinates by photo id, read from a CSV when the first record asks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = first_row(path, delimiter_of(path), quoted=True)
        missing = [name for name in _PLACES.values() if name not in self.names]
        if missing:
            raise SourceError(
                f"{path} has no column {', '.join(missing)}; it has {shown(self.names)};"
                f" a table of coordinates has {', '.join(_PLACES.values())}"
            )
        self._rows: pa.Table | None = None
        self._ids = pd.Index([])

    def load(self) -> None:
        """Read the table now: its file may be gone when the first record asks."""
        if self._rows is None:
            self._rows = self._read()
            self._ids = pd.Index(self._rows["photo_id"].to_pandas())

    def of(self, photo_ids: pa.Array) -> dict[str, pa.Array]:
        """latitude, longitude and photographer as text, of each id; null where the table has none."""
        self.load()
        assert self._rows is not None
        at = self._ids.get_indexer(photo_ids.to_pandas())
        rows = pa.array(at, mask=at < 0)
        return {name: self._rows[name].combine_chunks().take(rows) for name in self._rows.column_names[1:]}

    def _read(self) -> pa.Table:
        columns = dict(_PLACES)
        if _PHOTOGRAPHER in self.names:
            columns["photographer"] = _PHOTOGRAPHER
        parts = []
        blocks = read_blocks(
            self.path,
            delimiter_of(self.path),
            self.names,
            header=True,
            quoted=True,
            wanted=list(columns.values()),
        )
        for block in blocks:
            if block.rows is not None:
                count = block.rows.num_rows
                made = {name: block.rows.column(column) for name, column in columns.items()}
                texts = {name: text(made[name], count) for name in _PLACES}
                parts.append(pa.table({**made, **texts}))
        kinds = {"photographer": pa.binary()}  # as it is, for `typed` to look at its encoding
        none = pa.schema([(name, kinds.get(name, pa.string())) for name in columns]).empty_table()
        rows = pa.concat_tables([none, *parts])
        seen = pd.Index(rows["photo_id"].to_pandas())
        return rows.filter(pa.array(~seen.duplicated() & seen.notna()))


def open_places(place: Place) -> Places:
    """The table of coordinates at a place."""
    if isinstance(place, Path):
        return Places(place)
    with fetched(place) as path:
        places = Places(path)
        places.load()
        return places


def found_table(shards: Sequence[Place]) -> Place | None:
    """The CSV of coordinates beside the shards; None for none. Raises SourceError for several."""
    found: list[Place] = []
    for folder in sorted({path.parent for path in shards}, key=str):
        for place in _csv_files(folder):
            try:
                with fetched(place) as path:
                    names = first_row(path, ",", quoted=True)
            except SourceError:
                continue
            if set(_PLACES.values()) <= set(names):
                found.append(place)
    if len(found) > 1:
        raise SourceError(
            f"{', '.join(map(str, found))}: each may have the coordinates; choose one with --table"
        )
    return found[0] if found else None


def _csv_files(folder: Place) -> list[Place]:
    if isinstance(folder, Path):
        return list(sorted(folder.glob("*.csv")))
    try:
        return [folder / entry.name for entry in listed(folder) if entry.name.endswith(".csv")]
    except SourceError:  # a server that lists nothing
        return []


def _batches(
    shards: list[Place], mapping: Mapping[str, str], image: str, places: Places | None
) -> Iterator[Candidates]:
    for place, path in each_fetched(shards):
        if isinstance(path, SourceError):
            yield lost(place, path)
            continue
        batch: list[tuple[int, dict[str, Any]]] = []
        faults: list[dict[str, str | None]] = []
        size = 0
        for number, record in _records(path, faults):
            if record is None:
                detail = "an empty record: the downloader did not get the photo"
                faults.append(fault(_reference(path, number), Reason.MISSING_FILE, detail))
                continue
            if not isinstance(record, dict):
                faults.append(fault(_reference(path, number), Reason.MALFORMED_RECORD, "no map"))
                continue
            named = {_key(key): value for key, value in record.items()}
            batch.append((number, named))
            data = named.get(image)
            size += len(data) if isinstance(data, bytes) else 0
            if len(batch) == _BATCH_RECORDS or size >= _BATCH_BYTES:
                yield replace(_candidates(path, batch, faults, mapping, image, places), origin=place)
                batch, faults[:], size = [], [], 0
        yield replace(_candidates(path, batch, faults, mapping, image, places), origin=place)


def _key(key: Any) -> str:
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


def _records(path: Path, faults: list[dict[str, str | None]]) -> Iterator[tuple[int, Any]]:
    """Numbers from 1, and records whose text is bytes: the old format has one type for both."""
    number = values = 0

    def counted(value: Any) -> Any:
        nonlocal values
        values += 1 + len(value)
        if values > _MOST_VALUES:
            raise ValueError(f"a record of over {_MOST_VALUES} values")
        return value

    with open_regular(path) as stream:
        unpacker = msgpack.Unpacker(
            stream,
            raw=True,
            strict_map_key=True,
            max_buffer_size=MOST_IMAGE_BYTES + 1024 * 1024,
            max_bin_len=MOST_IMAGE_BYTES,
            max_str_len=MOST_IMAGE_BYTES,
            max_array_len=1024,
            max_map_len=1024,
            max_ext_len=1024,
            list_hook=counted,
            object_hook=counted,
        )
        try:
            for record in unpacker:
                number, values = number + 1, 0
                yield number, record
            left = stream.tell() - unpacker.tell()
            problem = f"it ends within a record, {left} bytes long" if left else None
        except Exception as error:  # msgpack raises whatever damage leads to
            problem = f"{type(error).__name__}: {error}"[:300]
    if problem:
        faults.append(
            fault(f"{path.name}: after record {number}", Reason.UNREADABLE_ARCHIVE, problem, content=problem)
        )


def _candidates(
    path: Path,
    batch: list[tuple[int, dict[str, Any]]],
    faults: list[dict[str, str | None]],
    mapping: Mapping[str, str],
    image: str,
    places: Places | None,
) -> Candidates:
    if not batch:
        return Candidates(SCHEMA.empty_table(), faults=fault_table(faults))
    raw: dict[str, pa.Array | None] = {
        name: strings([record.get(key) for _, record in batch]) for name, key in mapping.items()
    }
    if places is not None:
        raw |= placed(raw, places, len(batch))
    reference = pa.array([_reference(path, number) for number, _ in batch], pa.string())
    table, field_faults, rows = typed(reference, raw)
    images = [batch[row][1].get(image) for row in rows.tolist()]
    return Candidates(
        table,
        _loader(images),
        faults=pa.concat_tables([fault_table(faults), field_faults]),
    )


def placed(raw: Mapping[str, pa.Array | None], places: Places, count: int) -> dict[str, pa.Array]:
    """Columns that the table completes: the coordinates together, as two halves of two places are none."""
    given = {name: text(raw[name], count) for name in ("photo_id", "latitude", "longitude", "photographer")}
    bare = pc.and_(pc.is_null(given["latitude"]), pc.is_null(given["longitude"]))
    if not pc.any(bare).as_py():
        return {}
    known = places.of(given["photo_id"])
    found = pc.and_(bare, pc.is_valid(known["latitude"]))
    made = {name: pc.if_else(bare, known[name], given[name]) for name in ("latitude", "longitude")}
    if "photographer" in known and given["photographer"].null_count == count:
        made["photographer"] = known["photographer"]
    made["place_source"] = pc.if_else(found, _FROM_TABLE, pa.scalar(None, pa.string()))
    return made


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
