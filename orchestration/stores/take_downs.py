"""The take-down that is under way, in .geoloc/take-down.json: nothing else changes photos or builds before it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from geoloc.files import read_json, write_json
from orchestration.workspace import Workspace, WorkspaceError


def journal_path(workspace: Workspace) -> Path:
    """The file that says what is being taken down."""
    return workspace.root / ".geoloc" / "take-down.json"


def read_journal(workspace: Workspace) -> dict[str, Any] | None:
    """What is being taken down; None if nothing is. Raises DamagedFile."""
    path = journal_path(workspace)
    return read_json(path, dict) if path.is_file() else None


def write_journal(workspace: Workspace, journal: dict[str, Any]) -> None:
    """Begin a take-down, durably."""
    from geoloc.photos.catalog import sync_folder  # pandas takes half a second: not for `geoloc --help`

    path = journal_path(workspace)
    path.parent.mkdir(exist_ok=True)
    write_json(path, journal)
    path.chmod(0o600)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    sync_folder(path.parent)


def end_journal(workspace: Workspace) -> None:
    """The take-down is complete."""
    journal_path(workspace).unlink(missing_ok=True)


def require_no_take_down(workspace: Workspace) -> None:
    """Raise WorkspaceError if a take-down was interrupted: photos and records are half changed."""
    if journal_path(workspace).is_file():
        raise WorkspaceError(
            f"a take-down in {workspace.root} was interrupted; finish it first with: geoloc forget --finish"
        )
