"""Stage embeddings: the features of every stored photo by the trained classifier."""

from __future__ import annotations

from geoloc.models.classifier import load_model
from orchestration.assets.extraction import extract_of_trained
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    folder = run.input("classifier")
    file = folder / MODEL_FILE
    return extract_of_trained(run, folder, lambda: load_model(file), file)
