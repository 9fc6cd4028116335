"""The sensor that reports failed checks and failed runs to a file or a webhook (settings `alerts`)."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` and cannot resolve text.

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from orchestration.operations.alerts import alert
from orchestration.plan.settings import DEFAULT_RECIPE, load_settings
from orchestration.workspace import Workspace, WorkspaceError

NAME = "alert_on_failures"
_FIRST_LOOK_SECONDS = 86_400.0
"""When the sensor is switched on, it reports failures of the last day, not of the whole history."""
_OVERLAP_SECONDS = 60.0
"""So long before the last look, runs are looked at again: one may be recorded later than it ended."""
_RUN_FAILED = "run"
_UNFINISHED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_KINDS = {dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.RUN_FAILURE}


@dataclass(frozen=True)
class _Seen:
    """What was looked at: runs that ended until `until` (Unix time), and of later ones and of those that still run the
    number of events of _KINDS, by run."""

    until: float
    events: dict[str, int]

    @classmethod
    def read(cls, cursor: str | None) -> "_Seen":
        return cls(**json.loads(cursor)) if cursor else cls(time.time() - _FIRST_LOOK_SECONDS, {})

    def text(self) -> str:
        return json.dumps({"until": self.until, "events": self.events})


def alert_sensor(workspace: Workspace) -> dg.SensorDefinition:
    """Reports once each check that failed and was not accepted, and each run that failed."""

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
        seen = _Seen.read(context.cursor)
        runs = _runs(context.instance, seen.until)
        sent = 0
        for run_id in runs:
            for failure in _failures(context.instance, workspace, run_id, seen.events.get(run_id, 0)):
                if failure is not None:
                    try:
                        alert(workspace, settings, failure)
                    except WorkspaceError:
                        if not sent:
                            raise
                        return dg.SkipReason(f"{_alerts(sent)}; the next was not taken")
                    sent += 1
                seen.events[run_id] = seen.events.get(run_id, 0) + 1
                context.update_cursor(seen.text())  # those that were sent are not sent again
        ended = [time for time in runs.values() if time is not None]
        until = max([seen.until, *(time - _OVERLAP_SECONDS for time in ended)])
        kept = {run: count for run, count in seen.events.items() if run in _runs(context.instance, until)}
        context.update_cursor(_Seen(until, kept).text())
        return dg.SkipReason(_alerts(sent) if sent else "nothing failed")

    return sensor


def _alerts(count: int) -> str:
    return f"{count} alert{'s' * (count != 1)} sent"


def _runs(instance: dg.DagsterInstance, since: float) -> dict[str, float | None]:
    """The runs that ended after `since` (Unix time) and those that still run, oldest first, with when they ended.

    The events are asked of one run after another: Dagster's store in SQLite has a database for each run, and numbers
    its events anew in each.
    """
    after = datetime.fromtimestamp(since, UTC)
    records = {
        one.dagster_run.run_id: one
        for filters in (dg.RunsFilter(updated_after=after), dg.RunsFilter(statuses=_UNFINISHED))
        for one in instance.get_run_records(filters)
    }
    ordered = sorted(records.values(), key=lambda one: one.storage_id)
    return {
        one.dagster_run.run_id: one.update_timestamp.timestamp() if one.dagster_run.is_finished else None
        for one in ordered
    }


def _failures(
    instance: dg.DagsterInstance, workspace: Workspace, run_id: str, seen: int
) -> list[dict[str, Any] | None]:
    """What to report of a run's events of _KINDS after the first `seen`, in order; None for one that is no failure."""
    found: list[dict[str, Any] | None] = []
    cursor, more = None, True
    while more:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=_KINDS)
        found += [_failure(workspace, record.event_log_entry) for record in page.records]
        cursor, more = page.cursor, page.has_more
    return found[seen:]


def _failure(workspace: Workspace, entry: dg.EventLogEntry) -> dict[str, Any] | None:
    """What to report of an event; None if it is no failure."""
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
