"""Embeddings of every stored photo by one model: shared by the stages features, embeddings and metric_embeddings."""

from __future__ import annotations

import shutil

from torch import nn

from geoloc.models.engine import engine_name
from geoloc.retrieval.embeddings import extract_embeddings
from orchestration.assets.inputs import read_photos, stored, with_pixels
from orchestration.run.stage import StageResult, StageRun, progress_logger


def extract(run: StageRun, model: nn.Module) -> StageResult:
    """Write the embeddings of the stage's photos to its output. Parts that a killed run finished are reused."""
    embeddings = extract_embeddings(
        model,
        run.workspace.pool,
        with_pixels(run.workspace.pool, stored(read_photos(run.input("splits")))),
        run.scratch / "parts",
        run.settings.embeddings,
        progress_logger(run.log, "embeddings"),
    )
    for file in sorted((run.scratch / "parts").iterdir()):
        shutil.move(file, run.output / file.name)
    run.log(repr(embeddings))
    return StageResult(
        {
            "engine": engine_name(model),
            "photos": len(embeddings),
            "dimensions": int(embeddings.vectors.shape[1]),
            "unreadable": len(embeddings.unreadable),
        }
    )
