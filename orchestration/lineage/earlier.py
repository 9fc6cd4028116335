"""The records of outputs that were replaced since, in `<recipe>/lineage/earlier/<stage>`: what made an earlier report
or model can still be told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from geoloc.files import atomic_path, sha256_bytes
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.workspace import WorkspaceError


def keep_earlier(build: Build, new: Record) -> None:
    """Keep the record that `new` is about to replace. No-op without one, and if it is damaged or the same."""
    path = build.record_path(new.stage)
    try:
        found = Record.read(path)
    except WorkspaceError:
        return
    if found is None or found == new:
        return
    name = f"{found.content[:12]}-{sha256_bytes(path.read_bytes())[:8]}.json"
    with atomic_path(earlier_folder(build, new.stage) / name) as temporary:
        shutil.copyfile(path, temporary)


def earlier_folder(build: Build, stage: str) -> Path:
    """The folder with the earlier records of a stage's output."""
    return build.record_path(stage).parent / "earlier" / stage


def earlier_records(build: Build, stage: str) -> list[Record]:
    """The earlier records of a stage's output, the newest first; damaged ones are left out."""
    return sorted(_readable(earlier_folder(build, stage)), key=lambda one: one.started_at, reverse=True)


def record_with(build: Build, stage: str, content: str) -> Record | None:
    """The record of a stage's output that had this content: the present one, else the newest earlier one; None if
    there is none."""
    now = build.record(stage)
    if now is not None and now.content == content:
        return now
    return next((one for one in earlier_records(build, stage) if one.content == content), None)


def _readable(folder: Path) -> Iterator[Record]:
    for path in sorted(folder.glob("*.json")):
        try:
            record = Record.read(path)
        except WorkspaceError:
            continue
        if record is not None:
            yield record
