"""Measures of image retrieval: R@k by class, and mAP and mP@k of ranked lists with easy, hard and junk images.

A rank is the place of an image in a query's list, most similar first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROTOCOLS = ("easy", "medium", "hard")
"""Of revisited Oxford and Paris (Radenović et al., Revisiting Oxford and Paris, 2018, section 3.3)."""
_QUERIES_AT_ONCE, _NEVER = 1024, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Relevance:
    """What a query should find, as positions in the database: `easy`, `hard` and `junk` images, int64 each. Junk counts
    neither for nor against; all other images are wrong."""

    easy: NDArray[np.int64]
    hard: NDArray[np.int64]
    junk: NDArray[np.int64]

    def under(self, protocol: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The right images and the ignored ones under one of PROTOCOLS. Raises ValueError for another."""
        if protocol == "easy":
            return self.easy, np.concatenate([self.junk, self.hard])
        if protocol == "medium":
            return np.concatenate([self.easy, self.hard]), self.junk
        if protocol == "hard":
            return self.hard, np.concatenate([self.junk, self.easy])
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}; got {protocol!r}")


def recall_at_k(
    vectors: ArrayLike, classes: ArrayLike, ks: Sequence[int], apart: Sequence[ArrayLike] = ()
) -> dict[int, float]:
    """Returns R@k for each k: the share of images with an image of their class among the k most similar others
    (dissertation table 4.1).

    `vectors` float (N, D) are L2-normalised, `classes` (N,). All N images are queries; those alone in their class can
    only be wrong. A tie is broken against the measure: images of other classes come first. `apart` are groups (N,) such
    as photographers: images of a query's own group are not among its others. Raises ValueError for fewer than two
    images, for a vector that is not finite, and for a k below 1.
    """
    x, label = np.asarray(vectors, dtype=np.float32), np.asarray(classes)
    if x.ndim != 2 or len(x) < 2 or label.shape != (len(x),):
        raise ValueError(
            f"R@k needs two or more vectors (N, D) and N classes, got {x.shape} and {label.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(f"R@k needs finite vectors; {int((~np.isfinite(x).all(axis=1)).sum())} are not")
    if not ks or min(ks) < 1:
        raise ValueError(f"R@k needs k of at least 1, got {list(ks)}")
    groups = [np.asarray(group) for group in apart]
    if any(group.shape != (len(x),) for group in groups):
        raise ValueError(f"R@k needs a group for each of {len(x)} images, got {[g.shape for g in groups]}")
    rank = np.empty(len(x), dtype=np.int64)
    for start in range(0, len(x), _QUERIES_AT_ONCE):
        rows = np.arange(start, min(start + _QUERIES_AT_ONCE, len(x)))
        similarity = x[rows] @ x.T
        same = label[rows, None] == label
        same[np.arange(len(rows)), rows] = False
        for group in groups:
            own = group[rows, None] == group
            same &= ~own
            similarity[own] = -np.inf
        best = np.where(same, similarity, -np.inf).max(axis=1)
        others = similarity >= best[:, None]  # wrong images at least as similar as the best right one
        rank[rows] = np.where(np.isfinite(best), (others & (label[rows, None] != label)).sum(axis=1), _NEVER)
    return {k: float((rank < k).mean()) for k in ks}


def ranks_of(ranked: NDArray[np.int64], right: ArrayLike, ignored: ArrayLike) -> NDArray[np.int64]:
    """Returns the ranks (from 0) of the `right` images in a list of positions, most similar first, without `ignored`
    images; right images that are not in the list have none."""
    kept = ranked[~np.isin(ranked, np.asarray(ignored))]
    return np.flatnonzero(np.isin(kept, np.asarray(right)))


def average_precision(ranks: NDArray[np.int64], right: int) -> float:
    """Returns the area under the precision-recall curve by the trapezoidal rule, from the ascending ranks (from 0) of
    the images found, of `right` in all: as the evaluation of Oxford, Paris and Holidays computes it. NaN for none."""
    if not right:
        return float("nan")
    found = np.arange(len(ranks))
    before = np.where(ranks > 0, found / np.maximum(ranks, 1), 1.0)
    after = (found + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / right)


def precision_at_k(ranks: NDArray[np.int64], right: int, k: int) -> float:
    """Returns the share of right images among the first k, from their ascending ranks (from 0). NaN for none.

    As in revisited Oxford and Paris, the list is cut at the last right image if that comes earlier.
    """
    if not right:
        return float("nan")
    depth = min(k, int(ranks[-1]) + 1) if len(ranks) else k
    return float((ranks < depth).sum() / depth)


def landmark_measures(
    ranked: NDArray[np.int64], relevance: Sequence[Relevance], protocol: str, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Returns mAP and mP@k of Q queries under a protocol, from `ranked` int64 (Q, N), positions in the database, most
    similar first: `map`, `mp_<k>` and `queries`, the number that they are means over.

    Queries without a right image under the protocol do not count, as in the published evaluation. NaN if none counts.
    Raises ValueError for another number of queries.
    """
    if len(ranked) != len(relevance):
        raise ValueError(f"{len(ranked)} ranked lists do not fit {len(relevance)} queries")
    rows = []
    for places, wanted in zip(ranked, relevance, strict=True):
        right, ignored = wanted.under(protocol)
        if len(right):
            ranks = ranks_of(places, right, ignored)
            rows.append(
                [average_precision(ranks, len(right)), *(precision_at_k(ranks, len(right), k) for k in ks)]
            )
    means = np.mean(rows, axis=0) if rows else np.full(1 + len(ks), np.nan)
    names = ["map", *(f"mp_{k}" for k in ks)]
    return dict(zip(names, means.tolist(), strict=True)) | {"queries": len(rows)}
