"""`geoloc score` on the test photos of a build: the numbers of its report, and the differences of `geoloc compare`."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from geoloc.evaluation.result import Evaluation
from orchestration.plan.chain import output_folder
from tests.pipeline.conftest import geoloc


@pytest.fixture
def predictions(built, tmp_path):
    """The answers of [L]NN as somebody else's file, in another order, and those of the test photos."""
    rows = pd.read_parquet(output_folder(built, "default", "evaluation") / "test" / "per_photo.parquet")
    rows = rows[rows["method"] == "[L]NN"].iloc[::-1]
    file = tmp_path / "theirs.csv"
    rows[["photo_id", "latitude", "longitude"]].to_csv(file, index=False)
    rows[["photo_id", "true_latitude", "true_longitude"]].to_csv(tmp_path / "truth.csv", index=False)
    return file


def told(workspace, capsys, *arguments):
    assert geoloc(workspace, *map(str, arguments), "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_with_the_answers_of_a_build_gets_its_numbers(built, predictions, capsys):
    evaluation = Evaluation.load(output_folder(built, "default", "evaluation") / "test")
    found = told(built, capsys, "score", predictions, "recipe:default", "--with", "default:[L]NN")
    assert found["methods"] == ["theirs", "default:[L]NN"]
    assert found["references"] == evaluation.references
    for table, value in (("accuracy", "accuracy"), ("scores", "value")):
        ours = getattr(evaluation, table)
        ours = ours[ours["method"] == "[L]NN"].drop(columns="method").to_dict(orient="records")
        for method in found["methods"]:
            theirs = [row for row in found[table] if row["method"] == method]
            assert [[row[k] for k in (value, "low", "high", "n")] for row in theirs] == [
                [pytest.approx(row[k]) for k in (value, "low", "high", "n")] for row in ours
            ]
    baselines = evaluation.baselines[evaluation.baselines["baseline"] == "random reference"]
    drawn = [row["accuracy"] for row in found["baselines"] if row["baseline"] == "random reference"]
    assert drawn == pytest.approx(list(baselines["accuracy"]))


def test_files_and_builds_are_compared_as_builds_are(built, predictions, capsys):
    compared = told(built, capsys, "compare", "default:[L]NN", "default")
    found = told(built, capsys, "score", predictions, "recipe:default", "--with", "default")
    pairs = [row for row in found["differences"] if row["other"] == "theirs"]
    keys = ("level", "difference", "low", "high", "p", "p_corrected", "verdict", "n")
    assert [[row[k] for k in keys] for row in pairs] == [
        [row[k] for k in keys] for row in compared["differences"]
    ]
    assert compared["scores"]


def test_builds_are_compared_on_the_photos_of_a_file_only_if_they_were_tested_on_them(
    built, predictions, capsys
):
    truth = predictions.with_name("truth.csv")
    found = told(built, capsys, "score", predictions, truth, "--with", "default:[L]NN", "--ignore-unmatched")
    assert {row["difference"] for row in found["differences"]} == {0}
    table = pd.read_csv(truth)
    table.assign(true_latitude=table["true_latitude"] / 2).to_csv(truth, index=False)
    assert geoloc(built, "score", str(predictions), str(truth), "--with", "default:[L]NN") == 1
    assert "are at other places in its test set 'test' than in the truth" in capsys.readouterr().err
    more = table.iloc[:2].assign(photo_id=["new", "newer"])
    pd.concat([table, more]).to_csv(truth, index=False)
    assert geoloc(built, "score", str(predictions), str(truth), "--with", "default:[L]NN") == 1
    assert "2 of 114 true photos are not in its test set 'test', which has 112" in capsys.readouterr().err


def test_evaluations_hold_the_scores_and_the_likelihood_of_classes(built):
    evaluation = Evaluation.load(output_folder(built, "default", "evaluation") / "test")
    scores = evaluation.scores.set_index(["method", "measure"])["value"]
    baselines = {"densest cell", "best constant point"}
    assert {method for method, _ in scores.index} == set(evaluation.methods) | baselines
    by_class = [method for method, measure in scores.index if measure == "NLL"]
    assert evaluation.methods[0] in by_class
    assert "[L]NN" not in by_class
    page = (output_folder(built, "default", "report") / "report.html").read_text()
    assert "GeoScore" in page
    assert f"{scores['[L]NN', 'GeoScore']:,.0f}" in page
