"""A recipe whose methods by neighbour are chosen on validation photos, from its build to `geoloc locate`."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml

from geoloc.evaluation.result import Evaluation
from geoloc.sphere import LEVELS_KM
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc

RECIPE = {
    "localizers": {
        "calibrate": True,
        "coverages": [0.8],
        "neighbours": {
            "methods": ["levels", "product", "cells"],
            "ks": [5, 40],
            "sigmas": [0.5, 8],
            "weights": [1],
            "cells": [2],
        },
    },
    "evaluation": {"explained": 2},
}


@pytest.mark.slow
def test_chosen_methods_are_measured_shown_and_asked(workspace: Workspace, capsys, tmp_path):
    (workspace.recipes / "chosen.yaml").write_text(yaml.safe_dump(RECIPE))
    assert geoloc(workspace, "build", "--recipe", "chosen", "--no-commit") == 0
    capsys.readouterr()
    kept = output_folder(workspace, "chosen", "evaluation")
    found = Evaluation.load(kept / "test")
    (cells,) = (m for m in found.methods if m.endswith("C+kNN"))
    rows = ["[L]kNN", *(f"[L]kNN for {km:g} km" for km in LEVELS_KM.values()), cells]
    assert found.methods[-7:] == rows
    assert cells == f"{found.methods[0]}+kNN"
    table = pd.read_csv(kept / "test" / "chosen_on_validation.csv")
    assert table["method"].tolist() == rows
    splits = pd.read_parquet(output_folder(workspace, "chosen", "splits") / "splits.parquet")
    validation = splits[(splits["split"] == "validation") & splits["sha256"].notna()]
    # Those of one use of the validation split, which is small here and shared by all uses; never a test photo.
    part = validation["validation_part"].isin(["selection", "shared"])
    assert set(table["photos"]) == {int(part.sum())}
    # Whether the combination beats both alone is said, whatever the answer.
    against = pd.read_csv(kept / "test" / "combined_against_alone.csv")
    assert set(against["method"]) == {cells}
    assert against["other"].tolist() == [
        found.methods[0], "[L]NN", *(m for m in found.methods if m.startswith("[L]kNN σ")), "[L]kNN"
    ]  # fmt: skip
    accuracy = found.accuracy.set_index(["method", "level"])["accuracy"]
    for row in against.to_dict(orient="records"):
        for level in LEVELS_KM:
            points, verdict = row[level].split()
            gain = 100 * (accuracy[cells, level] - accuracy[row["other"], level])
            assert float(points) == pytest.approx(gain, abs=0.051)
            assert verdict == "undecided" or verdict == ("better" if gain > 0 else "worse")
    sure = pd.read_csv(kept / "test" / "confidences_by_neighbour.csv")
    assert sure["method"].tolist() == rows
    right = [accuracy[name, "region" if name in (rows[0], cells) else level] for name, level in
             zip(rows, ["region", *LEVELS_KM, "region"], strict=True)]  # fmt: skip
    answered = found.errors.set_index("method").loc[rows, "answered"].to_numpy()
    assert (sure["right"] * answered / found.queries).tolist() == pytest.approx(right)
    regions = pd.read_csv(kept / "test" / "regions_by_neighbour.csv")
    assert regions["method"].tolist() == ["[L]kNN", cells]
    assert (regions["n"] == found.queries).all()
    page = (output_folder(workspace, "chosen", "report") / "report.html").read_text()
    assert "Neighbours and their density" in page
    assert "Chosen on validation" in page
    assert "kNN for 25 km" in page
    figures = {file.stem for file in (output_folder(workspace, "chosen", "report") / "figures").iterdir()}
    drawn = [m for m in found.methods if " km" not in m and not m.endswith("]kNN")]
    assert {name for name in figures if name.startswith("errors")} == {
        f"errors-{i + 1}" for i in range(len(drawn))
    }
    # A test photo is placed by `geoloc locate` where the evaluation placed it.
    answers = found.per_photo.set_index(["method", "photo_id"])
    from geoloc.photos.catalog import read_catalog
    from geoloc.photos.shards import ShardReader

    catalog = read_catalog(workspace.pool).set_index("photo_id")
    photo_id = answers.loc[cells].query("status == 'answered'").index[0]
    photo = catalog.loc[photo_id]
    file = tmp_path / "photo.jpg"
    with ShardReader(workspace.pool) as reader:
        file.write_bytes(reader.read(photo["shard"], int(photo["offset"]), int(photo["length"])))
    for options, method in (
        (["--method", "neighbours"], "[L]kNN"),
        (["--method", "neighbours", "--level", "country"], "[L]kNN for 750 km"),
        (["--method", "combined"], cells),
    ):
        assert geoloc(workspace, "locate", "--recipe", "chosen", str(file), *options, "--json") == 0
        (one,) = json.loads(capsys.readouterr().out)
        expected = answers.loc[method, photo_id]
        assert one["method"] == method
        assert (one["latitude"], one["longitude"]) == pytest.approx(
            (expected["latitude"], expected["longitude"])
        )
        assert one["confidence"] == pytest.approx(expected["confidence"], abs=2e-3)
        assert one["scaled"]
        assert one["nearby"]["photographers"] >= 1
        assert one["regions"][0]["coverage"] == 0.8
