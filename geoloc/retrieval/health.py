"""The health of an index: what share of the true nearest references it finds, by a sample."""

from __future__ import annotations

import numpy as np

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex

NEAREST = 10
_BLOCK = 100_000


def sampled_recall(index: ReferenceIndex, embeddings: Embeddings, queries: int, seed: int) -> float | None:
    """The share of the ten nearest references that the index finds for some of its own references, each without
    itself; None for an index of fewer than two. Equally near ones count as one another.

    Raises RetrievalError for embeddings by another model, KeyError for a reference without an embedding.
    """
    index.require_model(embeddings)
    ids = index.references["photo_id"].to_numpy(dtype=object)
    nearest = min(NEAREST, len(ids) - 1)
    if nearest < 1:
        return None
    vectors = embeddings.subset(ids).vectors
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:queries])
    asked = np.asarray(vectors[chosen], dtype=np.float32)
    similarity = np.concatenate(
        [
            asked @ np.asarray(vectors[start : start + _BLOCK], dtype=np.float32).T
            for start in range(0, len(ids), _BLOCK)
        ],
        axis=1,
    )
    similarity[np.arange(len(chosen)), chosen] = -np.inf
    least = -np.partition(-similarity, nearest - 1, axis=1)[:, nearest - 1]
    found = index.search(asked, nearest, exclude_photos=ids[chosen]).row
    hits = (found >= 0) & (
        np.take_along_axis(similarity, np.maximum(found, 0), axis=1) >= least[:, None] - 1e-5
    )
    return float(hits.mean())
