"""What several stages read: photos and their pixels, partitions, embeddings, models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import read_json
from geoloc.models.classifier import Classifier, build_classifier, load_model
from geoloc.models.hierarchy import nested_parents
from geoloc.models.settings import ModelSettings
from geoloc.partitions import load_partition
from geoloc.photos.catalog import read_catalog
from geoloc.retrieval.embeddings import Embeddings
from geoloc.settings import replace
from orchestration.lineage.build import Build
from orchestration.plan.chain import MODEL_FILE
from orchestration.plan.settings import weights_file
from orchestration.run.stage import StageRun
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

SPLITS_FILE = "splits.parquet"
PARTITIONS_FILE = "partitions.json"
"""In the partition stage's output: the names of its folders, one a partition, in order, the main one first."""


def read_photos(splits: Path) -> pd.DataFrame:
    """The splits stage's table, one row a photo in the order of the catalog: photo_id, split, reason, and the facts
    that later stages use (geoloc.photos.splits.FACTS)."""
    return pd.read_parquet(splits / SPLITS_FILE)


def stored(photos: pd.DataFrame) -> pd.DataFrame:
    """The photos whose pixels are in the pool (those known by metadata only have none)."""
    return photos[photos["sha256"].notna()].reset_index(drop=True)


def with_pixels(pool: Path, photos: pd.DataFrame) -> pd.DataFrame:
    """Photos with where their bytes are in the pool now: columns shard, offset, length; null for those not stored.

    Raises WorkspaceError where the pool has other bytes of a photo, or none: the splits are of another pool.
    """
    known = read_catalog(pool, ["photo_id", "sha256", "shard", "offset", "length"])
    found = photos.merge(known.rename(columns={"sha256": "bytes"}), on="photo_id", how="left", validate="1:1")
    other = found["sha256"].notna() & (found["sha256"] != found["bytes"].fillna(""))
    if other.any():
        raise WorkspaceError(
            f"{int(other.sum())} photos of the splits have other bytes in the pool now, or none, such as "
            f"{found.loc[other, 'photo_id'].iloc[0]}; build the splits again with: geoloc build"
        )
    return found.drop(columns="bytes")


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


def embedding_folders(build: Build) -> dict[str, Path]:
    """The folder of each model's embeddings that the recipe has, by the model's name, in alphabetical order."""
    stages = {"backbone": "features", "classifier": "embeddings"}
    present = {stage.name for stage in build.stages}
    return {model: build.folder(stage) for model, stage in stages.items() if stage in present}


def model_settings(build: Build) -> ModelSettings:
    """The model's settings with the file of its weights named by its absolute path, whatever recipes call it."""
    file, settings = weights_file(build.workspace, build.settings), build.settings.model
    return settings if file is None else replace(settings, weights=str(file))


def initial_model(build: Build, partitions: Mapping[str, Partition]) -> Classifier:
    """The classifier before training: the settings' initial weights, a random head for each partition."""
    parents = nested_parents(partitions) if build.settings.model.softmax == "hierarchical" else None
    return build_classifier(model_settings(build), cell_counts(partitions), build.settings.seed, parents)


def load_trained(build: Build, partitions: Mapping[str, Partition]) -> Classifier:
    """The recipe's classifier, which must have been trained on these partitions, those of its partition stage.

    Raises WorkspaceError, which names what to build, where it was trained on others, and WeightsError for a damaged
    file.
    """
    network = load_model(build.folder("classifier") / MODEL_FILE)
    reason = ""
    try:
        network.check_heads(cell_counts(partitions))
    except ValueError as error:
        reason = str(error).rpartition(":")[0]  # what follows is advice for who writes code
    # Cells of equal number are other cells once photos or settings have changed.
    trained, cut = build.record("classifier"), build.record("partition")
    if not reason and trained and cut and trained.inputs.get("partition") != cut.content:
        reason = "the partition was built again since"
    if reason:
        raise WorkspaceError(
            f"the classifier of {build.recipe} was not built for its partitions: {reason}; "
            f"build it again with: {build.command()}"
        )
    return network


def teacher_embeddings(run: StageRun, photos: pd.DataFrame) -> NDArray[np.float32] | None:
    """The embeddings of the photos that training.distillation names, [N, D], NaN where a photo has none; None where the
    training has no teacher."""
    if run.settings.training.distillation is None:
        return None
    embeddings = Embeddings.load(run.borrowed("teacher"))
    position = embeddings.positions(photos["photo_id"])
    taught = np.full((len(photos), embeddings.vectors.shape[1]), np.nan, dtype=np.float32)
    taught[position >= 0] = embeddings.vectors[position[position >= 0]]
    return taught
