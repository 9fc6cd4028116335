"""`geoloc init`: the settings of a new workspace."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml

from orchestration import workspace as workspaces
from orchestration.cli import main
from orchestration.plan.settings import known_recipes, load_settings
from orchestration.workspace import SETTINGS_FOR_PHOTOS, Workspace

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_git(monkeypatch):
    monkeypatch.setattr(workspaces, "_run", lambda command, folder: None)


def test_a_new_workspace_has_settings_for_real_photos(tmp_path):
    assert main(["init", str(tmp_path / "w"), "--note", "mine: 'all' of them"]) == 0
    workspace = Workspace.open(tmp_path / "w")
    settings = load_settings(workspace)
    assert settings.note == "mine: 'all' of them"
    assert (settings.model.weights, settings.splits.by) == ("package", "auto")
    for recipe in known_recipes(workspace):
        load_settings(workspace, recipe)


def test_a_second_call_brings_suites_that_a_newer_geoloc_needs_and_changes_nothing_else(tmp_path):
    assert main(["init", str(tmp_path / "w")]) == 0
    suites = tmp_path / "w" / "expectations"
    before = {file.name: file.read_text() for file in suites.iterdir()}
    assert before.keys() == {file.name for file in (CHECKOUT / "expectations").glob("*.json")}
    (suites / "pairs.json").unlink()
    (suites / "splits.json").write_text("mine")
    (tmp_path / "w" / "recipes" / "fine.yaml").unlink()
    assert main(["init", str(tmp_path / "w")]) == 0
    assert {file.name: file.read_text() for file in suites.iterdir()} == before | {"splits.json": "mine"}
    assert not (tmp_path / "w" / "recipes" / "fine.yaml").exists()


def test_a_workspace_for_the_sample_planet_has_its_settings(tmp_path):
    assert main(["init", str(tmp_path / "w"), "--sample"]) == 0
    assert (tmp_path / "w" / "params.yaml").read_bytes() == (CHECKOUT / "params.yaml").read_bytes()


def test_what_the_comments_of_the_settings_advise_can_be_set():
    lines = SETTINGS_FOR_PHOTOS.read_text().splitlines()
    advised = [line.replace("# ", "", 1) for line in lines if line.startswith("  # ") and ": " in line]
    assert (
        yaml.safe_load("\n".join(line for line in advised if "external" not in line))["mode"] == "fine_tune"
    )


def test_the_settings_are_installed_with_the_package():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["orchestration"]
    package = CHECKOUT / "orchestration"
    assert package / "templates" / "params.yaml" in {p for pattern in patterns for p in package.glob(pattern)}
