"""`geoloc compare` on a built workspace: the same numbers as the reports, and what is refused."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import pages
from geoloc.evaluation.result import Evaluation
from geoloc.photos.catalog import read_catalog
from orchestration.lineage.build import Build
from orchestration.plan.chain import output_folder
from orchestration.results.compare import compare
from orchestration.tables import with_interval
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc, stand_in


def change_answers(workspace, recipe, change):
    """Alter a recipe's table of answers."""
    file = output_folder(workspace, recipe, "evaluation") / "test" / "per_photo.parquet"
    table = pd.read_parquet(file)
    file.unlink()  # it may be a link into DVC's cache
    change(table).to_parquet(file)


def test_methods_of_one_recipe_agree_with_its_report(built, capsys):
    evaluation = Evaluation.load(output_folder(built, "default", "evaluation") / "test")
    main = evaluation.methods[0]
    assert geoloc(built, "compare", "default", "default:[L]NN", "default:[backbone]NN", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["methods"] == [f"default:{main}", "default:[L]NN", "default:[backbone]NN"]
    assert found["unlike"] == []
    reported = evaluation.accuracy.set_index(["method", "level"])
    for row in found["accuracy"]:
        one = reported.loc[(row["method"].removeprefix("default:"), row["level"])]
        assert [row[c] for c in ("accuracy", "low", "high")] == [one["accuracy"], one["low"], one["high"]]
    pairs = evaluation.comparisons.set_index(["method", "other", "level"])
    assert len(found["differences"]) == 10
    for row in found["differences"]:
        assert row["other"] == f"default:{main}"
        # The report has it the other way round, and quantiles of -x are not exactly those of x at nearest ranks.
        one = pairs.loc[(main, row["method"].removeprefix("default:"), row["level"])]
        assert row["difference"] == pytest.approx(-one["difference"], abs=1e-9)
        assert row["n"] == evaluation.queries
    ceilings = evaluation.ceilings.query("answer == 'centroid'").set_index("level")["accuracy"]
    assert {row["method"] for row in found["partitions"]} == {f"default:{main}"}
    assert {row["level"]: row["ceiling"] for row in found["partitions"]} == dict(ceilings)
    assert f"[L]{found['partitions'][0]['cells']}C" == main


def test_recipes_are_paired_by_photo_and_resampled_by_photographer(workspace, capsys):
    """Against a loop: the other recipe's photos stand in another order, and a third of its answers are right."""

    def better(table):
        told = np.random.default_rng(0).random(len(table)) < 1 / 3
        for mine, true in (("latitude", "true_latitude"), ("longitude", "true_longitude")):
            table.loc[told, mine] = table.loc[told, true]
        return table.assign(error_km=np.where(told, 0.0, table["error_km"])).iloc[::-1]

    stand_in(workspace, "better", epochs=3)
    change_answers(workspace, "better", better)
    made = compare(workspace, ["default", "better"])
    assert made.unlike == ("better",)
    evaluation = Evaluation.load(output_folder(workspace, "default", "evaluation") / "test")
    photos = read_catalog(workspace.pool).set_index("photo_id")
    hits = []
    for recipe in ("default", "better"):
        rows = pd.read_parquet(output_folder(workspace, recipe, "evaluation") / "test" / "per_photo.parquet")
        rows = rows[rows["method"] == evaluation.methods[0]].set_index("photo_id").sort_index()
        hits.append((rows["error_km"] <= 2500).astype(float))
    gain = hits[1] - hits[0]
    row = made.measured.comparisons.set_index("level").loc["continent"]
    assert row["difference"] == pytest.approx(gain.mean()) != 0
    totals = gain.groupby(photos.loc[gain.index, "photographer"]).agg(["sum", "size"]).to_numpy()
    rng = np.random.default_rng(0)
    drawn = [np.divide(*totals[rng.integers(0, len(totals), len(totals))].sum(axis=0)) for _ in range(4000)]
    # As wide as the bootstrap of photographers or wider: it covers too seldom with few of them.
    assert row["low"] <= np.quantile(drawn, 0.025) + 0.5 * np.std(drawn)
    assert row["high"] >= np.quantile(drawn, 0.975) - 0.5 * np.std(drawn)
    assert row["high"] - row["low"] < 14 * np.std(drawn)
    assert row["low"] < row["difference"] < row["high"]

    assert geoloc(workspace, "compare", "default", "better") == 0
    printed = capsys.readouterr().out
    assert with_interval(row["difference"], row["low"], row["high"], sign="+") in printed
    assert "note: better differ in more than partitions" in printed
    tables = [block.splitlines() for block in printed.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    assert "GeoScore" in tables[1][0]
    assert all(len({len(line) for line in table}) == 1 for table in tables)


def test_recipes_of_other_test_photos_cannot_be_compared(workspace, capsys):
    first = Evaluation.load(output_folder(workspace, "default", "evaluation") / "test").per_photo["photo_id"][
        0
    ]
    stand_in(workspace, "fewer")
    stand_in(workspace, "moved")
    change_answers(workspace, "fewer", lambda table: table[table["photo_id"] != first])
    change_answers(workspace, "moved", lambda table: table.assign(true_latitude=table["true_latitude"] / 2))
    assert geoloc(workspace, "compare", "default", "fewer") == 1
    error = capsys.readouterr().err
    assert "default and fewer cannot be compared: the photos of 'test' are not the same" in error
    assert "112 and 111, 111 of them in common" in error
    assert geoloc(workspace, "compare", "default", "moved") == 1
    assert "places of photos of 'test' have changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing"], "recipe must be one of default, which are evaluated on 'test'; got 'nothing'"),
        (
            ["fine", "default", "boxes"],
            "no evaluation on 'test' yet of fine, boxes; build with: geoloc build --recipe fine; "
            "geoloc build --recipe boxes",
        ),
        (["default", "default:[X]NN"], "method of default must be one of [L]"),
        (["default:[L]NN", "default:[L]NN"], "methods must differ; default:[L]NN is named twice"),
        (["default", "--test", "tset"], "--test must be one of test; got 'tset'"),
    ],
)
def test_wrong_options_are_told_with_what_is_allowed(built, options, message, capsys):
    assert geoloc(built, "compare", *options) == 1
    assert message in capsys.readouterr().err


def test_shares_are_shown_as_per_cent_with_their_interval():
    assert with_interval(0.1234, 0.1, 0.2) == "12.3 [10.0, 20.0]"
    assert with_interval(0.012, -0.004, 0.03, sign="+") == "+1.2 [-0.4, +3.0]"
    assert with_interval(0.5, np.nan, np.nan) == "50.0"
    assert with_interval(np.nan, np.nan, np.nan) == ""


@pytest.mark.parametrize("method", [":x", "", " :x"])
def test_a_method_without_its_recipe_is_called_wrongly(method, tmp_path, capsys):
    assert geoloc(Workspace(tmp_path), "compare", "default", method) == 2
    assert capsys.readouterr().err == f"geoloc: METHODS must be RECIPE or RECIPE:METHOD; got {method!r}\n"


@pytest.mark.slow
def test_a_recipe_trained_again_shares_what_is_equal_and_is_undecided_against_itself(workspace, capsys):
    wanted = (
        "splits partition features classifier embeddings index evaluation"  # no report, which takes longest
    )
    assert geoloc(workspace, "build", "--recipe", "default@8", "--only", *wanted.split()) == 0
    taken = {
        stage: Build(workspace, "default@8").record(stage).taken_from
        for stage in ("splits", "partition", "features")
    }
    assert taken == {stage: f"default/{stage}" for stage in taken}
    trained = [Build(workspace, recipe).record("classifier") for recipe in ("default", "default@8")]
    assert trained[0].content != trained[1].content
    assert trained[1].settings["training"]["seed"] == 8
    stages = yaml.safe_load(workspace.dvc_yaml.read_text())["stages"]
    assert "default__seed8-classifier" in stages
    capsys.readouterr()

    assert geoloc(workspace, "compare", "default", "default@8", "--json") == 0
    apart = json.loads(capsys.readouterr().out)
    assert apart["knows_luck"]
    assert apart["unlike"] == []
    assert {row["verdict"] for row in apart["differences"]} == {"undecided"}
    assert all(row["low"] < 0 < row["high"] for row in apart["differences"])

    main, nearest = apart["compared_with"].partition(":")[2], "[backbone]NN"
    assert geoloc(workspace, "compare", "default", f"default:{nearest}", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trainings"] == {f"default:{name}": ["default", "default@8"] for name in (main, nearest)}
    shares = {(row["method"], row["level"]): row["accuracy"] for row in found["accuracy"]}
    for row in found["differences"]:
        runs = [
            shares[f"{recipe}:{nearest}", row["level"]] - shares[f"{recipe}:{main}", row["level"]]
            for recipe in ("default", "default@8")
        ]
        assert row["difference"] == pytest.approx(np.mean(runs), abs=1e-9)
    assert geoloc(workspace, "claims") == 0
    assert (
        "intervals over photographers and trainings together; further: default@8" in capsys.readouterr().out
    )


def test_the_tables_of_a_page_are_what_its_commands_print(built, tmp_path, capsys):
    page = tmp_path / "page.md"
    command = "compare default 'default:[L]NN'"
    page.write_text(f"Before.\n<!-- geoloc {command} -->\nold\n<!-- end -->\nAfter.\n")
    asked = [str(page), "--workspace", str(built.root)]
    assert pages.main([*asked, "--check"]) == 1
    assert "old" in page.read_text()
    assert pages.main(asked) == 0
    assert pages.main([*asked, "--check"]) == 0
    capsys.readouterr()
    geoloc(built, *shlex.split(command))
    printed = capsys.readouterr().out.strip()
    assert page.read_text() == f"Before.\n<!-- geoloc {command} -->\n\n{printed}\n\n<!-- end -->\nAfter.\n"


def test_what_a_script_prints_stands_in_a_page_verbatim():
    page = "<!-- python benchmarks/x.py --sections 2 -->\nold\n<!-- end -->\n"
    asked = []
    again = pages.printed_again(page, lambda words: asked.append(words) or "```text\nnew\n```")
    assert asked == [["python", "benchmarks/x.py", "--sections", "2"]]
    assert again == page.replace("old", "\n```text\nnew\n```\n")


def test_a_page_names_the_trainings_that_it_needs():
    page = "<!-- built: fine fine@1 -->\ntext\n<!-- built: fine kmeans -->\n"
    assert pages.recipes_of(page) == ["fine", "fine@1", "kmeans"]
