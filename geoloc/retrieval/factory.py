"""FAISS by factory string: which index for how many references, made empty with seeds, and its quirks.

The factory "auto" chooses by size:

    under 100,000 references      Flat                                exact
    under 1,000,000               IVF{n},Flat                         exact within the lists probed
    from there                    IVF{n},PQ{d/4}x4fs,Refine(SQfp16)   half the memory, 30 times Flat's speed

with n the power of two nearest to 4 √references, and n / 16 lists probed. Measured on one million 512-number
vectors, the last finds 96 % of the true 100 nearest (the density uses 100) at 3,500 queries a second where
Flat does 130, and can return fewer than k neighbours: those places hold id -1 and NaN coordinates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np


def choose_factory(references: int, dimension: int) -> str:
    """Returns the factory string that "auto" selects; see the top of this file."""
    if references < 100_000:
        return "Flat"
    lists = 2 ** round(np.log2(4 * np.sqrt(references)))
    if references < 1_000_000 or dimension % 4:
        return f"IVF{lists},Flat"
    return f"IVF{lists},PQ{dimension // 4}x4fs,Refine(SQfp16)"


def make_faiss(factory: str, dimension: int, seed: int) -> Any:
    """An empty index for inner products that takes our ids, with every k-means seeded."""
    native_ids = factory.startswith("IVF") and "Refine" not in factory
    try:
        index = faiss.index_factory(
            dimension, factory if native_ids else f"IDMap2,{factory}", faiss.METRIC_INNER_PRODUCT
        )
    except RuntimeError as error:
        raise ValueError(f"index.factory {factory!r} is not one that FAISS takes: {reason(error)}") from error
    ivf = ivf_inside(index)
    if ivf is not None:
        if not native_ids and "Refine" not in factory:
            raise ValueError(f"index.factory {factory!r} could not forget a photo: it must start with IVF")
        ivf.cp.seed = seed
        ivf = faiss.downcast_index(ivf)
        if hasattr(ivf, "pq"):
            ivf.pq.cp.seed = seed
    return index


def ivf_inside(index: Any) -> Any:
    """The IVF index inside, or None."""
    return faiss.try_extract_index_ivf(index)


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
