"""Several partitions, and a training that starts from another recipe's weights, through the whole chain."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest
import torch
import yaml

from geoloc.evaluation.diagnostics import Diagnostics
from geoloc.evaluation.measures.groups import continent_groups
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.models.classifier import load_model
from geoloc.photos.catalog import read_catalog
from geoloc.settings import SettingsError
from orchestration.lineage.build import Build
from orchestration.lineage.stale import stale_stages
from orchestration.plan.chain import MODEL_FILE, STAGES, output_folder
from orchestration.plan.settings import load_settings
from orchestration.workspace import WorkspaceError
from tests.photo_fixtures import read_photo_bytes
from tests.pipeline.conftest import BELOW_PARTITION, facts, geoloc

TUNED = {
    "partitions": {
        "fine": {"s2": {"max_photos": 30, "min_photos": 5}},
        "coarse": {"s2": {"max_photos": 90, "min_photos": 12}},
    },
    "model": {"weights": "recipe:default"},
    "training": {"epochs": 1, "head_weights": {"coarse": 0.5}},
    "localizers": {
        "crops": 5,
        "combine": ["product", "overlay"],
        "within_levels": True,
        "calibrate": True,
        "coverages": [0.8],
    },
    "evaluation": {"explained": 0},
}


def write_recipe(workspace, name, values):
    (workspace.recipes / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.mark.slow
def test_two_partitions_from_another_recipes_weights(workspace, tmp_path, capsys):
    write_recipe(workspace, "tuned", TUNED)
    assert geoloc(workspace, "build", "--recipe", "tuned") == 0
    capsys.readouterr()

    # Each partition has its folder; in the UI its map and its facts; the model has a head for each.
    folder = output_folder(workspace, "tuned", "partition")
    assert read_json(folder / "partitions.json") == ["fine", "coarse"]
    shown = facts(workspace, "tuned", "partition")
    cells = {name: shown[f"{name}/cells"].value for name in ("fine", "coarse")}
    assert cells["fine"] > cells["coarse"] > 1
    assert shown["coarse/training photos in no cell"].value > 0
    assert all("](data:image/png;base64," in shown[f"{name}/map"].value for name in cells)

    # What the default recipe made from the same is taken from there, and the record says so.
    tuned, source = Build(workspace, "tuned"), Build(workspace)
    assert tuned.record("splits").taken_from == "default/splits"
    assert tuned.record("splits").content == source.record("splits").content == tuned.content("splits")
    parts = tuned.record("partition").parts
    assert {name: part.taken_from for name, part in parts.items()} == {
        "fine": "default/partition",
        "coarse": None,
    }
    assert tuned.record("classifier").taken_from is None
    assert geoloc(workspace, "audit", "tuned/splits") == 0
    assert "taken from default/splits" in capsys.readouterr().out
    model = load_model(output_folder(workspace, "tuned", "classifier") / MODEL_FILE)
    assert model.heads == cells
    training = read_json(output_folder(workspace, "tuned", "classifier") / "training.json")
    assert training["left_out"]["training_no_cell_coarse"] > 0
    assert "coarse_accuracy" in training["history"][0]

    # Frozen features: the backbone is the one that the default recipe has.
    start = load_model(output_folder(workspace, "default", "classifier") / MODEL_FILE)
    for name, value in start.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name])

    # The methods are [M]…C, a row each; there is a ceiling for each partition.
    tables = output_folder(workspace, "tuned", "report") / "tables"
    methods = pd.read_csv(tables / "accuracy.csv")["method"].unique().tolist()
    assert methods[:2] == [f"[M]{cells['fine']}C", f"[M]{cells['coarse']}C"]
    both = f"{cells['fine']}+{cells['coarse']}"
    assert methods[2:4] == [f"[M]{cells['fine']}C product", f"[M]{both}C"]
    assert methods[4:9] == [f"[M]{cells['fine']}C for {km} km" for km in (1, 25, 200, 750, 2500)]
    assert "[M]NN" in methods
    assert set(pd.read_csv(tables / "ceilings.csv")["partition"]) == {"fine", "coarse"}
    numbers = read_json(output_folder(workspace, "tuned", "report") / "report.json")
    page = (output_folder(workspace, "tuned", "report") / "report.html").read_text()
    assert '<section id="diagnostics">' in page
    assert [row["partition"] for row in numbers["diagnostics"]["regions"]] == ["fine", "coarse"]
    assert f"<summary>Top k ({len(numbers['diagnostics']['top k'])})</summary>" in page
    assert numbers["partitions"]["coarse"]["photos_in_no_cell"] > 0

    check_what_stands_behind(output_folder(workspace, "tuned", "evaluation"), cells)

    row = read_catalog(workspace.pool).iloc[0]
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(read_photo_bytes(workspace.pool, row["shard"], row["offset"], row["length"]))
    said = {}
    for name in cells:
        command = ["locate", str(photo), "--recipe", "tuned", "--partition", name, "--json"]
        assert geoloc(workspace, *command) == 0
        said[name] = json.loads(capsys.readouterr().out)[0]
        assert said[name]["method"] == f"[M]{cells[name]}C"
    assert said["fine"]["alternatives"] != said["coarse"]["alternatives"]
    assert geoloc(workspace, "locate", str(photo), "--recipe", "tuned", "--partition", "middle") == 1
    assert "--partition must be one of fine, coarse; got middle" in capsys.readouterr().err

    # Lineage knows where the weights came from, DVC too, and the audit walks there.
    trained = source.record("classifier")
    record = Build(workspace, "tuned").record("classifier")
    assert record.inputs["weights"] == trained.content
    stages = yaml.safe_load(workspace.dvc_yaml.read_text())["stages"]
    assert "build/default/classifier" in stages["tuned-classifier"]["deps"]
    assert "build/default/classifier" not in stages["tuned-partition"]["deps"]
    assert geoloc(workspace, "audit", "tuned/classifier", "--json") == 0
    tree = json.loads(capsys.readouterr().out)
    found = next(node for node in tree["made_from"] if node["artefact"] == "default/classifier")
    assert found["on_disk"] == "intact"
    assert found["made_from"]

    # Another order of the same partitions is another build; nothing else is stale.
    assert stale_stages(Build(workspace, "tuned"), set(STAGES)) == {}
    turned = dict(reversed(TUNED["partitions"].items()))
    write_recipe(workspace, "tuned", TUNED | {"partitions": turned})
    stale = stale_stages(Build(workspace, "tuned"), set(STAGES))
    assert list(stale) == BELOW_PARTITION
    assert stale["partition"] == ["settings changed: partitions"]
    write_recipe(workspace, "tuned", TUNED)

    # Where the other recipe's classifier is built again and differs, this one is stale and the audit says why.
    dataclasses.replace(trained, content="0" * 64).write(Build(workspace).record_path("classifier"))
    with pytest.raises(
        WorkspaceError, match=r"default/classifier, which was changed or removed since it was built"
    ):
        stale_stages(Build(workspace, "tuned"), {"classifier"})
    assert geoloc(workspace, "audit", "tuned/classifier", "--json") == 0
    tree = json.loads(capsys.readouterr().out)
    found = next(node for node in tree["made_from"] if node["artefact"] == "default/classifier")
    assert found["on_disk"] == "replaced"


def check_what_stands_behind(folder, cells):
    """Calibration and diagnostics of the recipe that asks for all of it, recomputed from the answers."""
    for name in cells:
        assert TemperatureScaling.load(folder / f"temperature-{name}.json").temperature > 0
        # Infinite where more than a fifth of the validation photos are in no cell, as of the coarse partition.
        assert ConformalRegions.load(folder / f"conformal-{name}-0.8.json").threshold > 0
    regions = pd.read_csv(folder / "test" / "regions.csv")
    assert regions["partition"].tolist() == ["fine", "coarse"]
    evaluation = Evaluation.load(folder / "test")
    found = Diagnostics.load(folder / "test")
    assert found.method == evaluation.methods[0]
    first = (
        pd.read_csv(folder / "test" / "top_k.csv").query("k == 1").set_index(["method", "level"])["accuracy"]
    )
    assert set(evaluation.methods) == set(first.index.get_level_values("method"))
    whole = evaluation.accuracy.set_index(["method", "level"])["accuracy"]
    pd.testing.assert_series_equal(first.sort_index(), whole.sort_index())
    main = evaluation.per_photo[evaluation.per_photo["method"] == found.method]
    place = continent_groups(main["true_latitude"], main["true_longitude"])
    right = (main["error_km"] <= 200).groupby(place).mean()
    table = found.tables["accuracy_by_continent"].query("method == @found.method and level == 'region'")
    assert dict(zip(table["group"], table["accuracy"], strict=True)) == pytest.approx(dict(right))
    assert (folder / "test" / "risk_coverage.csv").is_file()
    assert found.tables["class_bias"]["cells"].tolist() == list(cells.values())


@pytest.mark.slow
def test_a_rebuilt_source_makes_what_starts_from_it_stale(workspace):
    nested = {
        "fine": {"s2": {"max_photos": 30, "min_photos": 5}},
        "coarse": {"s2": {"max_photos": 90, "min_photos": 5}},
    }
    model = {"weights": "recipe:default", "softmax": "hierarchical"}
    training = {"epochs": 1, "mode": "fine_tune", "distillation": {"recipe": "default"}}
    write_recipe(workspace, "tuned", {"partitions": nested, "model": model, "training": training})
    assert geoloc(workspace, "build", "--recipe", "tuned", "--only", "splits", "partition", "classifier") == 0
    recorded = Build(workspace, "tuned").record("classifier")
    assert recorded.inputs["teacher"] == Build(workspace).record("features").content
    trained = load_model(output_folder(workspace, "tuned", "classifier") / MODEL_FILE)
    assert trained.parents is not None
    assert len(trained.parents["fine"]) == trained.heads["fine"]
    params = workspace.root / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 1"))
    assert geoloc(workspace, "build", "--only", "classifier") == 0
    stale = stale_stages(Build(workspace, "tuned"), {"partition", "classifier"})
    assert stale == {"classifier": ["weights changed"]}
    stages = yaml.safe_load(workspace.dvc_yaml.read_text())["stages"]
    assert {"build/default/classifier", "build/default/features"} < set(stages["tuned-classifier"]["deps"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"localizers": {"combine": ["sum"]}}, r"localizers\.combine\[0\] must be one of product, overlay"),
        ({"localizers": {"combine": ["overlay"]}}, "overlay needs at least two partitions, got one: fine"),
        ({"localizers": {"combine": ["product"]}}, "product needs at least two partitions, got one: fine"),
        ({"localizers": {"combine": ["product", "product"]}}, "combine must name each value once"),
        ({"localizers": {"sigmas": [4, 4.0]}}, "sigmas must name each value once"),
        ({"embeddings": {"models": ["backbone"] * 2}}, r"embeddings\.models must name each value once"),
        ({"localizers": {"coverages": [0.9, 1]}}, r"coverages must be above 0 and below 1, got 1"),
        ({"localizers": {"calibrate": 2}}, r"localizers\.calibrate must be true or false, got 2"),
        ({"localizers": {"within_levels": [1]}}, r"localizers\.within_levels must be true or false"),
        (
            {"partitions": {"a": {}, "b": {"kind": "latlon"}}, "localizers": {"combine": ["product"]}},
            r"product needs partitions that nest: .*; got a \(s2\), b \(latlon\); overlay combines any",
        ),
        (
            {
                "partitions": {
                    "a": {"kind": "latlon", "latlon": {"split": "random"}},
                    "b": {"kind": "latlon", "latlon": {"split": "random", "seed": 1}},
                },
                "localizers": {"combine": ["product"]},
            },
            "product needs partitions that nest",
        ),
        ({"partitions": {}}, "partitions must name at least one, got none"),
        ({"partitions": {"Fine": None}}, "partitions must have lower-case words"),
        (
            {"partitions": {"fine": {"s2": {"max_photos": 0}}}},
            r"partitions\.fine\.s2\.max_photos must be at l",
        ),
        ({"training": {"head_weights": {"corse": 1}}}, r"training\.head_weights\.corse is not a partition"),
        ({"training": {"head_weights": {"fine": 0}}}, "must be above 0 for at least one partition"),
        (
            {"model": {"weights": "recipe:nothing"}},
            r"model\.weights must name one of the recipes default, .*; got nothing",
        ),
        ({"model": {"weights": "recipe:wrong"}}, "must not lead back to the same recipe: wrong from wrong"),
        ({"model": {"weights": "recipe:other"}}, "lead back .*: wrong from other from wrong"),
        (
            {"training": {"mode": "fine_tune", "distillation": {"recipe": "nothing"}}},
            r"training\.distillation\.recipe must name one of .*; got nothing",
        ),
        (
            {"training": {"distillation": {"recipe": "default"}}},
            r"distillation must be null when mode is frozen",
        ),
        ({"training": {"distillation": {}}}, r"training\.distillation\.recipe must be given"),
        ({"model": {"weights": "net.pth"}}, r"must be none, package, registry, recipe:NAME or a path"),
    ],
)
def test_wrong_settings_are_told_with_their_key(bare_workspace, values, message):
    write_recipe(bare_workspace, "wrong", values)
    write_recipe(bare_workspace, "other", {"model": {"weights": "recipe:wrong"}})
    with pytest.raises(SettingsError, match=message):
        load_settings(bare_workspace, "wrong")


def test_a_recipe_that_names_partitions_names_all_of_its_own(bare_workspace):
    write_recipe(bare_workspace, "coarse", {"partitions": {"coarse": {"s2": {"max_photos": 90}}}})
    assert list(load_settings(bare_workspace, "coarse").partitions) == ["coarse"]


def test_weights_of_a_recipe_that_is_not_built_stop_the_build_before_anything(bare_workspace, capsys):
    write_recipe(bare_workspace, "first", {"note": "never built"})
    write_recipe(bare_workspace, "second", {"model": {"weights": "recipe:first"}})
    assert geoloc(bare_workspace, "build", "--recipe", "second") == 1
    error = capsys.readouterr().err
    assert "second borrows from first/classifier, which is not built yet" in error
    assert "geoloc build --recipe first" in error
    assert not output_folder(bare_workspace, "second", "splits").exists()
