"""`geoloc forget`: a photo leaves every file of a workspace, does not come back, and a kill loses nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from geoloc.files import read_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.shards import ShardReader
from geoloc.photos.tombstones import read_tombstones
from orchestration.lineage.build import Build
from orchestration.operations import take_down
from orchestration.plan.chain import output_folder
from orchestration.stores.take_downs import journal_path
from orchestration.workspace import Workspace
from tests.photo_fixtures import jpeg
from tests.pipeline.conftest import SMALL, facts, geoloc
from tests.pipeline.traces import Sought, traces

WHY = "asked by its owner"


def sought(workspace: Workspace, photo_id: str) -> Sought:
    row = read_catalog(workspace.pool).set_index("photo_id").loc[photo_id]
    with ShardReader(workspace.pool) as reader:
        data = reader.read(row["shard"], int(row["offset"]), int(row["length"]))
    return Sought(photo_id, data, float(row["latitude"]), float(row["longitude"]))


def all_bytes(workspace: Workspace) -> dict[str, bytes]:
    """The stored bytes of every photo."""
    stored = read_catalog(workspace.pool).dropna(subset=["shard"])
    with ShardReader(workspace.pool) as reader:
        return {
            row.photo_id: reader.read(row.shard, int(row.offset), int(row.length))
            for row in stored.itertuples()
        }


@pytest.mark.slow
def test_a_photo_leaves_every_file_of_a_built_workspace(workspace: Workspace, tmp_path, capsys) -> None:
    build = Build(workspace)
    splits = read_parquet(build.folder("splits") / "splits.parquet")
    paired = set(read_pairs(workspace.pool)["photo_id"])
    train = splits[splits["split"] == "train"]["photo_id"]
    photo = [one for one in train if one in paired][-1]
    gone, others = sought(workspace, photo), all_bytes(workspace)
    # A model that MLflow serves has an index of its own; a log names the photo.
    index = workspace.mlflow / "artifacts" / "models" / "m-0" / "artifacts" / "build" / "index"
    shutil.copytree(build.folder("index") / "classifier", index)
    (workspace.dagster_home / "old.log").write_text(f"could not read {photo}, at {gone.latitude:.5f}")
    before = traces(workspace.root, gone)
    for place in ("data/shards", "data/catalog", "data/pairs", "build/default/splits"):
        assert any(one.startswith(place) for one in before), place
    for place in ("build/default/index", "mlflow/artifacts", ".dvc/cache", ".dagster"):
        assert any(one.startswith(place) for one in before), place

    (tmp_path / "asked.jpg").write_bytes(gone.data)
    capsys.readouterr()
    assert geoloc(workspace, "forget", "--photo", photo, "--reason", WHY, "--gc", "cache") == 0
    out = capsys.readouterr().out
    assert out.startswith("1 photo taken down; data version ")
    assert "default/classifier (1 of them)" in out
    assert "cannot be restored any more" in out
    assert traces(workspace.root, gone) == []

    del others[photo]
    assert all_bytes(workspace) == others
    assert len(read_parquet(build.folder("splits") / "splits.parquet")) == len(splits) - 1
    assert not journal_path(workspace).exists()
    # What serves goes on, by class and by neighbour.
    for way in ([], ["--method", "knn"], ["--method", "nn", "--model", "backbone"], ["--level", "city"]):
        assert geoloc(workspace, "locate", *way, str(tmp_path / "asked.jpg")) == 0, way
    capsys.readouterr()
    for name in ("report", "default/classifier"):
        assert geoloc(workspace, "audit", name) == 0
        assert "1 photo was taken down since it was made" in capsys.readouterr().out
    assert geoloc(workspace, "audit", "default/splits") == 0
    assert "changed: 1 photo was taken down since" in capsys.readouterr().out
    assert geoloc(workspace, "audit", photo) == 1
    assert "is not known in this workspace" in capsys.readouterr().err
    # A build makes the splits that the take-down left, so embeddings by a network that saw no photos stay as they are.
    for stage in ("splits", "features"):
        assert geoloc(workspace, "build", "--only", stage) == 0
    assert "still up to date: features" in capsys.readouterr().out
    # Of other splits they are made anew, and copy what is left of those before.
    larger_test = {"splits": SMALL["splits"] | {"test": {"share": 0.3}}}
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(SMALL | larger_test))
    for stage in ("splits", "features"):
        assert geoloc(workspace, "build", "--only", stage) == 0
    assert facts(workspace, "default", "features")["copied from the output before"].value > 0


@pytest.fixture
def small(initialised: Path, tmp_path: Path) -> Workspace:
    """A workspace of 24 photos by four people, without builds."""
    shutil.copytree(initialised, tmp_path / "w", symlinks=True)
    made = Workspace.open(tmp_path / "w")
    write_table(tmp_path / "photos", range(24))
    assert ingest(made, tmp_path / "photos") == 0
    return made


def write_table(folder: Path, numbers: range) -> None:
    folder.mkdir(exist_ok=True)
    for i in numbers:
        (folder / f"{i}.jpg").write_bytes(jpeg(i))
    pd.DataFrame(
        {
            "photo_id": [f"photo-{i}" for i in numbers],
            "file": [f"{i}.jpg" for i in numbers],
            "latitude": [10.123456 + i for i in numbers],
            "longitude": [20.654321 + i for i in numbers],
            "photographer": [f"person {i % 4}" for i in numbers],
        }
    ).to_csv(folder / "t.csv", index=False)


def ingest(workspace: Workspace, folder: Path, source: str = "tests") -> int:
    return geoloc(workspace, "ingest", "table", str(folder / "t.csv"), "--source", source)


def test_a_killed_take_down_is_finished_by_the_next_run(
    small: Workspace, tmp_path, capsys, monkeypatch
) -> None:
    steps = take_down.steps
    others, count = all_bytes(small), len(steps(small, {"photos": [], "outputs": {}, "photographer": None}))
    assert count == 8

    def killed(after: int):
        def some(workspace, journal):
            def kill() -> None:
                raise KeyboardInterrupt

            return [*steps(workspace, journal)[:after], kill]

        return some

    for after in range(count + 1):
        photo = f"photo-{after}"
        gone = sought(small, photo)
        monkeypatch.setattr(take_down, "steps", killed(after))
        command = ["forget", "--photo", photo, "--reason", WHY, "--gc", "cache"]
        assert geoloc(small, *command) == 130
        assert (
            geoloc(small, "build", "--only", "splits") == 1
        )  # nothing else is made from what is half changed
        assert ingest(small, tmp_path / "photos") == 1
        assert "geoloc forget --finish" in capsys.readouterr().err
        monkeypatch.setattr(take_down, "steps", steps)
        assert geoloc(small, *(command if after % 2 else ["forget", "--finish"])) == 0
        assert traces(small.root, gone) == []
        del others[photo]
        assert all_bytes(small) == others
        assert geoloc(small, "forget", "--finish") == 0
        assert "no take-down was interrupted" in capsys.readouterr().out


def test_what_was_taken_down_is_not_ingested_again_and_counted(small: Workspace, tmp_path, capsys) -> None:
    assert geoloc(small, "forget", "--photo", "photo-1", "--reason", WHY) == 0
    assert geoloc(small, "forget", "--photographer", "person 2", "--reason", WHY) == 0
    assert "6 photos taken down" in capsys.readouterr().out
    stones = read_tombstones(small.pool).to_pandas()
    assert stones["kind"].value_counts().to_dict() == {"photo": 7, "photographer": 1}
    assert set(stones["reason"]) == {WHY}

    before = read_catalog(small.pool)
    assert ingest(small, tmp_path / "photos") == 0
    assert "0 added, 17 already present, 0 quarantined, 7 not taken: they were taken down earlier" in (
        capsys.readouterr().out
    )
    # New photos: one is by the person who is gone; the bytes of another come under another name.
    write_table(tmp_path / "more", range(24, 28))
    (tmp_path / "more" / "24.jpg").write_bytes(jpeg(1))
    assert ingest(small, tmp_path / "more") == 0
    assert "2 added, 0 already present, 0 quarantined, 2 not taken" in capsys.readouterr().out
    added = set(read_catalog(small.pool)["photo_id"]) - set(before["photo_id"])
    assert added == {"photo-25", "photo-27"}
    assert read_quarantine(small.pool).empty


def test_the_same_bytes_in_another_source_go_too(small: Workspace, tmp_path, capsys) -> None:
    assert ingest(small, tmp_path / "photos", "again") == 0
    gone = sought(small, "photo-5")
    assert geoloc(small, "forget", "--photo", "photo-5", "--reason", WHY) == 0
    assert "2 photos taken down" in capsys.readouterr().out
    assert traces(small.pool, gone) == []
    assert len(read_catalog(small.pool)) == 46


def test_garbage_leaves_cache_and_remote_only_where_asked(small: Workspace, tmp_path, capsys) -> None:
    remote = tmp_path / "remote"
    dvc = ["python", "-m", "dvc"]
    subprocess.run([*dvc, "remote", "add", "-q", "-d", "team", str(remote)], cwd=small.root, check=True)
    subprocess.run([*dvc, "push", "-q"], cwd=small.root, check=True)
    gone = sought(small, "photo-3")
    assert geoloc(small, "forget", "--photo", "photo-3", "--reason", WHY) == 0
    assert "older data versions, with the bytes" in capsys.readouterr().out
    assert traces(small.root / ".dvc" / "cache", gone)
    assert traces(remote, gone)
    assert geoloc(small, "forget", "--gc", "cache") == 0
    assert traces(small.root, gone) == []
    assert traces(remote, gone)
    subprocess.run([*dvc, "push", "-q"], cwd=small.root, check=True)
    assert geoloc(small, "forget", "--gc", "remote") == 0
    assert traces(remote, gone) == []
    subprocess.run([*dvc, "status", "-c", "-q"], cwd=small.root, check=True)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--photo", "photo-1"], 2, "--reason TEXT is needed"),
        (["--reason", "x"], 2, "name what to forget"),
        (["--photo", "nobody", "--reason", "x"], 1, "has no photo nobody"),
        (["--photographer", "nobody", "--reason", "x"], 1, "has no photo by nobody"),
        (["--photo", "photo-1", "--reason", "x", "--gc", "remote"], 2, "needs a default DVC remote"),
    ],
)
def test_wrong_options_are_one_line_and_change_nothing(
    small: Workspace, options, status, said, capsys
) -> None:
    before = all_bytes(small)
    assert geoloc(small, "forget", *options) == status
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert all_bytes(small) == before


def test_tiles_and_quarantine_rows_of_a_photo_go_with_it(workspace: Workspace, capsys) -> None:
    pairs = read_pairs(workspace.pool)
    photo, tile = pairs.iloc[0][["photo_id", "overhead_id"]]
    tiles = set(read_catalog(overhead_pool(workspace.pool))["photo_id"])
    assert geoloc(workspace, "forget", "--photo", photo, "--reason", WHY) == 0
    assert set(read_catalog(overhead_pool(workspace.pool))["photo_id"]) == tiles - {tile}
    assert photo not in set(read_pairs(workspace.pool)["photo_id"])
    assert (
        json.loads((output_folder(workspace, "default", "evaluation") / "evaluations.json").read_text()) == []
    )
