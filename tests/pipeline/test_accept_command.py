"""`geoloc accept` through the command line, on pretended builds whose code is pretended to have changed."""

from __future__ import annotations

import getpass
import re

import pytest
import yaml

from orchestration.cli import main
from orchestration.lineage import stale
from orchestration.lineage.build import Build
from orchestration.lineage.code import code_version
from orchestration.stores.pipeline import unrecorded_stages, write_pipeline
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.unit.pretended import bare_workspace, new_data, pretend

PARAMS = {"partitions": {"fine": {"s2": {"max_photos": 60, "min_photos": 8}}}}
STAGES = [
    "photos", "splits", "partition", "features", "classifier", "embeddings", "index", "evaluation", "report",
]  # fmt: skip


@pytest.fixture
def built(tmp_path):
    workspace = bare_workspace(tmp_path / "w", PARAMS)
    pretend(Build(workspace))
    return workspace


@pytest.fixture
def change_code(monkeypatch):
    """Pretend that the code of stages changed: called with their names."""

    def change(*stages: str, version: str = "new code") -> None:
        modules = {f"orchestration.assets.{stage}" for stage in stages}
        monkeypatch.setattr(
            stale, "code_version", lambda module: version if module in modules else code_version(module)
        )

    return change


def records(workspace):
    return {path.name: path.read_bytes() for path in sorted(workspace.build.glob("**/lineage/*.json"))}


def test_an_accepted_classifier_is_not_built_again_nor_is_anything_below_it(built, change_code, capsys):
    before = records(built)
    old = Build(built).built("classifier").code_version
    change_code("classifier")
    assert next(iter(stale.stale_stages(Build(built), STAGES))) == "classifier"
    assert geoloc(built, "accept", "classifier", "--reason", "renamed a variable") == 0
    assert capsys.readouterr().out == f"default/classifier: made by code {old}, accepted for code new code\n"
    assert stale.stale_stages(Build(built), STAGES) == {}
    changed = {name for name, text in records(built).items() if text != before[name]}
    assert changed == {"classifier.json"}


def test_the_audit_shows_who_accepted_and_why(built, change_code, capsys):
    change_code("classifier")
    assert geoloc(built, "accept", "classifier", "--reason", " renamed a variable ") == 0
    capsys.readouterr()
    assert geoloc(built, "audit", "report") == 0
    line = rf"accepted for code new code by {re.escape(getpass.getuser())} on 20\d\d-.*: renamed a variable$"
    assert re.search(line, capsys.readouterr().out, re.M)


def test_several_stages_are_accepted_in_the_order_of_the_chain(built, change_code, capsys):
    change_code("photos", "index", "splits")
    assert geoloc(built, "accept", "index", "splits", "photos", "splits", "--reason", "fine") == 0
    shown = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["photos", "default/splits", "default/index"]
    assert stale.stale_stages(Build(built), STAGES) == {}


def test_settings_that_changed_too_refuse_it_and_then_none_of_the_stages_is_accepted(
    built, change_code, capsys
):
    before = records(built)
    change_code("splits", "classifier")
    (built.root / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "training": {"epochs": 99}}))
    assert geoloc(built, "accept", "splits", "classifier", "--reason", "fine") == 1
    error = capsys.readouterr().err
    assert "default/classifier cannot be accepted" in error
    assert "settings changed: training" in error
    assert "build it again with: geoloc build --recipe default --only classifier" in error
    assert records(built) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["splits", "--reason", "  "], "--reason must say why the output is still good, got none"),
        (["index", "--reason", "fine"], "default/index needs no acceptance: its code did not change"),
        (
            ["spilts", "--reason", "fine"],
            f"STAGE must be one of {', '.join(STAGES)}; got spilts",
        ),
    ],
)
def test_what_cannot_be_accepted_is_an_error(built, change_code, capsys, arguments, message):
    before = records(built)
    change_code("splits")
    assert geoloc(built, "accept", *arguments) == 1
    assert capsys.readouterr().err == f"geoloc: {message}\n"
    assert records(built) == before


def test_the_reason_is_required(built, capsys):
    with pytest.raises(SystemExit) as stop:
        geoloc(built, "accept", "splits")
    assert stop.value.code == 2
    assert "--reason" in capsys.readouterr().err


def test_accepted_records_go_to_dvc_lock_if_dvc_yaml_has_the_recipe(tmp_path, change_code):
    assert main(["init", str(tmp_path / "w")]) == 0
    workspace = Workspace.open(tmp_path / "w")
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    new_data(workspace, "first")
    pretend(Build(workspace))
    change_code("partition", "index")
    assert geoloc(workspace, "accept", "index", "--reason", "before dvc.yaml has the recipe") == 0
    assert write_pipeline(workspace, "default")
    assert geoloc(workspace, "accept", "partition", "--reason", "fine", "--no-commit") == 0
    assert not (workspace.root / "dvc.lock").exists()
    change_code("partition", version="newer code")
    assert geoloc(workspace, "accept", "partition", "--reason", "fine") == 0
    others = [stage.name for stage in Build(workspace).stages if stage.name != "partition"]
    assert unrecorded_stages(workspace, "default", STAGES) == others
