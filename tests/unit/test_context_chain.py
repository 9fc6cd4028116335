"""Models of time and albums in the chain: the stages of a recipe, what they read, and what makes them out of date."""

from __future__ import annotations

import pytest

from geoloc.settings import SettingsError
from orchestration.lineage.build import Build
from orchestration.lineage.stale import stale_stages
from orchestration.plan.chain import STAGES, inputs_of, looks_at_pool
from orchestration.plan.checks import checks_of
from orchestration.plan.settings import load_settings
from orchestration.workspace import Workspace
from tests.unit.pretended import bare_workspace, pretend, write_recipe

STAGES_OF_CONTEXT = ("class_probabilities", "time_model", "album_models")
BELOW = ["evaluation", "report"]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return bare_workspace(tmp_path, {"partitions": {"fine": {"s2": {"max_photos": 60}}}, "seed": 3})


def recipe(workspace: Workspace, **values: object) -> Build:
    return write_recipe(workspace, "mine", values)


def of_context(build: Build) -> list[str]:
    return [stage.name for stage in build.stages if stage.name in STAGES_OF_CONTEXT]


def stale_after(workspace: Workspace, before: dict[str, object], **changed: object) -> list[str]:
    """The stages that a change of settings makes out of date, those below for certain or perhaps."""
    pretend(recipe(workspace, **before))
    return list(stale_stages(recipe(workspace, **(before | changed)), set(STAGES)))


def test_a_recipe_has_the_stages_of_the_sections_that_it_has(workspace):
    assert of_context(recipe(workspace)) == []
    assert of_context(recipe(workspace, time={})) == ["class_probabilities", "time_model"]
    assert of_context(recipe(workspace, albums={})) == ["class_probabilities", "album_models"]
    both = recipe(workspace, time={}, albums={})
    assert of_context(both) == list(STAGES_OF_CONTEXT)
    assert set(STAGES_OF_CONTEXT) <= set(inputs_of(both.settings, STAGES["evaluation"]))
    assert "class_probabilities" not in inputs_of(recipe(workspace).settings, STAGES["evaluation"])
    assert [one.name for one in checks_of(both.settings, "class_probabilities")] == [
        "class_probabilities_suite"
    ]
    # The album and the times are the pool's; the classifier's photos are those of the splits.
    assert looks_at_pool(both.settings, STAGES["class_probabilities"])
    assert not looks_at_pool(both.settings, STAGES["album_models"])


def test_they_read_only_what_their_settings_ask_for(workspace):
    def inputs(stage: str, **values: object) -> tuple[str, ...]:
        return inputs_of(recipe(workspace, **values).settings, STAGES[stage])

    on_embeddings, on_cells = ({"networks": {"LSTM": {"inputs": one}}} for one in ("embeddings", "top_cells"))
    assert "embeddings" in inputs("album_models", albums=on_embeddings)
    assert "embeddings" not in inputs("album_models", albums=on_cells)
    assert "time_model" in inputs("album_models", albums=on_cells, time={})
    assert "embeddings" in inputs("time_model", time={"daylight": True})
    assert "embeddings" not in inputs("time_model", time={})


def test_each_setting_makes_the_stages_that_use_it_out_of_date(workspace):
    time, albums = {"epochs": 3}, {"networks": {"LSTM": {}}}
    before = {"time": time, "albums": albums}
    assert stale_after(workspace, before, albums={"networks": {"LSTM": {"length": 25}}}) == [
        "album_models",
        *BELOW,
    ]
    assert stale_after(workspace, before, time=time | {"epochs": 4}) == ["time_model", "album_models", *BELOW]
    assert stale_after(workspace, before, albums=albums | {"networks": {"LSTM": {"workers": 2}}}) == []
    found = stale_after(workspace, before, training={"epochs": 7})
    assert found[0] == "classifier"
    assert set(STAGES_OF_CONTEXT) <= set(found)


def test_another_seed_trains_all_networks_again(workspace):
    build = recipe(workspace, time={"seed": 1}, albums={"networks": {"LSTM": {}, "rep": {"seed": 2}}})
    assert build.settings.time_seed == 1
    assert (build.settings.network_seed("LSTM"), build.settings.network_seed("rep")) == (3, 2)
    again = load_settings(workspace, "mine@8")
    assert {again.time_seed, again.network_seed("LSTM"), again.network_seed("rep")} == {8}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"albums": {"networks": {"L/x": {}}}},
            "albums.networks must have letters, digits and spaces as names",
        ),
        ({"albums": {"networks": {"a b": {}, "A b": {}}}}, "must have names that differ in more than case"),
        ({"albums": {"networks": {"HMM": {}}}}, "must not be called as another method"),
        ({"albums": {"averages": [], "hmm": None}}, "must have averages, hmm or networks, or be null"),
        ({"albums": {"averages": ["user", "user"]}}, "averages must name each value once"),
        ({"time": {"network": None, "prior": None}}, "time must have network, prior or daylight"),
        (
            {"albums": {"networks": {"x": {}}}, "embeddings": {"models": ["backbone"]}},
            "albums.networks.x needs classifier in embeddings.models, got backbone",
        ),
        (
            {"albums": {"networks": {"x": {"train_on": "all", "inputs": "top_cells"}}}},
            "albums.networks.x.train_on must be context where inputs is top_cells",
        ),
        (
            {"albums": {"networks": {"x": {"train_on": "all"}}}, "training": {"mode": "fine_tune"}},
            "albums.networks.x.train_on must be context where training.mode is fine_tune",
        ),
        (
            {
                "albums": {"networks": {"x": {"train_on": "all"}}},
                "training": {"mode": "frozen"},
                "model": {"weights": "recipe:default"},
            },
            "albums.networks.x.train_on must be context where model.weights is recipe:default",
        ),
        ({"albums": {}, "splits": {"validation": {"share": 0}}}, "splits.validation.share must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(workspace, values, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(recipe(workspace, **values).workspace, "mine")
