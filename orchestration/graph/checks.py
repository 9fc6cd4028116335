"""Asset checks: Great Expectations suites on the output of each stage, and whether data/ matches data.dvc."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `context` and cannot resolve text.

import dataclasses
from datetime import UTC, datetime

import dagster as dg

from orchestration.graph.assets import asset_key
from orchestration.lineage.build import Build
from orchestration.lineage.checks import CheckResult, output_of, result_for_now, rules_of, write_result
from orchestration.plan.chain import SHARED
from orchestration.plan.checks import Check, checks_of
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
    return [data_check(workspace), *_checks(Build(workspace), shared=True)]


def recipe_checks(build: Build) -> list[dg.AssetChecksDefinition]:
    """The checks on one recipe's assets."""
    return _checks(build, shared=False)


def _checks(build: Build, shared: bool) -> list[dg.AssetChecksDefinition]:
    return [
        suite_check(build, stage.name, check)
        for stage in build.stages
        if (stage.name in SHARED) == shared
        for check in checks_of(build.settings, stage.name)
    ]


def suite_check(build: Build, stage: str, check: Check) -> dg.AssetChecksDefinition:
    """A Great Expectations suite as a blocking check: critical failures stop the stages below, others are warnings.

    The result is recorded with the output that it is of, so that it holds for later runs too.
    """

    @dg.asset_check(
        asset=asset_key(build.recipe, stage),
        name=check.name,
        blocking=True,
        description=f"Great Expectations suite expectations/{check.suite}.json"
        + (f", on {check.about}" if check.about else ""),
    )
    def run_check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        from orchestration.quality.of_build import frame_of
        from orchestration.quality.suites import run_suite

        # Settings are read again: the code server may be older than the last edit of params.yaml.
        current = Build(build.workspace, build.recipe)
        named = {one.name: one for one in checks_of(current.settings, stage)}
        now = named.get(check.name, check)
        of, rules = output_of(current.built(stage)), rules_of(build.workspace, now)
        suite = build.workspace.expectations / f"{check.suite}.json"
        result = run_suite(suite, frame_of(current, stage, check.about), now.parameters)
        summary = (f"partitions.{check.about}, " if check.suite == "partition" else "") + result.summary()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        found = CheckResult(check.name, of, rules, result.critical_failures, result.warnings, summary, at)
        earlier = result_for_now(current, stage, now)
        if earlier is not None and earlier.accepted and not found.passed:
            found = dataclasses.replace(found, accepted=earlier.accepted)
        write_result(current, stage, found)
        for row in result.rows:
            if (
                not row.passed and row.severity == "warning"
            ):  # a critical one is reported as the build's failure
                such = f", such as {'; '.join(row.sample[:3])}" if row.sample else ""
                context.log.warning(f"warning: {row.description}: not so for {row.observed}{such}")
        return dg.AssetCheckResult(
            passed=result.passed,
            # What a person accepted warns and no longer blocks.
            severity=dg.AssetCheckSeverity.WARN if found.passed else dg.AssetCheckSeverity.ERROR,
            description=summary,
            metadata={
                "expectations": len(result.rows),
                "critical failures": result.critical_failures,
                "warnings": result.warnings,
                "results": dg.MetadataValue.md(result.markdown()),
                "folder": build.folder(stage).relative_to(build.workspace.root).as_posix(),
            },
        )

    return run_check
