"""What an embedding has learnt, in pictures: photos on a t-SNE map, and the photos that excite a unit most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

FEWEST = 8
"""Photos below which there is no map."""
_PERPLEXITY, _ALIKE = 30.0, 1e-6


def tsne_map(
    vectors: NDArray[Any], photo_ids: Sequence[str] | pd.Series, limit: int, seed: int
) -> pd.DataFrame:
    """A t-SNE map of N embeddings (N, D), or of `limit` drawn from more: columns photo_id, x, y (dissertation, figure
    2.9). Empty for fewer than FEWEST photos, and for embeddings that are all the same. Equal arguments give equal maps
    on one machine."""
    from sklearn.manifold import TSNE  # seconds to import, and most builds draw no map

    ids = np.asarray(photo_ids, dtype=object)
    rows = np.arange(len(ids))
    if len(rows) > limit:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))
    x = np.asarray(vectors[rows], dtype=np.float32)
    # t-SNE starts from the first two components, divided by their deviation: without any it crashes.
    if len(rows) < FEWEST or float(x.std(axis=0).max()) < _ALIKE:
        return pd.DataFrame({"photo_id": pd.Series(dtype=str), "x": [], "y": []})
    perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
    return pd.DataFrame({"photo_id": ids[rows], "x": places[:, 0], "y": places[:, 1]})


def exciting_photos(
    vectors: NDArray[Any],
    photo_ids: Sequence[str] | pd.Series,
    owners: ArrayLike,
    units: int,
    photos: int = 8,
) -> pd.DataFrame:
    """The photos with the largest values of some units of N embeddings (N, D): columns unit, rank (from 1), photo_id,
    value (dissertation, figure 2.10).

    The units are those whose largest values stand out most: by standard deviations above the unit's mean. Values are
    those of L2-normalised embeddings. Each of `owners` (N,), the photographers, has one photo of a unit.
    """
    x = np.asarray(vectors, dtype=np.float32)
    ids, owner = np.asarray(photo_ids, dtype=object), np.asarray(owners, dtype=object)
    found: list[dict[str, Any]] = []
    if not len(x):
        return pd.DataFrame(found, columns=["unit", "rank", "photo_id", "value"])
    spread = np.maximum(x.std(axis=0), np.finfo(np.float32).tiny)
    top = np.sort(x, axis=0)[-photos:].mean(axis=0)
    outstanding = np.where(x.std(axis=0) > 0, (top - x.mean(axis=0)) / spread, -np.inf)
    for unit in np.argsort(-outstanding, kind="stable")[:units].tolist():
        order = np.argsort(-x[:, unit], kind="stable")
        first = ~pd.Series(owner[order]).duplicated().to_numpy()
        for rank, row in enumerate(order[first][:photos], start=1):
            found.append({"unit": unit, "rank": rank, "photo_id": ids[row], "value": float(x[row, unit])})
    return pd.DataFrame(found, columns=["unit", "rank", "photo_id", "value"])
