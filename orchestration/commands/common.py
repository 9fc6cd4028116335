"""What several commands do. Heavy imports are inside the functions: `geoloc --help` must not load torch."""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestration.errors import UsageError
from orchestration.workspace import Workspace


def open_workspace(options: argparse.Namespace, *, tracks: bool = True) -> Workspace:
    """The workspace that `--workspace` names, with the environment of its tools set.

    If it was copied or moved, its MLflow store follows; a command that never looks at that says `tracks=False`. Raises
    SettingsError for a `--recipe` that no recipe can be called, before the command imports its work.
    """
    from orchestration.stores.placement import settle

    workspace = Workspace.open(options.workspace)
    if getattr(options, "recipe", None) is not None:
        from orchestration.plan.settings import check_recipe_name

        check_recipe_name(options.recipe, "--recipe")
    workspace.set_environment()
    if tracks:
        settle(workspace)
    return workspace


def json_text(value: Any) -> str:
    """A value as JSON for `--json`. NaN and infinity, which JSON does not have, are null."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if hasattr(value, "item"):  # a number of numpy
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def check_writable(file: Path, option: str) -> None:
    """Raise UsageError if the file that an option names cannot be written."""
    above = next(folder for folder in file.absolute().parents if folder.exists())
    if file.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
        raise UsageError(f"{option} must name a file that can be written; got {file}")


def counter(what: str, total: int | None = None) -> Any:
    """A progress bar on a terminal; silent in a log."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=" photos", disable=None, leave=False)


def ingest_into(
    workspace: Workspace,
    kind: str,
    path: str,
    *,
    source: str | None,
    pool: Path | None = None,
    what: str = "photos",
    settings: dict[str, Any] | None = None,
    origin: str | None = None,
    **options: Any,
) -> None:
    """Add a source's photos to a pool (default: the workspace's) and print the account.

    source: its name; None: called as its file or folder. origin: as `geoloc.photos.ingest.ingest` has it.
    """
    from geoloc.photos.ingest import ingest
    from geoloc.photos.origins import claim_source
    from geoloc.photos.settings import IngestSettings
    from geoloc.photos.sources import open_source
    from geoloc.settings import parse

    pool = pool or workspace.pool
    limits = parse(IngestSettings, settings, "ingest")
    if kind == "urls":  # what the pool has is not downloaded again
        options |= {"pool": pool, "max_file_bytes": limits.max_file_bytes}
    candidates, key = open_source(kind, path, **options), workspace.photographer_key()
    if source is None:
        source = claim_source(pool, kind, path, key)
    with counter(f"{what} seen") as bar:
        summary = ingest(
            pool,
            candidates,
            source=source,
            photographer_key=key,
            settings=limits,
            progress=lambda so_far: bar.update(so_far.seen - bar.n),
            origin=origin,
        )
    print(summary if what == "photos" else f"{what} of {summary}")
    if summary.quarantined:
        print(f"why each was quarantined: geoloc quarantine --source {shlex.quote(source)}")


def record_data(workspace: Workspace) -> None:
    """Make what is in data/ the data version, and print it."""
    from orchestration.stores.data_version import record_data

    print(f"data version {record_data(workspace)}, in data.dvc")


def commit(workspace: Workspace, recipe: str, stages: list[str]) -> None:
    """Write what dvc.lock lacks of these stages to it, if dvc.yaml has the recipe."""
    from orchestration.stores.pipeline import commit_stages, pipeline_recipes, unrecorded_stages

    if recipe in pipeline_recipes(workspace):
        commit_stages(workspace, recipe, unrecorded_stages(workspace, recipe, stages))
