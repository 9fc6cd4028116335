"""Embeddings of every stored photo by one model: shared by the stages that make them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from geoloc.files import sha256_bytes
from geoloc.models.embedder import Embedder, build_embedder
from geoloc.models.engine import ExportedNetwork, engine_name, ready_network
from geoloc.models.layers import LayerEmbedder, at_layer
from geoloc.models.metric import build_metric_network
from geoloc.retrieval.embeddings import Embeddings, extract_embeddings
from geoloc.retrieval.pca import PCA_FILE, Pca
from geoloc.retrieval.settings import PcaSettings
from geoloc.settings import replace
from orchestration.assets.exporting import export_to_output
from orchestration.assets.inputs import read_photos, stored, with_pixels
from orchestration.plan.chain import GRAPH_FILE
from orchestration.plan.settings import BuildSettings
from orchestration.run.stage import StageResult, StageRun, progress_logger


def extract(run: StageRun, model: Embedder | LayerEmbedder | ExportedNetwork) -> StageResult:
    """Write the embeddings of the stage's photos to its output. Parts that a killed run finished are reused."""
    photos = with_pixels(run.workspace.pool, stored(read_photos(run.input("splits"))))
    extract_embeddings(
        model,
        run.workspace.pool,
        photos,
        run.scratch / "parts",
        run.settings.embeddings,
        progress_logger(run.log, "embeddings"),
    )
    for file in sorted((run.scratch / "parts").iterdir()):
        shutil.move(file, run.output / file.name)
    result = reduced(run, photos, run.settings.embeddings.pca)
    return StageResult({"engine": engine_name(model), **result.metadata})


def extract_of_trained(run: StageRun, folder: Path, load: Any, file: Path) -> StageResult:
    """As `extract`, with the trained network in `file`, which `load` makes, or the layer of it that the settings name.
    `folder` has its graph; a layer's is exported to this stage's output."""
    settings = run.settings.embeddings
    if settings.layer is None:
        return extract(run, ready_network(folder / GRAPH_FILE, load, file, settings.precision))
    model = at_layer(load(), settings.layer)
    run.log(repr(model))
    photos = with_pixels(run.workspace.pool, stored(read_photos(run.input("splits"))))
    exported = export_to_output(run, model, photos, sha256_bytes(file.read_bytes()))
    network = ready_network(run.output / GRAPH_FILE, lambda: model, file, settings.precision)
    return StageResult(exported | extract(run, network).metadata)


def check_layer(settings: BuildSettings) -> None:
    """Raise SettingsError if a network of the recipe does not have the layer that embeddings.layer names, before hours
    are spent on its training."""
    layer, embeddings = settings.embeddings.layer, settings.embeddings
    if layer is None:
        return
    model = replace(settings.model, weights="none")
    if embeddings.of_backbone or embeddings.of_classifier:
        at_layer(build_embedder(model, 0), layer)
    if settings.metric is not None:
        at_layer(build_metric_network(model, 0, settings.metric.embedding_size), layer)


def reduced(
    run: StageRun, photos: pd.DataFrame, settings: PcaSettings | None, key: str = "embeddings.pca"
) -> StageResult:
    """Fit the principal components that `settings`, named `key`, ask for to the output's embeddings of training photos,
    and store them beside these; no-op for None. Returns facts of the embeddings."""
    facts = {}
    embeddings = Embeddings.load(run.output)
    if settings is not None:
        train = photos.loc[photos["split"] == "train", "photo_id"]
        position = embeddings.positions(train)
        size = embeddings.vectors.shape[1]
        pca = Pca.fit(embeddings.vectors[position[position >= 0]], settings, key)
        pca.save(run.output / PCA_FILE)
        embeddings = Embeddings.load(run.output)
        share = float(pca.explained.sum())
        facts = {"principal components": f"{pca.dimensions} of {size}, {share:.1%} of the variance"}
        run.log(f"principal components: {facts['principal components']}")
    run.log(repr(embeddings))
    return StageResult(
        {
            "photos": len(embeddings),
            "dimensions": int(embeddings.vectors.shape[1]),
            **facts,
            "unreadable": len(embeddings.unreadable),
        }
    )
