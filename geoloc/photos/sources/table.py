"""Source: a CSV or Parquet table, with a folder of photos or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.photos.addresses import Address, Place, SourceError, as_place, fetched
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.sources.candidates import (
    FIELDS,
    SCHEMA,
    Candidates,
    Load,
    shown,
)
from geoloc.photos.sources.delimited import Block, delimiter_of, first_row, read_blocks, references
from geoloc.photos.sources.fields import text, typed, undecodable
from geoloc.photos.sources.parquet_rows import parquet_blocks, parquet_names
from geoloc.photos.sources.pictures import files_by_id, id_key, read_picture

NO_PHOTOS = "none"
TABLE_FIELDS = ("file", *FIELDS)
_REQUIRED = ("latitude", "longitude")


def table_candidates(
    path: Place | str,
    *,
    photos: Place | str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Candidates]:
    """Rows of `path` (.parquet, .csv, .tsv, or the latter two with .gz or .bz2).

    `columns` maps fields to columns with other names: {"latitude": "lat"}. Fields: file,
    photo_id, photographer, latitude, longitude, taken_at, posted_at, album, heading, prob_indoor, licence; all
    optional but the coordinates and one of photo_id and file. Without photo_id the file's path is the id.

    `photos` is the folder in which `file` is looked up (default: the table's own), or "none" for metadata only. A
    table without the column `file` is metadata only, unless `photos` is given: then a photo is the image file named
    as its id. A row with an empty `file` is metadata only. Everything in a CSV is text until parsed, so `NA` is
    Namibia, `007` an id, and only an empty cell is unknown. Raises SourceError for an unreadable table, an unknown
    field, a missing column. Both may be addresses.
    """
    place = as_place(path)
    if isinstance(place, Path):
        return _opened(place, place, photos, columns)
    return _remote(place, photos, columns)


def _remote(
    place: Address, photos: Place | str | None, columns: Mapping[str, str] | None
) -> Iterator[Candidates]:
    with fetched(place) as table:
        for batch in _opened(place, table, photos, columns):
            yield replace(batch, origin=place)


def _opened(
    place: Place, table: Path, photos: Place | str | None, columns: Mapping[str, str] | None
) -> Iterator[Candidates]:
    if not table.is_file():
        raise SourceError(f"{table} is not a file")
    names = _column_names(table)
    mapping = _mapping(table, names, columns or {})
    folder: Place | None = place.parent if photos is None else as_place(photos)
    if str(photos) == NO_PHOTOS or (photos is None and "file" not in mapping):
        folder = None
    by_id = files_by_id(folder) if folder is not None and "file" not in mapping else None
    if isinstance(folder, Path) and not folder.is_dir():
        raise SourceError(f"{folder} is not a folder of photos")
    blocks = _blocks(table, names, mapping)
    return (_candidates(table, block, mapping, folder, by_id) for block in blocks)


def _blocks(path: Path, names: list[str], mapping: Mapping[str, str]) -> Iterator[Block]:
    wanted = list(dict.fromkeys(mapping.values()))
    if path.suffix.lower() != ".parquet":
        delimiter = delimiter_of(path)
        numeric = tuple(mapping[name] for name in _REQUIRED)
        yield from read_blocks(
            path, delimiter, names, header=True, quoted=True, wanted=wanted, numeric=numeric
        )
        return
    yield from parquet_blocks(path, wanted)


def _candidates(
    path: Path,
    block: Block,
    mapping: Mapping[str, str],
    folder: Place | None,
    by_id: Mapping[str, str] | None,
) -> Candidates:
    if block.rows is None:
        return Candidates(SCHEMA.empty_table(), faults=block.faults, origin=path)
    raw = {name: block.rows.column(column) for name, column in mapping.items()}
    raw_file = raw.pop("file", None)
    file = text(raw_file, block.rows.num_rows)
    local = "photo_id" not in raw
    raw["photo_id"] = raw_file if local else _whole(raw["photo_id"], block.rows.num_rows)
    table, faults, rows = typed(references(path, block.numbers), raw)
    faults = pa.concat_tables([block.faults, faults])
    if folder is None:
        return Candidates(table, faults=faults, local_ids=local, origin=path)
    if by_id is not None:
        ids = table["photo_id"].to_pylist()
        names = [None if photo is None else by_id.get(id_key(photo)) for photo in ids]
        return Candidates(table, _loader(folder, names), faults=faults, local_ids=local, origin=path)
    names = file.take(rows).to_pylist()
    pictured = np.array([name is not None for name in names], bool)
    return Candidates(table, _loader(folder, names), pictured, faults, local_ids=local, origin=path)


def _whole(ids: pa.Array, count: int) -> pa.Array:
    """Ids that a spreadsheet made `12345.0` as they were."""
    if undecodable(ids, count).any():
        return ids
    return pc.replace_substring_regex(text(ids, count), r"^(\d+)\.0+$", r"\1")


def _loader(folder: Place, names: list[str | None]) -> Load:
    def load(row: int, most: int) -> bytes:
        name = names[row]
        if not name:
            raise Rejected(Reason.MISSING_FILE, f"{folder.name} has no image named as the id")
        try:
            return read_picture(folder, name, most)
        except FileNotFoundError:
            raise Rejected(Reason.MISSING_FILE, f"{name[:200]!r} is missing") from None

    return load


def _mapping(path: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, for the fields that the table has."""
    for name, column in columns.items():
        if name not in TABLE_FIELDS:
            raise SourceError(f"columns.{name} is unknown; a table has the fields {', '.join(TABLE_FIELDS)}")
        if column not in names:
            raise SourceError(f"{path.name} has no column {column!r} (for {name}); it has {shown(names)}")
    mapping = {name: columns.get(name, name) for name in TABLE_FIELDS if columns.get(name, name) in names}
    for name in _REQUIRED:
        if name not in mapping:
            raise SourceError(
                f"{path.name} has no column {name!r}; it has {shown(names)}; say which one with {name}=NAME"
            )
    if "photo_id" not in mapping and "file" not in mapping:
        raise SourceError(f"{path.name} needs a column photo_id or file; it has {shown(names)}")
    return mapping


def _column_names(path: Path) -> list[str]:
    if path.suffix.lower() == ".parquet":
        return parquet_names(path)
    names = first_row(path, delimiter_of(path), quoted=True)
    if len(set(names)) != len(names):
        raise SourceError(f"{path.name} has two columns of one name; it has {shown(names)}")
    return names
