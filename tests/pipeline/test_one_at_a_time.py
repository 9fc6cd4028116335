"""Builds, runs of the UI and `dvc repro` at once, and kill -9 of each: the same bytes or one clear error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._cli import create_dagster_cli

from orchestration.lineage.build import Build
from orchestration.stores.lock import build_lock
from orchestration.stores.pipeline import unrecorded_stages
from orchestration.workspace import Workspace
from tests.pipeline.conftest import Forked, forked_geoloc, geoloc

IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def until(happened: Callable[[], object], process: Forked | subprocess.Popen[str], what: str) -> None:
    """Wait until something happens in a process."""
    deadline = time.monotonic() + 240
    while not happened():
        assert process.poll() is None, f"the process ended before {what}"
        assert time.monotonic() < deadline, f"not {what} in four minutes"
        time.sleep(0.02)


def at_work(workspace: Workspace, stage: str) -> list[Path]:
    """What a build of the stage has not finished."""
    return list((workspace.build / "default").glob(f".{stage}.*"))


def runs_in_progress(workspace: Workspace) -> list[str]:
    workspace.set_environment()
    with dg.DagsterInstance.get() as instance:
        return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["splits", "partition"])
def test_a_build_beside_another_is_refused_and_a_killed_one_is_finished_by_the_next(workspace, stage, capfd):
    before = Build(workspace).built(stage)
    command = ("build", "--only", stage, "--force")
    process = forked_geoloc(workspace, *command)
    until(lambda: at_work(workspace, stage), process, f"{stage} was at work")
    os.kill(process.pid, signal.SIGSTOP)
    assert geoloc(workspace, "build") == 1
    named = rf"another build \(geoloc build --recipe default --only {stage}, process {process.pid}, since "
    assert re.search(named, capfd.readouterr().err)
    process.kill()

    assert Build(workspace).content(stage) == before.content, "a killed build must leave the output alone"
    assert runs_in_progress(workspace)
    assert geoloc(workspace, *command) == 0
    after = Build(workspace).built(stage)
    assert after.content == Build(workspace).content(stage) == before.content
    assert after.dagster_run != before.dagster_run
    assert runs_in_progress(workspace) == []
    assert at_work(workspace, stage) == []
    assert unrecorded_stages(workspace, "default", [stage]) == []


def ui_run(workspace: Workspace) -> Forked:
    """A run with the executor that the UI's have, in a process of its own as they are."""
    workspace.set_environment()
    words = ["asset", "materialize", "-m", "orchestration.definitions", "--select", 'key:"default/splits"']
    return Forked(lambda: create_dagster_cli()(words), caught=True)


def waits(process: Forked) -> str:
    """The line that says for which build a run waits."""
    return next(line for line in process.printed if "this run waits for it to end" in line)


@pytest.mark.slow
def test_a_run_of_the_ui_waits_for_a_build_holds_the_workspace_and_records(workspace, capsys):
    lock = workspace.root / "dvc.lock"
    recorded = yaml.safe_load(lock.read_text())
    del recorded["stages"]["default-splits"]
    lock.write_text(yaml.safe_dump(recorded))
    with build_lock(workspace, "geoloc build --recipe fine"):
        process = ui_run(workspace)
        assert "another build (geoloc build --recipe fine, process" in waits(process)
        assert len(runs_in_progress(workspace)) == 1
    first_line = process.printed.readline()  # of the first step
    holder = (workspace.root / ".geoloc" / "build.lock").read_text()
    assert re.match(r"Dagster run [0-9a-f]{8} of __ASSET_JOB, process", holder), first_line
    assert geoloc(workspace, "build") == 1
    assert f"another build ({holder.strip()}) runs in" in capsys.readouterr().err
    process.printed.read()
    assert process.end() == 0
    assert unrecorded_stages(workspace, "default", ["splits"]) == []
    assert runs_in_progress(workspace) == []


@pytest.mark.slow
def test_a_killed_run_of_the_ui_is_ended_by_the_next_build(workspace, capsys):
    with build_lock(workspace, "geoloc build"):
        process = ui_run(workspace)
        waits(process)
        process.kill()
    assert len(runs_in_progress(workspace)) == 1
    assert geoloc(workspace, "build") == 0
    assert runs_in_progress(workspace) == []
    assert capsys.readouterr().out.endswith("default: everything is up to date\n")


def repro(workspace: Workspace) -> subprocess.Popen[str]:
    """`dvc repro` of the partition, with the `geoloc` of this environment. Not forked: dvc keeps files open."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "default-partition"],
        cwd=workspace.root, env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_build_and_dvc_repro_at_once_end_with_one_clear_error(workspace, capsys):
    params = workspace.root / "params.yaml"
    params.write_text(params.read_text().replace("max_photos: 30", "max_photos: 40"))
    lock, output = workspace.root / "dvc.lock", Build(workspace).content("partition")
    before = lock.read_bytes()
    with build_lock(workspace, "geoloc build --recipe fine"):
        process = repro(workspace)
        told, _ = process.communicate()
        assert process.returncode != 0
        assert "geoloc: another build (geoloc build --recipe fine, process" in told
    assert lock.read_bytes() == before
    assert Build(workspace).content("partition") == output

    process = repro(workspace)
    until(lambda: at_work(workspace, "partition"), process, "the partition was at work")
    assert geoloc(workspace, "build", "--only", "partition") == 1
    assert "another build (geoloc build --recipe default --only partition, process" in capsys.readouterr().err
    told, _ = process.communicate()
    assert process.returncode == 0, told
    assert Build(workspace).content("partition") != output
    assert unrecorded_stages(workspace, "default", ["splits", "partition"]) == []
