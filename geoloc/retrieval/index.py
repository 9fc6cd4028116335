"""An index of reference photos: FAISS over embeddings, with ids that survive growth and removal.

Similarity is the inner product of L2-normalised vectors (the cosine). The factory "auto" chooses by size:
see factory.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.files import (
    DamagedFile,
    atomic_folder,
    damage_named,
    read_json,
    read_parquet,
    write_json,
    write_parquet,
)
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.factory import (
    blas_threshold,
    choose_factory,
    ivf_inside,
    list_count,
    make_faiss,
    reason,
)
from geoloc.retrieval.neighbours import Neighbours, stable_ids
from geoloc.retrieval.settings import IndexSettings
from geoloc.settings import parse, to_dict
from geoloc.sphere import is_valid

FORMAT = 1
REFERENCE_COLUMNS = ("photo_id", "latitude", "longitude", "photographer")
NEAR_DUPLICATES = "near_duplicates"
"""A further column, kept where the rows have it: the name of a photo's group of near-duplicates, null for none."""
_ADD_ROWS = 65_536  # vectors turned to float32 at a time
_SEARCH_CELLS = 4_000_000  # neighbours fetched at a time
_OVERFETCH_LIMIT = 1_024  # to exclude more references than this, FAISS skips them while searching


class ReferenceIndex:
    """References (photos with known locations) that can be searched by embedding.

    Make one with `build` or `load`. `references` is a data frame with id, photo_id, latitude, longitude and
    photographer (null where unknown), one row per reference. `without_embedding` counts the rows passed to
    `build` and `add` that have no embedding (unreadable photos) and so are not in the index.
    """

    def __init__(
        self,
        index: Any,
        references: pd.DataFrame,
        settings: IndexSettings,
        factory: str,
        without_embedding: int,
    ) -> None:
        self._index, self.settings, self.factory = index, settings, factory
        self.without_embedding = without_embedding
        self._set_references(references)
        self._tune()

    @classmethod
    def build(
        cls,
        embeddings: Embeddings,
        rows: pd.DataFrame,
        settings: IndexSettings | None = None,
        seed: int = 0,
    ) -> ReferenceIndex:
        """Index the photos of `rows` (photo_id, latitude, longitude, photographer) by their embeddings.

        Rows without an embedding are left out and counted; embeddings without a row are ignored, so one set
        of embeddings serves many indexes. `seed` drives the choice of training vectors and k-means. Raises
        ValueError for missing columns, repeated photo ids, invalid coordinates, colliding ids, a factory
        string that FAISS does not know, or nothing to index.
        """
        settings = settings or IndexSettings()
        references, vectors, absent = _match(embeddings, rows)
        if not len(references):
            raise ValueError(f"nothing to index: none of the {len(rows)} rows has an embedding")
        dimension = vectors.shape[1]
        factory = settings.factory
        if factory == "auto":
            factory = choose_factory(len(references), dimension)
        index = make_faiss(factory, dimension, seed)
        if not index.is_trained:
            count = min(len(vectors), 256 * max(256, list_count(index)))
            chosen = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:count])
            try:
                index.train(np.ascontiguousarray(vectors[chosen], dtype=np.float32))
            except RuntimeError as error:
                raise ValueError(f"index.factory {factory!r} cannot be trained: {reason(error)}") from error
        made = cls(index, references.iloc[:0].assign(id=np.empty(0, dtype=np.int64)), settings, factory, 0)
        made._append(references, vectors)
        made.without_embedding = absent
        return made

    def add(self, embeddings: Embeddings, rows: pd.DataFrame) -> int:
        """Add references; those already there keep their ids and places. Returns how many were added.

        Raises ValueError as `build` does, and for a photo that is already in the index; nothing is added
        then.
        """
        references, vectors, absent = _match(embeddings, rows)
        if len(references):
            self._append(references, vectors)
        self.without_embedding += absent
        return len(references)

    def remove(self, photo_ids: Sequence[str]) -> int:
        """Remove references with their vectors; the others keep their ids. Returns how many there were.

        Photo ids that are not in the index are ignored, so a take-down can be repeated. An index with Refine
        or HNSW cannot forget single vectors: it is emptied and refilled, without training again.
        """
        gone = self.references["photo_id"].isin(list(photo_ids)).to_numpy()
        if not gone.any():
            return 0
        kept = self.references[~gone]
        if self._removes:
            self._index.remove_ids(faiss.IDSelectorBatch(self._ids[gone]))
        else:
            vectors = self._index.index.reconstruct_n(0, len(gone))[~gone]
            self._index.reset()
            if len(kept):
                self._index.add_with_ids(np.ascontiguousarray(vectors), self._ids[~gone])
        self._set_references(kept)
        return int(gone.sum())

    def search(
        self,
        vectors: ArrayLike,
        k: int,
        exclude_photographers: Sequence[str | None] | NDArray[np.object_] | None = None,
        exclude_photos: Sequence[str | None] | NDArray[np.object_] | None = None,
        exclude_near_duplicates: Sequence[str | None] | NDArray[np.object_] | None = None,
    ) -> Neighbours:
        """The k references nearest to each vector (Q, D), L2-normalised.

        `exclude_photographers` [Q] leaves out all references by that photographer, `exclude_photos` [Q] the reference
        of that photo_id, `exclude_near_duplicates` [Q] those of that group; null excludes nothing. With a Flat index
        the result is exact however many references are left out. Raises ValueError for a wrong shape, NaN or infinite
        vectors, or k < 1.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(f"vectors must have shape (Q, {self.dimension}), got {queries.shape}")
        if not np.isfinite(queries).all():
            raise ValueError("vectors must be finite: leave unreadable photos out before searching")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        owner = _lookup(self._photographers, exclude_photographers, len(queries), "exclude_photographers")
        own = self._rows_of_photos(exclude_photos, len(queries))
        group = _lookup(self._group_names, exclude_near_duplicates, len(queries), "exclude_near_duplicates")
        few = np.where(group >= 0, self._group_counts[group], 0) + (own >= 0)
        extra = np.where(owner >= 0, self._owner_counts[owner], 0)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        similarity = np.full((len(queries), k), np.nan, dtype=np.float32)
        with blas_threshold(self.settings.blas_threshold):
            for chosen, fetch, code in self._plan(extra, few, owner, k):
                found, similar = self._fetch(queries[chosen], fetch, code)
                left_out = (found < 0) | (found == own[chosen, None])
                left_out |= (owner[chosen, None] >= 0) & (self._owners[found] == owner[chosen, None])
                left_out |= (group[chosen, None] >= 0) & (self._groups[found] == group[chosen, None])
                order = np.argsort(left_out, axis=1, kind="stable")[:, :k]
                keep = ~np.take_along_axis(left_out, order, axis=1)
                width = order.shape[1]
                rows[chosen, :width] = np.where(keep, np.take_along_axis(found, order, axis=1), -1)
                similarity[chosen, :width] = np.where(
                    keep, np.take_along_axis(similar, order, axis=1), np.nan
                )
        return self._neighbours(rows, similarity)

    def save(self, folder: Path | str) -> None:
        """Write index.faiss, references.parquet and meta.json into `folder`, which appears whole or not at
        all."""
        with atomic_folder(folder) as temporary:
            faiss.write_index(self._index, str(temporary / "index.faiss"))
            write_parquet(temporary / "references.parquet", self.references)
            write_json(
                temporary / "meta.json",
                {
                    "format": FORMAT,
                    "references": len(self),
                    "dimension": self.dimension,
                    "factory": self.factory,
                    "settings": to_dict(self.settings),
                    "index_bytes": (temporary / "index.faiss").stat().st_size,
                    "without_embedding": self.without_embedding,
                },
            )

    @classmethod
    def load(cls, folder: Path | str) -> ReferenceIndex:
        """Load a saved index. Raises FileNotFoundError for a missing file, DamagedFile for files that do not
        match."""
        folder = Path(folder)
        meta = read_json(folder / "meta.json", dict)
        with damage_named(folder / "meta.json"):
            return cls._load(folder, meta)

    @classmethod
    def _load(cls, folder: Path, meta: dict[str, Any]) -> ReferenceIndex:
        if meta.get("format") != FORMAT:
            raise DamagedFile(
                folder, f"it holds an index of format {meta.get('format')}, this code reads {FORMAT}"
            )
        path = folder / "index.faiss"
        size = path.stat().st_size
        if size != meta["index_bytes"]:
            raise DamagedFile(path, f"it has {size} bytes, expected {meta['index_bytes']} (meta.json)")
        with damage_named(path):
            index = faiss.read_index(str(path))
        references = read_parquet(folder / "references.parquet", ("id", *REFERENCE_COLUMNS))
        counts = {
            "meta.json": meta["references"],
            path.name: index.ntotal,
            "references.parquet": len(references),
        }
        if len(set(counts.values())) != 1 or index.d != meta["dimension"]:
            raise DamagedFile(folder, f"it is inconsistent: references by file {counts}, dimension {index.d}")
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise DamagedFile(path, "it does not use the inner product")
        if isinstance(index, faiss.IndexIDMap2) and not np.array_equal(
            faiss.vector_to_array(index.id_map), references["id"].to_numpy()
        ):
            raise DamagedFile(
                folder, "it is inconsistent: index.faiss and references.parquet hold different ids"
            )
        settings = parse(IndexSettings, meta["settings"], "index")
        return cls(index, references, settings, meta["factory"], meta["without_embedding"])

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return int(self._index.d)

    def __len__(self) -> int:
        return len(self.references)

    def __repr__(self) -> str:
        return f"ReferenceIndex({len(self):,} references, {self.dimension} dimensions, {self.factory})"

    def _set_references(self, references: pd.DataFrame) -> None:
        """Set the reference table and derive the arrays that searches use."""
        self.references = references.reset_index(drop=True)
        self._ids = self.references["id"].to_numpy(dtype=np.int64)
        self._order = np.argsort(self._ids, kind="stable")
        self._latitude = self.references["latitude"].to_numpy(dtype=np.float64)
        self._longitude = self.references["longitude"].to_numpy(dtype=np.float64)
        self._photo_ids = self.references["photo_id"].to_numpy(dtype=object)
        self._photo_index = pd.Index(self.references["photo_id"])
        self._owners, self._photographers, self._owner_counts = _coded(self.references["photographer"])
        alone = pd.Series([None] * len(self.references), dtype="str")
        self._groups, self._group_names, self._group_counts = _coded(
            self.references.get(NEAR_DUPLICATES, alone)
        )

    def _tune(self) -> None:
        """Set search parameters, and find out whether this kind of index can remove and select single vectors."""
        self._ivf = ivf_inside(self._index)
        if self._ivf is not None:
            self._ivf.nprobe = min(self._ivf.nlist, self.settings.nprobe or max(1, self._ivf.nlist // 16))
        inner = faiss.downcast_index(self._index.index) if hasattr(self._index, "index") else self._index
        self._refine = inner if isinstance(inner, faiss.IndexRefine) else None
        if self._refine is not None:
            self._refine.k_factor = self.settings.k_factor
        # FAISS can forget and skip single vectors in these; an IVF index keeps ids itself, so has no map.
        self._removes = isinstance(inner, faiss.IndexFlat) or inner is self._index
        self._selects = self._removes or (self._refine is not None and self._ivf is not None)

    def _append(self, references: pd.DataFrame, vectors: NDArray[Any]) -> None:
        """Check new references against the existing ones, then add rows and vectors."""
        if vectors.shape[1] != self.dimension:
            raise ValueError(f"embeddings have {vectors.shape[1]} numbers, the index {self.dimension}")
        table = references.assign(id=stable_ids(references["photo_id"]))[["id", *references.columns]]
        whole = pd.concat([self.references, table], ignore_index=True) if len(self.references) else table
        repeated = whole["photo_id"].duplicated()
        if repeated.any():
            raise ValueError(f"photo {whole.loc[repeated, 'photo_id'].iloc[0]!r} is already in the index")
        collided = whole["id"].duplicated(keep=False)
        if collided.any():
            raise ValueError(
                f"photo ids {whole.loc[collided, 'photo_id'].tolist()[:2]} have the same 63-bit id"
            )
        new = table["id"].to_numpy(dtype=np.int64)
        for start in range(0, len(new), _ADD_ROWS):
            part = slice(start, start + _ADD_ROWS)
            self._index.add_with_ids(np.ascontiguousarray(vectors[part], dtype=np.float32), new[part])
        self._set_references(whole)

    def _plan(
        self, extra: NDArray[np.int64], few: NDArray[np.int64], owner: NDArray[np.int64], k: int
    ) -> Iterator[tuple[NDArray[np.int64], int, int]]:
        """Split queries into searches: (positions, neighbours to fetch, photographer that FAISS skips or -1).

        `extra` are the photographer's references, `few` the others to leave out.

        A query fetches k more than what may be thrown away, rounded up to a power of two so that there are
        few searches; queries of a photographer with very many references go together and let FAISS skip
        these.
        """
        heavy = (extra > _OVERFETCH_LIMIT) & self._selects
        extra = extra + few
        rounded = np.where(extra > 0, 2 ** np.ceil(np.log2(np.maximum(extra, 1))), 0).astype(np.int64)
        groups = [
            (np.flatnonzero(~heavy & (rounded == r)), k + int(r), -1) for r in np.unique(rounded[~heavy])
        ]
        for c in np.unique(owner[heavy]):
            mine = np.flatnonzero(heavy & (owner == c))
            groups.append((mine, k + int(few[mine].max()), int(c)))
        for chosen, fetch, code in groups:
            fetch = max(1, min(fetch, len(self)))
            step = max(1, _SEARCH_CELLS // fetch)
            for start in range(0, len(chosen), step):
                yield chosen[start : start + step], fetch, code

    def _fetch(
        self, queries: NDArray[np.float32], fetch: int, skipped: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """One FAISS search: rows [q, fetch] (-1: none) and similarities, without the photographer
        `skipped`."""
        if skipped < 0:
            similarity, ids = self._index.search(queries, fetch)
        else:
            rows = np.flatnonzero(self._owners[:-1] == skipped)
            # Through a map of ids FAISS translates a selector at the top only, not one nested inside Refine,
            # which sees positions: these are the rows, because both are appended and compacted together.
            names = rows if self._refine is not None else self._ids[rows]
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(names))
            probe: dict[str, Any] = {} if self._ivf is None else {"nprobe": self._ivf.nprobe}
            kind: Any = faiss.SearchParameters if self._ivf is None else faiss.SearchParametersIVF
            parameters = kind(sel=selector, **probe)
            if self._refine is not None:
                refined: Any = faiss.IndexRefineSearchParameters
                parameters = refined(k_factor=self._refine.k_factor, base_index_params=parameters)
            similarity, ids = self._index.search(queries, fetch, params=parameters)
        place = np.searchsorted(self._ids, ids, sorter=self._order)
        rows = self._order[np.minimum(place, len(self) - 1)] if len(self) else np.full(ids.shape, -1)
        return np.where(ids < 0, -1, rows), similarity

    def _neighbours(self, rows: NDArray[np.int64], similarity: NDArray[np.float32]) -> Neighbours:
        def at(values: NDArray[Any], missing: Any) -> NDArray[Any]:
            return np.append(values, missing).astype(values.dtype)[rows]  # row -1 reads the appended one

        return Neighbours(
            row=rows,
            id=at(self._ids, -1),
            similarity=similarity,
            latitude=at(self._latitude, np.nan),
            longitude=at(self._longitude, np.nan),
            reference_photo_ids=self._photo_ids,
        )

    def _rows_of_photos(self, photo_ids: Any, queries: int) -> NDArray[np.int64]:
        """Returns the row of each photo_id, -2 if null or unknown (so that it equals no row, nor -1)."""
        found = _lookup(self._photo_index, photo_ids, queries, "exclude_photos")
        return np.where(found < 0, -2, found)


def _coded(column: pd.Series) -> tuple[NDArray[np.int64], pd.Index, NDArray[np.int64]]:
    """Returns the code of each value, with -1 for null and one more -1, so that row -1 has none; the values; and how
    often each occurs, with one more 0."""
    codes, names = pd.factorize(column)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    return np.append(codes, -1).astype(np.int64), pd.Index(names), np.append(counts, 0)


def _lookup(names: pd.Index, wanted: Any, queries: int, argument: str) -> NDArray[np.int64]:
    """Returns the position in `names` of each wanted name, -1 if null or unknown; all -1 if `wanted` is None."""
    if wanted is None:
        return np.full(queries, -1, dtype=np.int64)
    wanted = np.asarray(wanted, dtype=object)
    if wanted.shape != (queries,):
        raise ValueError(f"{argument} must have shape ({queries},), got {wanted.shape}")
    return names.get_indexer(pd.Index(wanted)).astype(np.int64)  # null is in no index of names


def _match(embeddings: Embeddings, rows: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[Any], int]:
    """Returns the rows with an embedding, in order, their vectors, and the number of rows without one."""
    missing = [c for c in REFERENCE_COLUMNS if c not in rows.columns]
    if missing:
        raise ValueError(
            f"references need the columns {', '.join(REFERENCE_COLUMNS)}; missing: {', '.join(missing)}"
        )
    kept = [*REFERENCE_COLUMNS, *([NEAR_DUPLICATES] if NEAR_DUPLICATES in rows else [])]
    table = rows[kept].reset_index(drop=True)
    repeated = table["photo_id"].duplicated()
    if repeated.any():
        raise ValueError(f"photo {table.loc[repeated, 'photo_id'].iloc[0]!r} is in the references twice")
    valid = is_valid(table["latitude"].to_numpy(np.float64), table["longitude"].to_numpy(np.float64))
    if not valid.all():
        raise ValueError(
            f"reference {table.loc[~valid, 'photo_id'].iloc[0]!r} has no valid latitude and longitude"
            f" ({int((~valid).sum())} such rows)"
        )
    position = embeddings.positions(table["photo_id"])
    has = position >= 0
    return table[has].reset_index(drop=True), embeddings.vectors[position[has]], int((~has).sum())
