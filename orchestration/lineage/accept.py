"""`geoloc accept`: the code changed, a person says that the output is still good, and the record keeps who and why."""

from __future__ import annotations

import dataclasses
import getpass
from datetime import UTC, datetime

from orchestration.lineage.build import Build
from orchestration.lineage.record import Acceptance, Record
from orchestration.lineage.stale import expected
from orchestration.plan.chain import STAGES
from orchestration.workspace import WorkspaceError


def accept(build: Build, stage: str, reason: str) -> Record:
    """Accept a stage's output for the code as it is now; returns the new record.

    Only changed code can be accepted. Raises WorkspaceError where the reason is empty, where inputs, settings or files
    changed too, and where the code did not change.
    """
    if not reason.strip():
        raise WorkspaceError("--reason must say why the output is still good, got none")
    found = build.built(stage)
    now = expected(build, STAGES[stage])
    others = [why for why in now.differences(found) if why != "code changed"]
    if not others and build.content(stage) != found.content:
        others = ["its files were changed or removed"]
    if others:
        raise WorkspaceError(
            f"{build.name(stage)} cannot be accepted, because not only its code changed: {'; '.join(others)}; "
            f"build it again with: {build.command(stage)}"
        )
    if now.code_version in found.code_versions:
        raise WorkspaceError(f"{build.name(stage)} needs no acceptance: its code did not change")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    word = Acceptance(now.code_version, reason.strip(), getpass.getuser(), at)
    record = dataclasses.replace(found, accepted=(*found.accepted, word))
    record.write(build.record_path(stage))
    return record
