"""One build at a time: who holds the workspace is named, and a killed holder frees it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from orchestration.cli import main
from orchestration.stores import lock
from orchestration.stores.lock import BusyError, build_lock, forget_run, killed_runs, photos_lock, run_lock
from orchestration.workspace import WorkspaceError
from tests.unit.pretended import bare_workspace

HOLD = """
import sys
from orchestration.stores.lock import build_lock, run_lock
from orchestration.workspace import Workspace
workspace = Workspace.open(sys.argv[1])
with build_lock(workspace, "geoloc build --recipe fine"), run_lock(workspace, "the-run"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def workspace(tmp_path):
    return bare_workspace(tmp_path / "w", {})


@pytest.fixture
def holder(workspace):
    """Another process that holds the build lock, and that of a run."""
    command = [sys.executable, "-c", HOLD, str(workspace.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


COMMANDS = [
    ["build"],
    ["build", "--only", "splits", "--no-commit"],
    ["build", "--drop", "fine"],
    ["accept", "splits", "--reason", "fine"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_beside_a_build_names_it_and_changes_nothing(workspace, holder, arguments, capsys):
    before = sorted(workspace.root.rglob("*"))
    assert main(["--workspace", str(workspace.root), *arguments]) == 1
    assert re.fullmatch(
        rf"geoloc: another build \(geoloc build --recipe fine, process {holder.pid}, since \d\d:\d\d\) runs in "
        rf"{workspace.root}; wait for it to end\n",
        capsys.readouterr().err,
    )
    assert not workspace.dvc_yaml.exists()
    assert [path for path in sorted(workspace.root.rglob("*")) if ".dagster" not in path.parts] == before


def test_a_killed_holder_frees_the_lock_and_its_run_is_known_as_killed(workspace, holder):
    with pytest.raises(BusyError), build_lock(workspace, "me"):
        pass
    assert killed_runs(workspace) == []
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with build_lock(workspace, "me"):
        assert killed_runs(workspace) == ["the-run"]
    forget_run(workspace, "the-run")
    assert killed_runs(workspace) == []


def test_a_run_that_ends_by_itself_is_not_known_as_killed(workspace):
    with pytest.raises(ZeroDivisionError), run_lock(workspace, "the-run"):
        raise ZeroDivisionError
    assert killed_runs(workspace) == []


def test_who_waits_is_told_by_whom_and_then_has_the_lock(workspace, holder, monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0)
    told = []

    def wait(message: str) -> None:
        told.append(message)
        holder.kill()

    with (
        build_lock(workspace, "me", wait),
        pytest.raises(BusyError, match=r"\(me, process"),
        build_lock(workspace, "somebody else"),
    ):
        pass
    assert f"process {holder.pid}" in told[0]


@pytest.mark.parametrize(
    "command", [["sample", "--photos", "40"], ["ingest", "folder", "pictures"]], ids=" ".join
)
def test_photos_are_added_by_one_command_at_a_time_and_a_build_does_not_mind(workspace, command, capsys):
    with photos_lock(workspace, "geoloc sample"), build_lock(workspace, "geoloc build"):
        assert main(["--workspace", str(workspace.root), *command]) == 1
    told = rf"geoloc: another command \(geoloc sample, process {os.getpid()}, since .*; wait for it to end\n"
    assert re.fullmatch(told, capsys.readouterr().err)


def test_a_workspace_that_cannot_be_locked_is_told_in_a_line(workspace):
    (workspace.root / ".geoloc").write_text("not a folder")
    message = r"^.*\.geoloc/build\.lock cannot be locked: .*$"
    with pytest.raises(WorkspaceError, match=message), build_lock(workspace, "me"):
        pass
