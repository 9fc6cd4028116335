"""Made-up references for the tests of indexes: vectors that lie in clusters, as embeddings do, and their table."""

import numpy as np
import pandas as pd

from geoloc.retrieval.embeddings import Embeddings


def clustered(count, dimension=16, seed=0, clusters=40, photographers=20, prefix="p", model=""):
    """Unit vectors around `clusters` directions that every seed shares, by photographers 0 to P - 1."""
    centres = np.random.default_rng(99).normal(size=(clusters, dimension))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, clusters, count)] + 0.7 * rng.normal(size=(count, dimension))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    rows = pd.DataFrame(
        {
            "photo_id": [f"{prefix}{i}" for i in range(count)],
            "latitude": rng.uniform(-90, 90, count),
            "longitude": rng.uniform(-180, 180, count),
            "photographer": [f"u{o}" for o in rng.integers(0, photographers, count)],
        }
    )
    return Embeddings(rows["photo_id"].to_numpy(dtype=object), vectors, model=model), rows


def true_nearest(queries, vectors, rows, k, left=None):
    """photo_ids [Q, k] of the k most similar, in float64; `left` [Q, N] says which references each query may find."""
    similar = queries.astype(np.float64) @ vectors.astype(np.float64).T
    similar = similar if left is None else np.where(left, similar, -np.inf)
    order = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return rows["photo_id"].to_numpy(dtype=object)[order]
