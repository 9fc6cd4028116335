"""Training and filling a FAISS index: from a sample, in blocks, and in shards at the same time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from geoloc.retrieval.factory import hnsw_inside, ivf_inside, list_count, reason, refine_inside
from geoloc.retrieval.settings import IndexSettings
from geoloc.settings import SettingsError

_ADD_ROWS = 65_536  # vectors turned to float32 at a time


def train(index: Any, factory: str, vectors: NDArray[Any], settings: IndexSettings, seed: int) -> int:
    """Train an index on vectors chosen at random by `seed`. Returns how many; 0 if it needs no training.

    Raises SettingsError if FAISS cannot.
    """
    if index.is_trained:
        return 0
    count = min(len(vectors), settings.train_per_list * max(256, list_count(index)))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:count])
    try:
        index.train(np.ascontiguousarray(vectors[chosen], dtype=np.float32))
    except RuntimeError as error:
        raise SettingsError(f"index.factory {factory!r} cannot be trained: {reason(error)}") from error
    return count


def fill(index: Any, vectors: NDArray[Any], ids: NDArray[np.int64], settings: IndexSettings) -> None:
    """Add N vectors with their ids to a trained index.

    An empty IVF index is filled in shards of `settings.shard_rows`, several at a time, which are merged in order: the
    lists hold what they would hold if all had been added in one go, however many shards are filled at a time. Fast-scan
    codes are added in one go, by FAISS's own threads: merging leaves undefined bytes between them, and equal seeds
    must give equal bytes.
    """
    spans = [
        slice(start, min(start + settings.shard_rows, len(ids)))
        for start in range(0, len(ids), settings.shard_rows)
    ]
    ivf = ivf_inside(index)
    if len(spans) < 2 or index.ntotal or ivf is None or _is_fast_scan(ivf):
        # A graph depends on the order in which its threads come by: one thread, so that equal seeds give equal bytes.
        with _threads(1) if hnsw_inside(index) is not None else contextlib.nullcontext():
            _add(index, vectors, ids)
        return
    workers = settings.workers or _processors()
    empty = faiss.clone_index(index)

    def shard(span: slice) -> Any:
        faiss.omp_set_num_threads(1)  # of this thread: the shards are what runs side by side
        made = faiss.clone_index(empty)
        _add(made, vectors[span], ids[span])
        return made

    for first in range(0, len(spans), workers):
        with ThreadPoolExecutor(workers) as pool:
            for made in pool.map(shard, spans[first : first + workers]):
                _merge(index, made)


def _is_fast_scan(ivf: Any) -> bool:
    return isinstance(faiss.downcast_index(ivf), faiss.IndexIVFFastScan)


def _add(index: Any, vectors: NDArray[Any], ids: NDArray[np.int64]) -> None:
    for start in range(0, len(ids), _ADD_ROWS):
        part = slice(start, start + _ADD_ROWS)
        index.add_with_ids(np.ascontiguousarray(vectors[part], dtype=np.float32), ids[part])


def _merge(index: Any, shard: Any) -> None:
    """Move what a shard holds to the end of an index of the same kind."""
    refine = refine_inside(index)
    if refine is None:
        index.merge_from(shard, 0)
        return
    # FAISS merges neither Refine nor the map of ids above it, but what they are made of.
    other = refine_inside(shard)
    ids = [faiss.vector_to_array(one.id_map) for one in (index, shard)]
    for target, source, first in (
        (refine.base_index, other.base_index, refine.ntotal),
        (refine.refine_index, other.refine_index, 0),
    ):
        faiss.downcast_index(target).merge_from(faiss.downcast_index(source), first)
    faiss.copy_array_to_vector(np.concatenate(ids), index.id_map)
    refine.ntotal = index.ntotal = sum(map(len, ids))
    index.construct_rev_map()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
