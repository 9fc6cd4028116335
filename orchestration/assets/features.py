"""Stage features: the features of every stored photo by the backbone with its first weights, before any training."""

from __future__ import annotations

from geoloc.models.embedder import build_embedder
from geoloc.models.engine import ready_network
from geoloc.models.layers import at_layer
from orchestration.assets.exporting import export_to_output
from orchestration.assets.extraction import extract
from orchestration.assets.inputs import model_settings, stored, with_newcomers, with_pixels
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.plan.chain import GRAPH_FILE
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    refuse_seen_tests(run.build)
    backbone = build_embedder(model_settings(run.build), run.settings.seed).eval()
    model = at_layer(backbone, run.settings.embeddings.layer)
    photos = with_pixels(run.workspace.pool, stored(with_newcomers(run)))
    exported = export_to_output(run, model, photos)
    precision = run.settings.embeddings.precision
    network = ready_network(run.output / GRAPH_FILE, lambda: model, precision=precision)
    result = extract(run, network)
    return StageResult(exported | result.metadata)
