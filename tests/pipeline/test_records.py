"""What is recorded is what is there, by whatever command or button: failed checks, and photos changed behind DVC."""

from __future__ import annotations

import json
import shutil

import dagster as dg
import pandas as pd
import pytest
import yaml

from orchestration.graph.assets import DATA_TAG, asset_key
from orchestration.graph.definitions import job_name, make_definitions
from orchestration.lineage.build import Build
from orchestration.lineage.checks import unmet_checks
from orchestration.plan.chain import output_folder
from orchestration.stores import data_version as store
from orchestration.stores.data_version import record_data, verify_data
from orchestration.workspace import Workspace, WorkspaceError
from tests.pipeline.conftest import geoloc


def demand_the_impossible(workspace: Workspace) -> None:
    """No vector is as near to the mean as the suite wants now."""
    file = workspace.expectations / "embeddings.json"
    suite = json.loads(file.read_text())
    suite["expectations"].append(
        {
            "type": "expect_table_row_count_to_be_between",
            "kwargs": {"min_value": 10_000_000},
            "severity": "critical",
            "description": "There are ten million vectors",
        }
    )
    file.write_text(json.dumps(suite))


def materialize(workspace: Workspace, *stages: str) -> dg.ExecuteInProcessResult:
    """A run as the UI starts it: chosen assets, without what `geoloc build` adds."""
    workspace.set_environment()
    job = make_definitions(workspace, ["default"]).resolve_job_def(job_name("default"))
    with dg.DagsterInstance.get() as instance:
        return job.execute_in_process(
            instance=instance,
            asset_selection=[asset_key("default", stage) for stage in stages],
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {}}}},
        )


@pytest.mark.slow
def test_a_failed_check_is_passed_by_no_command_and_no_button(workspace, capfd):
    demand_the_impossible(workspace)
    shutil.rmtree(output_folder(workspace, "default", "index"))
    for _ in range(2):
        assert geoloc(workspace, "build") == 1
        assert "failed its check embeddings_suite" in capfd.readouterr().err
        assert not output_folder(workspace, "default", "index").exists()
    assert geoloc(workspace, "build", "--only", "index", "--no-commit") == 1
    assert "default/features must not be used: it failed its check embeddings_suite" in capfd.readouterr().err
    assert not materialize(workspace, "index").success
    assert not output_folder(workspace, "default", "index").exists()

    for stage in ("features", "embeddings"):
        arguments = ["--check", "embeddings_suite", "--reason", "tried on purpose"]
        if unmet_checks(Build(workspace), stage)[0].startswith("its check"):
            assert geoloc(workspace, "build", "--only", stage) == 1  # runs the check, which fails
        assert geoloc(workspace, "accept", stage, *arguments) == 0
    assert geoloc(workspace, "build") == 0
    page = (output_folder(workspace, "default", "report") / "report.html").read_text()
    assert "checks found something" in page
    assert "tried on purpose" in page
    assert "checks passed.</b>" not in page
    capfd.readouterr()
    assert geoloc(workspace, "audit", "report") == 0
    assert "check embeddings_suite: accepted" in capfd.readouterr().out


def reverse_coordinates(workspace: Workspace) -> None:
    """All coordinates of the catalog in reverse order, behind DVC's back."""
    catalog = workspace.pool / "catalog.parquet"
    frame = pd.read_parquet(catalog)
    frame[["latitude", "longitude"]] = frame[["latitude", "longitude"]].to_numpy()[::-1]
    catalog.unlink()  # it may be a link into DVC's cache
    frame.to_parquet(catalog)


def flip_a_byte(workspace: Workspace) -> None:
    shard = max((workspace.pool / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.unlink()
    shard.write_bytes(data)


def truncate(workspace: Workspace) -> None:
    shard = max((workspace.pool / "shards").iterdir())
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-1000])


def remove(workspace: Workspace) -> None:
    max((workspace.pool / "shards").iterdir()).unlink()


@pytest.mark.parametrize("change", [reverse_coordinates, flip_a_byte, truncate, remove])
def test_photos_changed_behind_dvc_are_seen_by_builds_buttons_and_audit(workspace, change, capsys):
    change(workspace)
    assert geoloc(workspace, "build") == 1
    assert "data/ is not the version that data.dvc names" in capsys.readouterr().err
    params = workspace.root / "params.yaml"
    params.write_text(params.read_text().replace("resamples: 50", "resamples: 60"))
    lock = (workspace.root / "dvc.lock").read_bytes()
    assert geoloc(workspace, "build", "--only", "evaluation") == 1
    assert (workspace.root / "dvc.lock").read_bytes() == lock
    capsys.readouterr()
    assert geoloc(workspace, "audit", "report", "--json") == 0
    data = next(
        node for node in json.loads(capsys.readouterr().out)["made_from"] if node["artefact"] == "data"
    )
    assert data["on_disk"] == "changed"


def test_a_run_of_the_ui_sees_changed_photos_too(workspace):
    reverse_coordinates(workspace)
    assert not materialize(workspace, "evaluation").success


def test_files_that_did_not_change_are_not_read_again(workspace, monkeypatch):
    verify_data(workspace)
    monkeypatch.setattr(store, "data_changes", lambda workspace: pytest.fail("DVC was asked again"))
    assert verify_data(workspace) == store.data_version(workspace)


def test_a_build_is_of_one_data_version(workspace):
    """Photos that were added, and recorded, after the build began stop its next stage."""
    build = Build(workspace)
    workspace.set_environment()
    with dg.DagsterInstance.get() as instance:
        job = make_definitions(workspace, ["default"]).resolve_job_def(job_name("default"))
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[asset_key("default", "report")],
            tags={DATA_TAG: "the version before.dir"},
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {}}}},
        )
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "the photos changed while the build ran" in str(failure.step_failure_data.error)
    assert build.record("report").content == build.content("report")


def test_recorded_photos_are_the_version_again(workspace):
    reverse_coordinates(workspace)
    with pytest.raises(WorkspaceError, match=r"record it with `dvc add data`"):
        verify_data(workspace)
    version = record_data(workspace)
    assert verify_data(workspace) == version
    assert yaml.safe_load(workspace.data_pointer.read_text())["outs"][0]["md5"] == version
