"""The health of a build: by `geoloc health`, and as an asset with checks."""

from __future__ import annotations

import dataclasses
import json
import shutil

import dagster as dg
import pandas as pd
import yaml

from orchestration.graph.definitions import make_definitions
from orchestration.lineage.build import Build
from orchestration.lineage.earlier import keep_earlier
from orchestration.operations.health import dated_reports, health
from orchestration.plan.checks import HEALTH_CHECKS
from tests.pipeline.conftest import geoloc


def found(workspace):
    return {one.name: one for one in health(Build(workspace))}


def bounds(workspace, **values):
    """Write bounds to params.yaml: they change no output."""
    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(params | {"health": values}))


def test_a_new_build_has_no_drift_and_finds_its_references(workspace, capsys):
    bounds(workspace, calibration=1.0)
    assert geoloc(workspace, "health") == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in told] == [f"{name}:" for name in HEALTH_CHECKS]
    assert "no photos are new" in told[0]
    assert "classifier 100.0 %" in told[3]


def test_what_is_out_of_bounds_fails_the_command(workspace, capsys):
    bounds(workspace, calibration=0.0, p=1.0)
    assert geoloc(workspace, "health", "--json") == 1
    failed = [one["name"] for one in json.loads(capsys.readouterr().out) if not one["passed"]]
    assert failed == ["calibration"]


def test_photos_that_the_splits_do_not_have_are_compared_with_those_trained_on(workspace):
    bounds(workspace, least_photos=5)
    build = Build(workspace)
    file = build.folder("splits") / "splits.parquet"
    splits = pd.read_parquet(file)
    north = splits[splits["latitude"] > splits["latitude"].quantile(0.8)]
    file.unlink()
    splits[~splits["photo_id"].isin(north["photo_id"])].to_parquet(file, index=False)
    one = found(workspace)["drift"]
    assert one.summary.startswith(f"{len(north)} photos are new since the splits were made")
    rows = {row["what"]: row for row in one.table}
    assert {"place", "year", "megapixels", "brightness", "embedding of classifier"} <= set(rows)
    assert rows["place"]["new"] == len(north)
    assert rows["place"]["value"] > 0.25


def test_a_region_that_lost_accuracy_since_the_last_data_version_is_named(workspace):
    build = Build(workspace)
    record = build.built("evaluation")
    kept = workspace.mlflow / "artifacts" / "earlier" / "artifacts"
    shutil.copytree(build.folder("evaluation"), kept)
    table = kept / "test" / "accuracy_by_continent.csv"
    rows = pd.read_csv(table)
    last = rows["level"] == "continent"
    rows.loc[last, ["accuracy", "low", "high"]] = [0.99, 0.98, 1.0]
    table.unlink()
    rows.to_csv(table, index=False)
    earlier = dataclasses.replace(
        record, mlflow_run="earlier", started_at="2020-01-01T00:00:00+00:00", content="a" * 64,
        inputs={**record.inputs, "splits": "of-before"},
    )  # fmt: skip
    earlier.write(build.record_path("evaluation"))
    keep_earlier(build, record)
    record.write(build.record_path("evaluation"))
    assert len(dated_reports(build, "test")) == 2
    one = found(workspace)["accuracy_by_region"]
    assert not one.passed
    assert "continent, test: 99.0 to " in one.summary


def test_the_asset_has_the_checks_and_blocks_nothing(workspace):
    bounds(workspace, calibration=0.0, p=1.0, fresh_days=7)
    workspace.set_environment()
    definitions = make_definitions(workspace, ["default"])
    key = dg.AssetKey(["default", "health"])
    assert definitions.resolve_asset_graph().get(key).freshness_policy is not None
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions.resolve_job_def("check_health").execute_in_process(instance=instance)
    assert done.success
    results = {one.check_name: one.passed for one in done.get_asset_check_evaluations()}
    assert set(results) == set(HEALTH_CHECKS)
    assert not results["calibration"]
