"""Stage metric_embeddings: the embeddings of every stored photo by the metric network."""

from __future__ import annotations

from geoloc.models.engine import ready_network
from geoloc.models.metric import load_metric_network
from orchestration.assets.extraction import extract
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    folder = run.input("metric")
    file, precision = folder / MODEL_FILE, run.settings.embeddings.precision
    return extract(
        run, ready_network(folder / GRAPH_FILE, lambda: load_metric_network(file), file, precision)
    )
