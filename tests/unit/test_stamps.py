"""Stamps: dvc.lock holds nothing volatile where DVC does not keep the builds."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from orchestration.lineage.build import Build
from orchestration.plan.chain import STAGES
from orchestration.stores.pipeline import pipeline, unrecorded_stages
from orchestration.stores.stamps import stamp_path, write_stamps
from orchestration.workspace import Workspace
from tests.unit.pretended import bare_workspace, new_data, pretend

REPOSITORY = Path(__file__).parents[2]
PARAMS = {"seed": 3, "partitions": {"fine": {"s2": {"max_photos": 60}}}}


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A built recipe in a workspace whose photos come from a remote inside it, as in the repository."""
    workspace = bare_workspace(tmp_path, PARAMS)
    in_tree_remote(workspace)
    made = Build(workspace)
    pretend(made)
    write_stamps(workspace, made.settings, STAGES)
    return made


def in_tree_remote(workspace: Workspace) -> None:
    (workspace.root / ".dvc").mkdir()
    shutil.copy(REPOSITORY / ".dvc" / "config", workspace.root / ".dvc" / "config")


def stamps(build: Build) -> dict[str, bytes]:
    return {
        stage.name: stamp_path(build.workspace, build.recipe, stage.name).read_bytes()
        for stage in build.stages
    }


def changed(build: Build) -> set[str]:
    """The stamps that writing them all again changes; reads the settings anew."""
    before = stamps(build)
    again = Build(build.workspace)
    write_stamps(again.workspace, again.settings, STAGES)
    return {name for name, text in stamps(again).items() if text != before[name]}


def test_another_run_and_other_bytes_from_the_same_photos_and_settings_leave_the_stamps_alone(build):
    for stage in build.stages:
        (build.folder(stage.name) / "content.json").write_text("trained on another processor")
        record = build.record_path(stage.name)
        record.write_text(record.read_text().replace("2026-01-01", "2026-02-02"))
    assert changed(build) == set()


def test_a_setting_changes_the_stamps_of_its_stage_and_of_all_below(build):
    params = build.workspace.root / "params.yaml"
    params.write_text(yaml.safe_dump(PARAMS | {"index": {"factory": "HNSW16"}}))
    assert changed(build) == {"index", "evaluation", "report"}


def test_other_photos_change_every_stamp(build):
    new_data(build.workspace, "second")
    assert changed(build) == {stage.name for stage in build.stages}


def test_a_stage_that_is_not_built_has_no_stamp(build):
    build.record_path("report").unlink()
    stamp_path(build.workspace, build.recipe, "report").unlink()
    write_stamps(build.workspace, build.settings, STAGES)
    assert not stamp_path(build.workspace, build.recipe, "report").exists()


def test_the_committed_dvc_yaml_and_dvc_lock_are_what_a_build_writes(tmp_path):
    """Otherwise `make demo` of a fresh clone would change them. Remedy: `geoloc build`, and commit them."""
    for name in ("params.yaml", "data.dvc", "dvc.lock"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    workspace = Workspace.open(tmp_path)
    in_tree_remote(workspace)
    build = Build(workspace)
    committed = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
    assert committed == pipeline(workspace, ["default"])
    for stage in build.stages:
        build.record_path(stage.name).parent.mkdir(parents=True, exist_ok=True)
        build.record_path(stage.name).touch()
    write_stamps(workspace, build.settings, STAGES)
    assert unrecorded_stages(workspace, "default", STAGES) == []
    locked = yaml.safe_load((REPOSITORY / "dvc.lock").read_text())["stages"]
    assert locked.keys() == committed["stages"].keys()
    for name, stage in locked.items():
        assert stage["cmd"] == committed["stages"][name]["cmd"]
        for dependency in stage["deps"]:
            if dependency["path"] != "data":
                file = (tmp_path / dependency["path"]).read_bytes()
                assert dependency["md5"] == hashlib.md5(file, usedforsecurity=False).hexdigest()
