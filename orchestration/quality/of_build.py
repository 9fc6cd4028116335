"""The data frames that the asset checks run on: one for each checked stage of a recipe."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoloc.files import read_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pair_splits import PICTURE_COLUMNS
from geoloc.photos.pairs import overhead_pool
from geoloc.photos.split_checks import check_splits
from orchestration.assets.inputs import (
    EMBEDDED_BY,
    embedding_folders,
    load_partitions,
    read_pair_table,
    read_photos,
    stored,
)
from orchestration.lineage.build import Build
from orchestration.plan.chain import PICTURES_FILE
from orchestration.quality.frames import (
    catalog_frame,
    embeddings_frame,
    pairs_frame,
    partition_frame,
    probabilities_frame,
    splits_frame,
)


def frame_of(build: Build, stage: str, about: str = "") -> pd.DataFrame:
    """What the checks of a stage look at; `about` names a part of its output."""
    if stage == "photos":
        return catalog(build)
    if stage == "splits":
        return splits(build)
    if stage == "pairs":
        return pairs(build)
    if stage == "partition":
        return partition(build, about)
    if stage == "class_probabilities":
        return class_probabilities(build)
    if stage == "overhead_index":
        return overhead(build)
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


def pairs(build: Build) -> pd.DataFrame:
    """The pairs, with what the pools store of them now."""
    folder, pool = build.folder("pairs"), build.workspace.pool
    catalogs = [read_catalog(one, ["photo_id", "sha256"]) for one in (pool, overhead_pool(pool))]
    pictures = read_parquet(folder / PICTURES_FILE, PICTURE_COLUMNS)
    return pairs_frame(read_pair_table(folder), pictures, *catalogs)


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


def class_probabilities(build: Build) -> pd.DataFrame:
    """One row a photo that models of time and albums know."""
    from geoloc.models.stored_probabilities import StoredProbabilities

    made = StoredProbabilities.load(build.folder("class_probabilities"))
    known = stored(read_photos(build.folder("splits")))["photo_id"]
    return probabilities_frame(made.photos, made.values, known)


def overhead(build: Build) -> pd.DataFrame:
    """One row a tile of the overhead index, by its first embedding. Embeddings that are compared with their lengths are
    scaled to length 1: their directions are looked at."""
    from geoloc.localizers.by_overhead.index import OverheadIndex

    index = OverheadIndex.open(build.folder("overhead_index"))
    vectors = np.array(index.vectors[:, 0])
    if not index.unit:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return embeddings_frame(index.ids, vectors, read_pair_table(build.folder("pairs"))["overhead_id"])
