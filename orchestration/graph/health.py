"""The health of each recipe as a Dagster asset with checks, looked at by a schedule."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` and cannot resolve text.

from collections.abc import Sequence

import dagster as dg

from orchestration.graph.assets import OWNERS, PART_TAG, asset_key, freshness
from orchestration.lineage.build import Build
from orchestration.plan.checks import HEALTH_CHECKS
from orchestration.plan.seeds import plain
from orchestration.tables import markdown
from orchestration.workspace import Workspace

HEALTH = "health"
JOB = "check_health"


def health_asset(build: Build) -> dg.AssetsDefinition:
    """The asset of a recipe's health; its checks warn, and block nothing."""
    workspace, recipe, key = build.workspace, build.recipe, asset_key(build.recipe, HEALTH)

    @dg.asset(
        key=key,
        deps=[asset_key(recipe, name) for name in ("index", "evaluation")],
        group_name=plain(recipe),
        kinds={"pandas"},
        owners=OWNERS,
        tags={PART_TAG: "evaluation"},
        description="Whether the build is still good: drift of new photos, accuracy by region and calibration over "
        "time, recall and balance of the indexes. Bounds: section health of params.yaml.",
        freshness_policy=freshness(build),
        check_specs=[
            dg.AssetCheckSpec(name, asset=key, description=text, blocking=False)
            for name, text in HEALTH_CHECKS.items()
        ],
    )
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        from orchestration.operations.health import (
            health,  # imports faiss and more: only where it is looked at
        )

        found = health(Build(workspace, recipe))
        for one in found:
            context.log.info(f"{one.name}: {one.summary}")
        return dg.MaterializeResult(
            metadata={"failed": sum(not one.passed for one in found)},
            check_results=[
                dg.AssetCheckResult(
                    asset_key=key,
                    check_name=one.name,
                    passed=one.passed,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=one.summary,
                    metadata={"table": dg.MetadataValue.md(_table(one.table))} if one.table else {},
                )
                for one in found
            ],
        )

    return asset


def health_schedule(workspace: Workspace, recipes: Sequence[str]) -> dg.ScheduleDefinition:
    """Looks at the health of all recipes each morning, once a person has switched it on."""
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*(asset_key(recipe, HEALTH) for recipe in recipes)),
        description="Drift, accuracy by region and calibration over time, and the indexes, of every recipe.",
    )
    return dg.ScheduleDefinition(
        name=f"{JOB}_daily",
        job=job,
        cron_schedule="0 6 * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Looks at the health of every recipe at six each morning (UTC).",
    )


def _table(rows: Sequence[dict]) -> str:
    return markdown([row.values() for row in rows[:50]], rows[0])
