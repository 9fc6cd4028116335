"""MLflow's store after the workspace was copied or moved: MLflow records absolute paths, and they follow.

Without this, a copied workspace would write its models into the original. All other tools record relative paths.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path

from geoloc.files import write_text
from orchestration.workspace import Workspace, WorkspaceError

EXPERIMENT = "geoloc"
PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The columns of MLflow 3 that hold the place of artefacts, all as URIs that begin with the experiment's."""
DEFAULT_EXPERIMENT = 0
"""MLflow makes it in every store, with artefacts in the folder that is current then. Unused."""


def artifacts_uri(workspace: Workspace) -> str:
    """The place of all artefacts of runs and models, as MLflow records it."""
    return (workspace.mlflow / "artifacts").as_uri()


def settle(workspace: Workspace) -> bool:
    """Point MLflow's store at the place where the workspace is now; returns whether it pointed elsewhere.

    One transaction: readers see the old place or the new one, and of two processes one does it. A store that cannot be
    written is left alone. Raises WorkspaceError for a file that is no database.
    """
    file = workspace.mlflow / "mlflow.db"
    if not file.is_file() or not os.access(file, os.W_OK):
        return False
    here = artifacts_uri(workspace)
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as database:
            if _is_at(database, here):
                return False
            database.execute("BEGIN IMMEDIATE")
            with database:  # commits, or rolls back if it raises
                _move(database, here)
                for description in (workspace.mlflow / "artifacts" / "models").glob("*/artifacts/MLmodel"):
                    forget_place(description)
            database.execute("VACUUM")  # the old place's bytes would stay in the file's free space
    except sqlite3.DatabaseError as error:
        raise WorkspaceError(
            f"{file} is no database of MLflow's that can be used ({error}); restore it, or remove it to begin a new one"
        ) from None
    return True


def forget_place(description: Path) -> None:
    """Replace absolute paths in the file MLmodel of a logged model: by the model's id, and by names in its folder."""
    text = description.read_text(encoding="utf-8")
    model = description.parent.parent.name
    text = re.sub(r"(?m)^artifact_path: .*$", f"artifact_path: models:/{model}", text)
    text = re.sub(r"(?m)^( +(?:uri|model_code_path): )/.*/([^/\n]+)$", r"\1\2", text)
    write_text(description, text)


def _is_at(database: sqlite3.Connection, here: str) -> bool:
    """Whether the store's experiments are at `here`, or not made yet."""
    places = dict(_places(database))
    default = places.pop(str(DEFAULT_EXPERIMENT), None)
    return set(places.values()) <= {here} and default in (None, f"{here}/{DEFAULT_EXPERIMENT}")


def _places(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """The place of geoloc's experiment and of MLflow's default one, by id."""
    if "experiments" not in _tables(database):  # killed while MLflow made it
        return []
    return [
        (str(number), place)
        for number, place in database.execute(
            "SELECT experiment_id, artifact_location FROM experiments WHERE name = ? OR experiment_id = ?",
            (EXPERIMENT, DEFAULT_EXPERIMENT),
        )
    ]


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _move(database: sqlite3.Connection, here: str) -> None:
    """Replace the place where the store was by `here`, in all columns of PATHS."""
    tables = _tables(database)
    was = [place for number, place in _places(database) if number != str(DEFAULT_EXPERIMENT)]
    for before in set(was) - {here}:
        for table, column in PATHS:
            if table in tables:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, length(?) + 1) "
                    f"WHERE {column} = ? OR substr({column}, 1, length(?) + 1) = ? || '/'",
                    (here, before, before, before, before),
                )
    database.execute(
        "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
        (f"{here}/{DEFAULT_EXPERIMENT}", DEFAULT_EXPERIMENT),
    )
