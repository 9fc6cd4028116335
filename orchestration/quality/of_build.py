"""The data frames that the asset checks run on: one for each checked stage of a recipe."""

from __future__ import annotations

import pandas as pd

from geoloc.photos.catalog import read_catalog
from geoloc.photos.split_checks import check_splits
from orchestration.assets.inputs import load_partitions, read_splits, stored
from orchestration.plan.chain import output_folder
from orchestration.plan.settings import load_settings
from orchestration.quality import frames as quality
from orchestration.workspace import Workspace


def splits(workspace: Workspace, recipe: str) -> pd.DataFrame:
    """The splits, with the verdicts of the independent checks on them."""
    table = read_splits(output_folder(workspace, recipe, "splits"))
    catalog = read_catalog(workspace.pool)
    settings = load_settings(workspace, recipe).splits
    return quality.splits_frame(catalog, table, check_splits(catalog, table, settings))


def partition(workspace: Workspace, recipe: str, name: str) -> pd.DataFrame:
    """One row a cell of the partition `name`."""
    return quality.partition_frame(load_partitions(output_folder(workspace, recipe, "partition"))[name])


def embeddings(workspace: Workspace, recipe: str) -> pd.DataFrame:
    """One row a photo and model."""
    from geoloc.retrieval.embeddings import Embeddings

    known = stored(read_catalog(workspace.pool, ["photo_id", "shard"]))["photo_id"]
    frames = []
    for folder in sorted(p for p in output_folder(workspace, recipe, "embeddings").iterdir() if p.is_dir()):
        made = Embeddings.load(folder)
        frame = quality.embeddings_frame(made.photo_ids, made.vectors, known)
        frames.append(frame.assign(photo_id=folder.name + "/" + frame["photo_id"].astype(str)))
    return pd.concat(frames, ignore_index=True)
