"""Inputs that several stages read: photos and their pixels, partitions, embeddings, models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import read_json, read_parquet
from geoloc.models.settings import ModelSettings
from geoloc.partitions import load_partition
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pair_splits import OVERHEAD, PAIR_COLUMNS, PICTURE_COLUMNS, STREET
from geoloc.photos.pairs import overhead_pool
from geoloc.photos.splits import FACTS
from geoloc.settings import SettingsError, replace
from geoloc.training.cross_view_settings import CrossViewSettings
from geoloc.training.metric_settings import CLASSIFIER, MetricSettings
from orchestration.lineage.build import Build
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE, PAIRS_FILE, PICTURES_FILE, SPLITS_FILE
from orchestration.plan.settings import BuildSettings, weights_file
from orchestration.run.stage import StageRun
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.models.classifier import Classifier
    from geoloc.models.cross_view import CrossViewNetwork
    from geoloc.models.engine import ExportedNetwork
    from geoloc.models.metric import MetricNetwork
    from geoloc.models.photo_network import PhotoNetwork
    from geoloc.partitions.base import Partition
    from geoloc.training.cross_view_pairs import PairSource

# Networks are imported inside the functions that need them: torch takes seconds to import, and neither Dagster's graph
# nor the stages without a network need it.

EMBEDDED_BY = {
    "backbone": "features",
    "classifier": "embeddings",
    "metric": "metric_embeddings",
    "external": "external_embeddings",
}
"""The stage with the embeddings by each model."""
PARTITIONS_FILE = "partitions.json"
"""File in the output of the partition stage: the names of its folders, one per partition, in order, the main one
first."""


SOURCE = "source"
"""A further column of the table of splits, where the pool has several sources."""


def read_photos(splits: Path) -> pd.DataFrame:
    """The table of the splits stage, one row per photo in catalog order: photo_id, split, reason, and the facts that
    later stages use (geoloc.photos.splits.FACTS); and SOURCE, where the pool has several."""
    return read_parquet(splits / SPLITS_FILE, ("photo_id", "split", "reason", *FACTS))


def with_newcomers(run: StageRun) -> pd.DataFrame:
    """As `read_photos` of the stage's splits, with the photos that came later and wait for the next training, which
    come last."""
    photos = read_photos(run.input("splits"))
    if not run.settings.growth.waits:
        return photos
    return pd.concat([photos, read_photos(run.input("growth"))], ignore_index=True)


def stored(photos: pd.DataFrame) -> pd.DataFrame:
    """The photos whose pixels are in the pool; the others are known by metadata only."""
    return photos[photos["sha256"].notna()].reset_index(drop=True)


def with_pixels(pool: Path, photos: pd.DataFrame) -> pd.DataFrame:
    """Photos with the current location of their bytes in the pool: columns shard, offset, length; null if not stored.

    Raises WorkspaceError if the pool's bytes of a photo are different or missing: the splits belong to another pool.
    """
    known = read_catalog(pool, ["photo_id", "sha256", "shard", "offset", "length"])
    found = photos.merge(known.rename(columns={"sha256": "bytes"}), on="photo_id", how="left", validate="1:1")
    other = found["sha256"].notna() & (found["sha256"] != found["bytes"].fillna(""))
    if other.any():
        raise WorkspaceError(
            f"{int(other.sum())} photos of the splits are different or missing in the pool now, such as "
            f"{found.loc[other, 'photo_id'].iloc[0]}; build the splits again with: geoloc build"
        )
    return found.drop(columns="bytes")


def read_pair_table(pairs: Path) -> pd.DataFrame:
    """The table of the pairs stage, one row per pair: geoloc.photos.pair_splits.PAIR_COLUMNS."""
    return read_parquet(pairs / PAIRS_FILE, PAIR_COLUMNS)


def pair_photos(pool: Path, pairs: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The street photos and the overhead tiles of the pairs stage, each with the current location of its bytes: those
    of street photos in `pool`, those of tiles in `overhead_pool(pool)`.

    Raises WorkspaceError if a pool's bytes of a picture are different or missing.
    """
    pictures = read_parquet(pairs / PICTURES_FILE, PICTURE_COLUMNS)
    street, tiles = (pictures[pictures["view"] == view].reset_index(drop=True) for view in (STREET, OVERHEAD))
    return with_pixels(pool, street), with_pixels(overhead_pool(pool), tiles)


def load_partitions(folder: Path) -> dict[str, Partition]:
    """The partitions in `folder`, an output of the partition stage, by name, in order, the main one first."""
    return {name: load_partition(folder / name) for name in read_json(folder / PARTITIONS_FILE, list)}


def cell_counts(partitions: Mapping[str, Partition]) -> dict[str, int]:
    """The number of cells of each partition: the sizes of its classifier's heads."""
    return {name: partition.cell_count for name, partition in partitions.items()}


def model_names(partitions: int, settings: BuildSettings | None = None) -> dict[str, str]:
    """The models' names in tables, in brackets: L is the network of Revisiting IM2GPS with one classification loss,
    M the network with several, one per partition. `settings` name the metric network and the external embeddings, if
    there are such."""
    names = {"classifier": "L" if partitions == 1 else "M", "backbone": "backbone"}
    if settings is not None and settings.metric is not None:
        names["metric"] = settings.metric.name
    if settings is not None and settings.embeddings.external is not None:
        names["external"] = settings.embeddings.external.name
    return names


def embedding_folders(build: Build) -> dict[str, Path]:
    """The embedding folders that the recipe has, by name of the model, in alphabetical order."""
    present = {stage.name for stage in build.stages}
    return {model: build.folder(stage) for model, stage in EMBEDDED_BY.items() if stage in present}


def model_settings(build: Build) -> ModelSettings:
    """The model's settings, with `weights` that name a file or recipe replaced by the absolute path of the file."""
    file, settings = weights_file(build.workspace, build.settings), build.settings.model
    return settings if file is None else replace(settings, weights=str(file))


def initial_model(build: Build, partitions: Mapping[str, Partition]) -> Classifier:
    """The classifier before training: initial weights by the settings, and a random head for each partition."""
    from geoloc.models.classifier import build_classifier
    from geoloc.models.hierarchy import nested_parents

    parents = nested_parents(partitions) if build.settings.model.softmax == "hierarchical" else None
    return build_classifier(
        model_settings(build), cell_counts(partitions), build.settings.training_seed, parents
    )


def metric_settings(build: Build) -> MetricSettings:
    """The settings of the recipe's metric network. Raises SettingsError if it has none."""
    if build.settings.metric is None:
        raise SettingsError(f"metric must be a section, which {build.recipe} does not have")
    return build.settings.metric


def initial_metric(build: Build) -> MetricNetwork:
    """The metric network before training: initial weights by metric.start, and a random projection if it has one."""
    from geoloc.models.metric import build_metric_network

    settings = metric_settings(build)
    file = weights_file(build.workspace, build.settings, "metric.start")
    if settings.start == CLASSIFIER:
        file = build.folder("classifier") / MODEL_FILE
    # It has no head over cells, so its bytes must not depend on the kind of head.
    model = replace(
        build.settings.model,
        weights=settings.start if file is None else str(file),
        softmax="flat",
        batch_norm=settings.batch_norm or build.settings.model.batch_norm,
    )
    scale = settings.loss.scale if settings.loss.learnt_scale else None
    return build_metric_network(model, build.settings.metric_seed, settings.embedding_size, scale)


def cross_view_settings(build: Build) -> CrossViewSettings:
    """The settings of the recipe's cross-view network. Raises SettingsError if it has none."""
    if build.settings.cross_view is None:
        raise SettingsError(f"cross_view must be a section, which {build.recipe} does not have")
    return build.settings.cross_view


def initial_cross_view(build: Build) -> CrossViewNetwork:
    """The cross-view network before training. Raises SettingsError for a backbone that its settings do not fit."""
    from geoloc.models.cross_view import build_cross_view
    from geoloc.training.cross_view import shape_of

    settings = cross_view_settings(build)
    file = weights_file(build.workspace, build.settings, "cross_view.model.weights")
    model = settings.model if file is None else replace(settings.model, weights=str(file))
    return build_cross_view(model, shape_of(settings), build.settings.cross_view_seed)


def pair_sources(build: Build, model: CrossViewNetwork, splits: Sequence[str]) -> list[PairSource]:
    """The pairs of each of some splits, with pictures as they are, ready to run `model` over."""
    from geoloc.training.cross_view_pairs import PairSource, cross_view_pairs

    settings, pool = cross_view_settings(build), build.workspace.pool
    folder = build.folder("pairs")
    table, pictures = read_pair_table(folder), pair_photos(pool, folder)
    found = []
    for split in splits:
        pairs = cross_view_pairs(table[table["split"] == split], *pictures, split)
        found.append(
            PairSource(
                pool,
                overhead_pool(pool),
                pairs,
                model,
                None,
                None,
                0.0,
                build.settings.seed,
                settings.workers,
                settings.channels_last,
            )
        )
    return found


def load_trained(build: Build, partitions: Mapping[str, Partition]) -> Classifier | ExportedNetwork:
    """The recipe's classifier, ready to run over photos (see models.engine.ready_network), which must have been trained
    on these partitions, the output of its partition stage.

    Raises WorkspaceError, which names what to build, if it was trained on others, WeightsError or DamagedFile for a
    damaged file.
    """
    from geoloc.models.classifier import load_model
    from geoloc.models.engine import ready_network

    folder = build.folder("classifier")
    file = folder / MODEL_FILE
    network = ready_network(folder / GRAPH_FILE, lambda: load_model(file), file)
    _check_trained(build, network, partitions)
    return network


def open_trained(
    build: Build, partitions: Mapping[str, Partition], *, accelerated: bool = False
) -> PhotoNetwork:
    """As `load_trained`, to run over decoded photos; imports torch only where there is no exported graph, and, if
    `accelerated`, where there is a GPU."""
    from geoloc.models.photo_network import open_photo_network

    def load() -> Classifier:
        from geoloc.models.classifier import load_model

        return load_model(file)

    folder = build.folder("classifier")
    file = folder / MODEL_FILE
    network = open_photo_network(folder / GRAPH_FILE, load, file, accelerated=accelerated)
    _check_trained(build, network, partitions)
    return network


def _check_trained(build: Build, network: Any, partitions: Mapping[str, Partition]) -> None:
    reason = ""
    try:
        network.check_heads(cell_counts(partitions))
    except ValueError as error:
        reason = str(error).rpartition(":")[0]  # the rest is advice for programmers
    # Equal numbers of cells are not enough: the cells differ once photos or settings have changed.
    trained, cut = build.record("classifier"), build.record("partition")
    if not reason and trained and cut and trained.inputs.get("partition") != cut.content:
        reason = "the partition was built again since"
    if reason:
        raise WorkspaceError(
            f"the classifier of {build.recipe} was not built for its partitions: {reason}; "
            f"build it again with: {build.command()}"
        )


def teacher_embeddings(run: StageRun, photos: pd.DataFrame) -> NDArray[np.float32] | None:
    """The embeddings [N, D] of the photos that training.distillation names, NaN if a photo has none; None without a
    distillation."""
    from geoloc.retrieval.embeddings import Embeddings

    if run.settings.training.distillation is None:
        return None
    embeddings = Embeddings.load(run.borrowed("teacher"))
    position = embeddings.positions(photos["photo_id"])
    taught = np.full((len(photos), embeddings.vectors.shape[1]), np.nan, dtype=np.float32)
    taught[position >= 0] = embeddings.vectors[position[position >= 0]]
    return taught
