"""Which photos stand for many: the first of a ranking, each photographer once while there are enough."""

from __future__ import annotations

import numpy as np
import pandas as pd


def varied(rows: pd.DataFrame, count: int, photographer: pd.Series | None) -> pd.DataFrame:
    """The first `count` of `rows` (photo_id, best first), numbered from 0; with `photographer` (indexed by photo_id)
    the first of each photographer come before all others: ten views of one street teach little. Photos without a
    photographer count as one each.
    """
    if photographer is None:
        return rows.head(count).reset_index(drop=True)
    owner = rows["photo_id"].map(photographer)
    repeated = owner.duplicated() & owner.notna()
    order = np.argsort(repeated.to_numpy(), kind="stable")  # firsts of each photographer, then the others
    return rows.iloc[order].head(count).reset_index(drop=True)
