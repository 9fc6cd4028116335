"""Stage embeddings: the features of every stored photo by the trained classifier."""

from __future__ import annotations

from geoloc.models.classifier import load_model
from orchestration.assets.extraction import extract
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    return extract(run, load_model(run.input("classifier") / MODEL_FILE))
