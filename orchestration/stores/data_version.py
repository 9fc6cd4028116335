"""DVC: the data version, whether the files on disk match it, and recording a new one."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from dvc.repo import Repo

T = TypeVar("T")
LOCK_WAIT_SECONDS = 120.0


def data_version(workspace: Workspace) -> str:
    """The version of data/ that data.dvc names (DVC's md5 of the folder). Does not import DVC.

    Raises WorkspaceError if no data were ever recorded.
    """
    if not workspace.data_pointer.exists():
        raise WorkspaceError(
            f"{workspace.root} holds no photos yet: data.dvc is missing; add some with: geoloc ingest"
        )
    pointer = yaml.safe_load(workspace.data_pointer.read_text(encoding="utf-8"))
    return str(pointer["outs"][0]["md5"])


def data_changes(workspace: Workspace) -> list[str]:
    """The differences between data/ and the version in data.dvc, a line each; empty if they agree.

    data.dvc holds what was recorded, not what is on disk: without this check lineage could be wrong.
    """
    if not workspace.pool.exists():
        return ["data/ is missing; fetch it with: dvc pull data.dvc"]
    status = with_repo(workspace, lambda repo: repo.status(targets=[str(workspace.data_pointer)]))
    return [f"{item}" for entries in status.values() for item in _flatten(entries)]


def record_data(workspace: Workspace) -> str:
    """`dvc add data`: record the content of data/ as a new version in data.dvc; returns that version."""
    with_repo(workspace, lambda repo: repo.add([str(workspace.pool)]))
    return data_version(workspace)


def with_repo(workspace: Workspace, action: Callable[[Repo], T]) -> T:
    """Run `action` on the DVC repository; if another DVC command holds the lock, try again for two minutes.

    DVC itself has no option to wait: of two commands at once, one fails.
    """
    from dvc.exceptions import DvcException  # 1.3 s to import: not for `--help`
    from dvc.lock import LockError
    from dvc.repo import Repo

    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            # DVC resolves stage names and paths from the current folder, not from the repository that it is given.
            with contextlib.chdir(workspace.root), _quiet_dvc(), Repo(str(workspace.root)) as repo:
                return action(repo)
        except LockError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        except DvcException as error:
            raise WorkspaceError(f"DVC: {error}") from error


@contextlib.contextmanager
def _quiet_dvc() -> Iterator[None]:
    """Keep DVC's progress bars and notices out of our output; its errors are still raised."""
    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _flatten(entries: Any) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, dict):
            for kind, changed in entry.items():
                for path, state in changed.items() if isinstance(changed, dict) else []:
                    yield f"{kind}: {path} is {state}"
        else:
            yield str(entry)
