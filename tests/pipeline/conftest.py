"""A small workspace with generated photos, built once and copied for each test that changes it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.cli import main
from orchestration.lineage.build import Build
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace

SMALL = {
    "note": "Built on generated photos by the tests.",
    "seed": 3,
    "splits": {"validation": {"share": 0.15}, "test": {"share": 0.2}},
    "partitions": {"fine": {"s2": {"max_photos": 30, "min_photos": 5}}},
    "model": {"backbone": "mobilenet_v3_small", "image_size": 64},
    "training": {"epochs": 2, "batch_size": 16},
    "evaluation": {"resamples": 50},
}


BELOW_PARTITION = ["partition", "classifier", "embeddings", "index", "evaluation", "report"]
"""The stages that may change when the partition does."""


@pytest.fixture(scope="session", autouse=True)
def _quiet_home(tmp_path_factory: pytest.TempPathFactory):
    """Git needs a name to commit with; nothing outside the temporary folder is read or written."""
    os.environ.update(
        GIT_CONFIG_GLOBAL=str(tmp_path_factory.mktemp("git") / "config"), GEOLOC_PHOTOGRAPHER_KEY="tests"
    )
    for key, value in (("user.name", "Tests"), ("user.email", "tests@localhost")):
        subprocess.run(["git", "config", "--global", key, value], check=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with 300 generated photos and one finished build. Do not change it: take `workspace`."""
    root = tmp_path_factory.mktemp("workspace") / "w"
    assert main(["init", str(root)]) == 0
    (root / "params.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(["--workspace", str(root), "sample", "--photos", "300", "--seed", "5"]) == 0
    assert main(["--workspace", str(root), "build"]) == 0
    commit_all(root)
    return Workspace.open(root)


@pytest.fixture
def workspace(built: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the built workspace, free to change."""
    root = tmp_path / "w"
    shutil.copytree(built.root, root, symlinks=True)
    copied = Workspace.open(root)
    copied.set_environment()
    return copied


def facts(workspace: Workspace, recipe: str, stage: str) -> Mapping[str, dg.MetadataValue]:
    """What the page of a stage's asset shows in the Dagster UI."""
    workspace.set_environment()
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey([recipe, stage]))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata


def commit_all(root: Path) -> None:
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(root), "commit", "-qm", "state"], check=True)


def geoloc(workspace: Workspace, *arguments: str) -> int:
    """The command line in this process."""
    return main(["--workspace", str(workspace.root), *arguments])


def geoloc_process(workspace: Workspace, *arguments: str, **keywords: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "orchestration.cli", "--workspace", str(workspace.root), *arguments]
    return subprocess.Popen(command, text=True, **keywords)  # type: ignore[call-overload]


def stand_in(workspace: Workspace, recipe: str, **training: object) -> None:
    """A copy of the default recipe's partition and evaluation as a further recipe, recorded as trained otherwise."""
    (workspace.recipes / f"{recipe}.yaml").write_text("note: stands in\n")
    for stage in ("splits", "partition", "evaluation"):
        shutil.copytree(output_folder(workspace, "default", stage), output_folder(workspace, recipe, stage))
    for stage in ("splits", "classifier", "evaluation"):
        record = Build(workspace).record(stage)
        assert record is not None
        settings = dict(record.settings)
        if stage == "classifier":
            settings["training"] = {**settings["training"], **training}
        dataclasses.replace(record, recipe=recipe, settings=settings).write(
            Build(workspace, recipe).record_path(stage)
        )
