"""The references of an index: their table, checked, and the arrays that a search reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.neighbours import Neighbours
from geoloc.sphere import is_valid

REFERENCE_COLUMNS = ("photo_id", "latitude", "longitude", "photographer")
NEAR_DUPLICATES = "near_duplicates"
"""A further column, kept where the rows have it: the name of a photo's group of near-duplicates, null for none."""


class RetrievalError(ValueError):
    """References, embeddings or queries that do not fit an index or each other. The message is one line."""


class ReferenceTable:
    """`frame` has one row per reference: id, photo_id, latitude, longitude, photographer, and near_duplicates
    where known.

    Of R references the arrays of codes and counts have one more element, which row -1 (no reference) reads.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame.reset_index(drop=True)
        self.ids = self.frame["id"].to_numpy(dtype=np.int64)
        self._order = np.argsort(self.ids, kind="stable")
        self._latitude = self.frame["latitude"].to_numpy(dtype=np.float64)
        self._longitude = self.frame["longitude"].to_numpy(dtype=np.float64)
        self._photo_ids = self.frame["photo_id"].to_numpy(dtype=object)
        self._photo_index = pd.Index(self.frame["photo_id"])
        self.owners, self.photographers, self.owner_counts = _coded(self.frame["photographer"])
        alone = pd.Series([None] * len(self.frame), dtype="str")
        self.groups, self.group_names, self.group_counts = _coded(self.frame.get(NEAR_DUPLICATES, alone))

    def __len__(self) -> int:
        return len(self.frame)

    def rows_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the row of each id, of any shape; -1 for -1."""
        if not len(self):
            return np.full(ids.shape, -1, dtype=np.int64)
        place = np.searchsorted(self.ids, ids, sorter=self._order)
        return np.where(ids < 0, -1, self._order[np.minimum(place, len(self) - 1)])

    def rows_of_photos(self, photo_ids: Any, queries: int) -> NDArray[np.int64]:
        """Returns the row of each photo_id, -2 if null or unknown (so that it equals no row, nor -1)."""
        found = lookup(self._photo_index, photo_ids, queries, "exclude_photos")
        return np.where(found < 0, -2, found)

    def neighbours(
        self, rows: NDArray[np.int64], similarity: NDArray[np.float32], left_out: tuple[str, ...]
    ) -> Neighbours:
        """Returns the references in `rows` [Q, k] (-1: none) as the result of a search."""

        def at(values: NDArray[Any], missing: Any) -> NDArray[Any]:
            return np.append(values, missing).astype(values.dtype)[rows]  # row -1 reads the appended one

        return Neighbours(
            row=rows,
            id=at(self.ids, -1),
            similarity=similarity,
            latitude=at(self._latitude, np.nan),
            longitude=at(self._longitude, np.nan),
            reference_photo_ids=self._photo_ids,
            left_out=left_out,
        )


def lookup(names: pd.Index, wanted: Any, queries: int, argument: str) -> NDArray[np.int64]:
    """Returns the position in `names` of each wanted name, -1 if null or unknown; all -1 if `wanted` is None."""
    if wanted is None:
        return np.full(queries, -1, dtype=np.int64)
    wanted = np.asarray(wanted, dtype=object)
    if wanted.shape != (queries,):
        raise ValueError(f"{argument} must have shape ({queries},), got {wanted.shape}")
    return names.get_indexer(pd.Index(wanted)).astype(np.int64)  # null is in no index of names


def checked_queries(vectors: ArrayLike, k: int, dimension: int) -> NDArray[np.float32]:
    """Returns queries [Q, D] as FAISS wants them.

    Raises ValueError for a wrong shape, NaN, infinite or all-zero vectors, or k < 1.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise ValueError(f"vectors must have shape (Q, {dimension}), got {queries.shape}")
    finite = np.isfinite(queries).all(axis=1)
    if not finite.all():
        raise RetrievalError(
            f"vectors must be finite: number {int((~finite).argmax())} is not; leave unreadable photos out"
        )
    zero = ~queries.any(axis=1)
    if zero.any():
        raise RetrievalError(f"vectors must not be all zero: number {int(zero.argmax())} is")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return queries


def require_one_model(embeddings: Embeddings, model: str, dimension: int) -> None:
    """Raise RetrievalError unless the embeddings are by the model with the hash `model` (unknown: any) and have
    `dimension` numbers."""
    if embeddings.model and model and embeddings.model != model:
        raise RetrievalError(
            f"the index holds embeddings by the model {model[:12]}, these are by {embeddings.model[:12]}"
        )
    if len(embeddings) and embeddings.vectors.shape[1] != dimension:
        raise RetrievalError(f"embeddings have {embeddings.vectors.shape[1]} numbers, the index {dimension}")


def require_references(count: int, k: int = 1, key: str = "k") -> None:
    """Raise RetrievalError for an index of `count` references that is empty, or has fewer than the `k` of setting or
    option `key`."""
    if not count:
        raise RetrievalError("the index holds no references")
    if k > count:
        raise RetrievalError(
            f"{key} must be at most {count:,}, the number of references to search; got {k:,}"
        )


def match(embeddings: Embeddings, rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[Any], int]:
    """Returns the rows with an embedding, in order, their vectors, and the number of rows without one.

    Raises ValueError for missing columns, repeated photo ids, invalid coordinates, and vectors that are not finite or
    all zero.
    """
    missing = [c for c in REFERENCE_COLUMNS if c not in rows.columns]
    if missing:
        raise RetrievalError(
            f"references need the columns {', '.join(REFERENCE_COLUMNS)}; missing: {', '.join(missing)}"
        )
    kept = [*REFERENCE_COLUMNS, *([NEAR_DUPLICATES] if NEAR_DUPLICATES in rows else [])]
    table = rows[kept].reset_index(drop=True)
    repeated = table["photo_id"].duplicated()
    if repeated.any():
        raise RetrievalError(f"photo {table.loc[repeated, 'photo_id'].iloc[0]!r} is in the references twice")
    valid = is_valid(table["latitude"].to_numpy(np.float64), table["longitude"].to_numpy(np.float64))
    if not valid.all():
        raise RetrievalError(
            f"reference {table.loc[~valid, 'photo_id'].iloc[0]!r} has no valid latitude and longitude"
            f" ({int((~valid).sum())} such rows)"
        )
    position = embeddings.positions(table["photo_id"])
    has = position >= 0
    table, vectors = table[has].reset_index(drop=True), embeddings.vectors[position[has]]
    _require_directions(table["photo_id"], vectors)
    return table, vectors, int((~has).sum())


def _require_directions(photo_ids: pd.Series, vectors: NDArray[Any]) -> None:
    """Raise ValueError for vectors that have no direction: it has no cosine with anything."""
    for start in range(0, len(vectors), 65_536):
        part = vectors[start : start + 65_536]
        finite = np.isfinite(part).all(axis=1)
        for sound, words in ((finite, "NaN or infinite numbers"), (~finite | part.any(axis=1), "only zeros")):
            if not sound.all():
                first = photo_ids.iloc[start + int((~sound).argmax())]
                raise RetrievalError(
                    f"the embedding of photo {first!r} has {words}; leave such photos out of the index"
                )


def _coded(column: pd.Series) -> tuple[NDArray[np.int64], pd.Index, NDArray[np.int64]]:
    """Returns the code of each value, with -1 for null and one more -1, so that row -1 has none; the values; and how
    often each occurs, with one more 0."""
    codes, names = pd.factorize(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return np.append(codes, -1).astype(np.int64), pd.Index(names), np.append(counts, 0)
