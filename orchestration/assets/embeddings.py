"""Stage embeddings: the features of every stored photo by the trained classifier."""

from __future__ import annotations

from geoloc.models.classifier import load_model
from geoloc.models.engine import ready_network
from orchestration.assets.extraction import extract
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    folder = run.input("classifier")
    file, precision = folder / MODEL_FILE, run.settings.embeddings.precision
    return extract(run, ready_network(folder / GRAPH_FILE, lambda: load_model(file), file, precision))
