"""An index of overhead tiles: a folder with their centres and embeddings, searched exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import DamagedFile, atomic_folder, read_json, read_parquet, write_json, write_parquet
from geoloc.localizers.by_overhead.calibration import Calibration
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.models.matching import distance_blocks, indexed_rotations
from geoloc.training.cross_view_settings import OverheadSearchSettings

TILES_FILE, VECTORS_FILE, NORTH_FILE, FACTS_FILE = "tiles.parquet", "vectors.npy", "north.npy", "index.json"
CALIBRATION_FILE = "calibration.json"
COLUMNS = ("overhead_id", "latitude", "longitude", "metres_per_pixel")
FORMAT = 1


@dataclass(frozen=True)
class Found:
    """The K nearest tiles of each of Q photos, nearest first: `position` int64 (Q, K) in the index, squared `distance`
    float32 (Q, K), and `rotation` int64 (Q, K), which of the tile's embeddings it was. -1 and infinity where there are
    fewer, or the photo has no embedding."""

    position: NDArray[np.int64]
    distance: NDArray[np.float32]
    rotation: NDArray[np.int64]


@dataclass(frozen=True)
class OverheadIndex:
    """N tiles: `tiles` (COLUMNS, and any others), `vectors` float32 (N, R, D), `up` float64 (R,), the bearing at the
    top of each rotation (NaN: the mean of all), and `north` float32 (N, D), embeddings with north at the top if those
    are not among the vectors. `model` is the hash of the network's file; `calibration` None: not calibrated; `unit`:
    whether embeddings have length 1."""

    tiles: pd.DataFrame
    vectors: NDArray[np.float32]
    up: NDArray[np.float64]
    north: NDArray[np.float32] | None
    model: str
    calibration: Calibration | None
    unit: bool = True

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def ids(self) -> NDArray[Any]:
        """The tiles' ids."""
        return self.tiles["overhead_id"].to_numpy(dtype=object)

    @property
    def threshold(self) -> float | None:
        """The largest squared distance at which a photo has a tile here; None if the index is not calibrated."""
        return None if self.calibration is None else self.calibration.reach

    def distances(self, photos: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Squared distances float32 (Q, N) of photos (Q, D) to all tiles, and the best rotation of each, int64."""
        self._check(photos)
        apart = np.empty((len(photos), len(self)), dtype=np.float32)
        turned = np.empty(apart.shape, dtype=np.int64)
        for rows, values, indices in distance_blocks(photos, self.vectors):
            apart[rows], turned[rows] = values.numpy(), indices.numpy()
        return apart, turned

    def search(self, photos: NDArray[np.float32], k: int) -> Found:
        """The `k` nearest tiles of photos float32 (Q, D), exactly, over all rotations. Raises ValueError for embeddings
        of another size or k below 1."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self._check(photos)
        parts = []
        for _, apart, turned in distance_blocks(photos, self.vectors):
            best = apart.topk(min(k, len(self)), dim=1, largest=False)
            missing = ~best.values.isfinite()
            rotation = turned.gather(1, best.indices).masked_fill(missing, -1)
            parts.append((best.indices.masked_fill(missing, -1), best.values, rotation))
        if not parts:
            none = np.empty((0, min(k, len(self))))
            return Found(none.astype(np.int64), none.astype(np.float32), none.astype(np.int64))
        return Found(*(np.concatenate([part[i].numpy() for part in parts]) for i in range(3)))

    def save(self, folder: Path | str) -> None:
        """Write the index as a folder, atomically."""
        with atomic_folder(Path(folder)) as made:
            self.write(made)

    def write(self, folder: Path) -> None:
        """Write the index's files into an existing folder."""
        write_parquet(folder / TILES_FILE, self.tiles)
        np.save(folder / VECTORS_FILE, self.vectors)
        if self.north is not None:
            np.save(folder / NORTH_FILE, self.north)
        if self.calibration is not None:
            self.calibration.save(folder / CALIBRATION_FILE)
        up = [None if np.isnan(one) else float(one) for one in self.up]
        facts = {"format": FORMAT, "model": self.model, "up": up, "unit": self.unit}
        write_json(folder / FACTS_FILE, facts)

    @classmethod
    def open(cls, folder: Path | str) -> OverheadIndex:
        """The index that `save` wrote; its vectors are read when they are needed. Raises DamagedFile for a folder whose
        files do not fit each other, FileNotFoundError for one without an index."""
        folder = Path(folder)
        facts = read_json(folder / FACTS_FILE, dict)
        if facts.get("format") != FORMAT:
            raise DamagedFile(folder / FACTS_FILE, f"it has format {facts.get('format')}, not {FORMAT}")
        tiles = read_parquet(folder / TILES_FILE, COLUMNS)
        up = np.array([np.nan if one is None else one for one in facts["up"]], dtype=np.float64)
        vectors = _array(folder / VECTORS_FILE)
        if vectors.ndim != 3 or vectors.shape[:2] != (len(tiles), len(up)):
            raise DamagedFile(
                folder / VECTORS_FILE,
                f"it has vectors of shape {vectors.shape} for {len(tiles)} tiles in {len(up)} rotations",
            )
        north = _array(folder / NORTH_FILE) if (folder / NORTH_FILE).exists() else None
        known = folder / CALIBRATION_FILE
        calibration = Calibration.load(known) if known.exists() else None
        return cls(tiles, vectors, up, north, facts["model"], calibration, facts["unit"])

    def _check(self, photos: NDArray[np.float32]) -> None:
        if photos.ndim != 2 or photos.shape[1] != self.vectors.shape[2]:
            raise ValueError(
                f"the index has embeddings of {self.vectors.shape[2]} dimensions, got an array of shape {photos.shape}"
            )

    def __repr__(self) -> str:
        count, rotations, dimensions = self.vectors.shape
        return f"OverheadIndex({count:,} tiles x {rotations} rotations, {dimensions} dimensions)"


def make_index(
    embedder: CrossViewEmbedder,
    tiles: pd.DataFrame,
    vectors: NDArray[np.float32],
    search: OverheadSearchSettings,
    calibration: Calibration | None = None,
) -> OverheadIndex:
    """An index of N tiles (COLUMNS) from their embeddings (N, R, D) in the rotations of `search`, by `embedder`.

    A tile without an embedding (NaN) is left out. Raises ValueError for missing columns, or embeddings of another
    number of tiles or rotations.
    """
    absent = [name for name in COLUMNS if name not in tiles.columns]
    if absent:
        raise ValueError(f"tiles need the columns {', '.join(COLUMNS)}; missing: {', '.join(absent)}")
    if vectors.shape[:2] != (len(tiles), search.rotations):
        raise ValueError(
            f"{len(tiles)} tiles in {search.rotations} rotations need embeddings of that shape, got {vectors.shape}"
        )
    good = np.isfinite(vectors).all(axis=(1, 2))
    tiles, vectors = tiles[good].reset_index(drop=True), vectors[good]
    shape = embedder.network.shape
    held, up = indexed_rotations(vectors, search.matching, shape.rotation_range, shape.normalise)
    north = vectors[:, 0] if search.matching == "average" and embedder.network.tells_orientation else None
    return OverheadIndex(tiles, held, up, north, embedder.model, calibration, shape.normalise)


def _array(path: Path) -> NDArray[np.float32]:
    try:
        found: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DamagedFile(path, str(error)) from None
    return found
