"""Stage metric_embeddings: the embeddings of every stored photo by the metric network."""

from __future__ import annotations

from geoloc.models.metric import load_metric_network
from orchestration.assets.extraction import extract_of_trained
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    folder = run.input("metric")
    file = folder / MODEL_FILE
    return extract_of_trained(run, folder, lambda: load_metric_network(file), file)
