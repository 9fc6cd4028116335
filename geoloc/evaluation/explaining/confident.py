"""The photos that a classifier assigns to a cell with the most confidence (PlaNet, figure 8)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

COLUMNS = {"cell": "int64", "rank": "int64", "photo_id": "str", "probability": "float64", "right": "bool"}


def most_confident_photos(
    answered: ArrayLike,
    probability: ArrayLike,
    photos: pd.DataFrame,
    cells: Sequence[int] | NDArray[np.int64],
    count: int = 5,
    true_cells: ArrayLike | None = None,
) -> pd.DataFrame:
    """Returns the top `count` photos per cell: of the photos assigned to it, those with its highest probability.

    `answered` int [N] is the most probable cell of each photo, to which it is assigned (-1: unreadable, left out), and
    `probability` float [N] that of this cell. `photos` has photo_id, and optionally photographer: then each
    photographer is shown once per cell while there are enough. `true_cells` int [N] are optional. Ties are broken by
    photo_id.

    Columns: cell, rank (from 1), photo_id, probability, right (whether the cell is the true cell; False without
    `true_cells`). A cell without assigned photos has no rows. Raises ValueError for different lengths or a count
    below 1.
    """
    assigned, sure = np.asarray(answered, dtype=np.int64), np.asarray(probability, dtype=np.float64)
    if assigned.shape != (len(photos),) or sure.shape != assigned.shape:
        raise ValueError(
            f"cells and probabilities must be one each for {len(photos)} photos, got shapes {assigned.shape} and "
            f"{sure.shape}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    wanted = np.asarray(cells, dtype=np.int64)
    read = np.flatnonzero(assigned >= 0)
    best = assigned[read]
    frame = pd.DataFrame(
        {
            "cell": best,
            "photo_id": photos["photo_id"].to_numpy(dtype=object)[read],
            "probability": sure[read],
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
