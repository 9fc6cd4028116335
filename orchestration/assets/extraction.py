"""Embeddings of every stored photo by one model: shared by the stages features, embeddings and metric_embeddings."""

from __future__ import annotations

import shutil
from typing import Any

from torch import nn

from geoloc.models.engine import engine_name
from geoloc.retrieval.embeddings import extract_embeddings
from orchestration.assets.inputs import read_photos, stored, with_pixels
from orchestration.run.stage import StageResult, StageRun, progress_logger

ENGINE = "engine"


def extract(run: StageRun, model: nn.Module) -> StageResult:
    """Write the embeddings of the stage's photos to its output. Parts that a killed run finished are reused, and what
    the output before has of the same photos by the same model is copied from it."""
    engine, progress = engine_name(model), progress_logger(run.log, "embeddings")
    # Sums differ in the last digits between engines and numbers of threads, and a copied row must be as if computed.
    before = run.before() if run.fact_before(ENGINE) == engine else None
    copied = 0

    def report(state: dict[str, Any]) -> None:
        nonlocal copied
        copied = state["copied"]
        progress(state)

    embeddings = extract_embeddings(
        model,
        run.workspace.pool,
        with_pixels(run.workspace.pool, stored(read_photos(run.input("splits")))),
        run.scratch / "parts",
        run.settings.embeddings,
        report,
        before,
    )
    for file in sorted((run.scratch / "parts").iterdir()):
        shutil.move(file, run.output / file.name)
    run.log(repr(embeddings) + (f", {copied:,} copied from the output before" if copied else ""))
    return StageResult(
        {
            ENGINE: engine,
            "copied from the output before": copied,
            "photos": len(embeddings),
            "dimensions": int(embeddings.vectors.shape[1]),
            "unreadable": len(embeddings.unreadable),
        }
    )
