"""`geoloc locate` answers from what the records describe, or says in one line why it does not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from geoloc.evaluation.evaluate import evaluate
from geoloc.files import read_json, write_json
from geoloc.localizers.base import Answers
from geoloc.photos.catalog import read_catalog
from geoloc.sphere import LEVELS_KM
from orchestration.lineage.build import Build
from orchestration.lineage.checks import read_results, write_result
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.pipeline.located_world import (
    TRAINING,
    ask,
    files,
    make,
    put_network,
    record,
)

CLASS, NN, BACKBONE = [], ["--method", "nn"], ["--method", "knn", "--model", "backbone"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    return make(tmp_path_factory.mktemp("located") / "w")


@pytest.fixture
def changed(made, tmp_path) -> Workspace:
    """A copy, free to change."""
    shutil.copytree(made.root, tmp_path / "w")
    return Workspace.open(tmp_path / "w")


def refused(workspace: Workspace, capsys, *options: str) -> str:
    """The one line that says why there is no answer."""
    assert geoloc(workspace, "locate", *files(workspace, 40), *options) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("geoloc: ")
    assert shown.err.count("\n") == 1
    return shown.err


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("stage", "file", "damage", "options"),
    [
        ("index", "classifier/index.faiss", flip, NN),
        ("index", "classifier/references.parquet", flip, NN),
        ("index", "backbone/index.faiss", truncate, BACKBONE),
        ("classifier", "model.safetensors", flip, CLASS),
        ("classifier", "model.safetensors", truncate, NN),
        ("classifier", "model.safetensors", Path.unlink, CLASS),
        ("partition", "fine/cells.parquet", flip, CLASS),
        ("partition", "partitions.json", Path.unlink, CLASS),
        ("evaluation", "temperature-fine.json", flip, CLASS),
        ("splits", "splits.parquet", truncate, ["--level", "city"]),
    ],
)
def test_an_output_that_is_not_what_its_record_says_answers_nothing(
    stage, file, damage, options, changed, capsys
):
    damage(output_folder(changed, "default", stage) / file)
    error = refused(changed, capsys, *options)
    assert f"default/{stage} is not what its record says" in error
    assert "geoloc build --recipe default" in error


@pytest.mark.parametrize(("stage", "options"), [("classifier", CLASS), ("index", NN), ("embeddings", NN)])
def test_an_output_without_a_record_of_its_own_answers_nothing(stage, options, changed, capsys):
    build = Build(changed)
    other = dataclasses.replace(build.built(stage), artefact=f"fine/{stage}", recipe="fine")
    other.write(build.record_path(stage))
    error = refused(changed, capsys, *options)
    assert (
        f"build/default/lineage/{stage}.json is the record of fine/{stage}, not of default/{stage}" in error
    )
    build.record_path(stage).unlink()
    error = refused(changed, capsys, *options)
    assert f"default/{stage} has no record of what made it (build/default/lineage/{stage}.json" in error
    build.record_path(stage).write_text("{")
    assert f"{stage}.json is damaged" in refused(changed, capsys, *options)


def test_a_newer_model_beside_an_older_index_is_named_and_the_other_way_round(changed, capsys):
    put_network(changed, seed=2)
    error = refused(changed, capsys, *NN)
    assert "default/embeddings was made from another default/classifier than the one there now" in error
    assert ask(changed, capsys, *files(changed, 40))  # by class needs no index
    build = Build(changed)
    inputs = build.built("embeddings").inputs | {"classifier": build.built("classifier").content}
    dataclasses.replace(build.built("embeddings"), inputs=inputs, content="newer").write(
        build.record_path("embeddings")
    )
    error = refused(changed, capsys, *NN)
    assert "default/index was made from another default/embeddings than the one there now" in error


def test_a_consistent_build_that_is_out_of_date_answers_and_says_so(changed, capsys):
    before = ask(changed, capsys, *files(changed, 40), *NN)
    params = changed.root / "params.yaml"
    settings = yaml.safe_load(params.read_text())
    params.write_text(yaml.safe_dump(settings | {"training": {"epochs": 99}}, sort_keys=False))
    assert geoloc(changed, "locate", *files(changed, 40), *NN, "--json") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == before
    assert "default is out of date (classifier: settings changed: training.epochs)" in shown.err
    assert "geoloc build --recipe default" in shown.err


def test_a_backbone_that_the_settings_no_longer_describe_is_not_asked(changed, capsys):
    params = changed.root / "params.yaml"
    params.write_text(params.read_text().replace("image_size: 40", "image_size: 32"))
    error = refused(changed, capsys, *BACKBONE)
    assert "another backbone than the settings describe now (model.image_size changed)" in error


def test_an_output_that_failed_its_check_answers_nothing_until_it_is_accepted(changed, capsys):
    build = Build(changed)
    (passed,) = read_results(build, "embeddings").values()
    write_result(build, "embeddings", dataclasses.replace(passed, critical=1, summary="all are alike"))
    error = refused(changed, capsys, *NN)
    assert "default/embeddings must not be used: it failed its check embeddings_suite: all are alike" in error
    accept = ["--check", "embeddings_suite", "--reason", "looked at by hand"]
    assert geoloc(changed, "accept", "embeddings", *accept) == 0
    capsys.readouterr()
    assert ask(changed, capsys, *files(changed, 40), *NN)
    build.checks_path("embeddings").unlink()
    assert geoloc(changed, "locate", *files(changed, 40), *NN) == 0
    assert "default/embeddings was not checked (embeddings_suite)" in capsys.readouterr().err


def no_networks(monkeypatch) -> None:
    """Loading a network, or hashing what a build saved, fails the test."""
    for name in ("_open", "verified"):
        monkeypatch.setattr(f"orchestration.locate.locate.{name}", lambda *_: pytest.fail("too early"))


def test_nothing_is_loaded_for_files_that_are_no_photos_and_each_is_named(
    made, capsys, tmp_path, monkeypatch
):
    no_networks(monkeypatch)
    (tmp_path / "note.jpg").write_text("no picture")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "loop").symlink_to("loop")
    undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    names = ["missing.jpg", "note.jpg", "pipe", "huge.jpg", "loop", "."]
    bad = [*(str(tmp_path / name) for name in names), "/dev/zero", undecodable]
    assert geoloc(made, "locate", *bad) == 1
    shown = capsys.readouterr()
    for reason in (
        "missing.jpg\n  no answer: No such file or directory",
        "pipe\n  no answer: it is a named pipe, not a photo file",
        "huge.jpg\n  no answer: too_large_file",
        f"{tmp_path}\n  no answer: it is a directory, not a photo file",
        "/dev/zero\n  no answer: it is a device, not a photo file",
    ):
        assert reason in shown.out
    assert shown.out.count("no answer: ") == len(bad)
    assert "8 of 8 photos cannot be read: " in shown.err
    assert shown.err.endswith("; and 3 more\ngeoloc: no photo was located\n")


def test_one_photo_among_files_that_are_none_is_located(made, capsys, tmp_path):
    missing = str(tmp_path / "missing.jpg")
    assert geoloc(made, "locate", missing, *files(made, 40), "--json") == 0
    shown = capsys.readouterr()
    assert [one["latitude"] is None for one in json.loads(shown.out)] == [True, False]
    assert shown.err == f"geoloc: 1 of 2 photos cannot be read: {missing}: No such file or directory\n"


def test_a_map_that_cannot_be_written_fails_at_once(made, capsys, tmp_path, monkeypatch):
    no_networks(monkeypatch)
    (tmp_path / "file").touch()
    photo = files(made, 40)[0]
    for page, why in (
        (tmp_path, "--map must name a file that can be written"),
        (tmp_path / "file" / "map.html", "--map must name a file that can be written"),
        (Path(photo), "would replace a photo that is asked about"),
    ):
        assert geoloc(made, "locate", photo, "--map", str(page)) == 2
        assert why in capsys.readouterr().err


def put_evaluation(workspace: Workspace, right: Callable[[int], bool]) -> None:
    """An evaluation in which by class is right for the chosen test photos, and elsewhere on Earth for the others."""
    train, test = (
        read_catalog(workspace.pool).iloc[part] for part in (slice(TRAINING), slice(TRAINING, None))
    )
    hit = [right(i) for i in range(len(test))]
    latitude = test["latitude"].where(hit, -test["latitude"]).to_numpy()
    longitude = test["longitude"].where(hit, (test["longitude"] + 360) % 360 - 180).to_numpy()
    name = ask_method(workspace)
    answers = Answers(latitude, longitude, confidence=latitude * 0 + 0.5)
    made = evaluate({name: answers}, test.reset_index(drop=True), train, seed=1)
    folder = output_folder(workspace, "default", "evaluation")
    made.save(folder / "test")
    write_json(folder / "evaluations.json", ["test"])
    record(workspace, "evaluation")


def ask_method(workspace: Workspace) -> str:
    cells = read_json(output_folder(workspace, "default", "partition") / "fine" / "partition.json")
    return f"[M]{cells['cell_count']}C"


def test_above_each_answer_stands_where_the_build_is_worse_than_its_best_baseline(changed, capsys, tmp_path):
    put_evaluation(changed, right=lambda i: False)
    page = tmp_path / "map.html"
    assert geoloc(changed, "locate", *files(changed, 40, 41), "--map", str(page)) == 0
    shown = capsys.readouterr().out
    note = (
        rf"note: at continent level \(2500 km\) this build \({re.escape(ask_method(changed))}\) is right for 0\.0 % of "
        r"test photos, its best baseline \(.*\) for \d+\.\d %"
    )
    assert len(re.findall(rf"{note}\n  -?\d+\.\d+, ", shown)) == 2  # above the coordinates of each
    assert len(re.findall(note, page.read_text())) == 2
    worse = ask(changed, capsys, *files(changed, 40))[0]["worse_than_baseline"]
    assert {one["level"] for one in worse} <= set(LEVELS_KM)
    assert all(one["accuracy"] < one["baseline_accuracy"] for one in worse)
    found = ask(changed, capsys, *files(changed, 40), "--level", "continent")[0]["worse_than_baseline"]
    assert found == [one for one in worse if one["level"] == "continent"]


def test_no_note_stands_above_answers_of_a_good_build_nor_by_an_evaluation_of_another_network(
    changed, capsys
):
    put_evaluation(changed, right=lambda i: True)
    assert ask(changed, capsys, *files(changed, 40))[0]["worse_than_baseline"] == []
    put_evaluation(changed, right=lambda i: False)
    put_network(changed, seed=2)
    assert ask(changed, capsys, *files(changed, 40))[0]["worse_than_baseline"] == []
