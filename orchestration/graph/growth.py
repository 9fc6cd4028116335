"""Growth as Dagster runs it: a sensor observes each new data version, and starts what params.yaml says.

A declarative condition on the photos would need a run for each look at data.dvc; the sensor reads a file. What follows
a finished evaluation is declarative: see graph/promotion.py.
"""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` and cannot resolve text.

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from orchestration.graph.assets import DATA_KEY, asset_key
from orchestration.operations.growth import Seen, look
from orchestration.plan.seeds import plain
from orchestration.plan.settings import load_settings
from orchestration.stores.data_version import data_version
from orchestration.stores.databases import dagster_instance
from orchestration.workspace import Workspace

GROWTH_TAG = "geoloc/growth"
"""On runs that growth started: the recipe."""
VERSION_TAG = "geoloc/growth_version"
"""On runs that growth started: the data version, by which a newer one finds those that still wait."""
DATA_VERSION = "dagster/data_version"
GREW = "share of growth"
"""A fact that only these observations have: those of a run say no more than the version."""
SENSOR = "photos_grew"
SECONDS = 60
Jobs = Mapping[str, Any]
"""The jobs that build recipes, by recipe: what dg.define_asset_job makes, whose type is not public."""


def growth_sensor(workspace: Workspace, jobs: Jobs) -> dg.SensorDefinition:
    """Observes each new data version once, and asks for the runs of the recipes that growth.recipes names. `jobs` build
    recipes.

    A content that was seen starts nothing again, and a newer one takes the place of runs that still wait.
    """

    @dg.sensor(
        name=SENSOR,
        jobs=[jobs[recipe] for recipe in sorted(jobs)],
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Sees a new data version in data.dvc: records what changed in the photos, and refreshes or retrains the "
            "recipes in growth.recipes (params.yaml)."
        ),
    )
    def photos_grew(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if not (workspace.data_pointer.exists() and workspace.pool.is_dir()):
            return dg.SkipReason("there are no photos yet")
        version = data_version(workspace)
        if context.cursor == version:
            return dg.SkipReason(f"the data version is still {version}")
        wanted = load_settings(workspace).growth.recipes
        recipes = [recipe for recipe in wanted if recipe in jobs]
        if missing := [recipe for recipe in wanted if recipe not in jobs]:
            context.log.warning(
                f"not built yet, so not refreshed: {', '.join(missing)} (geoloc build --recipe)"
            )
        seen = [look(workspace, recipe) for recipe in recipes or sorted(jobs)[:1]]
        requests = [
            _request(jobs[one.recipe].name, one, _turn(context.instance, one))
            for one in seen
            if one.waiting and one.recipe in recipes
        ]
        for request in requests:
            _supersede(context.instance, request.tags[GROWTH_TAG], version)
        return dg.SensorResult(
            run_requests=requests, cursor=version, asset_events=[observation(one) for one in seen[:1]]
        )

    return photos_grew


def retraining_schedules(workspace: Workspace, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    """One for each recipe in growth.recipes, if growth.retrain_cron is set; it does nothing if no photos wait."""
    policy = load_settings(workspace).growth
    if not policy.retrain_cron:
        return []
    return [
        _schedule(workspace, recipe, jobs[recipe], policy.retrain_cron)
        for recipe in policy.recipes
        if recipe in jobs
    ]


def _schedule(workspace: Workspace, recipe: str, job: Any, cron: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"retrain_{plain(recipe)}",
        cron_schedule=cron,
        job=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Trains {recipe} again if photos wait (growth.retrain_cron).",
    )
    def retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        seen = look(workspace, recipe)
        if not seen.waiting:
            return dg.SkipReason(f"no photos wait: {seen}")
        # Each time anew: a training that failed is due again.
        turn = context.scheduled_execution_time.isoformat()
        return _request(job.name, seen, turn, retrain=True, why="growth.retrain_cron")

    return retrain


def observation(seen: Seen) -> dg.AssetObservation:
    """A new data version, as an observation of the photos, with what changed in them."""
    facts = seen.facts()
    return dg.AssetObservation(
        DATA_KEY,
        description=str(seen),
        metadata={
            key: dg.MetadataValue.json(value) if isinstance(value, dict) else value
            for key, value in facts.items()
        },
        tags={DATA_VERSION: seen.version},
    )


def report(workspace: Workspace, seen: Seen) -> None:
    """Add an observation that a command made to Dagster's history, unless the last one is of the same version."""
    with dagster_instance(workspace) as instance:
        recent = [one.asset_observation for one in instance.fetch_observations(DATA_KEY, limit=20).records]
        grown = [one for one in recent if one is not None and GREW in one.metadata]
        if not grown or grown[0].tags.get(DATA_VERSION) != seen.version:
            instance.report_runless_asset_event(observation(seen))


def _turn(instance: dg.DagsterInstance, seen: Seen) -> str:
    """Which time it is that growth starts a run for a data version: empty for the first; else the last run for another
    one in between. The photos may become again what they were, and the outputs are then of others."""
    runs = instance.get_runs(RunsFilter(tags={GROWTH_TAG: seen.recipe}))  # the newest first
    for position, run in enumerate(runs):
        if run.tags.get(VERSION_TAG) not in (None, seen.version):
            again = any(one.tags.get(VERSION_TAG) == seen.version for one in runs[position:])
            return run.run_id if again else ""
    return ""


def _request(job: str, seen: Seen, turn: str = "", *, retrain: bool = False, why: str = "") -> dg.RunRequest:
    """A run that refreshes a recipe or, with a reason, admits the photos that wait and trains. Dagster starts one for
    the same version, work and `turn` once."""
    admit = retrain or bool(seen.reasons)
    op = "__".join(asset_key(seen.recipe, "splits").path)
    config: dict[str, Any] = {"ops": {op: {"config": {"admit": True}}}} if admit else {}
    return dg.RunRequest(
        run_key=":".join(filter(None, (seen.recipe, seen.version, "retrain" if admit else "refresh", turn))),
        job_name=job,
        run_config=config,
        tags={
            GROWTH_TAG: seen.recipe,
            VERSION_TAG: seen.version,
            "geoloc/reason": why or "; ".join(seen.reasons) or "refresh",
        },
    )


def _supersede(instance: dg.DagsterInstance, recipe: str, version: str) -> None:
    """Cancel the runs of a recipe that growth asked for and that still wait: they would be of older photos."""
    waiting = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(RunsFilter(statuses=waiting, tags={GROWTH_TAG: recipe})):
        if run.tags.get(VERSION_TAG) != version:
            instance.report_run_canceled(run, f"superseded by the data version {version}")
