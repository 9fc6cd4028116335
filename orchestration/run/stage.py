"""Run one stage: up to date or not, its output written whole, its lineage recorded."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoloc.files import atomic_folder
from orchestration.lineage.record import (
    Lineage,
    environment,
    expected_lineage,
    folder_content,
    git_state,
    why_stale,
)
from orchestration.plan.chain import STAGES, Stage, artefact, lineage_path, output_folder
from orchestration.plan.settings import BuildSettings
from orchestration.stores.data_version import data_version
from orchestration.workspace import Workspace


@dataclass(frozen=True)
class StageRun:
    """What a stage's `build(run)` is given.

    It writes its output under `output` (new and empty; it takes its place when `build` returns) and may keep
    resumable work under `scratch` (kept after a kill, removed when the stage is done).
    """

    workspace: Workspace
    settings: BuildSettings
    stage: Stage
    output: Path
    scratch: Path
    log: Callable[[str], None]
    tags: dict[str, str]
    dagster_run: str | None

    def input(self, name: str) -> Path:
        """The output folder of an earlier stage."""
        return output_folder(self.workspace, self.settings.recipe, name)


@dataclass(frozen=True)
class StageResult:
    """What `build` returns: facts for people (numbers, text, data frames, PNG files under the output)."""

    metadata: dict[str, Any] = field(default_factory=dict)
    mlflow_run: str | None = None


@dataclass(frozen=True)
class StageOutcome:
    """What became of a stage: its lineage, its facts, and whether an earlier output was kept."""

    lineage: Lineage
    metadata: dict[str, Any]
    reused: bool


def run_stage(
    workspace: Workspace,
    settings: BuildSettings,
    name: str,
    *,
    log: Callable[[str], None],
    dagster_run: str | None = None,
    force: bool = False,
) -> StageOutcome:
    """Build a stage's output, or keep the one there is when nothing that it depends on has changed.

    Raises WorkspaceError where an input is not built, and whatever the stage itself raises; the earlier output
    then stays as it was.
    """
    stage = STAGES[name]
    record_path = lineage_path(workspace, settings.recipe, name)
    found = Lineage.read(record_path)
    if found is not None and not force and not why_stale(workspace, settings, stage):
        return StageOutcome(found, {"unchanged since": found.started_at}, reused=True)

    expected = expected_lineage(workspace, settings, stage)
    tags = {
        "recipe": settings.recipe,
        "stage": name,
        "data_version": data_version(workspace),
        "settings_hash": expected.settings_hash,
        "code_version": expected.code_version,
        **{f"input.{key}": content for key, content in expected.inputs.items()},
    }
    scratch = workspace.scratch / artefact(settings.recipe, name)
    scratch.mkdir(parents=True, exist_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    build = importlib.import_module(stage.module).build
    final = output_folder(workspace, settings.recipe, name)
    with atomic_folder(final) as output:
        result: StageResult = build(
            StageRun(workspace, settings, stage, output, scratch, log, tags, dagster_run)
        )
        content = folder_content(output, stage)
    shutil.rmtree(scratch)
    workspace_commit, workspace_dirty = git_state(workspace.root)
    code_commit, code_dirty = git_state(Path(__file__).parent)
    lineage = Lineage(
        artefact=artefact(settings.recipe, name),
        stage=name,
        recipe=settings.recipe,
        content=content,
        inputs=expected.inputs,
        settings=expected.settings,
        settings_hash=expected.settings_hash,
        code_version=expected.code_version,
        workspace_commit=workspace_commit,
        workspace_dirty=workspace_dirty,
        code_commit=code_commit,
        code_dirty=code_dirty,
        dagster_run=dagster_run,
        mlflow_run=result.mlflow_run,
        started_at=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        environment=environment(),
    )
    lineage.write(record_path)
    facts = {
        key: final / value.relative_to(output) if isinstance(value, Path) else value
        for key, value in result.metadata.items()
    }
    return StageOutcome(lineage, facts, reused=False)


def progress_logger(
    log: Callable[[str], None], what: str, every_seconds: float = 5.0
) -> Callable[[dict], None]:
    """Progress of long work as a line every few seconds: takes {done, total, photos_per_second}."""
    last = 0.0

    def report(progress: dict[str, Any]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_seconds and progress["done"] < progress["total"]:
            return
        last = now
        rate = progress.get("photos_per_second")
        log(f"{what}: {progress['done']}/{progress['total']}" + (f", {rate:.0f} photos/s" if rate else ""))

    return report
