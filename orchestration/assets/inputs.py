"""What several stages read: the photos of a split, the splits, the partitions, the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from geoloc.files import read_json
from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.hierarchy import nested_parents
from geoloc.models.settings import ModelSettings
from geoloc.partitions import load_partition
from geoloc.photos.catalog import read_catalog
from geoloc.settings import replace
from orchestration.plan.settings import BuildSettings, weights_file
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

PARTITIONS_FILE = "partitions.json"
"""In the partition stage's output: the names of its folders, one a partition, in order, the main one first."""


def load_partitions(folder: Path) -> dict[str, Partition]:
    """What the partition stage wrote to `folder`: its partitions by name, in order, the main one first."""
    return {name: load_partition(folder / name) for name in read_json(folder / PARTITIONS_FILE)}


def cell_counts(partitions: Mapping[str, Partition]) -> dict[str, int]:
    """The number of cells of each partition: the heads of its classifier."""
    return {name: partition.cell_count for name, partition in partitions.items()}


def model_names(partitions: int) -> dict[str, str]:
    """Models as tables name them, in brackets: L is the network of Revisiting IM2GPS with a single classification loss,
    M the one with several, one a partition."""
    return {"classifier": "L" if partitions == 1 else "M", "backbone": "backbone"}


def read_splits(folder: Path) -> pd.DataFrame:
    """The splits stage's table: photo_id, split, reason."""
    return pd.read_parquet(folder / "splits.parquet")


def photos_with_split(pool: Path, splits: Path) -> pd.DataFrame:
    """The catalog with its column `split`, one row a photo, in the catalog's order."""
    return read_catalog(pool).merge(read_splits(splits)[["photo_id", "split"]], on="photo_id", validate="1:1")


def stored(photos: pd.DataFrame) -> pd.DataFrame:
    """The photos whose pixels are in the pool (metadata-only rows have none)."""
    return photos[photos["shard"].notna()].reset_index(drop=True)


def initial_model(
    workspace: Workspace, settings: BuildSettings, partitions: Mapping[str, Partition]
) -> Classifier:
    """The classifier before training: the settings' initial weights, a random head for each partition."""
    parents = nested_parents(partitions) if settings.model.softmax == "hierarchical" else None
    return build_classifier(
        model_settings(workspace, settings), cell_counts(partitions), settings.seed, parents
    )


def model_settings(workspace: Workspace, settings: BuildSettings) -> ModelSettings:
    """The model's settings with the file of its weights named by its absolute path, whatever recipes call it."""
    file = weights_file(workspace, settings)
    return settings.model if file is None else replace(settings.model, weights=str(file))
