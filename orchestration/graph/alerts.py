"""The sensor that tells of failed checks and failed runs, to a file or a webhook (settings `alerts`)."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` and cannot resolve text.

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from orchestration.operations.alerts import alert
from orchestration.plan.settings import DEFAULT_RECIPE, load_settings
from orchestration.workspace import Workspace, WorkspaceError

NAME = "alert_on_failures"
_AT_ONCE = 200
"""Events of one look."""
_FIRST_LOOK_SECONDS = 86_400.0
"""When the sensor is switched on, it tells of failures of the last day, not of the whole history."""
_RUN_FAILED = "run"


def alert_sensor(workspace: Workspace) -> dg.SensorDefinition:
    """Tells once of each check that failed and was not accepted, and of each run that failed."""

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=load_settings(workspace).alerts.seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Failed checks and runs are appended to alerts.file and posted to the webhook in the variable that "
        "alerts.webhook names, each once. Without these settings it does nothing.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        settings = load_settings(
            workspace, DEFAULT_RECIPE
        ).alerts  # again: a person may have edited params.yaml
        if not settings.file and not settings.webhook:
            return dg.SkipReason("alerts go nowhere: set alerts.file or alerts.webhook in params.yaml")
        seen = _read_cursor(context.cursor)
        told = 0
        for number, failure in _failures(context.instance, workspace, seen):
            if failure is not None:
                try:
                    alert(workspace, settings, failure)
                except WorkspaceError:
                    if not told:
                        raise
                    break  # those that were told are not told again
                told += 1
            seen = number
            context.update_cursor(json.dumps({"event": number}))
        return dg.SkipReason(f"{told} alert{'s' * (told != 1)} sent" if told else "nothing failed")

    return sensor


def _read_cursor(cursor: str | None) -> int:
    """The last event that was looked at; 0 at the first look."""
    return int(json.loads(cursor)["event"]) if cursor else 0


def _failures(
    instance: dg.DagsterInstance, workspace: Workspace, seen: int
) -> list[tuple[int, dict[str, Any] | None]]:
    """The events after `seen` in order, each with what to tell of it; None for one that is no failure."""
    found: list[tuple[int, dict[str, Any] | None]] = []
    for kind in (dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.RUN_FAILURE):
        records = instance.get_event_records(
            dg.EventRecordsFilter(event_type=kind, after_cursor=seen), limit=_AT_ONCE, ascending=True
        )
        for record in records:
            entry = record.event_log_entry
            old = not seen and entry.timestamp < time.time() - _FIRST_LOOK_SECONDS
            found.append((record.storage_id, None if old else _told(workspace, entry)))
    # Of two full pages, what is after the end of the shorter one is looked at next time.
    return sorted(found, key=lambda one: one[0])[:_AT_ONCE]


def _told(workspace: Workspace, entry: dg.EventLogEntry) -> dict[str, Any] | None:
    """What to tell of an event; None if it is no failure."""
    event = entry.get_dagster_event()
    about: Mapping[str, Any]
    if event.event_type == dg.DagsterEventType.RUN_FAILURE:
        about = {"kind": _RUN_FAILED, "job": event.job_name, "description": event.message or ""}
        text = f"the run {entry.run_id[:8]} of {event.job_name} failed"
    else:
        found = event.asset_check_evaluation_data
        # One that a person accepted is reported as a warning, and so is one that is only a warning.
        if found.passed:
            return None
        asset = "/".join(found.asset_key.path)
        about = {
            "kind": "check",
            "asset": asset,
            "check": found.check_name,
            "severity": found.severity.value,
            "description": found.description or "",
        }
        text = f"{asset} failed its check {found.check_name}: {found.description or 'see the Dagster UI'}"
    at = datetime.fromtimestamp(entry.timestamp, UTC).isoformat(timespec="seconds")
    return {"workspace": workspace.root.name, "run": entry.run_id, "at": at, "text": text, **about}
