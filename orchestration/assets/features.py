"""Stage features: the features of every stored photo by the backbone with its first weights, before any training."""

from __future__ import annotations

from geoloc.models.embedder import build_embedder
from orchestration.assets.extraction import extract
from orchestration.assets.inputs import model_settings
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.run.stage import StageResult, StageRun


def build(run: StageRun) -> StageResult:
    refuse_seen_tests(run.build)
    return extract(run, build_embedder(model_settings(run.build), run.settings.seed))
