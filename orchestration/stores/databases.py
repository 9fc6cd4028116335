"""The databases of Dagster and MLflow in a workspace: whether they are whole, before these tools open them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from geoloc.files import DamagedFile, one_line
from geoloc.yaml_files import read_yaml
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    import dagster as dg

_DAGSTER = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
_LOSS = "without it {} forgets earlier runs, and nothing else is lost"


def check_dagster(workspace: Workspace) -> None:
    """Raise DamagedFile, which says what to do, if Dagster's settings or history are damaged: Dagster itself shows a
    traceback through its own code."""
    read_yaml(workspace.dagster_home / "dagster.yaml", dict)
    for name in _DAGSTER:
        check_database(workspace.dagster_home / name, _LOSS.format("the UI"))


def dagster_instance(workspace: Workspace) -> dg.DagsterInstance:
    """Dagster's history of a workspace, a context manager. Raises DamagedFile if its settings or files are damaged."""
    import dagster as dg  # seconds to import: not for `--help`

    check_dagster(workspace)
    try:
        return dg.DagsterInstance.get()
    except dg.DagsterInvalidConfigError as error:
        raise DamagedFile(workspace.dagster_home / "dagster.yaml", one_line(error)) from error


def check_mlflow(workspace: Workspace) -> None:
    """Raise DamagedFile, which says what to do, if MLflow's store is damaged."""
    check_database(mlflow_database(workspace), _LOSS.format("MLflow"))


def mlflow_database(workspace: Workspace) -> Path:
    """The file of MLflow's store."""
    return workspace.mlflow / "mlflow.db"


def check_database(path: Path, loss: str) -> None:
    """Raise DamagedFile if a file is there and is not a whole SQLite database; `loss` says what removing it costs."""
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            ((found,),) = database.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        if path.is_file():  # locked by another process, or on a disk that cannot lock: not damage
            return
        found = one_line(error)
    except sqlite3.DatabaseError as error:
        found = one_line(error)
    if found != "ok":
        raise DamagedFile(path, f"{found}; move it away or restore it ({loss})")
