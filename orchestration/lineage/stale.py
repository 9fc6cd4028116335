"""What is out of date: the inputs, settings and code that an output would be made from now, against its record."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from geoloc.files import content_hash
from orchestration.lineage.build import Build
from orchestration.lineage.checks import checks_content, unmet_checks
from orchestration.lineage.code import code_version
from orchestration.lineage.record import Record
from orchestration.plan.chain import (
    EXTERNAL_FILE,
    WEIGHTS,
    Stage,
    borrowed,
    inputs_of,
    looks_at_pool,
    uses,
    waits,
)
from orchestration.plan.settings import BuildSettings, external_files, weights_file
from orchestration.stores.data_version import data_version
from orchestration.workspace import WorkspaceError


@dataclass(frozen=True)
class Expected:
    """The inputs, settings and code that an up-to-date output of a stage is made from."""

    stage: Stage
    inputs: dict[str, str]
    settings: BuildSettings
    code_version: str

    def differences(self, found: Record) -> list[str]:
        """The reasons why an output with this record is out of date; empty if it is up to date."""
        why = [
            f"{name} changed" for name, content in self.inputs.items() if found.inputs.get(name) != content
        ]
        why += [f"{name} is no longer read" for name in found.inputs if name not in self.inputs]
        if changed := self.settings.changes(found.settings, self.stage.sections):
            why.append(f"settings changed: {', '.join(changed)}")
        if self.code_version not in found.code_versions:
            why.append("code changed")
        return why


def expected(build: Build, stage: Stage, *, admits: bool = False) -> Expected:
    """What the stage would be made from now. Raises WorkspaceError if an input has not been built.

    `admits`: new photos that wait are admitted, as they are whenever the stage that keeps them out is made.
    """
    inputs = {"data": data_wanted(build, stage, admits)} if looks_at_pool(build.settings, stage) else {}
    if stage.shows_checks:
        inputs["checks"] = checks_content(build)
    for name in inputs_of(build.settings, stage):
        found = build.record(name)
        if found is None:
            raise WorkspaceError(
                f"{build.name(stage.name)} needs {build.name(name)}, which is not built yet; "
                f"build it with: {build.command(name)}"
            )
        inputs[name] = found.content
    for name, (recipe, other) in borrowed(build.settings, stage).items():
        inputs[name] = borrowed_content(build, recipe, other)
    for key in WEIGHTS:
        by_file = uses(stage, key) and "weights" not in inputs
        if by_file and (file := weights_file(build.workspace, build.settings, key)):
            inputs["weights"] = content_hash(file)
    if uses(stage, EXTERNAL_FILE):
        inputs["external"] = content_hash(*external_files(build.workspace, build.settings))
    return Expected(stage, inputs, build.settings, code_version(stage.module))


def data_wanted(build: Build, stage: Stage, admits: bool = False) -> str:
    """The data version that a stage's output must be of: the present one, or, where new photos wait, the one that it is
    of."""
    found = build.record(stage.name) if waits(build.settings, stage) and not admits else None
    return (found and found.inputs.get("data")) or data_version(build.workspace)


def borrowed_content(build: Build, recipe: str, stage: str) -> str:
    """The content hash of another recipe's output that `build` borrows from.

    Raises WorkspaceError if it does not match its record: lineage would then be wrong.
    """
    source = build.of(recipe)
    found = source.record(stage)
    if found is None and stage not in [one.name for one in source.stages]:
        raise WorkspaceError(
            f"{build.recipe} borrows from {source.name(stage)}, which {recipe} does not have"
        )
    if found is None or source.content(stage) != found.content:
        why = "is not built yet" if found is None else "was changed or removed since it was built"
        raise WorkspaceError(
            f"{build.recipe} borrows from {source.name(stage)}, which {why}; build it with: {source.command()}"
        )
    return found.content


def why_stale(build: Build, stage: Stage) -> list[str]:
    """The reasons why the stage's output is out of date; empty if it is up to date and whole."""
    found = build.record(stage.name)
    if found is None:
        return ["never built"]
    why = expected(build, stage).differences(found) or _foreign(build, found)
    return why or files_changed(build, found)


def files_changed(build: Build, found: Record) -> list[str]:
    """Says which files of an output are not as its record says; empty if all are."""
    changed = build.changed_files(found)
    if not changed:
        return []
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return [
        "its files were changed or removed" + (f": {', '.join(changed[:3])}{more}" if found.files else "")
    ]


def stale_stages(
    build: Build, wanted: Collection[str], force: bool = False, admit: bool = False
) -> dict[str, list[str]]:
    """The wanted stages that must run, in order, with the reasons. `admit`: new photos that wait are admitted.

    A stage below one of these is included too. If it has no reason of its own, its reason is "if ... changes": it runs
    only if the output of the stage above comes out different.
    """
    reasons: dict[str, list[str]] = {}
    for stage in build.stages:
        if stage.name not in wanted:
            continue
        above = [name for name in inputs_of(build.settings, stage) if name in reasons]
        if force:
            reasons[stage.name] = ["forced"]
        elif admit and (late := photos_wait(build, stage)):
            reasons[stage.name] = late
        elif above:
            reasons[stage.name] = _own_reasons(build, stage) or [f"if {' or '.join(above)} changes"]
        elif why := why_stale(build, stage) or unmet_checks(build, stage.name):
            reasons[stage.name] = why
    return reasons


def photos_wait(build: Build, stage: Stage) -> list[str]:
    """A reason to make a stage again if photos that came after it wait to be admitted to it."""
    late = waits(build.settings, stage) and data_wanted(build, stage) != data_version(build.workspace)
    return ["photos that waited are admitted"] if late else []


def changed_in_itself(build: Build, stage: Stage) -> list[str]:
    """The reasons why a built stage must run again that lie in its settings, its code, or what it shows of checks: not
    in the photos or in the outputs that it reads, which Dagster compares itself. Empty if it was never built."""
    found = build.record(stage.name)
    if found is None:
        return []
    now = {"checks": checks_content(build)} if stage.shows_checks else {}
    as_it_was = Expected(stage, found.inputs | now, build.settings, code_version(stage.module))
    return as_it_was.differences(found)


def _own_reasons(build: Build, stage: Stage) -> list[str]:
    """The reasons why a stage must run, whatever happens to its inputs."""
    found = build.record(stage.name)
    if found is None:
        return ["never built"]
    kept = {name: content for name, content in found.inputs.items() if name not in ("data", "checks")}
    if stage.shows_checks and "checks" in found.inputs:
        kept["checks"] = found.inputs["checks"]
    if looks_at_pool(build.settings, stage):
        kept["data"] = data_wanted(build, stage)
    as_it_was = Expected(stage, kept, build.settings, code_version(stage.module))
    return as_it_was.differences(found) or _foreign(build, found)


def _foreign(build: Build, found: Record) -> list[str]:
    """A reason if a record is another output's: its folder was copied, whatever it holds now."""
    own = build.name(found.stage)
    return [f"its record is of {found.artefact}"] if found.artefact != own else []
