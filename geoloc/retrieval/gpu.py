"""Copies of an index on a GPU: the exact search of a Flat index by torch, a plain IVF index by FAISS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from geoloc.retrieval.factory import inside, is_exact, refine_inside

_MOST_NEIGHBOURS = 2_048  # of FAISS on a GPU


@dataclass(frozen=True)
class GpuSearch:
    """A search on a GPU: of an ExactSearch, which gives rows and takes subsets, or of FAISS, which gives ids."""

    searcher: Any
    gives_rows: bool

    def can(self, k: int, among: NDArray[np.bool_] | None) -> bool:
        """Whether it can answer this; otherwise the index on the processor does."""
        return self.gives_rows or (among is None and k <= _MOST_NEIGHBOURS)

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows or ids [Q, k] (-1: none) and similarities."""
        if self.gives_rows:
            rows, similarity = self.searcher.search(queries, k, among)
            return rows, similarity
        similarity, ids = self.searcher.search(queries, k)
        return ids, similarity


def gpu_search(index: Any) -> GpuSearch | None:
    """Copy an index to the GPU. None if there is no GPU, if the index does not fit, and for a kind that FAISS has on
    processors only (fast scan, Refine, HNSW)."""
    import torch  # takes seconds to import, and searching on a processor needs none of it

    if is_exact(index):
        if not torch.cuda.is_available() or index.ntotal == 0:
            return None
        from geoloc.retrieval.exact import ExactSearch

        free, _ = torch.cuda.mem_get_info()
        if index.ntotal * index.d * 4 > 0.8 * free:
            return None
        flat: Any = inside(index)
        return GpuSearch(ExactSearch(flat.reconstruct_n(0, flat.ntotal), "cuda"), gives_rows=True)
    copied = isinstance(index, faiss.IndexIVFFlat) and refine_inside(index) is None
    if not copied or not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        return None
    resources = faiss.StandardGpuResources()
    searcher: Any = faiss.index_cpu_to_gpu(resources, 0, index)
    searcher.nprobe = index.nprobe
    searcher.geoloc_resources = resources  # must live as long as the copy
    return GpuSearch(searcher, gives_rows=False)
