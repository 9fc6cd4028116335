"""Which model serves: it is replaced by a better one only, in one write, by whom and why; and it is what answers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
import yaml

from orchestration.operations import promotion
from orchestration.stores.champion import champion, registered, whole_versions
from orchestration.stores.tracking import mlflow_of
from orchestration.workspace import Workspace
from tests.pipeline import served_world
from tests.pipeline.conftest import forked_geoloc, geoloc
from tests.pipeline.served_world import HERE, THERE, add_photos, register

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    return served_world.export(tmp_path_factory.mktemp("graph"))


@pytest.fixture(scope="module")
def made(initialised: Path, graph: Path, tmp_path_factory) -> Workspace:
    """Version 1 answers THERE, which is right for a quarter of the test photos; version 2 HERE."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(initialised, folder / "w", symlinks=True)
    workspace = Workspace.open(folder / "w")
    workspace.set_environment()
    add_photos(workspace, folder / "photos", range(96))
    register(workspace, graph, THERE)
    register(workspace, graph, HERE)
    return workspace


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(made.root, tmp_path / "w", symlinks=True)
    copied = Workspace.open(tmp_path / "w")
    copied.set_environment()
    (tmp_path / "photo.jpg").write_bytes((made.root.parent / "photos" / "95.jpg").read_bytes())
    return copied


def serving(workspace: Workspace) -> str | None:
    """The build that serves."""
    now = champion(workspace)
    return None if now is None else now.tags["geoloc.challenger"]


def located(workspace: Workspace, capsys, *options: str) -> tuple[float, str]:
    capsys.readouterr()
    photo = str(workspace.root.parent / "photo.jpg")
    assert geoloc(workspace, "locate", "--json", *options, photo) == 0
    out, err = capsys.readouterr()
    return round(json.loads(out)[0]["latitude"]), err


def test_the_first_serves_a_better_one_replaces_it_and_a_person_rolls_back(workspace, capsys) -> None:
    assert geoloc(workspace, "promote", "--version", "1", "--by", "Ada") == 0
    assert "there was no champion" in capsys.readouterr().out
    assert located(workspace, capsys) == (
        round(THERE[0]),
        "geoloc: answered by the champion, geoloc/1 of default (geoloc-default/1)\n",
    )
    assert geoloc(workspace, "promote", "--reason", "weekly") == 0
    out = capsys.readouterr().out
    assert "promoted: geoloc-default/2 is the champion, geoloc/2" in out
    assert "better by city (class) on the 48 frozen photos of 'test' by 6 photographers: 25.0 → 75.0" in out
    assert located(workspace, capsys)[0] == round(HERE[0])
    assert geoloc(workspace, "promote") == 0
    assert "it is the champion already" in capsys.readouterr().out

    # The other way round it is worse: the champion stays, unless a person forces it.
    assert geoloc(workspace, "promote", "--version", "1", "--json") == 1
    kept = json.loads(capsys.readouterr().out)
    assert kept["outcome"] == "kept"
    assert any(one.startswith("not better by city") for one in kept["reasons"])
    assert any(one.startswith("worse by country (class) on frozen photos") for one in kept["reasons"])
    assert located(workspace, capsys)[0] == round(HERE[0])
    assert geoloc(workspace, "promote", "--version", "1", "--force") == 2
    assert geoloc(workspace, "promote", "--version", "1", "--force", "--reason", "an order") == 0
    assert serving(workspace) == "geoloc-default/1"

    assert geoloc(workspace, "rollback") == 2
    assert geoloc(workspace, "rollback", "--reason", "wrong", "--by", "Grace") == 0
    assert serving(workspace) == "geoloc-default/2"
    assert geoloc(workspace, "rollback", "--reason", "further") == 0
    assert geoloc(workspace, "rollback", "--reason", "further") == 1
    assert "geoloc/1 was the first champion" in capsys.readouterr().err
    assert geoloc(workspace, "promote", "--history", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["outcome"], one["challenger"], one["from"], one["to"]) for one in told] == [
        ("promoted", "geoloc-default/1", "", "1"),
        ("promoted", "geoloc-default/2", "1", "2"),
        ("kept", "geoloc-default/1", "2", ""),
        ("promoted", "geoloc-default/1", "2", "3"),
        ("rolled back", "geoloc-default/2", "3", "2"),
        ("rolled back", "geoloc-default/1", "2", "1"),
    ]
    assert (told[0]["by"], told[4]["by"], told[4]["reason"]) == ("Ada", "Grace", "wrong")
    assert told[3]["forced"]
    assert geoloc(workspace, "promote", "--history") == 0
    assert "Grace: wrong" in capsys.readouterr().out

    # Dagster has each decision with its table, and MLflow serves the same model.
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetKey(["default", "promotion"]), limit=10).records
        assert len(records) == 6
        shown = records[-2].asset_materialization.metadata
    assert "| city" in shown["comparison"].value
    import mlflow

    mlflow_of(workspace)
    answer = mlflow.pyfunc.load_model("models:/geoloc@champion").predict(
        pd.DataFrame({"photo": [str(workspace.root.parent / "photo.jpg")]})
    )
    assert round(answer["latitude"][0]) == round(THERE[0])


def test_a_kill_between_any_two_writes_leaves_the_old_champion_or_the_new_one(
    workspace, capsys, monkeypatch
) -> None:
    assert geoloc(workspace, "promote", "--version", "1") == 0
    steps = promotion.steps
    seen = []
    for after in range(5):

        def killed(task, after=after):
            return [*steps(task)[:after], lambda: os._exit(9), *steps(task)[after:]]

        monkeypatch.setattr(promotion, "steps", killed)
        process = forked_geoloc(workspace, "promote", "--version", "2")
        process._process.join()
        assert process.poll() == 9
        monkeypatch.setattr(promotion, "steps", steps)
        seen.append(serving(workspace))
        assert located(workspace, capsys)[0] == round((THERE if after < 3 else HERE)[0])
        if after >= 3:
            assert geoloc(workspace, "promote", "--history", "--json") == 0
            assert json.loads(capsys.readouterr().out)[-1]["outcome"] == "promoted"
            assert geoloc(workspace, "rollback", "--reason", "again") == 0
    assert seen == ["geoloc-default/1"] * 3 + ["geoloc-default/2"] * 2
    capsys.readouterr()
    assert geoloc(workspace, "promote", "--history", "--json") == 0
    told = [one["outcome"] for one in json.loads(capsys.readouterr().out)]
    assert told == [
        "promoted",
        "interrupted",
        "interrupted",
        "promoted",
        "rolled back",
        "promoted",
        "rolled back",
    ]


def test_what_serves_is_what_was_promoted_or_nothing(workspace, capsys) -> None:
    assert geoloc(workspace, "promote", "--recipe", "fine") == 1
    assert "geoloc-fine is missing in MLflow" in capsys.readouterr().err
    assert geoloc(workspace, "promote", "--version", "7") == 1
    assert "geoloc-default has no version 7; it has 1, 2" in capsys.readouterr().err
    assert geoloc(workspace, "rollback", "--reason", "x") == 1
    assert "there is no champion" in capsys.readouterr().err
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({"promotion": {"methods": ["class", "nn"]}}))
    assert geoloc(workspace, "promote", "--version", "1") == 0
    assert geoloc(workspace, "promote", "--version", "2") == 1
    assert "promotion.methods is class, nn, and geoloc/1 answers by class only" in capsys.readouterr().err
    mlflow_of(workspace).MlflowClient().delete_model_version("geoloc-default", "2")
    assert geoloc(workspace, "promote", "--version", "2") == 1
    assert "geoloc-default has no version 2; it has 1" in capsys.readouterr().err
    photo = str(workspace.root.parent / "photo.jpg")
    for options in (["--level", "city"], ["--method", "knn"], ["--method", "nn", "--model", "backbone"]):
        capsys.readouterr()
        assert geoloc(workspace, "locate", *options, photo) == 1
        assert "ask a build with: --recipe default" in capsys.readouterr().err
    now = champion(workspace)
    damage(now.folder)
    assert geoloc(workspace, "locate", photo) == 1
    assert "geoloc/1 is not what was promoted" in capsys.readouterr().err
    shutil.rmtree(now.folder)
    assert geoloc(workspace, "locate", photo) == 1
    assert "content missing" in capsys.readouterr().err


def damage(folder: Path) -> tuple[Path, bytes]:
    """Change a byte of a packed build's cells; returns the file and what it was."""
    cells = folder / "partitions" / "fine" / "cells.parquet"
    whole = cells.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    cells.unlink()
    cells.write_bytes(bytes(damaged))
    return cells, whole


def test_a_changed_model_is_found_and_not_promoted_and_a_person_can_replace_it(workspace, capsys) -> None:
    assert geoloc(workspace, "promote", "--version", "1") == 0
    capsys.readouterr()
    assert geoloc(workspace, "audit", "--verify") == 0
    file, whole = damage(registered(workspace, "default", 2).folder)
    assert geoloc(workspace, "promote", "--version", "2", "--force", "--reason", "x") == 1
    assert "geoloc-default/2 is not what was registered" in capsys.readouterr().err
    assert geoloc(workspace, "audit", "--verify") == 1
    assert "it is not what was registered as geoloc-default/2" in capsys.readouterr().out
    file.write_bytes(whole)
    damage(champion(workspace).folder)
    assert geoloc(workspace, "audit", "--verify") == 1
    assert "it is not what was registered as geoloc/1 and geoloc-default/1" in capsys.readouterr().out
    assert geoloc(workspace, "promote", "--version", "2") == 1  # there is nothing to compare with
    assert "geoloc/1 is not what was promoted" in capsys.readouterr().err
    assert geoloc(workspace, "promote", "--version", "2", "--force", "--reason", "it is broken") == 0
    assert "not compared: geoloc/1 is not what was promoted" in capsys.readouterr().out
    assert serving(workspace) == "geoloc-default/2"


def test_a_take_down_leaves_the_champion_whole_and_its_splits_without_the_photo(workspace, capsys) -> None:
    assert geoloc(workspace, "promote") == 0
    kept = Path(
        workspace.mlflow / "artifacts" / champion(workspace).run_id / "artifacts/splits/splits.parquet"
    )
    assert geoloc(workspace, "forget", "--photo", "photo-007", "--reason", "asked") == 0
    assert "photo-007" not in set(pd.read_parquet(kept)["photo_id"])
    assert whole_versions(workspace) == [("geoloc", 1), ("geoloc-default", 1), ("geoloc-default", 2)]
    assert located(workspace, capsys)[0] == round(HERE[0])


def test_the_asset_in_dagster_decides_as_the_command_does(workspace) -> None:
    from orchestration.definitions import defs

    (workspace.root / "params.yaml").write_text(yaml.safe_dump({"promotion": {"better_by": 0.6}}))
    assert geoloc(workspace, "promote", "--version", "1") == 0
    job = defs().resolve_job_def("promote_default")
    with dg.DagsterInstance.get() as instance:
        assert job.execute_in_process(instance=instance).success
        key = dg.AssetKey(["default", "promotion"])
        event = instance.get_latest_materialization_event(key)
    shown = event.asset_materialization.metadata
    assert shown["outcome"].value == "kept"
    assert "60 points are asked for" in shown["reasons"].value
    assert serving(workspace) == "geoloc-default/1"
