"""Dagster assets from the chain: for each recipe one asset a stage, with content data versions and metadata."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `config` and cannot resolve text.

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from orchestration.lineage.record import code_version
from orchestration.plan.chain import CHAIN, SHARED, Stage, output_folder
from orchestration.plan.settings import DEFAULT_RECIPE, BuildSettings, borrowed, load_settings
from orchestration.run.stage import StageOutcome, run_stage
from orchestration.stores.data_version import data_version
from orchestration.workspace import Workspace

OWNERS = ["team:geoloc"]
DATA_KEY = dg.AssetKey("data")
TABLE_ROWS = 50
PICTURES = {".png": "png", ".jpg": "jpeg"}
"""The ends of files that are shown as pictures, and the kind of each."""


class BuildConfig(dg.Config):
    """What a run may be told: `force` builds again what is up to date."""

    force: bool = False


def asset_key(recipe: str, stage: str) -> dg.AssetKey:
    """The Dagster key of a stage: [stage] where all recipes share it, else [recipe, stage]."""
    return dg.AssetKey([stage] if stage in SHARED else [recipe, stage])


def data_source(workspace: Workspace) -> Any:
    """The photos under DVC, as an observable source: its data version is the md5 in data.dvc."""

    with warnings.catch_warnings():
        # Beta in Dagster 1.13, and a warning at every command would say so.
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.observable_source_asset(
            key=DATA_KEY,
            group_name="data",
            description="The photos under DVC: shards, catalog and quarantine, at the version that data.dvc names.",
            tags={"dagster/kind/dvc": ""},
        )
        def data() -> dg.DataVersion:
            return dg.DataVersion(data_version(workspace))

    return data


def shared_assets(workspace: Workspace) -> list[dg.AssetsDefinition]:
    """The assets that do not depend on a recipe."""
    settings = load_settings(workspace, DEFAULT_RECIPE)
    return [_asset(workspace, settings, stage) for stage in CHAIN if stage.name in SHARED]


def recipe_assets(workspace: Workspace, recipe: str) -> list[dg.AssetsDefinition]:
    """The assets of one recipe. Raises SettingsError when its settings are wrong."""
    settings = load_settings(workspace, recipe)
    return [_asset(workspace, settings, stage) for stage in CHAIN if stage.name not in SHARED]


def _asset(workspace: Workspace, settings: BuildSettings, stage: Stage) -> dg.AssetsDefinition:
    recipe = settings.recipe
    deps = [*([DATA_KEY] if stage.name in SHARED else []), *(asset_key(recipe, n) for n in stage.inputs)]
    deps += [asset_key(*source) for source in borrowed(settings, stage.sections).values()]

    @dg.asset(
        key=asset_key(recipe, stage.name),
        deps=deps,
        group_name=stage.group,
        kinds=set(stage.kinds),
        owners=OWNERS,
        description=stage.description,
        code_version=code_version(stage.module),
        metadata={
            "recipe": recipe,
            "settings": dg.MetadataValue.json(settings.sections(stage.sections)),
            "folder": f"build/{'/'.join(asset_key(recipe, stage.name).path)}",
        },
        pool=stage.group if stage.group in ("models", "retrieval") else None,
    )
    def asset(context: dg.AssetExecutionContext, config: BuildConfig) -> dg.MaterializeResult:
        # Settings are read again: the code server may be older than the last edit of params.yaml.
        current = load_settings(workspace, recipe)
        outcome = run_stage(
            workspace,
            current,
            stage.name,
            log=context.log.info,
            dagster_run=context.run_id,
            force=config.force,
        )
        return _result(workspace, outcome)

    return asset


def _result(workspace: Workspace, outcome: StageOutcome) -> dg.MaterializeResult:
    lineage = outcome.lineage
    folder = output_folder(workspace, lineage.recipe, lineage.stage)
    facts = {
        **outcome.metadata,
        "lineage/content": lineage.content,
        "lineage/inputs": lineage.inputs,
        "lineage/settings hash": lineage.settings_hash,
        "lineage/code version": lineage.code_version,
        "lineage/workspace commit": f"{lineage.workspace_commit or 'none'}{' (dirty)' * bool(lineage.workspace_dirty)}",
        "lineage/MLflow run": lineage.mlflow_run or "none",
        "lineage/Dagster run": lineage.dagster_run or "none",
        "folder": folder,
    }
    return dg.MaterializeResult(
        metadata={key: metadata_value(value) for key, value in facts.items()},
        data_version=dg.DataVersion(lineage.content),
        tags={"geoloc/reused": str(outcome.reused).lower()},
    )


def metadata_value(value: Any) -> dg.MetadataValue:
    """A fact as Dagster shows it: data frames as tables, PNG and JPEG files as pictures, folders as paths."""
    if isinstance(value, pd.DataFrame):
        return dg.MetadataValue.md(
            markdown_table(value.columns, value.head(TABLE_ROWS).itertuples(index=False))
        )
    if isinstance(value, Path):
        return picture(value) if value.suffix in PICTURES else dg.MetadataValue.path(value)
    if isinstance(value, dict | list | tuple):
        return dg.MetadataValue.json(list(value) if isinstance(value, tuple) else value)
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value) if math.isfinite(value) else dg.MetadataValue.text(str(value))
    return dg.MetadataValue.md(value) if "\n" in str(value) else dg.MetadataValue.text(str(value))


def picture(file: Path) -> dg.MetadataValue:
    """A PNG or JPEG file inside the metadata itself, so that the UI shows it with no server for files."""
    import base64

    data = base64.b64encode(file.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{file.stem}](data:image/{PICTURES[file.suffix]};base64,{data})")


def markdown_table(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown; pipes in cells are escaped, numbers are rounded for reading."""

    def cell(value: object) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [list(map(str, columns))]
    lines.append(["---"] * len(lines[0]))
    lines.extend([cell(value) for value in row] for row in rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
