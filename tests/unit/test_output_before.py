"""The output before: a stage may take rows from it only where they would come out the same again."""

import dataclasses

import pytest
import yaml

from orchestration.lineage.build import Build
from orchestration.lineage.origin import environment
from orchestration.lineage.stale import expected
from orchestration.plan.chain import STAGES
from orchestration.run.facts import keep_facts
from orchestration.run.stage import StageRun
from tests.unit.pretended import bare_workspace, new_data, pretend

STAGE = STAGES["features"]


@pytest.fixture
def build(tmp_path) -> Build:
    """A pretended build whose features were made with the packages of now."""
    made = Build(bare_workspace(tmp_path / "w", {"seed": 1}))
    pretend(made)
    change_record(made, environment=environment())
    return made


def change_record(build, **values):
    record = build.built("features")
    dataclasses.replace(record, **values).write(build.record_path("features"))


def run_of(build, **values):
    return StageRun(
        build, expected(build, STAGE), build.folder("features"), build.folder("s"), print, {}, None, **values
    )


def test_it_is_taken_from_whatever_photos_it_has(build):
    assert run_of(build).before() == build.folder("features")
    new_data(build.workspace, "second")
    assert run_of(build).before() == build.folder("features")
    keep_facts(build, build.built("features"), {"engine": "torch"})
    assert run_of(build).fact_before("engine") == "torch"
    assert run_of(build).fact_before("colour") is None


@pytest.mark.parametrize("case", ["forced", "never built", "damaged", "code", "packages", "settings"])
def test_it_is_not_taken_from_where_rows_could_come_out_otherwise(build, case):
    if case == "never built":
        build.record_path("features").unlink()
    if case == "damaged":
        (build.folder("features") / "content.json").write_text("edited")
    if case == "code":
        change_record(build, code_version="older")
    if case == "packages":
        change_record(build, environment=environment() | {"torch": "1.0"})
    if case == "settings":
        (build.workspace.root / "params.yaml").write_text(yaml.safe_dump({"seed": 2}))
        build = Build(build.workspace)
    assert run_of(build, forced=case == "forced").before() is None
