"""`geoloc claims` on a built workspace: what is tested, what is said to be missing, and what is refused."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from geoloc.evaluation.claims.published import PUBLISHED_CLAIMS
from geoloc.evaluation.result import Evaluation
from orchestration.plan.chain import output_folder
from orchestration.results.claims import claims, gather
from tests.pipeline.conftest import geoloc, stand_in


def test_what_is_built_is_tested_and_the_rest_names_its_role(built, tmp_path, capsys):
    file = tmp_path / "claims.json"
    assert geoloc(built, "claims", "--json", str(file)) == 0
    printed = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["recipes"] == ["default"]
    table = pd.DataFrame(found["claims"])
    assert len(table) == len(PUBLISHED_CLAIMS)
    method = Evaluation.load(output_folder(built, "default", "evaluation") / "test").methods[0]
    assert found["roles"]["fine"] == {"recipe": "default", "method": method}

    # The ceiling's difference is that of the evaluation's own table.
    ceilings = pd.read_csv(output_folder(built, "default", "evaluation") / "test" / "ceilings.csv")
    share = ceilings.set_index(["answer", "level"])["accuracy"]
    row = table[
        (table["claim"] == "centroid beats centre, perfect classifier, fine") & (table["level"] == "city")
    ]
    want = share["centroid", "city"] - share["centre", "city"]
    assert row["difference"].item() == pytest.approx(want, abs=1e-9)
    assert row["n"].item() == ceilings["n"].iloc[0]
    assert row["methods"].item() == "default:fine ceiling - default:fine ceiling centre"
    assert f"{100 * want:+.1f} [" in printed

    missing = table[table["claim"] == "finer wins at fine levels"]
    assert set(missing["verdict"]) == {"not built"}
    assert "finer wins at fine levels" not in printed
    untested = (table["verdict"] == "not built").sum()
    assert f"{untested} further claims need what is not built" in printed
    assert "  coarse: [L] of the same splits" in printed


def test_a_role_by_hand_is_compared(built):
    fine = Evaluation.load(output_folder(built, "default", "evaluation") / "test")
    report = claims(built, roles=[f"fine=default:{fine.methods[0]}", "coarse=default:[L]NN"])
    row = report.table.set_index(["claim", "level"]).loc[("finer wins at fine levels", "city")]
    accuracy = fine.accuracy.set_index(["method", "level"])["accuracy"]
    want = accuracy[fine.methods[0], "city"] - accuracy["[L]NN", "city"]
    assert row["difference"] == pytest.approx(want, abs=1e-9)
    assert row["verdict"] != "not built"


def test_recipes_of_one_setup_are_compared_and_others_are_not(workspace):
    """What was built decides who is compared, not what its recipe says since."""
    stand_in(workspace, "same")
    stand_in(workspace, "other", epochs=3)
    (workspace.recipes / "same.yaml").write_text("training: {epochs: 99}")
    report = claims(workspace)
    assert report.recipes == ("default", "other", "same")
    assert "coarse" not in report.roles  # as many cells
    setups = {one.recipe: one.setup for one in gather(workspace, "test")}
    assert setups["default"] == setups["same"] != setups["other"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--role", "fines=default:[L]NN"], "role must be one of fine, "),
        (["--role", "fine=nothing:[L]NN"], "recipe must be one of default; got 'nothing'"),
        (["--role", "fine=default:[X]NN"], "method of default must be one of [L]"),
        (["--role", "fine"], "NAME=RECIPE:METHOD"),
        (["--test", "tset"], "--test must be one of test; got 'tset'"),
    ],
)
def test_wrong_options_are_told_with_what_is_allowed(built, options, message, capsys):
    assert geoloc(built, "claims", *options) == 1
    assert message in capsys.readouterr().err


def test_nothing_built_is_told_what_to_do(bare_workspace, capsys):
    shutil.rmtree(bare_workspace.build)
    assert geoloc(bare_workspace, "claims") == 1
    assert "no recipe of" in (error := capsys.readouterr().err)
    assert "geoloc build" in error
