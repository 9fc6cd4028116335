"""What the checks of an output found, in `<recipe>/checks/<stage>.json`: a result is of one output and one suite."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from geoloc.files import read_json, sha256_bytes, write_json
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.lineage.seal import SEAL, sealed
from orchestration.plan.checks import Check, checks_of
from orchestration.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class CheckAcceptance:
    """A person's word that an output is good although a check failed: why, by whom, when."""

    reason: str
    by: str
    at: str


@dataclass(frozen=True)
class CheckResult:
    """What one check found. `output` and `rules` say of which output and by which suite, see `output_of`, `rules_of`.

    `critical` and `warnings` count the rules that are broken; a critical one blocks what is below, unless a person
    accepted it.
    """

    name: str
    output: str
    rules: str
    critical: int
    warnings: int
    summary: str
    at: str
    accepted: CheckAcceptance | None = None

    @property
    def passed(self) -> bool:
        """Whether what is below may be built."""
        return self.critical == 0 or self.accepted is not None

    @property
    def result(self) -> str:
        """passed, warning, accepted or failed."""
        if self.critical:
            return "accepted" if self.accepted else "failed"
        return "warning" if self.warnings else "passed"

    @property
    def detail(self) -> str:
        """What was found, and who accepted it."""
        word = self.accepted
        return self.summary + (f"; accepted by {word.by} on {word.at}: {word.reason}" if word else "")


def output_of(record: Record) -> str:
    """What a check looks at: the content of an output and of what it was made from, as one hash."""
    seen = {"content": record.content, "inputs": record.inputs}
    return sha256_bytes(json.dumps(seen, sort_keys=True).encode())


def rules_of(workspace: Workspace, check: Check) -> str:
    """What a check demands: the suite's file and its parameters, as one hash; "missing" without a file."""
    file = workspace.expectations / f"{check.suite}.json"
    if not file.is_file():
        return "missing"
    return sha256_bytes(file.read_bytes() + json.dumps(dict(check.parameters), sort_keys=True).encode())


def read_results(build: Build, stage: str) -> dict[str, CheckResult]:
    """The results of a stage's checks, by name; a file that is damaged counts as no result."""
    file = build.checks_path(stage)
    try:
        found = [
            CheckResult(
                **{name: v for name, v in one.items() if name != SEAL} | {"accepted": _acceptance(one)}
            )
            for one in read_json(file)
        ]
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {one.name: one for one in found}


def write_result(build: Build, stage: str, result: CheckResult) -> None:
    """Keep the result of one check beside those of the stage's others."""
    found = read_results(build, stage) | {result.name: result}
    write_json(build.checks_path(stage), [sealed(dataclasses.asdict(one)) for one in found.values()])


def result_for_now(build: Build, stage: str, check: Check) -> CheckResult | None:
    """The result of a check on the output as it is now, by the suite as it is now; None if there is none."""
    record, found = build.record(stage), read_results(build, stage).get(check.name)
    if record is None or found is None:
        return None
    same = found.output == output_of(record) and found.rules == rules_of(build.workspace, check)
    return found if same else None


def results_for_now(build: Build, stage: str) -> dict[str, CheckResult | None]:
    """The result of each check of a stage's output as it is now, by name; None for one that has not run on it."""
    return {check.name: result_for_now(build, stage, check) for check in checks_of(build.settings, stage)}


def checks_content(build: Build) -> str:
    """What all checks of a recipe found, as one hash: an input of what shows them."""
    found = [
        [stage.name, name, one.critical, one.warnings, one.detail]
        for stage in build.stages
        for name, one in results_for_now(build, stage.name).items()
        if one is not None
    ]
    return sha256_bytes(json.dumps(sorted(found)).encode())


def unmet_checks(build: Build, stage: str) -> list[str]:
    """Why nothing below a built stage may be built: checks that failed or have not run; empty if all passed."""
    reasons = []
    for name, found in results_for_now(build, stage).items():
        if found is None:
            reasons.append(f"its check {name} has not run on this output")
        elif not found.passed:
            reasons.append(f"it failed its check {name}: {found.summary}")
    return reasons


def require_checked(build: Build, stage: str) -> None:
    """Raise WorkspaceError, which says what to do, unless all checks of a stage passed or were accepted."""
    if reasons := unmet_checks(build, stage):
        raise WorkspaceError(
            f"{build.name(stage)} must not be used: {'; '.join(reasons)}; mend it and run: {build.command(stage)}, or "
            f"accept it: geoloc accept {stage} --recipe {build.recipe} --check NAME --reason TEXT"
        )


def _acceptance(values: dict[str, dict[str, str]]) -> CheckAcceptance | None:
    accepted = values.get("accepted")
    return CheckAcceptance(**accepted) if accepted else None
