"""Picks a few photos from a ranking, each photographer once while there are enough."""

from __future__ import annotations

import numpy as np
import pandas as pd


def varied(rows: pd.DataFrame, count: int, photographer: pd.Series | None) -> pd.DataFrame:
    """Returns the first `count` of `rows` (photo_id, best first), with a new index from 0.

    With `photographer` (indexed by photo_id) the first photo of each photographer comes before all others, because ten
    views of one street teach little. Each photo without a photographer counts as a photographer of its own.
    """
    if photographer is None:
        return rows.head(count).reset_index(drop=True)
    owner = rows["photo_id"].map(photographer)
    repeated = owner.duplicated() & owner.notna()
    order = np.argsort(repeated.to_numpy(), kind="stable")  # firsts of each photographer, then the others
    return rows.iloc[order].head(count).reset_index(drop=True)
