"""An index of reference photos: FAISS over embeddings, with ids that survive growth and removal.

Similarity is the inner product of L2-normalised vectors (the cosine). The factory "auto" chooses by size, memory and
wanted recall: see plan.py. How thoroughly an index that is not exact searches is tuned: see tuning.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.files import damage_named
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.factory import (
    blas_threshold,
    hnsw_inside,
    inside,
    is_exact,
    ivf_inside,
    make_faiss,
    refine_inside,
    search_parameters,
)
from geoloc.retrieval.filling import fill, train
from geoloc.retrieval.gpu import GpuSearch, gpu_search
from geoloc.retrieval.neighbours import LEFT_OUT, Neighbours, stable_ids
from geoloc.retrieval.plan import plan_index
from geoloc.retrieval.references import (
    NEAR_DUPLICATES,
    REFERENCE_COLUMNS,
    ReferenceTable,
    RetrievalError,
    checked_queries,
    lookup,
    match,
    require_one_model,
)
from geoloc.retrieval.settings import IndexSettings
from geoloc.retrieval.stored import read_index, read_meta, write_index
from geoloc.retrieval.tuning import Trained, Tuned, apply, default_parameters, imbalance, tune
from geoloc.settings import parse, used

__all__ = ["NEAR_DUPLICATES", "REFERENCE_COLUMNS", "ReferenceIndex"]

_SEARCH_CELLS = 4_000_000  # neighbours fetched at a time
_OVERFETCH_LIMIT = 1_024  # to exclude more references than this, FAISS skips them while searching
_DEEPER = 4  # times as many neighbours and lists, where too few remain

Names = Sequence[str | None] | NDArray[np.object_] | None


class ReferenceIndex:
    """References (photos with known locations) that can be searched by embedding.

    Make one with `build` or `load`. `references` is a data frame with id, photo_id, latitude, longitude and
    photographer (null where unknown), one row per reference. `without_embedding` counts the rows passed to
    `build` and `add` that have no embedding (unreadable photos) and so are not in the index. `model` is the
    `model_hash` of what made the embeddings (empty if unknown), `reason` why it is this `factory`, `tuned` how it
    searches and the recall that was measured.
    """

    def __init__(
        self,
        index: Any,
        references: pd.DataFrame,
        settings: IndexSettings,
        factory: str,
        without_embedding: int,
        *,
        model: str = "",
        reason: str = "",
        trained: Trained | None = None,
        tuned: Tuned | None = None,
        mapped: bool = False,
    ) -> None:
        self._index, self.settings, self.factory = index, settings, factory
        self.without_embedding, self.model, self.reason = without_embedding, model, reason
        self.trained, self._mapped = trained or Trained(), mapped
        self._ivf, self._refine, self._graph = ivf_inside(index), refine_inside(index), hnsw_inside(index)
        # FAISS can forget and skip single vectors in these; an IVF index keeps ids itself, so has no map.
        self._removes = is_exact(index) or inside(index) is index
        self._selects = self._removes or (self._refine is not None and self._ivf is not None)
        self.tuned = tuned or default_parameters(index, settings)
        apply(index, self.tuned)
        self._set_references(references)

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
        of embeddings serves many indexes. `seed` drives the choice of training vectors, k-means and the references
        that the search is tuned with. Raises ValueError for missing columns, repeated photo ids, invalid coordinates,
        embeddings that are not finite or all zero, colliding ids, a factory string that FAISS does not know, too
        little memory, or nothing to index.
        """
        settings = settings or IndexSettings()
        references, vectors, missing = match(embeddings, rows)
        if not len(references):
            raise RetrievalError(f"nothing to index: none of the {len(rows)} rows has an embedding")
        dimension = vectors.shape[1]
        plan = plan_index(len(references), dimension, settings)
        index = make_faiss(plan.factory, dimension, seed)
        trained = train(index, plan.factory, vectors, settings, seed)
        none = references.iloc[:0].assign(id=np.empty(0, dtype=np.int64))
        made = cls(index, none, settings, plan.factory, 0, model=embeddings.model, reason=plan.reason)
        made._append(references, vectors)
        made.without_embedding = missing
        if trained:
            made.trained = Trained(trained, len(references), round(imbalance(index), 6))
        made._tune(vectors, seed)
        return made

    def add(self, embeddings: Embeddings, rows: pd.DataFrame) -> int:
        """Add references; those already there keep their ids and places. Returns how many were added.

        Nothing is trained again: `retraining` says when that is due. Raises ValueError as `build` does, for embeddings
        by another model, and for a photo that is already in the index; nothing is added then.
        """
        self._require_writable()
        self.require_model(embeddings)
        references, vectors, missing = match(embeddings, rows)
        if len(references):
            self._append(references, vectors)
        self.without_embedding += missing
        return len(references)

    def remove(self, photo_ids: Sequence[str]) -> int:
        """Remove references with their vectors; the others keep their ids. Returns how many there were.

        Photo ids that are not in the index are ignored, so a take-down can be repeated. An index with Refine
        or HNSW cannot forget single vectors: it is emptied and refilled, without training again.
        """
        self._require_writable()
        gone = self.references["photo_id"].isin(list(photo_ids)).to_numpy()
        if not gone.any():
            return 0
        kept = self.references[~gone]
        if self._removes:
            self._index.remove_ids(faiss.IDSelectorBatch(self._table.ids[gone]))
        else:
            vectors = self._index.index.reconstruct_n(0, len(gone))[~gone]
            self._index.reset()
            if len(kept):
                fill(self._index, vectors, self._table.ids[~gone], self.settings)
        self._set_references(kept)
        return int(gone.sum())

    def tune(self, embeddings: Embeddings, seed: int = 0) -> Tuned:
        """Search as little as reaches `settings.recall`, by the embeddings of all references; `build` did so.

        Raises ValueError for embeddings by another model, KeyError for a reference without an embedding.
        """
        self.require_model(embeddings)
        return self._tune(embeddings.subset(self.references["photo_id"]).vectors, seed)

    @property
    def retraining(self) -> str:
        """Why it should be trained again, in words; empty while it need not be."""
        return self.trained.retraining(imbalance(self._index), len(self), self.settings.drift)

    def require_model(self, embeddings: Embeddings) -> None:
        """Raise RetrievalError unless these embeddings can be compared with the index's: one model, one dimension."""
        require_one_model(embeddings, self.model, self.dimension)

    def search(
        self,
        vectors: ArrayLike,
        k: int,
        exclude_photographers: Names = None,
        exclude_photos: Names = None,
        exclude_near_duplicates: Names = None,
        among: NDArray[np.bool_] | None = None,
    ) -> Neighbours:
        """The k references nearest to each vector (Q, D), L2-normalised.

        `exclude_photographers` [Q] leaves out all references by that photographer, `exclude_photos` [Q] the reference
        of that photo_id, `exclude_near_duplicates` [Q] those of that group; null excludes nothing. `among` [R] limits
        the search to some references. It goes deeper until k remain, or all that there are; where `settings.nprobe`
        fixes the number of lists, until as many remain as it would find without leaving any out. With a Flat index
        the result is exact however many references are left out. Raises ValueError for a wrong shape, NaN, infinite
        or all-zero vectors, or k < 1.
        """
        queries = checked_queries(vectors, k, self.dimension)
        table, count = self._table, len(queries)
        if among is not None and (among.shape != (len(self),) or among.dtype != np.bool_):
            raise ValueError(
                f"among must be bool of shape ({len(self)},), got {among.dtype} of {among.shape}"
            )
        owner = lookup(table.photographers, exclude_photographers, count, "exclude_photographers")
        own = table.rows_of_photos(exclude_photos, count)
        group = lookup(table.group_names, exclude_near_duplicates, count, "exclude_near_duplicates")
        few = np.where(group >= 0, table.group_counts[group], 0) + (own >= 0)
        extra = np.where(owner >= 0, table.owner_counts[owner], 0)
        within = np.append(np.ones(len(self), dtype=bool) if among is None else among, False)
        rows = np.full((count, k), -1, dtype=np.int64)
        similarity = np.full((count, k), np.nan, dtype=np.float32)
        enough = np.full(count, k)

        def out(found: NDArray[np.int64], q: NDArray[np.int64]) -> NDArray[np.bool_]:
            """Which of the rows [q, n] found for queries `q` are left out, or are none."""
            left_out = (found < 0) | ~within[found] | (found == own[q, None])
            left_out |= (owner[q, None] >= 0) & (table.owners[found] == owner[q, None])
            return left_out | ((group[q, None] >= 0) & (table.groups[found] == group[q, None]))

        with blas_threshold(self.settings.blas_threshold):
            todo = list(self._plan(extra, few, owner, k)) if len(self) else []  # FAISS may crash
            while todo:
                chosen, fetch, code, effort = todo.pop()
                found, similar = self._fetch(queries[chosen], fetch, code, among, effort)
                if effort == 1 and self.settings.nprobe and code < 0 and among is None:
                    enough[chosen] = np.minimum(k, (found >= 0).sum(axis=1))
                left_out = out(found, chosen)
                order = np.argsort(left_out, axis=1, kind="stable")[:, :k]
                keep = ~np.take_along_axis(left_out, order, axis=1)
                width = order.shape[1]
                rows[chosen, :width] = np.where(keep, np.take_along_axis(found, order, axis=1), -1)
                similarity[chosen, :width] = np.where(
                    keep, np.take_along_axis(similar, order, axis=1), np.nan
                )
                if fetch >= len(self) and (self._ivf is None or self._probes(effort) >= self._ivf.nlist):
                    continue
                everything = np.arange(len(self))[None]
                short = [
                    q
                    for q, got in zip(chosen, keep.sum(axis=1), strict=True)
                    if got < enough[q] and got < (~out(everything, np.array([q]))).sum()
                ]
                todo += self._split(np.array(short, np.int64), _DEEPER * fetch, code, _DEEPER * effort)
        asked = (exclude_photographers, exclude_photos, exclude_near_duplicates, among)
        left = tuple(word for word, value in zip(LEFT_OUT, asked, strict=True) if value is not None)
        return table.neighbours(rows, similarity, left)

    def save(self, folder: Path | str) -> None:
        """Write index.faiss, references.parquet and meta.json into `folder`, which appears whole or not at
        all."""
        meta = {
            "factory": self.factory,
            "reason": self.reason,
            "model": self.model,
            "trained": asdict(self.trained),
            "tuned": asdict(self.tuned),
            "settings": used(self.settings),
            "without_embedding": self.without_embedding,
        }
        write_index(folder, self._index, self.references, meta)

    @classmethod
    def load(cls, folder: Path | str, *, mapped: bool = False) -> ReferenceIndex:
        """Load a saved index. `mapped`: leave vectors in the file and read what a search touches; it is then not to be
        changed. Raises FileNotFoundError for a missing file, DamagedFile for files that do not match."""
        meta = read_meta(folder)
        with damage_named(Path(folder) / "meta.json"):
            index, references = read_index(folder, meta, mapped)
            return cls(
                index,
                references,
                parse(IndexSettings, meta["settings"], "index"),
                meta["factory"],
                meta["without_embedding"],
                # An index of before these were recorded has none of them.
                model=meta.get("model", ""),
                reason=meta.get("reason", ""),
                trained=Trained(**meta.get("trained", {})),
                tuned=Tuned(**meta["tuned"]) if "tuned" in meta else None,
                mapped=mapped,
            )

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""
        return int(self._index.d)

    def __len__(self) -> int:
        return len(self.references)

    def __repr__(self) -> str:
        return f"ReferenceIndex({len(self):,} references, {self.dimension} dimensions, {self.factory})"

    def _require_writable(self) -> None:
        if self._mapped:
            raise ValueError(
                "an index that is mapped from its file cannot be changed: load it without mapped=True"
            )

    def _set_references(self, references: pd.DataFrame) -> None:
        self._table = ReferenceTable(references)
        self.references = self._table.frame
        self._gpu: GpuSearch | None = None
        self._gpu_asked = False

    def _tune(self, vectors: NDArray[Any], seed: int) -> Tuned:
        with blas_threshold(self.settings.blas_threshold):
            self.tuned = tune(self._index, self._table.ids, vectors, self.settings, seed)
        self._gpu_asked = False  # a copy there searches as it did before
        return self.tuned

    def _append(self, references: pd.DataFrame, vectors: NDArray[Any]) -> None:
        """Check new references against the existing ones, then add rows and vectors."""
        if vectors.shape[1] != self.dimension:
            raise RetrievalError(f"embeddings have {vectors.shape[1]} numbers, the index {self.dimension}")
        table = references.assign(id=stable_ids(references["photo_id"]))[["id", *references.columns]]
        whole = pd.concat([self.references, table], ignore_index=True) if len(self.references) else table
        repeated = whole["photo_id"].duplicated()
        if repeated.any():
            raise RetrievalError(f"photo {whole.loc[repeated, 'photo_id'].iloc[0]!r} is already in the index")
        collided = whole["id"].duplicated(keep=False)
        if collided.any():
            raise RetrievalError(
                f"photo ids {whole.loc[collided, 'photo_id'].tolist()[:2]} have the same 63-bit id"
            )
        fill(self._index, vectors, table["id"].to_numpy(dtype=np.int64), self.settings)
        self._set_references(whole)

    def _plan(
        self, extra: NDArray[np.int64], few: NDArray[np.int64], owner: NDArray[np.int64], k: int
    ) -> Iterator[tuple[NDArray[np.int64], int, int, int]]:
        """Split queries into searches: (positions, neighbours to fetch, photographer that FAISS skips or -1, effort 1).

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
            yield from self._split(chosen, fetch, code, 1)

    def _split(
        self, chosen: NDArray[np.int64], fetch: int, code: int, effort: int
    ) -> Iterator[tuple[NDArray[np.int64], int, int, int]]:
        """Split a search into ones that fit into memory."""
        fetch = max(1, min(fetch, len(self)))
        step = max(1, _SEARCH_CELLS // fetch)
        for start in range(0, len(chosen), step):
            yield chosen[start : start + step], fetch, code, effort

    def _probes(self, effort: int) -> int:
        return 0 if self._ivf is None else min(int(self._ivf.nlist), self.tuned.nprobe * effort)

    def _fetch(
        self,
        queries: NDArray[np.float32],
        fetch: int,
        skipped: int,
        among: NDArray[np.bool_] | None,
        effort: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """One search: rows [q, fetch] (-1: none) and similarities, where FAISS can select without the photographer
        `skipped` and within `among`, in `effort` times as many lists."""
        table = self._table
        wanted: NDArray[np.bool_] | None = None
        if self._selects and (skipped >= 0 or among is not None):
            wanted = table.owners[:-1] != skipped if skipped >= 0 else np.ones(len(self), dtype=bool)
            wanted = wanted if among is None else wanted & among
        gpu = self._on_gpu() if effort == 1 else None
        if gpu is not None and gpu.can(fetch, wanted):
            ids, similarity = gpu.search(queries, fetch, wanted)
            return (ids if gpu.gives_rows else table.rows_of(ids)), similarity
        if self._graph is not None and fetch >= len(self):  # not every reference is reached from every other
            similarity, rows = faiss.downcast_index(self._graph.storage).search(queries, fetch)
            return rows, similarity
        nprobe = self._probes(effort) if effort > 1 else 0
        parameters = search_parameters(self._index, nprobe, wanted, table.ids)
        similarity, ids = self._index.search(queries, fetch, params=parameters)
        return table.rows_of(ids), similarity

    def _on_gpu(self) -> GpuSearch | None:
        """The copy on a GPU, made when the first search wants it; None if there is none."""
        if not self._gpu_asked:
            self._gpu = gpu_search(self._index) if self.settings.device == "auto" else None
        self._gpu_asked = True
        return self._gpu
