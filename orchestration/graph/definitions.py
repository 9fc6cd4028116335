"""Dagster's definitions for some recipes of a workspace: assets, checks, jobs and a readable logger."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import dagster as dg

from orchestration.graph.alerts import alert_sensor
from orchestration.graph.assets import asset_key, data_source, recipe_assets, shared_assets
from orchestration.graph.checks import recipe_checks, shared_checks
from orchestration.graph.growth import growth_sensor, retraining_schedules
from orchestration.graph.health import health_asset, health_schedule
from orchestration.graph.promotion import promotion_asset, promotion_key, promotion_sensors
from orchestration.graph.runs import one_at_a_time
from orchestration.lineage.build import Build
from orchestration.plan.seeds import plain
from orchestration.workspace import Workspace


def make_definitions(workspace: Workspace, recipes: Sequence[str]) -> dg.Definitions:
    """Dagster definitions for some recipes of a workspace. Raises SettingsError if a recipe is invalid."""
    assets = [data_source(workspace), *shared_assets(workspace)]
    checks = shared_checks(workspace)
    builds, jobs, promotions = {}, [], []
    for recipe in recipes:
        build = Build(workspace, recipe)
        promotions.append(promotion_asset(build))
        assets += [*recipe_assets(build), health_asset(build), promotions[-1]]
        checks += recipe_checks(build)
        keys = [asset_key(recipe, stage.name) for stage in build.stages]
        builds[recipe] = dg.define_asset_job(
            job_name(recipe),
            selection=dg.AssetSelection.assets("data", *keys),
            description=f"The whole chain for the recipe {recipe}; what is up to date is kept.",
        )
        jobs.append(
            dg.define_asset_job(
                f"promote_{job_name(recipe).removeprefix('build_')}",
                selection=dg.AssetSelection.assets(promotion_key(recipe)),
                description=f"Compare the newest build of {recipe} with the model in service, and replace that if the "
                "policy says so.",
            )
        )
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[*builds.values(), *jobs],
        sensors=[growth_sensor(workspace, builds), *promotion_sensors(promotions), alert_sensor(workspace)],
        schedules=[
            *retraining_schedules(workspace, builds),
            *([health_schedule(workspace, recipes)] if recipes else []),
        ],
        loggers={"console": plain_logger},
        executor=one_at_a_time(workspace),
    )


def job_name(recipe: str) -> str:
    """The name of the job that builds a recipe."""
    return "build_" + "".join(c if c.isalnum() else "_" for c in plain(recipe))


@dg.logger
def plain_logger(context: dg.InitLoggerContext) -> logging.Logger:
    """A logger that prints messages of stages and failures only; Dagster's own prints a stream of DEBUG lines."""
    logger = logging.Logger("geoloc", level=logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_PlainFormatter())
    handler.addFilter(_is_for_people)
    logger.addHandler(handler)
    return logger


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "dagster_meta", None) or {}
        step = str(facts.get("step_key") or "").replace("__", "/")
        message = str(facts.get("orig_message") or record.getMessage())
        return f"{step:<24} {message}"


def _is_for_people(record: logging.LogRecord) -> bool:
    facts = getattr(record, "dagster_meta", None) or {}
    # Messages of stages. Failures are reported at the end; what they keep from running is not reported.
    return facts.get("dagster_event") is None and record.levelno in (logging.INFO, logging.WARNING)
