"""`geoloc diff` and `geoloc reproduce`, on copies of one build whose records and answers are changed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import datetime

import pandas as pd
import pytest

from orchestration.lineage.build import Build
from orchestration.lineage.earlier import keep_earlier
from orchestration.operations.outputs import keep_calibration
from orchestration.results import reproduce as module
from orchestration.results.sides import open_side
from orchestration.workspace import WorkspaceError
from tests.pipeline.conftest import copy_workspace, geoloc, stand_in


@pytest.fixture
def other(workspace):
    """A recipe `other` with two epochs more and another seed, whose first method answers some photos otherwise."""
    stand_in(workspace, "other", epochs=4, seed=9)
    build = Build(workspace, "other")
    for stage in ("partition", "features", "embeddings", "index"):
        dataclasses.replace(Build(workspace).built(stage), recipe="other").write(build.record_path(stage))
    trained = build.built("classifier")
    dataclasses.replace(trained, content="c" * 64).write(build.record_path("classifier"))
    file = build.folder("evaluation") / "test" / "per_photo.parquet"
    rows = pd.read_parquet(file)
    first = rows.index[rows["method"] == rows["method"].iloc[0]]
    rows.loc[first[:28], "latitude"] = rows.loc[first[:28], "latitude"] - 3.0  # 334 km
    rows.loc[first[:7], ["latitude", "longitude", "error_km"]] = [0.0, 0.0, 0.0]
    file.unlink()
    rows.to_parquet(file, index=False)
    record = build.built("evaluation")
    inputs = {**record.inputs, "classifier": "c" * 64}
    dataclasses.replace(record, content="d" * 64, inputs=inputs).write(build.record_path("evaluation"))
    return len(first)


def asked(workspace, capsys, *words):
    capsys.readouterr()
    assert geoloc(workspace, *words, "--json") in (0, 1)
    return json.loads(capsys.readouterr().out)


def test_a_report_does_not_differ_from_itself(built, capsys):
    assert geoloc(built, "diff", "default", "default/report") == 0
    told = capsys.readouterr().out
    assert "equal: every number and every answer is the same" in told


def test_settings_and_seeds_are_told_apart_and_moved_answers_are_counted_by_level(workspace, capsys, other):
    found = asked(workspace, capsys, "diff", "default", "other")
    assert found["reasons"] == ["settings", "seeds"]
    stages = {stage["stage"]: stage for stage in found["stages"]}
    trained = stages["classifier"]
    assert [(key, now) for key, _, now in trained["seeds"]] == [("training.seed", 9)]
    assert trained["settings"] == [["training.epochs", 2, 4]]
    assert stages["evaluation"]["own"] == []
    assert stages["evaluation"]["inputs"] == ["classifier"]
    rows = {
        row["level"]: row for row in found["changes"]["test"]["levels"] if row["method"].startswith("[L]9C")
    }
    assert found["changes"]["test"]["photos"] == other
    assert rows["region"]["moved"] == pytest.approx(28 / other, abs=8 / other)
    assert rows["street"]["gained"] == 7 / other
    assert rows["street"]["lost"] == 0
    assert geoloc(workspace, "diff", "default", "other") == 0
    assert "settings: training.epochs 2 and 4" in capsys.readouterr().out


def test_an_earlier_report_is_compared_by_what_mlflow_kept_of_it(workspace, capsys):
    build = Build(workspace)
    before = build.built("evaluation")
    now = dataclasses.replace(before, content="a" * 64, mlflow_run="b" * 32, code_version="another")
    keep_earlier(build, now)
    now.write(build.record_path("evaluation"))
    found = asked(workspace, capsys, "diff", before.mlflow_run, "default")
    assert found["reasons"] == ["code"]
    assert set(found["changes"]["test"]["answers_changed"].values()) == {0.0}
    # A take-down removes its answers; why the two differ is still told.
    keep_calibration(workspace.mlflow / "artifacts" / str(before.mlflow_run) / "artifacts")
    found = asked(workspace, capsys, "diff", before.mlflow_run, "default")
    assert (found["reasons"], found["changes"]) == (["code"], {})
    assert found["not_compared"][0].endswith("left with photos that were taken down")


def test_what_is_no_report_is_one_line(built, capsys):
    assert geoloc(built, "diff", "default", "default/index") == 1
    assert (
        capsys.readouterr().err
        == "geoloc: default/index names default/index, not a report or an evaluation\n"
    )


def test_a_report_is_built_again_from_its_photos_settings_and_code(workspace, tmp_path, capsys, monkeypatch):
    def copied(scratch, recipe, code, origin, say):
        assert (code / "orchestration" / "cli.py").is_file()
        shutil.copytree(workspace.build, scratch.build)

    monkeypatch.setattr(module, "_build", copied)
    folder = tmp_path / "again"
    assert geoloc(workspace, "reproduce", "report", "--into", str(folder)) == 0
    assert "numbers are equal to the last digit" in capsys.readouterr().out
    for name in ("params.yaml", "data/catalog.parquet"):
        assert (folder / "workspace" / name).read_bytes() == (workspace.root / name).read_bytes()
    assert geoloc(workspace, "reproduce", "report", "--into", str(folder)) == 1
    assert "must be empty or missing" in capsys.readouterr().err


def test_a_number_that_differs_in_its_last_digit_is_named(workspace, tmp_path):
    again = copy_workspace(workspace.root, tmp_path / "again")
    file = Build(again).folder("evaluation") / "test" / "evaluation.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["accuracy"][0]["high"] += 1e-15
    file.write_text(json.dumps(values))  # a copy: JSON is not shared
    found = module.compared(open_side(workspace, "report"), open_side(again, "default"))
    assert not found.reproduced
    assert [name for name, *_ in found.unequal] == ["test/accuracy/0/high"]


def test_what_was_taken_down_cannot_be_reproduced_and_says_how_much(workspace, capsys):
    build = Build(workspace)
    record = build.built("splits")
    dataclasses.replace(record, taken_down=3).write(build.record_path("splits"))
    assert geoloc(workspace, "reproduce", "report") == 1
    assert (
        "cannot be reproduced: 3 photos behind it were taken down since it was made"
        in capsys.readouterr().err
    )


def test_an_earlier_report_of_photos_that_were_taken_down_is_not_made_from_the_cache(workspace, tmp_path):
    from geoloc.photos.catalog import read_catalog
    from geoloc.photos.quarantine import digest
    from geoloc.photos.tombstones import PHOTO, add_tombstones, bytes_text

    side, key = open_side(workspace, "report"), workspace.photographer_key()
    sha256 = read_catalog(workspace.pool, ["sha256"])["sha256"].dropna().iloc[:2]
    digests = [(digest(key, bytes_text(one)), PHOTO) for one in sha256]
    add_tombstones(workspace.pool, digests, datetime(2026, 1, 1), "asked to")
    with pytest.raises(WorkspaceError, match="cannot be reproduced: 2 photos behind it were taken down"):
        module.prepare(side, tmp_path / "again")
    assert not (tmp_path / "again" / "workspace").exists()


def test_a_data_version_that_is_gone_is_one_line(workspace, capsys):
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    assert geoloc(workspace, "reproduce", "report") == 1
    assert "is not in DVC's cache" in capsys.readouterr().err
