"""Asset checks: Great Expectations suites on the output of each stage, and whether data/ matches data.dvc."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` and cannot resolve text.

import functools
from collections.abc import Callable, Mapping

import dagster as dg
import pandas as pd

from orchestration.graph.assets import asset_key
from orchestration.lineage.build import Build
from orchestration.plan.settings import DEFAULT_RECIPE
from orchestration.stores.data_version import data_changes
from orchestration.workspace import Workspace


def data_check(workspace: Workspace) -> dg.AssetChecksDefinition:
    """Block if data/ differs from the version in data.dvc: every lineage record would be wrong."""

    @dg.asset_check(
        asset=asset_key(DEFAULT_RECIPE, "photos"),
        name="workspace_matches_data_dvc",
        blocking=True,
        description="data/ on disk is the version that data.dvc names.",
    )
    def check() -> dg.AssetCheckResult:
        changes = data_changes(workspace)
        return dg.AssetCheckResult(
            passed=not changes,
            metadata={"changes": dg.MetadataValue.md("\n".join(f"- {line}" for line in changes) or "none")},
            description="; ".join(changes[:3])
            + "; record it with `dvc add data` or undo it with `dvc checkout data.dvc`"
            if changes
            else None,
        )

    return check


def shared_checks(workspace: Workspace) -> list[dg.AssetChecksDefinition]:
    """The checks on assets that all recipes share."""
    from orchestration.quality import of_build

    return [data_check(workspace), suite_check(Build(workspace), "photos", "catalog", of_build.catalog)]


def recipe_checks(build: Build) -> list[dg.AssetChecksDefinition]:
    """The checks on one recipe's assets."""
    from orchestration.quality import of_build

    checks = [suite_check(build, "splits", "splits", of_build.splits)]
    for stage, model in (("features", "backbone"), ("embeddings", "classifier")):
        if stage in [one.name for one in build.stages]:
            frame = functools.partial(of_build.embeddings, model=model)
            checks.append(suite_check(build, stage, "embeddings", frame))
    for name, settings in build.settings.partitions.items():
        cells = functools.partial(of_build.partition, name=name)
        parameters = {"minimum_photos": settings.chosen.min_photos}
        checks.append(suite_check(build, "partition", "partition", cells, parameters, about=name))
    return checks


def suite_check(
    build: Build,
    stage: str,
    suite: str,
    frame: Callable[[Build], pd.DataFrame],
    parameters: Mapping[str, object] | None = None,
    about: str = "",
) -> dg.AssetChecksDefinition:
    """A Great Expectations suite as a blocking check: critical failures stop the stages below, others are warnings.

    `parameters` replace the suite's parameters that a recipe's settings decide. `about` names the part of the stage's
    output that is checked, if it has several.
    """

    @dg.asset_check(
        asset=asset_key(build.recipe, stage),
        name=f"{suite}_suite" + (f"_{about}" if about else ""),
        blocking=True,
        description=f"Great Expectations suite expectations/{suite}.json"
        + (f", on {about}" if about else ""),
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        from orchestration.quality.frames import run_suite

        # Settings are read again: the code server may be older than the last edit of params.yaml.
        looked_at = frame(Build(build.workspace, build.recipe))
        result = run_suite(build.workspace.expectations / f"{suite}.json", looked_at, parameters)
        critical = result.critical_failures > 0
        for row in result.rows:
            if (
                not row.passed and row.severity == "warning"
            ):  # a critical one is reported as the build's failure
                such = f", such as {'; '.join(row.sample[:3])}" if row.sample else ""
                context.log.warning(f"warning: {row.description}: not so for {row.observed}{such}")
        return dg.AssetCheckResult(
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
            description=(f"partitions.{about}, " if suite == "partition" else "") + result.summary(),
            metadata={
                "expectations": len(result.rows),
                "critical failures": result.critical_failures,
                "warnings": result.warnings,
                "results": dg.MetadataValue.md(result.markdown()),
                "folder": str(build.folder(stage)),
            },
        )

    return check
