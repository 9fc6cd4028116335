"""The cross-view family in the chain: its stages, what makes them out of date, where its first weights come from."""

from __future__ import annotations

import pandas as pd
import pytest

from geoloc.files import write_text
from geoloc.models.cross_view import build_cross_view
from geoloc.settings import SettingsError, parse
from orchestration.assets.inputs import initial_cross_view
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.cli import main
from orchestration.lineage.build import Build
from orchestration.lineage.stale import stale_stages
from orchestration.operations.outputs import look_at_outputs, take_from_outputs
from orchestration.plan.chain import LEFT_OUT_FILE, PAIRS_FILE, PICTURES_FILE, STAGES, borrowed, inputs_of
from orchestration.plan.settings import BuildSettings, load_settings
from orchestration.workspace import Workspace
from tests.unit.pretended import (
    bare_workspace,
    pretend,
    pretend_stage,
    record,
    record_as_built,
    write_recipe,
)
from tests.unit.test_unseen import split_as

FAMILY = ["pairs", "cross_view_model", "overhead_index", "cross_view_evaluation", "joint_evaluation"]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    params = {"partitions": {"fine": {"s2": {"max_photos": 60}}}, "seed": 3, "model": {"backbone": "alexnet"}}
    workspace = bare_workspace(tmp_path, params)
    write_recipe(workspace, "plain", {})
    return workspace


def above(workspace: Workspace, **cross_view: object) -> Build:
    return write_recipe(workspace, "above", {"cross_view": cross_view})


def stale_after(workspace: Workspace, before: dict[str, object], after: dict[str, object]) -> list[str]:
    """The stages that a change of the section makes out of date."""
    pretend(above(workspace, **before))
    return list(stale_stages(above(workspace, **after), set(STAGES)))


def test_a_recipe_has_the_family_by_its_section(workspace):
    plain = [stage.name for stage in Build(workspace, "plain").stages]
    build = above(workspace, epochs=3)
    assert [stage.name for stage in build.stages if stage.name not in plain] == FAMILY
    assert "cross_view_evaluation" in inputs_of(build.settings, STAGES["report"])
    assert inputs_of(Build(workspace, "plain").settings, STAGES["report"]) == (
        "splits", "partition", "classifier", "evaluation",
    )  # fmt: skip
    scoring = above(workspace, kind="hybrid", select_by="last")
    there = [stage.name for stage in scoring.stages]
    assert not {"overhead_index", "joint_evaluation"} & set(there), "its pairs have no embeddings"


def test_each_setting_makes_the_stages_that_use_it_out_of_date(workspace):
    below = ["overhead_index", "cross_view_evaluation", "joint_evaluation", "report"]
    assert stale_after(workspace, {}, {"epochs": 3}) == ["cross_view_model", *below]
    assert stale_after(workspace, {}, {"search": {"rotations": 4}}) == [
        "overhead_index",
        "joint_evaluation",
        "report",
    ]
    assert stale_after(workspace, {}, {"splits": {"test": 2}}) == ["pairs", "cross_view_model", *below]
    assert stale_after(workspace, {}, {"workers": 2}) == []
    # What another kind alone uses does not count.
    assert stale_after(workspace, {}, {"hidden": 9}) == []


def test_its_first_weights_are_those_of_a_recipe_that_has_not_seen_the_test_pairs(workspace):
    build = above(workspace, model={"backbone": "alexnet", "weights": "recipe:plain"})
    assert borrowed(build.settings, STAGES["cross_view_model"]) == {"weights": ("plain", "classifier")}
    split_as(Build(workspace, "plain"), "xvtu")

    def tests(name: str) -> pd.DataFrame:
        return pd.DataFrame({"photo_id": [name], "sha256": ["other"], "photographer": ["nobody"]})

    refuse_seen_tests(build, "cross_view_model", tests("p2"))
    with pytest.raises(
        SettingsError, match=r"cross_view\.model\.weights must name .* got plain, trained on 1 of"
    ):
        refuse_seen_tests(build, "cross_view_model", tests("p0"))


def test_equal_seeds_give_equal_networks_and_a_recipes_seed_is_its_own(workspace):
    settings = load_settings(workspace, above(workspace).recipe + "@8")
    assert (settings.cross_view_seed, settings.seed) == (8, 3)
    assert load_settings(workspace, "above").cross_view_seed == 3
    small = {"backbone": "squeezenet1_1", "resize_short_side": 32, "image_size": 32}
    build = above(workspace, model=small, orientation={"hidden": 4})
    one, other = initial_cross_view(build), initial_cross_view(build)
    assert all((one.state_dict()[name] == value).all() for name, value in other.state_dict().items())
    third = build_cross_view(one.settings, one.shape, 4)
    assert not all((one.state_dict()[name] == value).all() for name, value in third.state_dict().items())


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rotations": 4}, r"cross_view\.rotations is unknown"),
        ({"rotation_range": 60}, r"cross_view\.rotation_range must be"),
        ({"model": {"weights": "model.pth"}}, r"cross_view\.model\.weights must be .*no pickle is read"),
        ({"splits": {"test": 0}}, r"cross_view\.splits\.test must hold out at least one city"),
    ],
)
def test_what_cannot_be_is_refused(section, message):
    with pytest.raises(SettingsError, match=message):
        parse(BuildSettings, {"cross_view": section})


def test_claims_tell_what_is_not_built_and_which_options_fit(workspace, capsys):
    asked = ["--workspace", str(workspace.root), "claims", "--cross-view"]
    assert main(asked) == 1
    assert "no recipe with a section cross_view is built" in capsys.readouterr().err
    assert main([*asked, "--role", "fine=plain:[L]9C"]) == 2
    assert "--cross-view has roles and test pairs of its own" in capsys.readouterr().err


def test_a_photo_is_taken_out_of_the_pairs_with_its_tile(workspace):
    build = above(workspace)
    pairs = pd.DataFrame(
        {"photo_id": ["a", "b", "c"], "overhead_id": ["ta", "t", "t"], "split": ["train", "train", "test"]}
    )
    pictures = pd.DataFrame(
        {"photo_id": ["a", "b", "c", "ta", "t", "a"], "view": ["street"] * 3 + ["overhead"] * 3}
    )
    pretend_stage(build, STAGES["pairs"])
    for name, table in ((PAIRS_FILE, pairs), (PICTURES_FILE, pictures), (LEFT_OUT_FILE, pairs[:0])):
        table.to_parquet(build.folder("pairs") / name)
    record_as_built(build, STAGES["pairs"])
    for stage in FAMILY[1:-1]:
        pretend_stage(build, STAGES[stage])
    # Its other inputs, of the photo classifier, are not pretended.
    write_text(build.folder("joint_evaluation") / "content.json", "{}")
    record(build, "joint_evaluation", inputs={}, settings={}, code="")
    noted = look_at_outputs(workspace, {"a": "x"})
    assert {name: one["learned"] for name, one in noted.items()} == {
        f"above/{stage}": int(stage == "cross_view_model") for stage in FAMILY
    }
    take_from_outputs(workspace, {"a": "x"}, noted)
    kept = pd.read_parquet(build.folder("pairs") / PICTURES_FILE)
    assert kept.apply(tuple, axis=1).tolist() == [
        ("b", "street"), ("c", "street"), ("t", "overhead"), ("a", "overhead"),
    ]  # fmt: skip
    assert pd.read_parquet(build.folder("pairs") / PAIRS_FILE)["photo_id"].tolist() == ["b", "c"]
    assert build.built("cross_view_model").taken_down == 1
    assert not build.folder("overhead_index").exists()
    assert not build.folder("cross_view_evaluation").exists()
    assert not build.folder("joint_evaluation").exists()
    assert stale_stages(build, {"cross_view_model"}) == {"cross_view_model": ["pairs changed"]}, (
        "to train again"
    )
