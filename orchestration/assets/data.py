"""What several stages read: the photos of a split, the splits, the partition, the models."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from geoloc.photos.catalog import read_catalog

PARTITION_FILE = "partition.parquet"
MODEL_FILE = "model.safetensors"


def read_splits(folder: Path) -> pd.DataFrame:
    """The splits stage's table: photo_id, split, reason."""
    return pd.read_parquet(folder / "splits.parquet")


def photos_with_split(pool: Path, splits: Path) -> pd.DataFrame:
    """The catalog with its column `split`, one row a photo, in the catalog's order."""
    return read_catalog(pool).merge(read_splits(splits)[["photo_id", "split"]], on="photo_id", validate="1:1")


def stored(photos: pd.DataFrame) -> pd.DataFrame:
    """The photos whose pixels are in the pool (metadata-only rows have none)."""
    return photos[photos["shard"].notna()].reset_index(drop=True)
