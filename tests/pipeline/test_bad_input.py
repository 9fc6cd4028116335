"""Settings and outputs that no classifier can be made of, as a user meets them: a line that says what and where."""

from __future__ import annotations

import re
import shutil

import pandas as pd
import pytest
import yaml

from orchestration.assets.inputs import read_photos
from orchestration.lineage.build import Build
from orchestration.plan.chain import STAGES, output_folder
from tests.pipeline.conftest import SMALL, facts, geoloc
from tests.unit.pretended import record_as_built


def cells(kind, **values):
    return {"partitions": {"fine": {"kind": kind, kind: values}}}


@pytest.mark.parametrize(
    ("values", "stage", "message"),
    [
        (
            {"partitions": {"fine": {"wanted_cells": 5000}}},
            "partition",
            r"failed: partitions\.fine\.wanted_cells must be .* got 5,000: .*min_photos",
        ),
        (
            cells("s2", max_photos=4000, min_photos=2000),
            "partition",
            r"failed: partitions\.fine: no cell is left: .* s2\.min_photos",
        ),
        (
            cells("cities", min_photos=2000),
            "partition",
            r"no cell is left: .* 2,000 of .* lower cities\.min_photos",
        ),
        (
            cells("latlon", max_photos=100_000, min_photos=1),
            "partition",
            r"check partition_suite_fine: partitions\.fine, .*at least minimum_cells cells \(1, minimum_cells is 2\)",
        ),
        (
            {"model": {"backbone": "resnet5O"}},
            "classifier",
            r"failed: model\.backbone must be .*'resnet5O' is unknown; the nearest known: resnet50,",
        ),
        (
            {"training": {"mode": "fine_tune", "learning_rate": 1e30, "batch_size": 16, "epochs": 1}},
            "classifier",
            r"the loss is (nan|inf) at epoch 1, step \d, learning rate .*: lower training\.learning_rate",
        ),
    ],
)
def test_what_no_classifier_can_be_made_of_is_told_in_a_line(workspace, values, stage, message, capfd):
    """Each ends before or in the first steps of a training, and leaves what was built as it was."""
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({**SMALL, **values}, sort_keys=False))
    trained = (output_folder(workspace, "default", "classifier") / "model.safetensors").read_bytes()
    assert geoloc(workspace, "build", "--only", stage, "--no-commit") == 1
    error = capfd.readouterr().err
    told = [line for line in error.splitlines() if line.startswith("geoloc: ")]
    assert len(told) == 1
    named = rf"geoloc: default/{stage} failed(: (?!geoloc\.)| its check )"  # and no name of a class
    assert re.match(named, told[0])
    assert re.search(message, told[0])
    assert "Traceback" not in error
    assert (output_folder(workspace, "default", "classifier") / "model.safetensors").read_bytes() == trained


def test_a_missing_suite_stops_a_build_before_anything_is_made(workspace, capfd):
    """As in a workspace that an older geoloc made."""
    (workspace.expectations / "embeddings.json").unlink()
    before = Build(workspace).built("classifier")
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({**SMALL, "seed": 4}, sort_keys=False))
    assert geoloc(workspace, "build", "--no-commit") == 1
    suite = workspace.root / "expectations" / "embeddings.json"
    said = f"geoloc: there is no suite {suite}; geoloc init {workspace.root} adds the missing ones\n"
    assert capfd.readouterr().err.endswith(said)
    assert Build(workspace).built("classifier") == before


def test_photos_in_no_cell_are_counted_where_people_look(workspace, capfd):
    few = {"partitions": {"fine": {"s2": {"max_photos": 60, "min_photos": 20}}}}
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({**SMALL, **few}, sort_keys=False))
    assert geoloc(workspace, "build", "--only", "partition", "--no-commit") == 0
    folder = output_folder(workspace, "default", "partition") / "fine"
    splits = read_photos(output_folder(workspace, "default", "splits"))
    train = splits[splits["split"] == "train"]
    inside = int(pd.read_parquet(folder / "cells.parquet")["photos"].sum())
    assert 0 < inside < len(train)
    shown = facts(workspace, "default", "partition")
    assert shown["fine/training photos in no cell"].value == len(train) - inside
    assert f"cells with {inside} of {len(train)} photos" in capfd.readouterr().err


def test_heads_of_other_partitions_stop_the_evaluation_with_what_to_do(workspace, capfd):
    folder = output_folder(workspace, "default", "partition")
    shutil.move(folder / "fine", folder / "coarse")
    (folder / "partitions.json").write_text('["coarse"]')
    assert geoloc(workspace, "build", "--only", "evaluation", "--no-commit", "--force") == 1
    assert "default/partition cannot be read: its files were changed or removed: " in capfd.readouterr().err
    record_as_built(Build(workspace), STAGES["partition"])
    assert geoloc(workspace, "build", "--only", "evaluation", "--no-commit", "--force") == 1
    told = capfd.readouterr().err.splitlines()[-1]
    assert told == (
        "geoloc: default/evaluation failed: the classifier of default was not built for its partitions: the model has "
        "the heads fine, the partitions are coarse; build it again with: geoloc build --recipe default"
    )


def test_a_classifier_of_other_cells_of_equal_number_stops_the_evaluation(workspace, capfd):
    build = Build(workspace)
    (build.folder("partition") / "other.txt").write_text("the same cells, built again from other photos")
    record_as_built(build, STAGES["partition"])
    assert geoloc(workspace, "build", "--only", "evaluation", "--no-commit", "--force") == 1
    assert (
        "the classifier of default was not built for its partitions: the partition was built again since; "
        "build it again with: geoloc build --recipe default"
    ) in capfd.readouterr().err
