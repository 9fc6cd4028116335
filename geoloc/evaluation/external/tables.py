"""Tables of predictions, of true places and of references: CSV, TSV, Parquet or a data frame, with columns as they
come."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geoloc.photos.sources.candidates import SourceError
from geoloc.photos.sources.delimited import delimiter_of, first_row, read_blocks
from geoloc.photos.sources.fields import numbers, text

_IDS = (
    "photo_id",
    "id",
    "img_id",
    "image_id",
    "image",
    "img",
    "file",
    "filename",
    "path",
    "image_path",
    "img_path",
)
_LATITUDES, _LONGITUDES = ("latitude", "lat"), ("longitude", "lon", "lng", "long")
_PHOTOGRAPHERS = ("photographer", "author", "owner", "user", "user_id", "nsid")


def _marked(marks: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{a}_{b}" for mark in marks for name in names for a, b in ((mark, name), (name, mark)))


_PREDICTED, _TRUE = ("pred", "predicted", "prediction"), ("true", "gt", "truth")
PREDICTIONS: dict[str, tuple[str, ...]] = {
    "photo_id": _IDS,
    "latitude": (*_marked(_PREDICTED, _LATITUDES), *_LATITUDES),
    "longitude": (*_marked(_PREDICTED, _LONGITUDES), *_LONGITUDES),
    "confidence": ("confidence", "conf", "probability", "prob"),
    "alternatives": ("alternatives",),
    "log_probability": ("log_probability",),
    "method": ("method", "p_key"),
}
"""Fields of predictions, each with the names of columns that it is taken from, best first. Case and punctuation do not
matter. A name that says "predicted" comes before one that does not: many files have the true places too."""
TRUTH: dict[str, tuple[str, ...]] = {
    "photo_id": _IDS,
    "latitude": (*_marked(_TRUE, _LATITUDES), *_LATITUDES),
    "longitude": (*_marked(_TRUE, _LONGITUDES), *_LONGITUDES),
    "photographer": _PHOTOGRAPHERS,
    "prob_indoor": ("prob_indoor",),
}
REFERENCES: dict[str, tuple[str, ...]] = {
    "latitude": _LATITUDES,
    "longitude": _LONGITUDES,
    "photographer": _PHOTOGRAPHERS,
    "photo_id": _IDS,
}
_ABSENT = ("none", "null", "na", "n/a", "-", "<na>")
"""What programs write for no number; an empty cell and NaN are none as well."""


class PredictionsError(ValueError):
    """A table of predictions, true places or references cannot be used. One line that names it and what is wrong."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table as it was written: `columns` by field, (N,) each, and the `numbers` of its rows, from 1, without the
    header. `broken` are numbers and facts of rows with another number of cells; `taken` says which column each field
    was taken from."""

    name: str
    columns: Mapping[str, pa.Array]
    numbers: NDArray[np.int64]
    broken: tuple[tuple[int, str], ...]
    taken: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, kept: NDArray[np.bool_]) -> Table:
        """Returns some of the rows, by mask, without the broken ones."""
        columns = {field: column.filter(pa.array(kept)) for field, column in self.columns.items()}
        return Table(self.name, columns, self.numbers[kept], (), self.taken)

    def renamed(self) -> str:
        """Returns the fields that were taken from columns of another name, such as `latitude = LAT`; "" for none."""
        return ", ".join(f"{field} = {name}" for field, name in self.taken.items() if field != name)

    def texts(self, field: str) -> list[str | None]:
        """Returns a column as trimmed text; None for empty cells."""
        return list(text(self.columns[field], len(self)).to_pylist())

    def numeric(self, field: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Returns a column as float64 (N,), NaN for none, and where it holds something that is no number."""
        if field not in self.columns:
            return np.full(len(self), np.nan), np.zeros(len(self), bool)
        values, bad = numbers(self.columns[field], len(self))
        found = np.array(values.to_numpy(zero_copy_only=False), np.float64)
        if bad.any():
            written = self.texts(field)
            missing = [bad[i] and str(written[i]).lower() in _ABSENT for i in range(len(self))]
            bad = bad & ~np.array(missing, bool)
        return found, bad


def read_table(
    source: Path | str | pd.DataFrame,
    fields: Mapping[str, Sequence[str]],
    columns: Mapping[str, str],
    *,
    needs: Sequence[str],
    name: str = "",
    option: str = "--column",
) -> Table:
    """Read a table (.csv, .tsv, either also .gz or .bz2, .parquet) or a data frame.

    `fields` are PREDICTIONS, TRUTH or REFERENCES; `columns` names those that are called otherwise, `needs` are the
    fields that must be there. Raises PredictionsError for a table that cannot be read or lacks a column, and where two
    columns could be meant.
    """
    names, label = column_names(source, name), name if isinstance(source, pd.DataFrame) else Path(source).name
    taken = _taken(label, names, fields, columns, needs, option)
    try:
        if isinstance(source, pd.DataFrame):
            made = {
                field: pa.array(source.iloc[:, names.index(column)], from_pandas=True)
                for field, column in taken.items()
            }
            rows = np.arange(1, len(source) + 1)
            return Table(label, {field: _one(column) for field, column in made.items()}, rows, (), taken)
        path = Path(source)
        if not _is_parquet(path):
            return _delimited(path, delimiter_of(path), names, taken)
        table = pq.read_table(path, columns=list(dict.fromkeys(taken.values())))
    except (SourceError, pa.ArrowException, OSError) as error:
        raise PredictionsError(f"{label} cannot be read: {_line(error)}") from None
    made = {field: _one(table[column]) for field, column in taken.items()}
    return Table(label, made, np.arange(1, table.num_rows + 1), (), taken)


def column_names(source: Path | str | pd.DataFrame, name: str = "") -> list[str]:
    """Returns the names of a table's columns. Raises PredictionsError for a table that cannot be read, and for two
    columns of one name."""
    if isinstance(source, pd.DataFrame):
        names = [str(column) for column in source.columns]
    else:
        path = Path(source)
        name = path.name
        if not path.is_file():
            raise PredictionsError(f"{path} is {'a folder, not a file' if path.is_dir() else 'missing'}")
        try:
            if _is_parquet(path):
                names = list(pq.read_schema(path).names)
            else:
                names = first_row(path, delimiter_of(path), quoted=True)
        except (SourceError, pa.ArrowException, OSError) as error:
            raise PredictionsError(f"{path} cannot be read: {_line(error)}") from None
    if len(set(names)) != len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise PredictionsError(f"{name} has two columns {twice!r}")
    return names


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _delimited(path: Path, delimiter: str, names: list[str], taken: Mapping[str, str]) -> Table:
    wanted = list(dict.fromkeys(taken.values()))
    batches, rows, broken = [], [np.empty(0, np.int64)], []
    numeric = tuple(taken[field] for field in ("latitude", "longitude") if field in taken)
    blocks = read_blocks(path, delimiter, names, header=True, quoted=True, wanted=wanted, numeric=numeric)
    for block in blocks:
        if block.rows is not None:
            batches.append(block.rows)
            rows.append(block.numbers)
        for fault in block.faults.to_pylist():
            found = re.search(r"row (\d+)$", fault["reference"])
            if found is None or "after row" in fault["reference"]:
                raise PredictionsError(f"{path.name} cannot be read to its end: {fault['detail']}")
            broken.append((int(found[1]), str(fault["detail"])))
    table = (
        pa.Table.from_batches(batches)
        if batches
        else pa.table({one: pa.array([], pa.binary()) for one in wanted})
    )
    made = {field: _one(table[column]) for field, column in taken.items()}
    return Table(path.name, made, np.concatenate(rows), tuple(broken), taken)


def _taken(
    table: str,
    names: Sequence[str],
    fields: Mapping[str, Sequence[str]],
    columns: Mapping[str, str],
    needs: Sequence[str],
    option: str,
) -> dict[str, str]:
    """Field -> column, for the fields that the table has."""
    bare = [_bare(name) for name in names]
    taken = {}
    for field, known in fields.items():
        if field in columns:
            if columns[field] not in names:
                raise PredictionsError(
                    f"{table} has no column {columns[field]!r} (for {field}); it has {', '.join(names)}"
                )
            taken[field] = columns[field]
            continue
        for wanted in map(_bare, known):
            found = [name for name, one in zip(names, bare, strict=True) if one == wanted]
            if len(found) > 1 and field not in found:
                raise PredictionsError(
                    f"{table} has the columns {', '.join(found)} for {field}; say which with {option} {field}=NAME"
                )
            if found:
                taken[field] = field if field in found else found[0]
                break
    for field in needs:
        if field not in taken:
            raise PredictionsError(
                f"{table} has no column {field!r}; it has {', '.join(names) or 'none'}; say which one with"
                f" {option} {field}=NAME"
            )
    return taken


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _one(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of no chunk
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _line(error: Exception) -> Any:
    return " ".join(str(error).split())[:300]
