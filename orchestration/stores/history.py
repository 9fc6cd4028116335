"""Dagster's history, read: what a run materialized."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestration.stores.databases import check_dagster, dagster_instance
from orchestration.workspace import Workspace


@dataclass(frozen=True)
class Materialization:
    """One materialization of a stage's asset: its run, the recipe's name in the asset key ("" for a shared stage), the
    stage, the content hash of the output, and when."""

    run: str
    group: str
    stage: str
    content: str
    at: str


def materializations(workspace: Workspace, run: str) -> list[Materialization]:
    """What the run with an id that starts with `run` materialized, in order; [] for an unknown or ambiguous id.

    Raises DamagedFile if Dagster's history is damaged.
    """
    runs = _runs(workspace, run)
    if len(runs) != 1:
        return []
    import dagster as dg  # seconds to import: only for a run

    with dagster_instance(workspace) as instance:
        entries = instance.all_logs(runs[0], of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = []
    for entry in entries:
        event = entry.get_dagster_event()
        made, key = event.step_materialization_data.materialization, event.asset_key
        content = made.metadata.get("lineage/content")
        if content is None or key is None:
            continue
        at = datetime.fromtimestamp(entry.timestamp, UTC).isoformat(timespec="seconds")
        group = key.path[0] if len(key.path) > 1 else ""
        found.append(Materialization(runs[0], group, key.path[-1], str(content.value), at))
    return found


def _runs(workspace: Workspace, start: str) -> list[str]:
    """The ids of runs that start so. Does not import Dagster."""
    file = workspace.dagster_home / "history" / "runs.db"
    if not file.is_file():
        return []
    check_dagster(workspace)
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=60)) as database:
        rows = database.execute("SELECT run_id FROM runs WHERE substr(run_id, 1, ?) = ?", (len(start), start))
        return [run for (run,) in rows]
