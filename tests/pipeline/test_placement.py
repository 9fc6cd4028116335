"""A workspace can be copied or moved: nothing in it points back at where it was. Paths may hold any letters."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
import yaml

from geoloc.files import content_hash
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from orchestration.lineage.build import Build
from orchestration.stores.placement import artifacts_uri, settle
from orchestration.stores.tracking import tracked_run, tracking_uri
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc

ODD = "an odd%20ü?#"


def copy(source: Path, target: Path) -> Workspace:
    target.parent.mkdir()
    subprocess.run(["cp", "-a", source, target], check=True)
    return Workspace.open(target)


def mentions(workspace: Workspace, place: Path) -> list[str]:
    """The files of a workspace that hold a path below `place`, as a path or as a URI."""
    texts = (f"{place}/".encode(), f"{place.as_uri()}/".encode())
    files = (path for path in workspace.root.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(file) for file in files if any(text in file.read_bytes() for text in texts)]


def track(workspace: Workspace, file: Path) -> str:
    """One run with an artefact; returns the folder that MLflow has put it in."""
    import mlflow

    with tracked_run(workspace, "run", settings={}, tags={}, data_version="1.dir") as tracker:
        tracker.artefacts(file.parent)
    found = mlflow.MlflowClient().get_run(tracker.run_id)
    assert [one.path for one in mlflow.MlflowClient().list_artifacts(tracker.run_id)] == [file.name]
    return str(found.info.artifact_uri)


def test_runs_of_a_copy_are_tracked_in_the_copy_whatever_its_path_is_called(tmp_path, monkeypatch):
    first = Workspace(tmp_path / "first" / "w")
    first.root.mkdir(parents=True)
    (first.root / "params.yaml").touch()
    file = tmp_path / "files" / "numbers.txt"
    file.parent.mkdir()
    file.write_text("1 2 3")
    monkeypatch.chdir(first.root)  # MLflow makes its default experiment in the current folder
    assert track(first, file).startswith(artifacts_uri(first))
    before = content_hash(first.root)
    second = copy(first.root, tmp_path / ODD / "w")
    assert track(second, file).startswith(artifacts_uri(second))
    assert content_hash(first.root) == before
    assert mentions(second, first.root) == []
    assert (second.mlflow / "mlflow.db").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"first", "files", ODD}
    assert not settle(second)  # once is enough
    third = Workspace.open(shutil.move(second.root, tmp_path / "third"))
    assert settle(third)
    assert mentions(third, second.root) == []
    assert "?" not in tracking_uri(second)


def test_places_that_only_begin_like_the_old_one_are_left_alone(tmp_path):
    workspace = Workspace(tmp_path / "w")
    workspace.mlflow.mkdir(parents=True)
    old = "file:///old/mlflow/artifacts"
    elsewhere = ["file:///old/mlflow/artifacts2/x", "s3://bucket/x", "models:/m-1"]
    with sqlite3.connect(workspace.mlflow / "mlflow.db") as database:
        database.execute("CREATE TABLE experiments (experiment_id, name, artifact_location)")
        database.execute("CREATE TABLE runs (artifact_uri)")
        database.execute(
            "INSERT INTO experiments VALUES (1, 'geoloc', ?), (2, 'theirs', ?)", (old, elsewhere[1])
        )
        database.executemany("INSERT INTO runs VALUES (?)", [(one,) for one in (f"{old}/x", *elsewhere)])
    assert settle(workspace)
    with sqlite3.connect(workspace.mlflow / "mlflow.db") as database:
        found = [place for (place,) in database.execute("SELECT artifact_uri FROM runs")]
        assert found == [f"{artifacts_uri(workspace)}/x", *elsewhere]
        places = [place for (place,) in database.execute("SELECT artifact_location FROM experiments")]
        assert places == [artifacts_uri(workspace), elsewhere[1]]


def train(workspace: Workspace, rate: float) -> None:
    params = workspace.root / "params.yaml"
    values = yaml.safe_load(params.read_text())
    values["training"] |= {"epochs": 1, "learning_rate": rate}
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    assert geoloc(workspace, "build", "--only", "classifier", "--no-commit") == 0


@pytest.mark.slow
def test_a_copied_and_a_moved_workspace_train_and_locate_on_their_own(workspace, original, tmp_path, capfd):
    first = workspace.root
    second = copy(first, tmp_path / ODD / "w")
    stored = read_catalog(second.pool).dropna(subset="shard").iloc[0]
    with ShardReader(second.pool) as reader:
        photo = reader.read(stored["shard"], int(stored["offset"]), int(stored["length"]))
    (tmp_path / "photo.jpg").write_bytes(photo)
    shutil.rmtree(first)
    for rate, place in ((0.002, second), (0.003, None)):
        here = place or Workspace.open(shutil.move(second.root, tmp_path / "moved"))
        train(here, rate)
        assert not first.exists()
        assert mentions(here, first) == mentions(here, original) == []
        if place is None:
            assert mentions(here, second.root) == []
        run = Build(here).built("classifier").mlflow_run
        assert (here.mlflow / "artifacts" / run / "artifacts" / "model.safetensors").is_file()
        capfd.readouterr()
        assert geoloc(here, "locate", str(tmp_path / "photo.jpg")) == 0
        assert "confidence" in capfd.readouterr().out
