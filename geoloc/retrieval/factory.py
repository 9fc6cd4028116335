"""FAISS by factory string: an index made empty with seeds, what is inside it, and its quirks.

plan.py chooses the string. An IVF index can return fewer than k neighbours: those places hold id -1.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from geoloc.retrieval.plan import plan_index
from geoloc.settings import SettingsError


def choose_factory(references: int, dimension: int) -> str:
    """Returns the factory string that "auto" selects with default settings."""
    return plan_index(references, dimension).factory


def make_faiss(factory: str, dimension: int, seed: int) -> Any:
    """An empty index for inner products that takes our ids, with every k-means seeded."""
    if "IDMap" in factory:
        raise SettingsError(f"index.factory {factory!r} must be without IDMap: every index keeps ids")
    refines = re.search(r",(Refine\(|RFlat)", factory) is not None
    native_ids = factory.startswith("IVF") and not refines
    try:
        index = faiss.index_factory(
            dimension, factory if native_ids else f"IDMap2,{factory}", faiss.METRIC_INNER_PRODUCT
        )
    except RuntimeError as error:
        raise SettingsError(
            f"index.factory {factory!r} is not one that FAISS takes: {reason(error)}"
        ) from error
    ivf = ivf_inside(index)
    if ivf is not None:
        if not native_ids and not refines:
            raise SettingsError(f"index.factory {factory!r} could not forget a photo: it must start with IVF")
        if ivf.nlist < 1:
            raise SettingsError(f"index.factory {factory!r} must have at least one list, got {ivf.nlist}")
        ivf.cp.seed = seed
        ivf = faiss.downcast_index(ivf)
        if hasattr(ivf, "pq"):
            ivf.pq.cp.seed = seed
    return index


def ivf_inside(index: Any) -> Any:
    """The IVF index inside, or None."""
    return faiss.try_extract_index_ivf(index)


def inside(index: Any) -> Any:
    """The index below a map of ids; itself if there is none."""
    return faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index


def refine_inside(index: Any) -> Any:
    """The index that ranks again inside, or None."""
    inner = inside(index)
    return inner if isinstance(inner, faiss.IndexRefine) else None


def hnsw_inside(index: Any) -> Any:
    """The HNSW index inside, or None."""
    inner = inside(index)
    if isinstance(inner, faiss.IndexRefine):
        inner = faiss.downcast_index(inner.base_index)
    return inner if isinstance(inner, faiss.IndexHNSW) else None


def is_exact(index: Any) -> bool:
    """Whether a search finds the true nearest, whatever its parameters."""
    return isinstance(inside(index), faiss.IndexFlat)


def search_parameters(
    index: Any, nprobe: int, wanted: NDArray[np.bool_] | None, ids: NDArray[np.int64]
) -> Any:
    """FAISS's parameters for a search in `nprobe` lists (0: as the index is set) among the references `wanted` [R] of
    those with `ids` [R] (None: all); None where nothing differs from how the index is set."""
    ivf, refine = ivf_inside(index), refine_inside(index)
    if wanted is None and not nprobe:
        return None
    chosen: dict[str, Any] = {}
    if wanted is not None:
        # Through a map of ids FAISS translates a selector at the top only, not one nested inside Refine,
        # which sees positions: these are the rows, because both are appended and compacted together.
        few = wanted.sum() <= len(ids) / 2
        rows = np.flatnonzero(wanted if few else ~wanted)
        batch = faiss.IDSelectorBatch(ids[rows] if refine is None else rows)
        chosen["sel"] = batch if few else faiss.IDSelectorNot(batch)
    kind: Any = faiss.SearchParameters
    if ivf is not None:
        kind, chosen["nprobe"] = faiss.SearchParametersIVF, nprobe or ivf.nprobe
    parameters = kind(**chosen)
    if refine is not None:
        refined: Any = faiss.IndexRefineSearchParameters
        parameters = refined(k_factor=refine.k_factor, base_index_params=parameters)
    return parameters


def list_count(index: Any) -> int:
    ivf = ivf_inside(index)
    return 0 if ivf is None else int(ivf.nlist)


def reason(error: RuntimeError) -> str:
    """FAISS's own words, without the C++ signature in front."""
    return str(error).split("Error: ")[-1].strip()


@contextlib.contextmanager
def blas_threshold(threshold: int) -> Iterator[None]:
    """FAISS's process-wide number, set for one search and put back; its own choice is 10 times slower for
    batches of about 100 queries on the machine measured. Changes speed, and similarities in the last bit."""
    before = faiss.cvar.distance_compute_blas_threshold
    if threshold > 0:
        faiss.cvar.distance_compute_blas_threshold = threshold
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before
