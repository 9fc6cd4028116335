"""Tables of addresses of photos: with a header, YFCC100M's metadata, MP-16's list, OSV-5M's, or addresses alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from geoloc.photos.quarantine import Reason
from geoloc.photos.sources.candidates import (
    FIELDS,
    SCHEMA,
    Candidates,
    SourceError,
    fault,
    fault_table,
    shown,
)
from geoloc.photos.sources.delimited import Block, compression_of, first_row, read_blocks, references
from geoloc.photos.sources.fields import text, typed, undecodable
from geoloc.photos.sources.mp16 import Places, placed
from geoloc.photos.sources.parquet_rows import parquet_blocks, parquet_names
from geoloc.photos.sources.yfcc import LAYOUTS, yfcc_addresses

URL_FIELDS = ("url", *FIELDS)
_PLACE = ("latitude", "longitude")

_OSV5M = {
    "url": ("thumb_original_url",),
    "photo_id": ("id",),
    "photographer": ("creator_id", "creator_username"),
    "album": ("sequence",),
}
"""Field -> columns of OSV-5M's metadata (Astruc et al., OpenStreetView-5M, CVPR 2024), the first that is there."""


class UrlTable:
    """A table of addresses. Raises SourceError where it is none, for an unknown field and for a missing column.

    With a header: a column `url`, and those of a table of photos; `columns` maps them as there. Without one: YFCC100M's
    metadata (23 or 25 columns), an id and an address as MP-16's list has it, or an address alone. `places`: coordinates
    by id, where the table has none. Without photo_id the address is the id.
    """

    def __init__(self, path: Path, columns: Mapping[str, str] | None, places: Places | None) -> None:
        if not path.is_file():
            raise SourceError(f"{path} is not a file")
        self.path = path
        self._places = places
        self._is_parquet = path.suffix.lower() == ".parquet"
        self._delimiter = "" if self._is_parquet else _delimiter(path)
        cells = parquet_names(path) if self._is_parquet else first_row(path, self._delimiter, quoted=True)
        self._header = self._is_parquet or not any(map(_is_address, cells))
        self._yfcc = not self._header and self._delimiter == "\t" and len(cells) in LAYOUTS
        if self._header:
            self._names = cells
            self._mapping = _mapping(path, cells, columns or {})
        elif not self._yfcc:
            if len(cells) > 2:
                raise SourceError(
                    f"{path} has {len(cells)} columns and no header: give it one, with a column url (without a header,"
                    " a table is YFCC100M's, or has an id and an address, or addresses alone)"
                )
            self._names = ["url" if _is_address(cell) else "photo_id" for cell in cells]
            self._mapping = {name: name for name in self._names}
        #: whether coordinates can only come from the photos themselves
        self.unplaced = not self._yfcc and self._places is None and not set(_PLACE) <= set(self._mapping)

    def rows(self) -> Iterator[Candidates]:
        """Metadata of the photos, `url` among it."""
        if self._yfcc:
            yield from map(_addressed, yfcc_addresses(self.path))
            return
        for block in self._blocks():
            if block.rows is None:
                yield Candidates(SCHEMA.empty_table(), faults=block.faults)
            else:
                yield _addressed(self._typed(block, block.rows))

    def _blocks(self) -> Iterator[Block]:
        wanted = list(dict.fromkeys(self._mapping.values()))
        if not self._is_parquet:
            numeric = tuple(self._mapping[name] for name in _PLACE if name in self._mapping)
            yield from read_blocks(
                self.path,
                self._delimiter,
                self._names,
                header=self._header,
                quoted=True,
                wanted=wanted,
                numeric=numeric,
            )
            return
        yield from parquet_blocks(self.path, wanted)

    def _typed(self, block: Block, rows: pa.RecordBatch) -> Candidates:
        count = rows.num_rows
        raw: dict[str, pa.Array | None] = {
            name: rows.column(column) for name, column in self._mapping.items()
        }
        if not undecodable(raw["url"], count).any():
            raw["url"] = text(raw["url"], count)
        if "photo_id" not in raw:
            urls = text(raw["url"], count).to_pylist()
            raw["photo_id"] = pa.array([None if url is None else _id_of(url) for url in urls], pa.string())
        if self._places is not None:
            for name in ("latitude", "longitude", "photographer"):
                raw.setdefault(name, pa.nulls(count, pa.string()))
            raw |= placed(raw, self._places, count)
        table, faults, _ = typed(references(self.path, block.numbers), raw)
        return Candidates(table, faults=pa.concat_tables([block.faults, faults]))


def _addressed(rows: Candidates) -> Candidates:
    """The rows that have an address; the others as faults."""
    bare = pc.is_null(rows.table["url"])
    if not pc.any(bare).as_py():
        return rows
    told = [
        fault(row["reference"], Reason.BAD_ADDRESS, "no address", photo_id=row["photo_id"], content="")
        for row in rows.table.filter(bare).to_pylist()
    ]
    faults = pa.concat_tables([rows.faults, fault_table(told)])
    return replace(rows, table=rows.table.filter(pc.invert(bare)), faults=faults)


def _mapping(path: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, for the fields that the table has."""
    for name, column in columns.items():
        if name not in URL_FIELDS:
            raise SourceError(f"columns.{name} is unknown; a table of addresses has {', '.join(URL_FIELDS)}")
        if column not in names:
            raise SourceError(f"{path.name} has no column {column!r} (for {name}); it has {shown(names)}")
    known = {name: name for name in URL_FIELDS if name in names}
    if "url" not in known and _OSV5M["url"][0] in names:
        for name, there in _OSV5M.items():
            found = [column for column in there if column in names]
            if found:
                known[name] = found[0]
    mapping = {**known, **columns}
    if "url" not in mapping:
        raise SourceError(
            f"{path.name} has no column 'url'; it has {shown(names)}; say which one with --column url=NAME"
        )
    if len(set(_PLACE) & set(mapping)) == 1:
        missing = next(name for name in _PLACE if name not in mapping)
        raise SourceError(f"{path.name} has no column {missing!r}; it has {shown(names)}")
    return mapping


def _delimiter(path: Path) -> str:
    """By suffix, else a tab where the first line has one."""
    kind = (Path(path.stem).suffix if compression_of(path) else path.suffix).lower()
    if kind in (".csv", ".tsv"):
        return "," if kind == ".csv" else "\t"
    return "\t" if len(first_row(path, "\t", quoted=False)) > 1 else ","


def _is_address(cell: str) -> bool:
    return cell.strip().lower().startswith(("http://", "https://"))


def _id_of(url: str) -> str:
    """An address without what may change or be a key: `host/path`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return f"{parts.hostname or ''}{parts.path}" or url
