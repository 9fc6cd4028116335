"""`geoloc locate --table`: the answers of single photos, in a file, whole after a kill, with bad photos counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from orchestration.locate import table
from orchestration.locate.locate import Opened
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.pipeline.located_world import ask, files, make

ROWS = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    return make(tmp_path_factory.mktemp("located") / "w")


@pytest.fixture
def photos(made, tmp_path) -> Path:
    """A table of 20 photos, among them a missing one, one that is no picture, and a row without a file."""
    (tmp_path / "damaged.jpg").write_bytes(b"no picture")
    named = files(made, *range(ROWS))
    named[3], named[7], named[11] = "missing.jpg", "damaged.jpg", ""
    frame = pd.DataFrame({"photo_id": [f"a{i}" for i in range(ROWS)], "file": named, "note": "x"})
    frame.to_csv(tmp_path / "photos.csv", index=False)
    return tmp_path / "photos.csv"


def test_a_table_has_the_answers_of_single_photos_and_counts_bad_ones(made, photos, tmp_path, capsys):
    output, good = tmp_path / "answers.parquet", [i for i in range(ROWS) if i not in (3, 7, 11)]
    assert geoloc(made, "locate", "--table", str(photos), "--output", str(output)) == 0
    out = capsys.readouterr().out
    assert out.startswith("20 photos: 17 located, 3 not (2 missing_file, 1 unreadable_image); answers: ")
    found = pq.read_table(output).to_pylist()
    assert [one["photo_id"] for one in found] == [f"a{i}" for i in range(ROWS)]
    assert [one["row"] for one in found] == list(range(ROWS))
    for row in (3, 7, 11):
        assert (found[row]["latitude"], found[row]["alternatives"]) == (None, [])
        assert found[row]["error"]
    single = ask(made, capsys, *files(made, *good))
    for one, of in zip((found[i] for i in good), single, strict=True):
        assert (one["latitude"], one["longitude"], one["place"]) == (
            of["latitude"],
            of["longitude"],
            of["place"],
        )
        assert one["confidence"] == pytest.approx(of["confidence"], abs=1e-6)
        assert [other["why"] for other in one["alternatives"]] == [
            other["why"] for other in of["alternatives"]
        ]
        assert [region["tokens"] for region in one["regions"]] == [
            region["tokens"] for region in of["regions"]
        ]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("method", ["knn", "combined"])
def test_a_table_is_answered_by_neighbours_too(made, photos, tmp_path, capsys, method):
    output = tmp_path / "answers.parquet"
    command = ["--table", str(photos), "--output", str(output), "--method", method]
    assert geoloc(made, "locate", *command) == 0
    capsys.readouterr()
    found = pd.read_parquet(output).set_index("row")
    single = ask(made, capsys, *files(made, 0, 1, 2), "--method", method)
    for row, one in enumerate(single):
        assert found.loc[row, "method"] == one["method"]
        assert found.loc[row, "latitude"] == pytest.approx(one["latitude"])
        assert found.loc[row, "confidence"] == pytest.approx(one["confidence"], abs=1e-6)


def test_a_killed_call_goes_on_after_its_finished_parts(made, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(table, "PART_PHOTOS", 6)
    command = ["locate", "--table", str(photos), "--output", str(tmp_path / "a.parquet")]
    located, answer = [], Opened.locate

    def counted(self, read, *, most):
        if len(located) == most:
            raise KeyboardInterrupt
        located.append(len(read))
        return answer(self, read)

    monkeypatch.setattr(Opened, "locate", lambda self, read: counted(self, read, most=2))
    assert geoloc(made, *command) == 130
    assert not (tmp_path / "a.parquet").exists()
    monkeypatch.setattr(Opened, "locate", lambda self, read: counted(self, read, most=99))
    assert geoloc(made, *command) == 0
    assert located == [6, 6, 6, 2]
    assert "going on after 2 finished parts" in capsys.readouterr().err
    resumed = pq.read_table(tmp_path / "a.parquet")
    assert resumed["row"].to_pylist() == list(range(ROWS))

    # Another question is not answered with parts of this one.
    located.clear()
    monkeypatch.setattr(Opened, "locate", lambda self, read: counted(self, read, most=1))
    assert geoloc(made, *command) == 130
    monkeypatch.setattr(Opened, "locate", answer)
    assert geoloc(made, *command, "--partition", "coarse") == 0
    assert "starting anew" in capsys.readouterr().err
    methods = set(pq.read_table(tmp_path / "a.parquet")["method"].to_pylist())
    assert len(methods) == 1
    assert methods != set(resumed["method"].to_pylist())


def test_a_withheld_answer_has_its_reason(made, photos, tmp_path, capsys):
    output = tmp_path / "a.parquet"
    command = ["locate", "--table", str(photos), "--output", str(output), "--abstain-below", "1"]
    assert geoloc(made, *command) == 1
    assert "17 low_confidence" in capsys.readouterr().out
    assert np.isnan(pd.read_parquet(output)["latitude"]).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--table", "t.csv"], "--table needs --output"),
        (
            ["--table", "t.csv", "--output", "a.csv"],
            "--output must name a Parquet file (.parquet); got a.csv",
        ),
        (["--output", "a.parquet"], "--output is for --table"),
        ([], "name the photos to locate, or a table"),
        (["--table", "t.csv", "--output", "a.parquet", "p.jpg"], "exclude each other"),
        (["--table", "t.csv", "--output", "a.parquet", "--json"], "--table and --json exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_named(made, options, said, capsys):
    assert geoloc(made, "locate", *options) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.csv", "photo\na.jpg\n", "t.csv is damaged: it lacks the column file; it has photo"),
        ("t.csv", "file\n", "has no rows"),
        ("t.parquet", "no parquet", "t.parquet is damaged"),
        ("t.csv", None, "must name a CSV or Parquet file"),
    ],
)
def test_a_bad_table_is_one_line(made, tmp_path, name, text, said, capsys):
    if text is not None:
        (tmp_path / name).write_text(text)
    command = ["locate", "--table", str(tmp_path / name), "--output", str(tmp_path / "a.parquet")]
    assert geoloc(made, *command) == 1
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
