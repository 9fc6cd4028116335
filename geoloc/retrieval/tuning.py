"""How thoroughly an index searches: as little as reaches the wanted recall, measured against the exact search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from geoloc.retrieval.factory import hnsw_inside, is_exact, ivf_inside, refine_inside
from geoloc.retrieval.settings import IndexSettings

AT = 100
"""Recall is measured at so many neighbours: the density uses 100."""
_EF = (16, 32, 64, 128, 256, 512, 1024)
_LITTLE_GAIN = 0.001
_RANDOM = 4
"""So much longer takes a byte of a vector that is ranked again than a byte of a list that is scanned (measured with
200,000 and a million vectors of 512 numbers: 200 against 55 microseconds a megabyte, two threads)."""
_BLOCK_ROWS = 65_536
_RETRAIN_SIZE = 4  # times as many references want twice as many lists


@dataclass(frozen=True)
class Tuned:
    """How an index searches, and the recall that was measured with it: the share of the true `at` nearest of `queries`
    references, each without itself, that it finds. 0: no such parameter; `recall` is None if it was not measured."""

    nprobe: int = 0
    ef_search: int = 0
    k_factor: int = 0
    recall: float | None = None
    at: int = 0
    queries: int = 0

    def __str__(self) -> str:
        names = ("nprobe", "ef_search", "k_factor")
        parts = [f"{name} {getattr(self, name)}" for name in names if getattr(self, name)]
        if self.recall is not None:
            parts.append(f"recall@{self.at} {self.recall:.3f} of {self.queries} references")
        return ", ".join(parts) or "exact"


@dataclass(frozen=True)
class Trained:
    """What an index was trained on: the number of vectors, the references it was then filled with, and how uneven its
    lists then were. All 0 for an index without training."""

    vectors: int = 0
    references: int = 0
    imbalance: float = 0.0

    def retraining(self, uneven: float, references: int, drift: float) -> str:
        """Why an index that is now so uneven and so large should be trained again, in words; empty if it need not."""
        if not self.references:
            return ""
        times = uneven / max(self.imbalance, 1.0)
        if times > drift:
            return (
                f"its lists are {times:.2f} times as uneven as after training for {self.references:,} references,"
                f" index.drift allows {drift:g}: build it with index.grow false"
            )
        if references >= _RETRAIN_SIZE * self.references:
            return (
                f"it has {references:,} references and was trained for {self.references:,}:"
                " build it with index.grow false"
            )
        return ""


def default_parameters(index: Any, settings: IndexSettings) -> Tuned:
    """Returns the parameters of `settings`; where they are 0, a sixteenth of all lists and FAISS's own efSearch."""
    ivf, hnsw = ivf_inside(index), hnsw_inside(index)
    return Tuned(
        nprobe=0 if ivf is None else min(ivf.nlist, settings.nprobe or max(1, ivf.nlist // 16)),
        ef_search=0 if hnsw is None else settings.ef_search or 16,
        k_factor=0 if refine_inside(index) is None else settings.k_factor,
    )


def apply(index: Any, tuned: Tuned) -> None:
    """Make an index search so."""
    ivf, hnsw, refine = ivf_inside(index), hnsw_inside(index), refine_inside(index)
    if ivf is not None:
        ivf.nprobe = tuned.nprobe
    if hnsw is not None:
        hnsw.hnsw.efSearch = tuned.ef_search
    if refine is not None:
        refine.k_factor = tuned.k_factor


def tune(
    index: Any, ids: NDArray[np.int64], vectors: NDArray[Any], settings: IndexSettings, seed: int
) -> Tuned:
    """Find the least work that reaches `settings.recall`, or the most if none does; the index is left searching so.

    `vectors` [N, D] are all references of the index, `ids` [N] theirs; `settings.tune_queries` of them, chosen by
    `seed`, are the queries. Parameters that the settings fix are measured only. Work is the bytes that a search reads,
    and no time is taken, so equal indexes are tuned equally.
    """
    best = default_parameters(index, settings)
    at, queries = min(AT, len(ids) - 1), min(settings.tune_queries, len(ids))
    if is_exact(index) or at < 1 or not queries:
        apply(index, best)
        return best
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:queries])
    asked = np.ascontiguousarray(vectors[chosen], dtype=np.float32)
    truth = _without(ids[_true_nearest(asked, vectors, at + 1)], ids[chosen])
    measured: list[Tuned] = []
    for trial in sorted(_trials(index, best, settings), key=lambda one: _work(index, one)):
        same = [_recall(one) for one in measured if one.nprobe == trial.nprobe and trial.nprobe]
        if len(same) > 1 and same[-1] - same[-2] < _LITTLE_GAIN:
            continue  # ranking more of what the lists do not hold is of no use
        apply(index, trial)
        _, found = index.search(asked, at + 1)
        hits = sum(
            len(np.intersect1d(a, b)) for a, b in zip(_without(found, ids[chosen]), truth, strict=True)
        )
        measured.append(replace(trial, recall=round(hits / (at * queries), 6), at=at, queries=queries))
        if _recall(measured[-1]) >= settings.recall:
            break
    best = max(measured, key=_recall)  # the first, so the least work
    apply(index, best)
    return best


def imbalance(index: Any) -> float:
    """Returns how uneven the lists of an IVF index are: 1 if all are as long, n times as much work a search at n; 0
    for other indexes and empty ones."""
    ivf = ivf_inside(index)
    if ivf is None or not index.ntotal:
        return 0.0
    return float(faiss.downcast_InvertedLists(ivf.invlists).imbalance_factor())


def _trials(index: Any, start: Tuned, settings: IndexSettings) -> Iterator[Tuned]:
    """Parameters to try: for each length of the search, those of ranking again."""
    if (start.nprobe and settings.nprobe) or (start.ef_search and settings.ef_search):
        yield start
        return
    factors = [0]
    if start.k_factor:
        factors = sorted({max(1, round(start.k_factor * 2 ** (step / 2))) for step in range(-2, 5)})
    lists = 0 if ivf_inside(index) is None else int(ivf_inside(index).nlist)
    steps: list[dict[str, int]] = [{}]
    if lists:
        steps = [{"nprobe": 2**i} for i in range(int(np.log2(lists)) + 1)]
        if steps[-1]["nprobe"] < lists:
            steps.append({"nprobe": lists})
    elif start.ef_search:
        steps = [{"ef_search": ef} for ef in _EF]
    for step in steps:
        for factor in factors:
            yield replace(start, k_factor=factor, **step)


def _work(index: Any, trial: Tuned) -> float:
    """The bytes that a search for one query reads, those of single vectors _RANDOM times."""
    ivf, refine = ivf_inside(index), refine_inside(index)
    scanned = 0.0 if ivf is None else trial.nprobe * index.ntotal / ivf.nlist * ivf.code_size
    ranked = 0 if refine is None else trial.k_factor * AT * refine.refine_index.sa_code_size()
    return scanned + _RANDOM * (ranked + trial.ef_search * 4 * index.d)


def _true_nearest(queries: NDArray[np.float32], vectors: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Rows [Q, k] of the k nearest among all vectors, in blocks; not by ExactSearch, because torch takes seconds and
    half a gigabyte to import."""
    best: NDArray[np.float32] = np.empty((len(queries), 0), dtype=np.float32)
    rows: NDArray[np.int64] = np.empty((len(queries), 0), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS], dtype=np.float32)
        similar, place = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best, rows = np.hstack([best, similar]), np.hstack([rows, place + start])
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, rows = np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)
    return rows


def _without(found: NDArray[np.int64], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """`found` [Q, k + 1] without its own id, or without the last where that is missing; [Q, k]. None is -1, for which
    -2 is written so that it hits nothing."""
    order = np.argsort(found == own[:, None], axis=1, kind="stable")
    kept = np.take_along_axis(found, order, axis=1)[:, :-1]
    return np.where(kept < 0, -2, kept)


def _recall(tuned: Tuned) -> float:
    return tuned.recall or 0.0
