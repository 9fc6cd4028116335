"""`geoloc accept`: a person declares that an output is good after a change of code, or although a check failed; the
record keeps who and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime

from orchestration.lineage.build import Build
from orchestration.lineage.checks import CheckAcceptance, CheckResult, result_for_now, write_result
from orchestration.lineage.person import person
from orchestration.lineage.record import Acceptance, Record
from orchestration.lineage.stale import expected, files_changed
from orchestration.plan.chain import Stage
from orchestration.plan.checks import checks_of
from orchestration.workspace import WorkspaceError


def accept(build: Build, stages: Sequence[str], reason: str) -> list[Record]:
    """Accept the outputs of stages for the code as it is now; returns the new records, in the order of the chain.

    All are accepted or none. Only changed code can be accepted. Raises WorkspaceError if the reason is empty, a stage
    is not in the recipe, inputs, settings or files changed too, or the code did not change.
    """
    if not reason.strip():
        raise WorkspaceError("--reason must say why the output is still good, got none")
    known = [stage.name for stage in build.stages]
    if unknown := [name for name in stages if name not in known]:
        raise WorkspaceError(f"STAGE must be one of {', '.join(known)}; got {', '.join(unknown)}")
    records = [_accepted(build, stage, reason.strip()) for stage in build.stages if stage.name in stages]
    for record in records:
        record.write(build.record_path(record.stage))
    return records


def _accepted(build: Build, stage: Stage, reason: str) -> Record:
    """The record of a stage's output with the acceptance added; it is not written yet."""
    name = stage.name
    found = build.built(name)
    now = expected(build, stage)
    others = [why for why in now.differences(found) if why != "code changed"]
    others = others or files_changed(build, found)
    if others:
        raise WorkspaceError(
            f"{build.name(name)} cannot be accepted, because more than its code changed: {'; '.join(others)}; "
            f"build it again with: {build.command(name)}"
        )
    if now.code_version in found.code_versions:
        raise WorkspaceError(f"{build.name(name)} needs no acceptance: its code did not change")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    word = Acceptance(now.code_version, reason, person(), at)
    return dataclasses.replace(found, accepted=(*found.accepted, word))


def accept_check(build: Build, stage: str, name: str, reason: str) -> CheckResult:
    """Accept an output although one of its checks failed; returns the new result.

    Raises WorkspaceError if the reason is empty, the stage has no such check, or the check has not run on the output as
    it is now or did not fail.
    """
    if not reason.strip():
        raise WorkspaceError("--reason must say why the output is good all the same, got none")
    checks = {check.name: check for check in checks_of(build.settings, stage)}
    if name not in checks:
        raise WorkspaceError(
            f"--check must be one of {', '.join(checks) or 'none'}, the checks of {stage}; got {name}"
        )
    found = result_for_now(build, stage, checks[name])
    if found is None:
        raise WorkspaceError(
            f"{name} has not run on {build.name(stage)} as it is now; run it with: {build.command(stage)}"
        )
    if found.passed:
        raise WorkspaceError(f"{name} of {build.name(stage)} needs no acceptance: it did not fail")
    at = datetime.now(UTC).isoformat(timespec="seconds")
    result = dataclasses.replace(found, accepted=CheckAcceptance(reason.strip(), person(), at))
    write_result(build, stage, result)
    return result
