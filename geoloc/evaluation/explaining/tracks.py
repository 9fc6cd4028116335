"""Albums to show: where their photos were taken, and where they are placed alone and together, in order of time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.photos.sequences import Sequences

COLUMNS = {
    "album": "int64", "side": "str", "photo_id": "str", "taken_at": "str", "true_latitude": "float64",
    "true_longitude": "float64", "alone_latitude": "float64", "alone_longitude": "float64", "latitude": "float64",
    "longitude": "float64", "alone_km": "float64", "error_km": "float64",
}  # fmt: skip
LEAST_PHOTOS = 4
"""Shorter albums have no track worth a picture."""


def pick_tracks(table: pd.DataFrame, sequences: Sequences, each: int = 2) -> pd.DataFrame:
    """Albums of at least LEAST_PHOTOS answered photos, `each` of those whose mean error the others lowered most, and of
    those where they raised it most (column `side`: helped or misled), a row a photo in order of time.

    `table` has the columns of COLUMNS without album and side, in the rows that `sequences` numbers.
    """
    gains = _gains(table, sequences)
    order = np.argsort(-gains, kind="stable")
    order = order[~np.isnan(gains[order])]
    helped = [number for number in order[:each] if gains[number] > 0]
    misled = [number for number in order[::-1][:each] if gains[number] < 0]
    parts = [
        table.iloc[sequences.of(int(number))].assign(album=int(number), side=side)
        for side, numbers in (("helped", helped), ("misled", misled))
        for number in numbers
    ]
    found = pd.concat(parts) if parts else pd.DataFrame(columns=list(COLUMNS))
    return found[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)


def _gains(table: pd.DataFrame, sequences: Sequences) -> NDArray[np.float64]:
    """The mean error alone less that together of each sequence, float64 (S,) in km, NaN for short ones."""
    gains = np.full(len(sequences), np.nan)
    alone, together = (table[name].to_numpy(np.float64) for name in ("alone_km", "error_km"))
    for number in range(len(sequences)):
        rows = sequences.of(number)
        if len(rows) >= LEAST_PHOTOS and np.isfinite(alone[rows]).all() and np.isfinite(together[rows]).all():
            gains[number] = float((alone[rows] - together[rows]).mean())
    return gains
