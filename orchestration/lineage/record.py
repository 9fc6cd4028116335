"""The record: what made one output, in `<recipe>/lineage/<stage>.json` beside it."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from geoloc.files import DamagedFile, read_json, write_json
from orchestration.lineage.seal import sealed
from orchestration.workspace import WorkspaceError


@dataclass(frozen=True)
class Acceptance:
    """A person's statement that an output is still good although the code changed: for which code version, why, by
    whom and when."""

    code_version: str
    reason: str
    by: str
    at: str


@dataclass(frozen=True)
class Part:
    """One of several things that a stage makes separately, such as one partition: the content hash of its folder,
    the settings that made it, and the output that it was taken from, if any."""

    content: str
    settings: Any
    taken_from: str | None = None


@dataclass(frozen=True)
class Record:
    """What made one output: the lineage contract of design.md.

    `inputs` maps the name of each input to its content hash (`data`: DVC's version of the photos). `taken_from` names
    the output of another recipe that was reused, together with its runs and times. `parts` are made, and reused, one by
    one. `files` maps each file of the output to its SHA-256, also those that are not content (`volatile` in the chain);
    empty in records of older versions. `taken_down`: photos that were behind the output and were taken down since, so
    that it cannot be made again as it was. `workspace_patch` and `code_patch`: SHA-256 of the stored patches from the
    commits to what was on disk, if anything differed (lineage/origin.py). `hardware`: processor and threads, empty in
    records of older versions. `seal`: a hash of the rest, set by `write`.
    """

    artefact: str
    stage: str
    recipe: str
    content: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    settings_hash: str
    code_version: str
    workspace_commit: str | None
    workspace_dirty: bool | None
    code_commit: str | None
    code_dirty: bool | None
    dagster_run: str | None
    mlflow_run: str | None
    started_at: str
    seconds: float
    environment: dict[str, str]
    taken_from: str | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    accepted: tuple[Acceptance, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    taken_down: int = 0
    workspace_patch: str | None = None
    code_patch: str | None = None
    hardware: dict[str, str] = field(default_factory=dict)
    seal: str = field(default="", compare=False)

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """The record at `path`; None if there is none. Raises WorkspaceError for a file that is not a record."""
        if not path.is_file():
            return None
        try:
            values = read_json(path, dict)
            if unknown := [name for name in values if name not in cls.__dataclass_fields__]:
                raise ValueError(f"unknown keys: {', '.join(unknown)}")
            return _adapter().validate_python(values)
        except ValueError as error:
            raise WorkspaceError(
                f"{path} is damaged or of another version of geoloc ({_why(error)}); remove it, and the output is "
                "built again"
            ) from None

    def write(self, path: Path) -> None:
        """Write the record atomically."""
        write_json(path, sealed(dataclasses.asdict(self)))

    @property
    def code_versions(self) -> tuple[str, ...]:
        """The code version that made the output, then those that it was accepted for."""
        return (self.code_version, *(one.code_version for one in self.accepted))


@functools.cache
def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)


def _why(error: ValueError) -> str:
    """What a record lacks, in a few words."""
    if isinstance(error, DamagedFile):
        return error.why
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
