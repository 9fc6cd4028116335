"""Stage embeddings: every stored photo's features, by the trained classifier and by its initial backbone."""

from __future__ import annotations

import shutil
from typing import Any

import torch

from geoloc.models.classifier import Classifier, load_model
from geoloc.photos.catalog import read_catalog
from geoloc.retrieval.embeddings import extract_embeddings
from orchestration.assets.inputs import initial_model, load_partitions, stored
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun, progress_logger


def build(run: StageRun) -> StageResult:
    photos = stored(read_catalog(run.workspace.pool))
    facts: dict[str, Any] = {}
    for name in run.settings.embeddings.models:
        # Parts that a killed run finished lie in the scratch folder and are taken up.
        folder = run.scratch / name
        embeddings = extract_embeddings(
            _model(run, name).to(memory_format=torch.channels_last),  # much faster on a processor
            run.workspace.pool,
            photos,
            folder,
            run.settings.embeddings,
            progress_logger(run.log, f"{name} embeddings"),
        )
        shutil.move(folder, run.output / name)
        run.log(f"{name}: {embeddings!r}")
        facts |= {
            f"{name}/photos": len(embeddings),
            f"{name}/dimensions": int(embeddings.vectors.shape[1]),
            f"{name}/unreadable": len(embeddings.unreadable),
        }
    return StageResult(facts)


def _model(run: StageRun, name: str) -> Classifier:
    if name == "classifier":
        return load_model(run.input("classifier") / MODEL_FILE)
    return initial_model(run.workspace, run.settings, load_partitions(run.input("partition")))
