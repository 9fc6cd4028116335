"""kill -9 in the middle of a training, then the same command again: the same bytes as without the kill."""

from __future__ import annotations

import time

import pytest
import yaml

from orchestration.lineage.build import Build
from orchestration.plan.chain import output_folder
from tests.pipeline.conftest import forked_geoloc, geoloc


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(workspace):
    finished = Build(workspace).record("classifier")
    params = workspace.root / "params.yaml"
    values = yaml.safe_load(params.read_text())
    values["training"] |= {"checkpoint_steps": 2, "progress_steps": 1}  # neither counts
    params.write_text(yaml.safe_dump(values))
    scratch = workspace.scratch / "default" / "classifier" / "checkpoints"
    before = (output_folder(workspace, "default", "classifier") / "model.safetensors").read_bytes()

    process = forked_geoloc(workspace, "build", "--only", "classifier", "--force", "--no-commit")
    deadline = time.monotonic() + 240
    while not (scratch / "checkpoint.safetensors").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in four minutes"
        time.sleep(0.02)
    process.kill()

    model = output_folder(workspace, "default", "classifier") / "model.safetensors"
    assert model.read_bytes() == before, "a killed training must leave the earlier output alone"
    assert geoloc(workspace, "build", "--only", "classifier", "--force", "--no-commit") == 0
    assert model.read_bytes() == before
    resumed = Build(workspace).record("classifier")
    assert resumed.content == finished.content
    assert resumed.dagster_run != finished.dagster_run
