"""Embeddings of every stored photo by one model: shared by the stages that make them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from geoloc.files import sha256_bytes
from geoloc.models.embedder import Embedder
from geoloc.models.engine import ExportedNetwork, engine_name, ready_network
from geoloc.models.layers import LayerEmbedder, at_layer
from geoloc.retrieval.embeddings import extract_embeddings
from orchestration.assets.exporting import export_to_output
from orchestration.assets.inputs import stored, with_newcomers, with_pixels
from orchestration.assets.reducing import reduced
from orchestration.plan.chain import GRAPH_FILE
from orchestration.run.facts import ENGINE
from orchestration.run.stage import StageResult, StageRun, progress_logger


def extract(run: StageRun, model: Embedder | LayerEmbedder | ExportedNetwork) -> StageResult:
    """Write the embeddings of the stage's photos to its output, reduced if the settings say so. Parts that a killed run
    finished are reused, and what the output before has of the same photos by the same model is copied from it."""
    engine, progress = engine_name(model), progress_logger(run.log, "embeddings")
    # Sums differ in the last digits between engines and numbers of threads, and a copied row must be as if computed.
    before = run.before() if run.fact_before(ENGINE) == engine else None
    copied = 0

    def report(state: dict[str, Any]) -> None:
        nonlocal copied
        copied = state["copied"]
        progress(state)

    photos = with_pixels(run.workspace.pool, stored(with_newcomers(run)))
    extract_embeddings(
        model,
        run.workspace.pool,
        photos,
        run.scratch / "parts",
        run.settings.embeddings,
        report,
        before,
    )
    for file in sorted((run.scratch / "parts").iterdir()):
        shutil.move(file, run.output / file.name)
    if copied:
        run.log(f"{copied:,} embeddings copied from the output before")
    # Parts hold what the network gave, so that what is copied does not depend on the components.
    result = reduced(run, photos, run.settings.embeddings.pca)
    return StageResult({ENGINE: engine, "copied from the output before": copied, **result.metadata})


def extract_of_trained(run: StageRun, folder: Path, load: Any, file: Path) -> StageResult:
    """As `extract`, with the trained network in `file`, which `load` makes, or the layer of it that the settings name.
    `folder` has its graph; a layer's is exported to this stage's output."""
    settings = run.settings.embeddings
    if settings.layer is None:
        return extract(run, ready_network(folder / GRAPH_FILE, load, file, settings.precision))
    model = at_layer(load(), settings.layer)
    run.log(repr(model))
    photos = with_pixels(run.workspace.pool, stored(with_newcomers(run)))
    exported = export_to_output(run, model, photos, sha256_bytes(file.read_bytes()))
    network = ready_network(run.output / GRAPH_FILE, lambda: model, file, settings.precision)
    return StageResult(exported | extract(run, network).metadata)
