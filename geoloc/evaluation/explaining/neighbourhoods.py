"""The neighbours of a few photos and their density: figure 7 of Revisiting IM2GPS, computed, saved and loaded for the
report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.explaining.choice import varied
from geoloc.evaluation.result import Evaluation
from geoloc.files import damage_named, read_json, read_parquet, write_json, write_parquet
from geoloc.retrieval.density import neighbour_weights
from geoloc.retrieval.neighbours import Neighbours
from geoloc.retrieval.settings import DensitySettings

FILE = "neighbourhoods.json"
MOST = 3
"""Photos shown: more would need more room than they teach."""
PHOTO_COLUMNS = {
    "photo_id": "str", "true_latitude": "float64", "true_longitude": "float64", "latitude": "float64",
    "longitude": "float64", "error_km": "float64",
}  # fmt: skip
NEIGHBOUR_COLUMNS = {
    "photo_id": "str", "rank": "int64", "neighbour": "str", "similarity": "float64", "latitude": "float64",
    "longitude": "float64", "weight": "float64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Photos placed by `method`, a density of kernels of `sigma` degrees: first the best answers, then the worst.

    `photos` (PHOTO_COLUMNS) has a row each, `neighbours` (NEIGHBOUR_COLUMNS) those of each photo, most similar first;
    weights sum to 1 a photo.
    """

    method: str
    sigma: float
    photos: pd.DataFrame
    neighbours: pd.DataFrame

    def save(self, folder: Path | str) -> None:
        """Write neighbourhoods.json and a Parquet file of each table; each file is written atomically."""
        write_json(Path(folder) / FILE, {"method": self.method, "sigma": self.sigma})
        write_parquet(Path(folder) / "neighbourhoods.parquet", self.photos)
        write_parquet(Path(folder) / "neighbourhoods-neighbours.parquet", self.neighbours)

    @classmethod
    def load(cls, folder: Path | str) -> Neighbourhoods:
        """Load what `save` wrote. Raises FileNotFoundError for a missing file, DamagedFile for others than it wrote."""
        values = read_json(Path(folder) / FILE, dict)
        with damage_named(Path(folder) / FILE):
            return cls(
                values["method"],
                float(values["sigma"]),
                read_parquet(Path(folder) / "neighbourhoods.parquet", PHOTO_COLUMNS).astype(PHOTO_COLUMNS),
                read_parquet(Path(folder) / "neighbourhoods-neighbours.parquet", NEIGHBOUR_COLUMNS).astype(
                    NEIGHBOUR_COLUMNS
                ),
            )


def neighbourhoods(
    evaluation: Evaluation,
    method: str,
    settings: DensitySettings,
    queries: pd.DataFrame,
    count: int,
    search: Callable[[NDArray[np.int64]], Neighbours],
) -> Neighbourhoods:
    """Pick up to `count` photos (at most MOST) that `method` placed, and their neighbours.

    First come the best answers, then half as many of the worst, on each side a photographer once while there are
    enough. `queries` are the evaluation's photos; `search` gives the
    neighbours of those at some positions.
    """
    count = min(count, MOST)
    rows = evaluation.per_photo
    rows = rows[(rows["method"] == method) & (rows["status"] == "answered")]
    owner = queries.set_index("photo_id")["photographer"]
    best = varied(rows.sort_values(["error_km", "photo_id"]), count - count // 2, owner)
    rest = rows[~rows["photo_id"].isin(best["photo_id"])]
    worst = varied(rest.sort_values(["error_km", "photo_id"], ascending=[False, True]), count // 2, owner)
    photos = pd.concat([best, worst], ignore_index=True)[list(PHOTO_COLUMNS)].astype(PHOTO_COLUMNS)
    position = pd.Index(queries["photo_id"]).get_indexer(pd.Index(photos["photo_id"]))
    tables = [pd.DataFrame(columns=list(NEIGHBOUR_COLUMNS))]
    if len(position):
        found = search(position)
        weights = neighbour_weights(found.similarity[:, : settings.k], settings.m)
        ids = found.photo_ids(settings.k)
        for row, photo_id in enumerate(photos["photo_id"]):
            there = np.flatnonzero(found.row[row, : settings.k] >= 0)
            tables.append(
                pd.DataFrame(
                    {
                        "photo_id": photo_id,
                        "rank": there + 1,
                        "neighbour": ids[row, there],
                        "similarity": found.similarity[row, there].astype(np.float64),
                        "latitude": found.latitude[row, there],
                        "longitude": found.longitude[row, there],
                        "weight": weights[row, there],
                    }
                )
            )
    table = pd.concat(tables[1:] or tables, ignore_index=True).astype(NEIGHBOUR_COLUMNS)
    return Neighbourhoods(method, settings.sigma, photos, table)
