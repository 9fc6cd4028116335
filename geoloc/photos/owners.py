"""Whom a photo counts for: the one definition of photographer, for splits, intervals and leave-photographer-out."""

from __future__ import annotations

import pandas as pd


def photographer_keys(photos: pd.DataFrame) -> pd.Series:
    """Returns whom each photo counts for: its photographer, else its album within its source, else itself; no nulls.

    Photos of one key are not independent, must not be on two sides of a split, and are resampled together. Needs the
    columns photo_id and photographer; album and source, where they are, are used.
    """
    alone = "photo:" + photos["photo_id"].astype("str")
    if "album" in photos:
        source = photos["source"].astype("str").fillna("") if "source" in photos else ""
        alone = ("album:" + source + "\0" + photos["album"].astype("str")).fillna(alone)
    return ("photographer:" + photos["photographer"].astype("str")).fillna(alone)
