"""The photos that a classifier assigns to a cell with the most confidence (PlaNet, figure 8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

COLUMNS = {"cell": "int64", "rank": "int64", "photo_id": "str", "probability": "float64", "right": "bool"}


def most_confident_photos(
    probabilities: NDArray,
    photos: pd.DataFrame,
    cells: Sequence[int] | NDArray[np.int64],
    count: int = 5,
    true_cells: ArrayLike | None = None,
) -> pd.DataFrame:
    """Returns the top `count` photos per cell: of the photos assigned to it, those with its highest probability.

    A photo is assigned to its most probable cell. `probabilities` are float [N, C]; a row of NaN (an unreadable photo)
    is left out. `photos` has photo_id, and optionally photographer: then each photographer is shown once per cell while
    there are enough. `true_cells` int [N] are optional. Ties are broken by photo_id.

    Columns: cell, rank (from 1), photo_id, probability, right (whether the cell is the true cell; False without
    `true_cells`). A cell without assigned photos has no rows. Raises ValueError for different lengths, an unknown cell,
    or a count below 1.
    """
    p = np.asarray(probabilities)
    if p.ndim != 2 or len(p) != len(photos):
        raise ValueError(f"probabilities of {len(photos)} photos must be (N, C), got shape {p.shape}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    wanted = np.asarray(cells, dtype=np.int64)
    if len(wanted) and (wanted.min() < 0 or wanted.max() >= p.shape[1]):
        raise ValueError(f"cells must be from 0 to {p.shape[1] - 1}, got {wanted.min()} to {wanted.max()}")
    read = np.flatnonzero(~np.isnan(p).any(axis=1))
    best = p[read].argmax(axis=1) if len(read) else np.empty(0, dtype=np.int64)
    frame = pd.DataFrame(
        {
            "cell": best.astype(np.int64),
            "photo_id": photos["photo_id"].to_numpy(dtype=object)[read],
            "probability": p[read, best].astype(np.float64),
            "right": False if true_cells is None else np.asarray(true_cells)[read] == best,
            "photographer": photos["photographer"].to_numpy(dtype=object)[read]
            if "photographer" in photos
            else None,
        }
    )
    frame = frame[frame["cell"].isin(wanted)].sort_values(
        ["probability", "photo_id"], ascending=[False, True]
    )
    repeated = frame.duplicated(["cell", "photographer"]) & frame["photographer"].notna()
    frame = frame.assign(repeated=repeated).sort_values("repeated", kind="stable")
    shown = frame.groupby("cell", sort=False).head(count)
    # The chosen ones again by probability, in the order of the cells asked for.
    shown = shown.sort_values(["probability", "photo_id"], ascending=[False, True])
    position = pd.Series(np.arange(len(wanted)), index=wanted)
    shown = shown.assign(position=shown["cell"].map(position[~position.index.duplicated()]))
    shown = shown.sort_values("position", kind="stable")
    shown["rank"] = shown.groupby("cell", sort=False).cumcount() + 1
    return shown[list(COLUMNS)].reset_index(drop=True).astype(COLUMNS)
