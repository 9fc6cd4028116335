"""`geoloc settings` lists every setting, its schema fits every recipe, and `geoloc --help` needs none of them."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from geoloc.settings import Settings, SettingsError, parse, to_dict
from orchestration.cli import main
from orchestration.commands.settings import list_settings, settings_schema
from orchestration.plan.settings import BuildSettings, known_recipes, load_settings
from orchestration.workspace import Workspace

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
EVERY_KIND = {kind: {"kind": kind} for kind in ("s2", "latlon", "delaunay", "cities", "kmeans")}
EVERYTHING = parse(
    BuildSettings,
    {
        "splits": {"context": {}},
        "partitions": EVERY_KIND,
        "training": {"mode": "fine_tune", "curriculum": {}, "distillation": {"recipe": "other"}},
        "metric": {"mining": {}},
        "time": {"daylight": True},
        "albums": {"networks": {"LSTM": {}}},
        "cross_view": {"orientation": {}, "mining": {}, "augmentation": {"flip": False}},
        "localizers": {"references": {"sources": ["other"]}},
        "embeddings": {
            "layer": {"name": "pooling"},
            "pca": {},
            "external": {"name": "NetVLAD", "file": "theirs.parquet", "pca": {}},
        },
    },
)
"""Settings with every section that there is."""
ROWS = {row.key: row for section in list_settings(settings_schema()) for row in section.rows}
VALIDATOR = jsonschema.Draft202012Validator(settings_schema())


def leaves(value, key=""):
    """The dotted keys of all settings, those of mappings of sections under NAME."""
    for name in type(value).model_fields:
        inner, path = getattr(value, name), f"{key}.{name}" if key else name
        if path in ("partitions", "albums.networks"):
            for one in inner.values():
                yield from leaves(one, f"{path}.NAME")
        elif isinstance(inner, Settings):
            yield from leaves(inner, path)
        else:
            yield path


def models(value):
    """The types of all settings in `value`."""
    if isinstance(value, Settings):
        yield type(value)
        for name in type(value).model_fields:
            yield from models(getattr(value, name))
    for inner in value.values() if isinstance(value, dict) else ():
        yield from models(inner)


def test_every_setting_is_listed_with_its_meaning():
    assert set(ROWS) == set(leaves(EVERYTHING)) - {"recipe"} | {"standalone"}  # of a recipe's file
    for row in ROWS.values():
        assert row.help, row.key
        assert row.default, row.key


def test_a_row_has_default_limits_choices_and_condition():
    assert ROWS["training.momentum"].default == "0.9"
    assert ROWS["training.momentum"].allowed == "number at least 0.0, at most 0.999"
    assert "counts only where optimiser is sgd" in ROWS["training.momentum"].help
    assert ROWS["training.optimiser"].allowed == "one of sgd, adagrad, adamw"
    assert ROWS["training.trainable_blocks"].allowed == "whole number at least 1 or null"
    assert ROWS["localizers.sigmas"].default == "[1.0, 4.0, 16.0]"
    assert ROWS["localizers.sigmas"].allowed == "list: each number at least 1e-06"
    assert ROWS["training.head_weights"].allowed == "mapping: each number at least 0.0"
    assert ROWS["training.distillation.recipe"].default == "must be given"
    assert "never changes a result" in ROWS["training.workers"].help


def test_conditions_name_settings_that_exist_and_values_that_they_may_have():
    """With a misspelt name a setting would always count, and nobody would notice."""
    fields: dict[str, str] = {}  # what fields of a name may be, in all sections together
    for model in models(EVERYTHING):
        for name, field in model.model_fields.items():
            fields[name] = fields.get(name, "") + str(field.annotation)
    extras = [
        field.json_schema_extra for model in models(EVERYTHING) for field in model.model_fields.values()
    ]
    conditions = {
        (other, value)
        for extra in extras
        for other, values in (extra or {}).get("when", {}).items()
        for value in values
    }
    assert ("optimiser", "sgd") in conditions
    for other, value in conditions:
        assert other in fields
        assert value == 0 or f"'{value}'" in fields[other]


@pytest.mark.parametrize("section", ["training", "splits.test", "partitions.kmeans", "training.momentum"])
def test_a_section_alone(section, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # no workspace is needed
    assert main(["settings", section]) == 0
    lines = capsys.readouterr().out.splitlines()
    keys = [
        line.split()[0].replace(".NAME", "") for line in lines if line.startswith("  ") and line[2] != " "
    ]
    assert keys
    assert all(key == section or key.startswith(f"{section}.") for key in keys)


def test_an_unknown_section_is_an_error_with_those_that_exist(capsys):
    assert main(["settings", "trainig"]) == 2
    error = capsys.readouterr().err
    assert "splits.test" in error
    assert error.endswith("got trainig\n")
    assert main(["settings", "training", "--schema"]) == 2


def test_the_schema_is_printed(capsys):
    assert main(["settings", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == settings_schema()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_schema_accepts_what_is_there(file):
    VALIDATOR.validate(yaml.safe_load(file.read_text()))


def test_the_schema_accepts_all_settings_written_out():
    jsonschema.Draft202012Validator.check_schema(settings_schema())
    written = to_dict(EVERYTHING)
    del written["recipe"]
    VALIDATOR.validate(json.loads(json.dumps(written)))


@pytest.mark.parametrize(
    "values",
    [
        {"trainig": {}},
        {"recipe": "fine"},
        {"training": {"epoch": 3}},
        {"training": {"epochs": 0}},
        {"training": {"epochs": 2.5}},
        {"training": {"optimiser": "adam"}},
        {"training": {"curriculum": {"biases": [2.0]}}},
        {"training": {"head_weights": {"Fine": 1.0}}},
        {"localizers": {"sigmas": [0]}},
        {"localizers": {"answers": ["middle"]}},
        {"partitions": {"fine": {"kind": "h3"}}},
        {"partitions": {"fine": {"kind": "s2", "s2": {"cells": 3}}}},
        {"partitions": {"Fine": {"kind": "s2"}}},
    ],
)
def test_the_schema_refuses_what_the_settings_refuse(values):
    assert not VALIDATOR.is_valid(values)
    if "recipe" not in values:  # which only a file's name can set
        with pytest.raises(SettingsError):
            parse(BuildSettings, values)


def test_sections_are_those_values_that_can_change_a_result_by_the_names_given():
    settings = load_settings(Workspace.open(ROOT))
    names = ("seed", "model.backbone", "model.gem_power", "training.augmentation", "partitions")
    found = settings.sections(names)
    assert list(found) == ["seed", "model.backbone", "training.augmentation", "partitions"]
    assert found["partitions"][0]["name"] == "fine"
    assert found["partitions"][0]["s2"]["max_photos"] == 60
    with pytest.raises(AttributeError):
        settings.sections(("model.backbones",))


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({}, []),
        (
            {"seed": 1, "model": {"backbone": "alexnet", "dropout": 0.5, "gem_power": 2.0}, "note": "x"},
            ["seed", "model.backbone"],
        ),
        ({"model": {"pooling": "gem", "gem_power": 2.0}}, ["model.gem_power"]),
        ({"partitions": {"fine": {"kind": "s2", "kmeans": {"rounds": 9}}}}, []),
        (
            {"partitions": {"fine": {"s2": {"max_photos": 70}}, "coarse": {}}},
            ["partitions.coarse", "partitions.fine.s2.max_photos"],
        ),
    ],
)
def test_changes_are_those_below_the_names_given(values, changed):
    names = ("seed", "model.backbone", "model.gem_power", "partitions")
    recorded = json.loads(json.dumps(parse(BuildSettings, {}).sections(names)))
    assert parse(BuildSettings, values).changes(recorded, names) == changed


def test_no_recipe_changes_by_being_read_again():
    workspace = Workspace.open(ROOT)
    names = [name for name in BuildSettings.model_fields if name != "recipe"]
    for recipe in known_recipes(workspace):
        settings = load_settings(workspace, recipe)
        recorded = json.loads(json.dumps(settings.sections(names)))
        assert settings.changes(recorded, names) == []


def test_help_imports_nothing_that_takes_time():
    code = (
        "import sys, orchestration.cli\n"
        "try: orchestration.cli.main(['--help'])\n"
        "except SystemExit: print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()[1:]}
    assert "orchestration" in loaded
    assert not loaded & {
        "pydantic",
        "pydantic_core",
        "numpy",
        "torch",
        "pandas",
        "yaml",
        "dagster",
        "dvc",
        "mlflow",
    }
