"""The data frames that the asset checks run on: one for each checked stage of a recipe."""

from __future__ import annotations

import pandas as pd

from geoloc.photos.catalog import read_catalog
from geoloc.photos.split_checks import check_splits
from orchestration.assets.inputs import EMBEDDED_BY, embedding_folders, load_partitions, read_photos, stored
from orchestration.lineage.build import Build
from orchestration.quality.frames import catalog_frame, embeddings_frame, partition_frame, splits_frame


def frame_of(build: Build, stage: str, about: str = "") -> pd.DataFrame:
    """What the checks of a stage look at; `about` names a part of its output."""
    if stage == "photos":
        return catalog(build)
    if stage == "splits":
        return splits(build)
    if stage == "partition":
        return partition(build, about)
    return embeddings(build, {made: model for model, made in EMBEDDED_BY.items()}[stage])


def catalog(build: Build) -> pd.DataFrame:
    """The pool's catalog."""
    return catalog_frame(read_catalog(build.workspace.pool))


def splits(build: Build) -> pd.DataFrame:
    """The splits, with the verdicts of the independent checks on them."""
    table = read_photos(build.folder("splits"))[["photo_id", "split", "reason"]]
    photos = read_catalog(build.workspace.pool)
    if build.settings.growth.waits:  # those that came later are not split yet
        photos = photos[photos["photo_id"].isin(table["photo_id"])].reset_index(drop=True)
    return splits_frame(photos, table, check_splits(photos, table, build.settings.splits))


def partition(build: Build, name: str) -> pd.DataFrame:
    """One row a cell of the partition `name`."""
    return partition_frame(load_partitions(build.folder("partition"))[name])


def embeddings(build: Build, model: str) -> pd.DataFrame:
    """One row a photo that has an embedding by `model`."""
    from geoloc.retrieval.embeddings import Embeddings

    made = Embeddings.load(embedding_folders(build)[model])
    split = [
        read_photos(build.folder(stage)) for stage in ("splits", "growth")[: 1 + build.settings.growth.waits]
    ]
    known = stored(pd.concat(split, ignore_index=True))["photo_id"]
    return embeddings_frame(made.photo_ids, made.vectors, known)
