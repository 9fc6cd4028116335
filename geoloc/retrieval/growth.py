"""How an index grows: from the one before plus what is new, and when it should be trained again instead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.references import NEAR_DUPLICATES, REFERENCE_COLUMNS
from geoloc.retrieval.settings import IndexSettings


def grow(
    folder: Path | str,
    embeddings: Embeddings,
    rows: pd.DataFrame,
    settings: IndexSettings | None = None,
    seed: int = 0,
) -> tuple[ReferenceIndex, str]:
    """Returns an index of `rows`, and in words how it was made: from the index in `folder` where it can, else anew.

    References that are not among `rows` are removed, as are those whose place, photographer or group differs, and what
    is new is added; it is tuned again, not trained. It is built anew where `folder` holds no index, one by another
    model or dimension, or not the factory of the settings. `folder` itself stays as it is. Raises as
    `ReferenceIndex.build` does, and DamagedFile for an index that cannot be read.
    """
    settings = settings or IndexSettings()
    try:
        index = ReferenceIndex.load(folder)
    except FileNotFoundError:
        return ReferenceIndex.build(embeddings, rows, settings, seed), "built anew: there was none"
    try:
        index.require_model(embeddings)
    except ValueError as error:
        return ReferenceIndex.build(embeddings, rows, settings, seed), f"built anew: {error}"
    if settings.factory not in ("auto", index.factory):
        why = f"it was {index.factory}, index.factory is {settings.factory}"
        return ReferenceIndex.build(embeddings, rows, settings, seed), f"built anew: {why}"
    index.settings = settings
    before = len(index)
    known = _same(index.references, rows)
    removed = index.remove(index.references.loc[~known, "photo_id"].tolist())
    new = rows[~rows["photo_id"].isin(index.references["photo_id"])]
    # What has no embedding is counted afresh: rows that had none before are among the new ones again.
    index.without_embedding = 0
    added = index.add(embeddings, new)
    if not len(index):
        return ReferenceIndex.build(embeddings, rows, settings, seed), "built anew: nothing was left"
    index.tune(embeddings, seed)
    return index, f"grown from {before:,} references: {added:,} added, {removed:,} removed"


def _same(references: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    """Which references are among the rows with equal facts."""
    facts = [*REFERENCE_COLUMNS[1:], NEAR_DUPLICATES]
    found = rows.set_index("photo_id").reindex(references["photo_id"])
    same = references["photo_id"].isin(rows["photo_id"]).to_numpy(dtype=bool)
    for name in facts:
        if name not in references.columns and name not in rows.columns:
            continue
        missing = pd.Series([None] * len(references))
        a = references.get(name, missing).reset_index(drop=True)
        b = found.get(name, missing).reset_index(drop=True)
        same = same & ((a == b) | (a.isna() & b.isna())).to_numpy(dtype=bool)
    return same
