"""The chain as Dagster assets: one asset per recipe and stage, with content data versions and metadata."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `config` and cannot resolve text.

import math
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from orchestration.graph.pictures import KINDS, as_markdown, maps, pictures, small
from orchestration.graph.versions import version_now, version_of
from orchestration.lineage.build import Build
from orchestration.plan.chain import SHARED, Stage, borrowed, inputs_of, looks_at_pool, waits
from orchestration.plan.seeds import plain
from orchestration.plan.settings import DEFAULT_RECIPE
from orchestration.run.stage import StageOutcome, run_stage
from orchestration.stores.data_version import data_version
from orchestration.stores.models import versions_of_run
from orchestration.workspace import Workspace

OWNERS = ["team:geoloc"]
DATA_KEY = dg.AssetKey("data")
REUSED_TAG = "geoloc/reused"
DATA_TAG = "geoloc/data_version"
CODE_VERSION_TAG = "dagster/code_version"
PART_TAG = "geoloc/part"
SHARED_GROUP = "photos"
"""The group of what all recipes share. Each recipe has a group of its own name, and none can be named as a stage is."""


class BuildConfig(dg.Config):
    """Options of a run: `force` also builds what is up to date; `admit` lets photos that wait (growth.admit) enter the
    splits."""

    force: bool = False
    admit: bool = False


def asset_key(recipe: str, stage: str) -> dg.AssetKey:
    """The Dagster key of a stage: [stage] if all recipes share it, else [recipe, stage]."""
    return dg.AssetKey([stage] if stage in SHARED else [plain(recipe), stage])


def data_source(workspace: Workspace) -> Any:
    """The photos under DVC, as an observable source: its data version is the md5 in data.dvc."""

    with warnings.catch_warnings():
        # Beta in Dagster 1.13, which would print a warning at every command.
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.observable_source_asset(
            key=DATA_KEY,
            group_name=SHARED_GROUP,
            description="The photos under DVC: shards, catalog and quarantine, at the version that data.dvc names.",
            tags={"dagster/kind/dvc": ""},
        )
        def data() -> dg.DataVersion:
            return dg.DataVersion(data_version(workspace))

    return data


def shared_assets(workspace: Workspace) -> list[dg.AssetsDefinition]:
    """The assets that do not depend on a recipe."""
    build = Build(workspace, DEFAULT_RECIPE)
    return [_asset(build, stage) for stage in build.stages if stage.name in SHARED]


def recipe_assets(build: Build) -> list[dg.AssetsDefinition]:
    """The assets of one recipe. Raises SettingsError if its settings are invalid."""
    return [_asset(build, stage) for stage in build.stages if stage.name not in SHARED]


def _asset(build: Build, stage: Stage) -> dg.AssetsDefinition:
    workspace, recipe = build.workspace, build.recipe
    above = dict.fromkeys((*stage.after, *inputs_of(build.settings, stage)))
    deps = [
        # What waits for a training is not out of date when the photos change.
        *([DATA_KEY] if looks_at_pool(build.settings, stage) and not waits(build.settings, stage) else []),
        *(asset_key(recipe, name) for name in above),
    ]
    deps += [asset_key(*source) for source in borrowed(build.settings, stage).values()]

    @dg.asset(
        key=asset_key(recipe, stage.name),
        deps=deps,
        group_name=SHARED_GROUP if stage.name in SHARED else plain(recipe),
        kinds=set(stage.kinds),
        owners=OWNERS,
        tags={PART_TAG: stage.group},
        description=_description(build, stage),
        code_version=version_now(build, stage),
        metadata={
            "recipe": recipe,
            "settings": dg.MetadataValue.json(build.used(stage)),
            "folder": f"build/{build.name(stage.name)}",
        },
        pool=stage.group if stage.group in ("models", "retrieval") else None,
        freshness_policy=freshness(build) if stage.name == "report" else None,
    )
    def asset(context: dg.AssetExecutionContext, config: BuildConfig) -> dg.MaterializeResult:
        # Settings are read again: the code server may be older than the last edit of params.yaml.
        current = Build(workspace, recipe)
        outcome = run_stage(
            current,
            stage.name,
            log=context.log.info,
            dagster_run=context.run_id,
            force=config.force,
            data=_pinned_data(context, workspace),
            admit=config.admit,
        )
        return _result(current, outcome)

    return asset


def freshness(build: Build) -> dg.FreshnessPolicy | None:
    """How old a report may be, by health.fresh_days; None for any age."""
    days = build.settings.health.fresh_days
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=days)) if days else None


def _description(build: Build, stage: Stage) -> str:
    """What the stage is, and the maps of its output: of all that an asset's page has, only its description is shown
    without a click."""
    shown = maps(build, stage.name)
    return "\n\n".join(
        [
            stage.description,
            *(f"**{title}**\n\n{as_markdown(small(file), title)}" for title, file in shown.items()),
        ]
    )


def _pinned_data(context: dg.AssetExecutionContext, workspace: Workspace) -> str:
    """The data version of the run, which its first stage writes into the run's tags."""
    run = context.instance.get_run_by_id(context.run_id)
    pinned = run.tags.get(DATA_TAG) if run else None
    if pinned is None:
        pinned = data_version(workspace)
        context.instance.add_run_tags(context.run_id, {DATA_TAG: pinned})
    return pinned


def _result(build: Build, outcome: StageOutcome) -> dg.MaterializeResult:
    record = outcome.record
    run = None if record.taken_from else record.mlflow_run
    of_run = versions_of_run(build.workspace, run) if run else []
    models = [f"models:/{one['name']}/{one['version']}" for one in of_run]
    facts = {
        **outcome.metadata,
        **pictures(build, record),
        "lineage/content": record.content,
        "lineage/inputs": record.inputs,
        "lineage/settings hash": record.settings_hash,
        "lineage/code version": record.code_version,
        "lineage/workspace commit": f"{record.workspace_commit or 'none'}{' (dirty)' * bool(record.workspace_dirty)}",
        "lineage/code commit": f"{record.code_commit or 'none'}{' (dirty)' * bool(record.code_dirty)}",
        "lineage/MLflow run": record.mlflow_run or "none",
        "lineage/registered model": ", ".join(models) or "none",
        "lineage/Dagster run": record.dagster_run or "none",
        **({"lineage/taken from": record.taken_from} if record.taken_from else {}),
        "folder": build.folder(record.stage),
    }
    root = build.workspace.root
    return dg.MaterializeResult(
        metadata={key: metadata_value(value, root) for key, value in facts.items()},
        data_version=dg.DataVersion(record.content),
        # In place of the version that the definitions had when the run began: another recipe's output may be reused.
        tags={REUSED_TAG: str(outcome.reused).lower(), CODE_VERSION_TAG: version_of(record)},
    )


def metadata_value(value: Any, root: Path) -> dg.MetadataValue:
    """A fact as Dagster shows it: PNG and JPEG files as pictures, text of several lines as Markdown, other paths
    relative to the workspace at `root`, so that history points at no earlier place of a copied one."""
    if isinstance(value, Path) and value.suffix in KINDS:
        return dg.MetadataValue.md(as_markdown(value, value.stem))
    if isinstance(value, Path):
        return dg.MetadataValue.path(value.relative_to(root).as_posix())
    if isinstance(value, dict | list | tuple):
        return dg.MetadataValue.json(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value) if math.isfinite(value) else dg.MetadataValue.text(str(value))
    return dg.MetadataValue.md(value) if "\n" in str(value) else dg.MetadataValue.text(str(value))
