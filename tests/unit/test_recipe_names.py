"""Names of recipes: what cannot be one is refused before anything is written; what is gone or broken stops no other."""

from __future__ import annotations

import dagster as dg
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.settings import SettingsError
from orchestration.cli import main
from orchestration.definitions import defs
from orchestration.graph.assets import asset_key
from orchestration.graph.definitions import job_name
from orchestration.lineage.build import Build
from orchestration.plan.chain import STAGES, artefact
from orchestration.plan.settings import is_recipe_name, known_recipes, load_settings
from orchestration.run.reuse import built_recipes
from orchestration.stores.pipeline import dvc_stage_name, pipeline_recipes, write_pipeline
from tests.unit.pretended import bare_workspace, pretend, write_recipe


@pytest.fixture
def workspace(tmp_path):
    """A workspace whose default recipe counts as built: `geoloc build` writes dvc.yaml and finds nothing to do."""
    return bare_workspace(tmp_path / "w", {"seed": 1})


@pytest.fixture
def nothing_to_do(workspace, monkeypatch):
    """`geoloc build` looks for nothing else than dvc.yaml: there are no photos and there is no DVC."""
    from orchestration.graph import headless

    pretend(Build(workspace))
    monkeypatch.setattr(headless, "verify_data", lambda _: "first.dir")
    monkeypatch.setattr(headless, "commit_stages", lambda *_: None)


BAD = [
    "../../elsewhere/x", "/tmp/x", "a/b", "a b", " a", "é", "straße", "数", "a-b", "a.b", ".a", "-a", "_a", "", "a\n",
    "a" * 65, "photos", "Photos", "splits", "report", "data", "lineage", "checks",
]  # fmt: skip


COMMANDS = [["build"], ["locate", "photo.jpg"], ["accept", "splits", "--reason", "fine"]]


@pytest.mark.parametrize(
    ("command", "name"),
    [*((COMMANDS[0], name) for name in BAD), *((command, "../x") for command in COMMANDS[1:])],
)
def test_a_name_that_is_no_recipes_is_refused_before_anything_is_written(workspace, command, name, capsys):
    before = sorted(workspace.root.parent.rglob("*"))
    assert main(["--workspace", str(workspace.root), *command, f"--recipe={name}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("geoloc: --recipe must ")
    assert error.endswith(f"got {name[:80]!r}\n")
    assert sorted(workspace.root.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["../x", "a b", "photos"])
def test_a_recipe_cannot_borrow_from_what_is_no_recipe(workspace, name):
    (workspace.recipes / "x.yaml").write_text("")
    write_recipe(workspace, "tuned", {"model": {"weights": f"recipe:{name}"}})
    with pytest.raises(SettingsError, match=r"model\.weights must name one of the recipes default, x; got "):
        load_settings(workspace, "tuned")


def test_recipes_that_differ_in_case_only_are_refused(workspace):
    write_recipe(workspace, "fine", {})
    assert load_settings(workspace, "fine")
    write_recipe(workspace, "Fine", {})
    for name in ("fine", "Fine"):
        with pytest.raises(SettingsError, match=f"differ from another in case only.*; got '{name}' and"):
            load_settings(workspace, name)
    assert load_settings(workspace, "default")


names = st.from_regex(r"[A-Za-z0-9_]{1,6}|default", fullmatch=True).filter(is_recipe_name)


@settings(deadline=None)
@given(st.tuples(names, st.sampled_from(sorted(STAGES))), st.tuples(names, st.sampled_from(sorted(STAGES))))
def test_no_two_outputs_have_one_name_in_dvc_or_dagster(one, other):
    if artefact(*one) != artefact(*other):
        assert dvc_stage_name(*one) != dvc_stage_name(*other)
        assert asset_key(*one).to_python_identifier() != asset_key(*other).to_python_identifier()
    if one[0] != other[0]:
        assert job_name(one[0]) != job_name(other[0])


def test_a_file_that_cannot_be_a_recipe_is_named_and_stops_nothing(workspace, nothing_to_do, capsys):
    for name in ("my notes", "photos", "default"):
        (workspace.recipes / f"{name}.yaml").write_text("")
    assert known_recipes(workspace) == ["default"]
    assert main(["--workspace", str(workspace.root), "build"]) == 0
    said = capsys.readouterr().out
    for name in ("my notes", "photos", "default"):
        assert f"recipes/{name}.yaml is left out: no recipe can have this name\n" in said


def test_a_copied_folder_in_build_is_no_recipe(workspace):
    pretend(Build(workspace))
    (workspace.build / "old copy" / "lineage").mkdir(parents=True)
    assert built_recipes(workspace) == ["default"]


BROKEN = {
    "gone": (None, "recipes/old.yaml is missing"),
    "invalid": (b"training: {epochs: -1}\n", "training.epochs must be at least 1, got -1"),
    "no YAML": (b"training: {\n", "old.yaml is not valid: not YAML"),
    "not UTF-8": (b"note: \xff\n", "old.yaml is not valid: not UTF-8"),
    "borrows from what is gone": (b"model: {weights: 'recipe:nothing'}\n", "got nothing"),
}


@pytest.fixture(params=BROKEN.values(), ids=BROKEN.keys())
def broken(workspace, request):
    """The workspace builds a recipe `old` too, whose file has since been removed or spoilt. Returns what is said."""
    write_recipe(workspace, "old", {"seed": 2})
    write_recipe(workspace, "fine", {"seed": 3})
    write_pipeline(workspace, "default")
    write_pipeline(workspace, "old")
    values, message = request.param
    file = workspace.recipes / "old.yaml"
    file.unlink() if values is None else file.write_bytes(values)
    return message


def test_a_recipe_that_cannot_be_used_is_named_and_its_stages_stay(workspace, nothing_to_do, broken, capsys):
    before = yaml.safe_load(workspace.dvc_yaml.read_text())["stages"]
    assert main(["--workspace", str(workspace.root), "build"]) == 0
    said = capsys.readouterr().out
    assert broken in said
    assert "drop them with: geoloc build --drop old\n" in said
    assert write_pipeline(workspace, "fine")
    after = yaml.safe_load(workspace.dvc_yaml.read_text())["stages"]
    assert {name: stage for name, stage in after.items() if not name.startswith("fine-")} == before
    assert next(iter(after)) == "photos"
    # It is an error only where it is meant.
    assert main(["--workspace", str(workspace.root), "build", "--recipe", "old"]) == 1


def test_the_ui_loads_without_a_recipe_that_cannot_be_used_and_names_it(
    workspace, broken, monkeypatch, caplog
):
    monkeypatch.setenv("GEOLOC_WORKSPACE", str(workspace.root))
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    assert [job.name for job in loaded.jobs] == ["build_default", "promote_default"]
    assert "the recipe old is left out: " in caplog.text
    assert broken in caplog.text


def test_dropped_recipes_leave_dvc_yaml_and_dvc_lock_and_their_outputs_stay(workspace, capsys):
    before = None
    for recipe in ("default", "old"):
        if recipe == "old":
            before = workspace.dvc_yaml.read_text()
            write_recipe(workspace, "old", {"seed": 2})
        write_pipeline(workspace, recipe)
        pretend(Build(workspace, recipe))
    (workspace.recipes / "old.yaml").unlink()
    assert main(["--workspace", str(workspace.root), "build", "--drop", "old"]) == 0
    assert capsys.readouterr().out == (
        "old: its stages are no longer in dvc.yaml and dvc.lock\n"
        "old: its outputs are still in build/old; remove them with: rm -r build/old\n"
    )
    assert workspace.dvc_yaml.read_text() == before
    assert (workspace.build / "old" / "report").is_dir()


def test_a_drop_of_what_is_not_there_changes_nothing(workspace, capsys):
    write_recipe(workspace, "old", {})
    write_pipeline(workspace, "default")
    write_pipeline(workspace, "old")
    assert main(["--workspace", str(workspace.root), "build", "--drop", "old", "odl"]) == 1
    message = "geoloc: --drop must name recipes with stages in dvc.yaml: default, old; got odl\n"
    assert capsys.readouterr().err == message
    assert main(["--workspace", str(workspace.root), "build", "--drop", "old", "--force"]) == 2
    assert pipeline_recipes(workspace) == ["default", "old"]
