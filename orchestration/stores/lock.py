"""The locks of a workspace: one build at a time, and one command that adds photos. A killed holder frees its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from orchestration.stores.take_downs import require_no_take_down
from orchestration.workspace import Workspace, WorkspaceError

POLL_SECONDS = 0.5


class BusyError(WorkspaceError):
    """Another process holds the lock. The message names it."""


@contextlib.contextmanager
def build_lock(workspace: Workspace, who: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the workspace for planning, running and recording a build; `who` is what others are told.

    If another process builds: with `wait`, calls it with a line that names it, and waits; else raises BusyError. Raises
    WorkspaceError if the workspace cannot be locked.
    """
    with _hold(_lock_file(workspace, "build"), who, f"another build ({{}}) runs in {workspace.root}", wait):
        yield


@contextlib.contextmanager
def photos_lock(workspace: Workspace, who: str, *, taking_down: bool = False) -> Iterator[None]:
    """Hold the workspace for adding photos and recording the new data version. Raises BusyError, WorkspaceError, also
    while a take-down is unfinished, except for `taking_down`."""
    if not taking_down:
        require_no_take_down(workspace)
    with _hold(
        _lock_file(workspace, "photos"), who, f"another command ({{}}) adds photos to {workspace.root}"
    ):
        yield


@contextlib.contextmanager
def promotion_lock(workspace: Workspace, who: str, *, taking_down: bool = False) -> Iterator[None]:
    """Hold the workspace for changing what serves; a build may run meanwhile. Raises BusyError, WorkspaceError, also
    while a take-down is unfinished, except for `taking_down`."""
    if not taking_down:
        require_no_take_down(workspace)
    with _hold(
        _lock_file(workspace, "promotion"),
        who,
        f"another command ({{}}) changes what serves in {workspace.root}",
    ):
        yield


@contextlib.contextmanager
def run_lock(workspace: Workspace, run: str) -> Iterator[None]:
    """Hold the file of a Dagster run, which shows that its process lives: see `killed_runs`."""
    file = _run_file(workspace, run)
    with _hold(file, run, "{} is at work", wait=lambda _: None):  # at most for a look of `killed_runs`
        try:
            yield
        finally:
            file.unlink(missing_ok=True)


def killed_runs(workspace: Workspace) -> list[str]:
    """The Dagster runs whose process was killed: their file is still there and nobody holds it."""
    killed = []
    for file in sorted(_run_file(workspace, "").parent.glob("*.lock")):
        with contextlib.suppress(BusyError), _hold(file, file.stem, "{} is at work"):
            killed.append(file.stem)
    return killed


def forget_run(workspace: Workspace, run: str) -> None:
    """Remove the file of a killed run, once Dagster knows that it was."""
    _run_file(workspace, run).unlink(missing_ok=True)


@contextlib.contextmanager
def _hold(path: Path, who: str, busy: str, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock at `path`, in which `who` is written for others. The kernel frees it however this process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be locked: {error.strerror}") from None
    try:
        while not _locked(file, path):
            message = busy.format(_holder(file))
            if wait is None:
                raise BusyError(f"{message}; wait for it to end")
            wait(message)
            time.sleep(POLL_SECONDS)
        # Written before the old text is cut off: who reads meanwhile finds a whole first line.
        line = f"{' '.join(who.split())}, process {os.getpid()}, since {datetime.now():%H:%M}\n".encode()
        os.pwrite(file, line, 0)
        os.ftruncate(file, len(line))
        yield
    finally:
        os.close(file)


def _locked(file: int, path: Path) -> bool:
    """Try to take the lock. Raises WorkspaceError if the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be locked: {error.strerror}") from None
    return True


def _holder(file: int) -> str:
    """Who holds the lock, which it writes just after it took it."""
    for _ in range(20):
        if line := os.pread(file, 1000, 0).decode(errors="replace").partition("\n")[0]:
            return line
        time.sleep(0.1)
    return "unknown"


def _lock_file(workspace: Workspace, name: str) -> Path:
    return workspace.root / ".geoloc" / f"{name}.lock"


def _run_file(workspace: Workspace, run: str) -> Path:
    return workspace.root / ".geoloc" / "runs" / f"{run}.lock"
