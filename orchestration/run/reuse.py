"""Reuse of outputs that another recipe already made from equal inputs, settings and code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoloc.files import content_hash, link_or_copy
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.lineage.stale import Expected
from orchestration.plan.settings import is_recipe_name
from orchestration.workspace import Workspace, WorkspaceError


def equal_output(build: Build, wanted: Expected) -> tuple[Path, Record] | None:
    """Folder and record of another recipe's output that equals `wanted` and is whole on disk; None if there is none."""
    if wanted.stage.names_recipe:
        return None
    for other, record in _others(build, wanted.stage.name):
        if not wanted.differences(record) and other.content(record.stage) == record.content:
            return other.folder(record.stage), record
    return None


def equal_part(build: Build, wanted: Expected, settings: Any) -> tuple[Path, str] | None:
    """The folder of a part that another recipe made from equal settings, inputs and code, and the name of the output
    that contains it; None if there is none."""
    for other, record in _others(build, wanted.stage.name):
        if record.inputs != wanted.inputs or wanted.code_version not in record.code_versions:
            continue
        for name, part in record.parts.items():
            folder = other.folder(record.stage) / name
            if part.settings == settings and folder.is_dir() and part_content(folder) == part.content:
                return folder, record.artefact
    return None


def part_content(folder: Path) -> str:
    """The content hash of a part, independent of its name."""
    return content_hash(*sorted(folder.iterdir()))


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links, or by bytes if the file system has none. Safe because outputs are replaced,
    never edited."""
    shutil.copytree(source, target, copy_function=link_or_copy, dirs_exist_ok=True)


def _others(build: Build, stage: str) -> Iterator[tuple[Build, Record]]:
    """The records of a stage in other recipes of the workspace; damaged ones are skipped."""
    for recipe in built_recipes(build.workspace):
        other = build.of(recipe)
        if recipe == build.recipe:
            continue
        try:
            record = other.record(stage)
        except WorkspaceError:
            continue
        if record is not None:
            yield other, record


def built_recipes(workspace: Workspace) -> list[str]:
    """The recipes with a folder in build/; a folder that is named otherwise is somebody's copy."""
    folders = [path.parent.name for path in workspace.build.glob("*/lineage") if path.is_dir()]
    return sorted(name for name in folders if is_recipe_name(name))
