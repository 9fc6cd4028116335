"""Class probabilities of photos, stored with what models of time and albums need to know of each photo.

A folder holds photos.parquet, a row a photo, and probabilities.npy, float32 [M, C], which is memory-mapped. Photos that
the classifier was trained on are in the first and not in the second: on these it is surer than it will ever be again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import DamagedFile, damage_named, read_parquet, write_parquet

PHOTOS_FILE, VALUES_FILE = "photos.parquet", "probabilities.npy"
COLUMNS = (
    "photo_id", "split", "validation_part", "source", "photographer", "album", "taken_at", "posted_at", "latitude",
    "longitude", "row",
)  # fmt: skip
"""`photographer` is the person, also where trips are held out; `row` is the row of the probabilities, -1 for none."""


@dataclass(frozen=True, eq=False)
class StoredProbabilities:
    """`photos` has the columns COLUMNS; `values` float32 [M, C] are the probabilities of cells. A photo that could not
    be read has a row of NaN."""

    photos: pd.DataFrame
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.photos) and int(self.photos["row"].max()) >= len(self.values):
            raise ValueError(
                f"photos name row {int(self.photos['row'].max())} of {len(self.values)} probabilities"
            )

    def __repr__(self) -> str:
        return (
            f"StoredProbabilities({len(self.values):,} of {len(self.photos):,} photos, {self.cells:,} cells)"
        )

    @property
    def cells(self) -> int:
        """The number of cells."""
        return int(self.values.shape[1])

    def of(self, photos: pd.DataFrame) -> NDArray[np.float32]:
        """The probabilities of N rows of `photos`, float32 [N, C], NaN for a photo without."""
        rows = photos["row"].to_numpy(dtype=np.int64)
        found = np.full((len(rows), self.cells), np.nan, dtype=np.float32)
        found[rows >= 0] = self.values[rows[rows >= 0]]
        return found

    @classmethod
    def load(cls, folder: Path | str) -> StoredProbabilities:
        """What `write_probabilities` wrote. Raises FileNotFoundError, or DamagedFile for another file."""
        folder = Path(folder)
        photos = read_parquet(folder / PHOTOS_FILE, COLUMNS)
        with damage_named(folder / VALUES_FILE):
            values: NDArray[Any] = np.load(folder / VALUES_FILE, mmap_mode="r", allow_pickle=False)
        if values.ndim != 2 or values.dtype != np.float32:
            raise DamagedFile(
                folder / VALUES_FILE, f"expected float32 [M, C], got {values.dtype} {values.shape}"
            )
        with damage_named(folder / PHOTOS_FILE):
            return cls(photos, values)


def write_probabilities(
    folder: Path | str, photos: pd.DataFrame, cells: int, parts: Iterable[NDArray[np.float32]]
) -> None:
    """Write photos (COLUMNS without `row`, and `predicted`, bool) and the probabilities of the predicted ones, which
    `parts` give in their order, float32 [P, C] each; they are never held at once. Raises ValueError for another number.
    """
    folder = Path(folder)
    predicted = photos["predicted"].to_numpy(dtype=bool)
    count = int(predicted.sum())
    values = np.lib.format.open_memmap(
        folder / VALUES_FILE, mode="w+", dtype=np.float32, shape=(count, cells)
    )
    done = 0
    for part in parts:
        if done + len(part) > count:
            raise ValueError(f"more than {count} photos have probabilities")
        values[done : done + len(part)] = part
        done += len(part)
    if done != count:
        raise ValueError(f"{count} photos need probabilities, got {done}")
    values.flush()
    rows = np.where(predicted, np.cumsum(predicted) - 1, -1)
    write_parquet(folder / PHOTOS_FILE, photos.drop(columns="predicted").assign(row=rows)[list(COLUMNS)])


def take_from_probabilities(folder: Path | str, photo_ids: Collection[str]) -> None:
    """Rewrite a folder without some photos: their facts and probabilities are gone, the others are as before. No-op
    where it has none of them."""
    folder = Path(folder)
    stored = StoredProbabilities.load(folder)
    if not stored.photos["photo_id"].isin(list(photo_ids)).any():
        return
    kept = stored.photos[~stored.photos["photo_id"].isin(list(photo_ids))].reset_index(drop=True)
    rows = kept["row"].to_numpy(dtype=np.int64)
    values = stored.values[rows[rows >= 0]].copy()
    for name in (PHOTOS_FILE, VALUES_FILE):
        (folder / name).unlink()  # it may be a hard link to a file elsewhere, and is mapped
    predicted = kept.drop(columns="row").assign(predicted=rows >= 0)
    write_probabilities(folder, predicted, stored.cells, [values])
