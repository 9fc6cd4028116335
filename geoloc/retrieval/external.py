"""Embeddings that another program made: .npy with a file of ids, or Parquet; read, checked, matched with photos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geoloc.files import one_line

ID_COLUMNS = ("photo_id", "id", "image_id", "img_id", "image", "file", "filename", "path", "name")
"""Usual names of the column of ids, best first; case does not matter."""

_INDEX = re.compile(r"__index_level_\d+__")


class FeaturesError(ValueError):
    """A file of embeddings cannot be used. One line that names it, and what is wrong."""


@dataclass(frozen=True, eq=False)
class Features:
    """Embeddings of N photos as their file has them: `ids` (N, text, unique), `vectors` (N, D) numbers of any type,
    not normalised; of .npy they stay on disk. `name` is the file's, for messages."""

    name: str
    ids: pd.Index
    vectors: NDArray[Any]

    @property
    def dimensions(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    def positions(self, ids: Sequence[str] | pd.Series) -> NDArray[np.int64]:
        """Row of each photo, int64; -1 where the file has none."""
        return self.ids.get_indexer(pd.Index(np.asarray(ids, dtype=object))).astype(np.int64)

    def units(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of some rows, float32 [M, D], L2-normalised. Raises FeaturesError, which names the first photo,
        for numbers that are not finite and for vectors of zeros: they have no direction."""
        x = np.asarray(self.vectors[rows]).astype(np.float64)
        for good, words in (
            (np.isfinite(x).all(axis=1), "NaN or infinite numbers"),
            (x.any(axis=1), "zeros only"),
        ):
            if not good.all():
                first = self.ids[rows[int((~good).argmax())]]
                raise FeaturesError(
                    f"{self.name} has {words} in the embeddings of {int((~good).sum())} photos, such as {first!r}; "
                    "leave such photos out of it"
                )
        scaled = x / np.abs(x).max(axis=1, keepdims=True)  # squares of large numbers would overflow
        return (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)


def read_features(file: Path | str, ids: Path | str | None = None) -> Features:
    """Read embeddings from .parquet, or from .npy [N, D] with the text file `ids` (default: FILE.txt beside it), an id
    a line.

    Parquet has a column of ids (one of ID_COLUMNS), and one column of lists of numbers, or else a column of numbers a
    dimension. Raises FeaturesError for a file that is missing or not of this form, and for repeated ids.
    """
    path = Path(file)
    if not path.is_file():
        raise FeaturesError(f"{path} is {'a folder, not a file' if path.is_dir() else 'missing'}")
    if path.suffix.lower() == ".npy":
        names, vectors = _read_npy(path, path.with_suffix(".txt") if ids is None else Path(ids))
    elif path.suffix.lower() == ".parquet":
        names, vectors = _read_parquet(path)
    else:
        raise FeaturesError(f"{path} must end in .npy or .parquet (no pickle is read)")
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise FeaturesError(
            f"{path} must hold numbers of shape (photos, dimensions), got {vectors.dtype} of shape {vectors.shape}"
        )
    index = pd.Index(names, dtype=object)
    if not index.is_unique:
        raise FeaturesError(f"{path} has two embeddings of photo {index[index.duplicated()][0]!r}")
    return Features(path.name, index, vectors)


def _read_npy(path: Path, ids: Path) -> tuple[list[str], NDArray[Any]]:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FeaturesError(f"{path} is not an array of numbers in .npy format: {one_line(error)}") from None
    try:
        names = [line.strip() for line in ids.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise FeaturesError(
            f"{ids} is missing: it must have the photo id of each row of {path.name}, a line each"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise FeaturesError(f"{ids} cannot be read: {one_line(error)}") from None
    if "" in names:
        raise FeaturesError(f"{ids} must have a photo id in each line; line {names.index('') + 1} is empty")
    if vectors.ndim == 2 and len(names) != len(vectors):
        raise FeaturesError(f"{ids} has {len(names)} ids, {path.name} has {len(vectors)} rows")
    return names, vectors


def _read_parquet(path: Path) -> tuple[list[str], NDArray[Any]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FeaturesError(f"{path} cannot be read: {one_line(error)}") from None
    lower = [str(name).lower() for name in table.column_names]
    at = next((lower.index(name) for name in ID_COLUMNS if name in lower), None)
    found = f"it has {', '.join(table.column_names[:10])}{', ...' if len(lower) > 10 else ''}"
    if at is None:
        raise FeaturesError(f"{path} has no column of photo ids ({', '.join(ID_COLUMNS)}); {found}")
    if table.column(at).null_count:
        raise FeaturesError(f"{path} has rows without {table.column_names[at]}")
    ids = [_as_id(one) for one in table.column(at).to_pylist()]
    # A pandas index that was saved along numbers rows: it is no dimension.
    others = [i for i in range(table.num_columns) if i != at and not _INDEX.fullmatch(table.column_names[i])]
    lists = [i for i in others if _is_list(table.schema.field(i).type)]
    if len(lists) > 1:
        names = ", ".join(table.column_names[i] for i in lists)
        raise FeaturesError(f"{path} must have one column of lists, the embeddings; got {names}")
    if lists:
        return ids, _from_lists(path, ids, table.column_names[lists[0]], table.column(lists[0]))
    wrong = [table.column_names[i] for i in others if not _is_number(table.schema.field(i).type)]
    if wrong or not others:
        raise FeaturesError(
            f"{path} must have a column of lists of numbers, or numbers in all columns but that of the ids; {found}"
        )
    columns = [table.column(i).to_numpy().astype(np.float64) for i in others]
    return ids, np.stack(columns, axis=1)


def _as_id(value: Any) -> str:
    """An id as text: bytes decoded, and 12345.0 as 12345, for pandas makes floats of whole numbers."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _from_lists(path: Path, ids: list[str], name: str, column: pa.ChunkedArray) -> NDArray[Any]:
    if not _is_number(column.type.value_type):
        raise FeaturesError(f"{path} must have lists of numbers in its column {name}, got {column.type}")
    if column.null_count:
        first = ids[column.is_null().to_pylist().index(True)]
        raise FeaturesError(f"{path} has no embedding of {column.null_count} photos, such as {first!r}")
    lengths = np.asarray(pc.list_value_length(column), dtype=np.int64)
    if len(lengths) and (other := lengths != lengths[0]).any():
        at = int(other.argmax())
        raise FeaturesError(
            f"{path} must have embeddings of one length; photo {ids[0]!r} has {lengths[0]}, {ids[at]!r} {lengths[at]}"
        )
    values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(values) if values else np.empty(0)
    return flat.reshape(len(ids), -1) if len(ids) else flat.reshape(0, 1)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
