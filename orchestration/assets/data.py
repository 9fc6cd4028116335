"""What several stages read: the photos of a split, the splits, the partition, the models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from geoloc.models.classifier import Classifier, build_classifier
from geoloc.models.settings import ModelSettings
from geoloc.photos.catalog import read_catalog
from orchestration.settings import BuildSettings, weights_file
from orchestration.workspace import Workspace

PARTITION_FOLDER = "partition"
MODEL_FILE = "model.safetensors"
MODEL_NAMES = {"classifier": "L", "backbone": "backbone"}
"""Models as tables name them, in brackets: L is the paper's network with a single classification loss."""


def read_splits(folder: Path) -> pd.DataFrame:
    """The splits stage's table: photo_id, split, reason."""
    return pd.read_parquet(folder / "splits.parquet")


def photos_with_split(pool: Path, splits: Path) -> pd.DataFrame:
    """The catalog with its column `split`, one row a photo, in the catalog's order."""
    return read_catalog(pool).merge(read_splits(splits)[["photo_id", "split"]], on="photo_id", validate="1:1")


def stored(photos: pd.DataFrame) -> pd.DataFrame:
    """The photos whose pixels are in the pool (metadata-only rows have none)."""
    return photos[photos["shard"].notna()].reset_index(drop=True)


def initial_model(workspace: Workspace, settings: BuildSettings, cell_count: int) -> Classifier:
    """The classifier before training: the settings' initial weights, a random head."""
    return build_classifier(model_settings(workspace, settings), cell_count, settings.seed)


def model_settings(workspace: Workspace, settings: BuildSettings) -> ModelSettings:
    """The model's settings with the path of its weights made absolute: recipes name it from the workspace's root."""
    file = weights_file(workspace, settings)
    return settings.model if file is None else dataclasses.replace(settings.model, weights=str(file))
