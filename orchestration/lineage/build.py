"""A build: one recipe of one workspace, with the folder, the record and the settings of each stage."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc.files import combined_hash, file_hashes
from orchestration.lineage.record import Record
from orchestration.plan import chain
from orchestration.plan.chain import STAGES, Stage
from orchestration.plan.settings import DEFAULT_RECIPE, BuildSettings, check_recipe_name, load_settings
from orchestration.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class Build:
    """One recipe of a workspace. Settings are read on first use and then kept.

    Raises SettingsError for a name that no recipe can have: it would become part of paths.
    """

    workspace: Workspace
    recipe: str = DEFAULT_RECIPE

    def __post_init__(self) -> None:
        check_recipe_name(self.recipe)

    @functools.cached_property
    def settings(self) -> BuildSettings:
        """The recipe's settings. Raises SettingsError if they are invalid."""
        return load_settings(self.workspace, self.recipe)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the recipe has, in order."""
        return chain.stages_of(self.settings)

    def of(self, recipe: str) -> Build:
        """Another recipe of the same workspace."""
        return Build(self.workspace, recipe)

    def name(self, stage: str) -> str:
        """The name of a stage's output in messages: `photos`, or `<recipe>/<stage>`."""
        return chain.artefact(self.recipe, stage)

    def folder(self, stage: str) -> Path:
        """The folder that a stage writes to."""
        return chain.output_folder(self.workspace, self.recipe, stage)

    def record_path(self, stage: str) -> Path:
        """The path of the record of a stage's output."""
        return chain.record_path(self.workspace, self.recipe, stage)

    def checks_path(self, stage: str) -> Path:
        """The file with what the checks of a stage's output found."""
        return self.record_path(stage).parent.with_name("checks") / f"{stage}.json"

    def record(self, stage: str) -> Record | None:
        """The record of a stage's output; None if it was never built."""
        return Record.read(self.record_path(stage))

    def built(self, stage: str) -> Record:
        """As `record`, but raises WorkspaceError, which names the command to run, if it was never built."""
        found = self.record(stage)
        if found is None:
            raise WorkspaceError(f"{self.name(stage)} is not built yet; build it with: {self.command(stage)}")
        return found

    def command(self, only: str = "") -> str:
        """The command that builds the recipe, or one stage of it."""
        return f"geoloc build --recipe {self.recipe}" + (f" --only {only}" if only else "")

    def content(self, stage: str) -> str | None:
        """The content hash of a stage's output on disk; None if there is none."""
        folder = self.folder(stage)
        return folder_content(folder, STAGES[stage]) if folder.is_dir() else None

    def changed_files(self, record: Record) -> list[str]:
        """The files of an output that are not as its record says: changed, removed or added, by relative name; "." if
        the record does not name files and the content differs."""
        folder = self.folder(record.stage)
        if not record.files:
            return [] if self.content(record.stage) == record.content else ["."]
        found = file_hashes(folder) if folder.is_dir() else {}
        return [name for name in {**record.files, **found} if record.files.get(name) != found.get(name)]

    def used(self, stage: Stage) -> dict[str, Any]:
        """The settings that a stage uses, in the form in which its record holds them."""
        return self.settings.sections(stage.sections)


def folder_content(folder: Path, stage: Stage) -> str:
    """The content hash of `folder` as an output of `stage`, without its volatile files."""
    return files_content(file_hashes(folder), stage)


def files_content(files: Mapping[str, str], stage: Stage) -> str:
    """As `folder_content`, of the hashes of a folder's files."""
    return combined_hash((name, sha256) for name, sha256 in files.items() if name not in stage.volatile)
