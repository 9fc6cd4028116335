"""Links both ways: tags of MLflow name Dagster run, data and commits; metadata of Dagster name run and model."""

from __future__ import annotations

import dataclasses
import sqlite3

import pytest
import yaml

from orchestration.graph.assets import _result
from orchestration.lineage.build import Build
from orchestration.run.stage import StageOutcome, StageResult, run_stage
from orchestration.stores.data_version import data_version
from tests.unit.pretended import bare_workspace, pretend


@pytest.fixture
def build(tmp_path):
    made = Build(bare_workspace(tmp_path / "w", yaml.safe_load("seed: 3")))
    pretend(made)
    return made


def test_a_stage_gives_its_mlflow_run_the_dagster_run_the_data_version_and_the_commits(build, monkeypatch):
    seen = {}

    def stage(run):
        seen.update(run.tags)
        (run.output / "splits.parquet").write_bytes(b"x")
        return StageResult()

    monkeypatch.setattr("orchestration.assets.splits.build", stage)
    monkeypatch.setattr("orchestration.run.stage.verify_data", lambda workspace: data_version(workspace))
    record = run_stage(build, "splits", log=print, dagster_run="run-7", force=True).record
    assert seen["dagster_run"] == record.dagster_run == "run-7"
    assert seen["data_version"] == data_version(build.workspace)
    assert seen["artefact"] == "default/splits"
    assert seen["code_commit"].split()[0] == (record.code_commit or "none")
    assert seen["workspace_commit"].split()[0] == (record.workspace_commit or "none")
    assert record.hardware["processor"]


def test_the_page_of_an_asset_names_the_registered_model(build):
    folder = build.workspace.mlflow
    folder.mkdir()
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript(
            """
            CREATE TABLE model_versions (name TEXT, version INTEGER, run_id TEXT, source TEXT);
            CREATE TABLE registered_model_aliases (name TEXT, alias TEXT, version INTEGER);
            CREATE TABLE model_version_tags (name TEXT, version INTEGER, key TEXT, value TEXT);
            CREATE TABLE logged_models (model_id TEXT, source_run_id TEXT);
            CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
            INSERT INTO model_versions VALUES ('geoloc-default', 3, NULL, 'models:/m-1');
            INSERT INTO logged_models VALUES ('m-1', 'the-run');
            """
        )
    record = dataclasses.replace(build.built("evaluation"), mlflow_run="the-run")
    metadata = _result(build, StageOutcome(record, {}, reused=False)).metadata
    assert metadata["lineage/registered model"].value == "models:/geoloc-default/3"
    assert metadata["lineage/MLflow run"].value == "the-run"
