"""What other recipes have seen: no test photo may have been trained on before."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pandas as pd
import pytest

from geoloc.settings import SettingsError
from orchestration.assets.unseen import refuse_seen_tests, trained_before
from orchestration.lineage.build import Build
from orchestration.plan.chain import STAGES
from orchestration.workspace import Workspace, WorkspaceError
from tests.unit.pretended import bare_workspace, pretend, pretend_stage, record_as_built, write_recipe

SIDES = {"t": "test", "u": "unused", "v": "validation", "x": "train", "e": "elsewhere"}


def split_as(build: Build, sides: str, people: str = "abcdef") -> Build:
    """Pretend a build whose photos p0, p1, ... are on these sides and by these people."""
    table = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(len(sides))],
            "split": [SIDES[side] for side in sides],
            "reason": None,
            "photographer": list(people[: len(sides)]),
            "latitude": 0.0,
            "longitude": 0.0,
            "prob_indoor": 0.0,
            "sha256": [f"hash {i}" for i in range(len(sides))],
        }
    )
    pretend(build)
    table.to_parquet(build.folder("splits") / "splits.parquet")
    record_as_built(build, STAGES["splits"])
    for name in ("partition", "classifier"):
        pretend_stage(build, STAGES[name])
    return build


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    params = {"partitions": {"fine": {"s2": {"max_photos": 60}}}, "embeddings": {"models": ["classifier"]}}
    workspace = bare_workspace(tmp_path, params)
    write_recipe(workspace, "first", {})
    write_recipe(workspace, "second", {"model": {"weights": "recipe:first"}})
    teacher = {"recipe": "second", "model": "classifier"}
    write_recipe(workspace, "taught", {"training": {"mode": "fine_tune", "distillation": teacher}})
    return workspace


@pytest.mark.parametrize(
    ("first", "second", "people", "refused"),
    [
        ("xvtu", "xvtu", "abcd", ""),
        ("uvtx", "xvtu", "abcd", ""),  # what was trained on is unused here
        ("xvxu", "xvtu", "abcd", "trained on 1 of the 1 test photos of second"),
        ("xvvu", "xvtu", "abcd", "trained on 1 of the 1 test"),  # chosen by, not trained on
        ("xvxu", "xveu", "abcd", "trained on 1 of the 1 test"),  # an external test set
        ("xvtu", "xvtu", "abad", "on 0 of the 1 test photos of second and on others by photographers of 1"),
    ],
)
def test_weights_that_have_seen_a_test_photo_are_refused(workspace, first, second, people, refused):
    split_as(Build(workspace, "first"), first, people)
    asking = split_as(Build(workspace, "second"), second, people)
    if not refused:
        return refuse_seen_tests(asking)
    with pytest.raises(
        SettingsError, match=f"model.weights must name .* got first, .*{refused}.* such as p2"
    ):
        refuse_seen_tests(asking)
    return None


@pytest.mark.parametrize("stage", ["classifier", "features"])
def test_the_stages_that_start_from_weights_refuse_them_before_anything_else(workspace, stage):
    split_as(Build(workspace, "first"), "xvxu")
    asking = split_as(Build(workspace, "second"), "xvtu")
    asset = importlib.import_module(STAGES[stage].module)
    with pytest.raises(SettingsError, match="has not seen the test photos; got first"):
        asset.build(SimpleNamespace(build=asking))


def test_a_teacher_passes_on_what_its_own_weights_have_seen(workspace):
    split_as(Build(workspace, "first"), "xvxu")
    split_as(Build(workspace, "second"), "xvut")
    asking = split_as(Build(workspace, "taught"), "xvtu")
    assert [other.recipe for _, other, _ in trained_before(asking)] == ["second", "first"]
    with pytest.raises(SettingsError, match=r"training\.distillation\.recipe must name .* got first, "):
        refuse_seen_tests(asking)


def test_what_was_trained_on_must_be_known(workspace):
    first = split_as(Build(workspace, "first"), "xvtu")
    asking = split_as(Build(workspace, "second"), "xvtu")
    (first.folder("splits") / "content.json").write_text("other")
    record_as_built(first, STAGES["splits"])
    with pytest.raises(WorkspaceError, match="first/classifier was trained on are not known any more"):
        refuse_seen_tests(asking)


def test_every_photo_is_no_query_of_weights_that_have_seen_them(workspace):
    values = {"model": {"weights": "recipe:first"}, "evaluation": {"leave_photographer_out": True}}
    with pytest.raises(SettingsError, match=r"leave_photographer_out must be false where .* recipe:first"):
        _ = write_recipe(workspace, "all", values).settings
