"""Run one stage: decide whether it is up to date, write its output as a whole, record its lineage."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoloc.files import atomic_folder, file_hashes
from geoloc.settings import settings_hash
from orchestration.lineage.build import Build, files_content
from orchestration.lineage.checks import require_checked
from orchestration.lineage.earlier import keep_earlier
from orchestration.lineage.origin import (
    code_origin,
    commit_text,
    environment,
    hardware,
    keep_patch,
    workspace_origin,
)
from orchestration.lineage.record import Part, Record
from orchestration.lineage.stale import Expected, expected, files_changed, photos_wait, why_stale
from orchestration.plan.chain import STAGES, Stage, borrowed, inputs_of
from orchestration.plan.settings import BuildSettings
from orchestration.run.facts import keep_facts, read_facts
from orchestration.run.reuse import equal_output, equal_part, link_tree, part_content
from orchestration.stores.data_version import verify_data
from orchestration.stores.stamps import write_stamps
from orchestration.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class StageRun:
    """The argument of a stage's `build(run)`.

    The stage writes its output under `output`, a new, empty folder that becomes the stage's output when `build`
    returns. It may keep resumable work under `scratch`, which survives a kill and is removed when the stage is done.
    """

    build: Build
    expected: Expected
    output: Path
    scratch: Path
    log: Callable[[str], None]
    tags: dict[str, str]
    dagster_run: str | None
    parts: dict[str, Part] = field(default_factory=dict)
    forced: bool = False

    @property
    def workspace(self) -> Workspace:
        return self.build.workspace

    @property
    def settings(self) -> BuildSettings:
        return self.build.settings

    @property
    def stage(self) -> Stage:
        return self.expected.stage

    def input(self, name: str) -> Path:
        """The output folder of a stage that this one reads. Raises ValueError if its row in the chain does not
        declare it."""
        if name not in self.stage.inputs:
            raise ValueError(
                f"the stage {self.stage.name} reads {name}, which its row in the chain does not declare"
            )
        return self.build.folder(name)

    def before(self) -> Path | None:
        """The output that this one replaces, as it is on disk, for a stage that can take unchanged rows from it.

        None where there is none, where it is not what its record says, where other code, settings or packages made it,
        and where the user asked for a build from nothing.
        """
        found = self.build.record(self.stage.name)
        if self.forced or found is None or found.code_version != self.expected.code_version:
            return None
        changed = self.settings.changes(found.settings, self.stage.sections)
        if changed or found.environment != environment() or files_changed(self.build, found):
            return None
        return self.build.folder(self.stage.name)

    def fact_before(self, title: str) -> Any:
        """The fact with this title of the output before; None if it has none."""
        found = self.build.record(self.stage.name)
        return None if found is None else read_facts(self.build, found).get(title)

    def borrowed(self, name: str) -> Path:
        """The output folder of the other recipe from which the input `name` is borrowed."""
        recipe, stage = borrowed(self.settings, self.stage)[name]
        return self.build.of(recipe).folder(stage)

    def part(self, name: str, settings: Any, make: Callable[[Path], None]) -> Path:
        """A folder of the output that is made separately: by `make(folder)`, or taken from another recipe that made
        it from equal settings, inputs and code. `settings` are plain values."""
        folder = self.output / name
        found = equal_part(self.build, self.expected, settings)
        if found is not None:
            link_tree(found[0], folder)
            self.log(f"{name}: taken from {found[1]}, equal in inputs, settings and code")
        else:
            folder.mkdir()
            make(folder)
        self.parts[name] = Part(part_content(folder), settings, found[1] if found else None)
        return folder


@dataclass(frozen=True)
class StageResult:
    """The result of `build`: facts for people (numbers, text, data frames, PNG files under the output)."""

    metadata: dict[str, Any] = field(default_factory=dict)
    mlflow_run: str | None = None


@dataclass(frozen=True)
class StageOutcome:
    """The result of running a stage: its record, its facts, and whether an earlier output was kept."""

    record: Record
    metadata: dict[str, Any]
    reused: bool


def run_stage(
    build: Build,
    name: str,
    *,
    log: Callable[[str], None],
    dagster_run: str | None = None,
    force: bool = False,
    data: str | None = None,
    admit: bool = False,
) -> StageOutcome:
    """Build a stage's output. Keep the existing one if it is up to date, or reuse an equal output of another recipe.

    `data` is the data version that the whole build is of (default: the present one): all stages of a build see the same
    photos. `admit`: photos that wait outside of the splits enter them. Raises WorkspaceError if data/ is not that
    version, if an input is not built, and whatever the stage itself
    raises; the earlier output then stays in place.
    """
    outcome = _outcome(build, STAGES[name], log, dagster_run, force, data, admit)
    write_stamps(build.workspace, build.settings, [name])
    return outcome


def _outcome(
    build: Build,
    stage: Stage,
    log: Callable[[str], None],
    dagster_run: str | None,
    force: bool,
    data: str | None,
    admit: bool,
) -> StageOutcome:
    data = _same_data(build.workspace, data)
    found = build.record(stage.name)
    admits = admit and bool(photos_wait(build, stage))
    if found is not None and not (force or admits) and not why_stale(build, stage):
        return StageOutcome(
            found, {"unchanged since": found.started_at, **read_facts(build, found)}, reused=True
        )
    for above in (*stage.after, *inputs_of(build.settings, stage)):
        require_checked(build, above)
        _require_whole(build, above)
    for recipe, above in borrowed(build.settings, stage).values():
        require_checked(build.of(recipe), above)
    wanted = expected(build, stage, admits=True)
    if not force and (equal := equal_output(build, wanted)) is not None:
        return _take_over(build, wanted, *equal, log)
    return _make(build, wanted, data, log, dagster_run, force)


def _require_whole(build: Build, name: str) -> None:
    """Raise WorkspaceError if an output that the stage reads is not what its record says: its own record would then
    name an input that it was not made from."""
    found = build.record(name)
    if found is not None and (changed := files_changed(build, found)):
        raise WorkspaceError(
            f"{build.name(name)} cannot be read: {'; '.join(changed)}; build it again with: {build.command(name)}"
        )


def _same_data(workspace: Workspace, data: str | None) -> str:
    """The data version, verified. Raises WorkspaceError if it is not `data`."""
    found = verify_data(workspace)
    if data is not None and found != data:
        raise WorkspaceError(
            f"the photos changed while the build ran: it began with data version {data}, now it is {found}; "
            "run the same command again, it builds what the new photos change"
        )
    return found


def _take_over(
    build: Build, wanted: Expected, folder: Path, source: Record, log: Callable[[str], None]
) -> StageOutcome:
    """Reuse another recipe's output, by hard links."""
    name = wanted.stage.name
    with atomic_folder(build.folder(name)) as output:
        link_tree(folder, output)
    origin = source.taken_from or source.artefact
    record = dataclasses.replace(
        source, artefact=build.name(name), recipe=build.recipe, inputs=wanted.inputs, taken_from=origin
    )
    keep_earlier(build, record)
    record.write(build.record_path(name))
    facts = _moved(read_facts(build.of(source.recipe), source), folder, build.folder(name))
    log(f"taken from {origin}, equal in inputs, settings and code")
    return StageOutcome(record, {"taken from": origin, **keep_facts(build, record, facts)}, reused=False)


def _make(
    build: Build,
    wanted: Expected,
    data: str,
    log: Callable[[str], None],
    dagster_run: str | None,
    force: bool,
) -> StageOutcome:
    stage, used = wanted.stage, build.used(wanted.stage)
    own, code = workspace_origin(build.workspace), code_origin()  # before: a person may go on editing
    tags = {
        "recipe": build.recipe,
        "stage": stage.name,
        "artefact": build.name(stage.name),
        "data_version": data,
        "dagster_run": dagster_run or "none",
        "workspace_commit": commit_text(own.commit, own.dirty),
        "code_commit": commit_text(code.commit, code.dirty),
        "settings_hash": settings_hash(used),
        "code_version": wanted.code_version,
        **{f"input.{key}": content for key, content in wanted.inputs.items()},
    }
    scratch = build.workspace.scratch / build.name(stage.name)
    scratch.mkdir(parents=True, exist_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    make = importlib.import_module(stage.module).build
    final = build.folder(stage.name)
    for left in final.parent.glob(
        f".{stage.name}.*"
    ):  # by a build that was killed: only one is at work at a time
        shutil.rmtree(left)
    with atomic_folder(final) as output:
        run = StageRun(build, wanted, output, scratch, log, tags, dagster_run, forced=force)
        result: StageResult = make(run)
        _same_data(build.workspace, data)  # what the stage read is what its record will name
        files = file_hashes(output)
    shutil.rmtree(scratch)
    record = Record(
        artefact=build.name(stage.name),
        stage=stage.name,
        recipe=build.recipe,
        content=files_content(files, stage),
        files=files,
        inputs=wanted.inputs,
        settings=used,
        settings_hash=settings_hash(used),
        code_version=wanted.code_version,
        workspace_commit=own.commit,
        workspace_dirty=own.dirty,
        workspace_patch=keep_patch(build.workspace, own.patch),
        code_commit=code.commit,
        code_dirty=code.dirty,
        code_patch=keep_patch(build.workspace, code.patch),
        dagster_run=dagster_run,
        mlflow_run=result.mlflow_run,
        started_at=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        environment=environment(),
        hardware=hardware(),
        parts=run.parts,
    )
    keep_earlier(build, record)
    record.write(build.record_path(stage.name))
    facts = keep_facts(build, record, _moved(result.metadata, output, final))
    return StageOutcome(record, facts, reused=False)


def _moved(facts: Mapping[str, Any], source: Path, target: Path) -> dict[str, Any]:
    """Facts with the paths of their files in `target` in place of `source`."""
    return {
        key: target / value.relative_to(source) if isinstance(value, Path) else value
        for key, value in facts.items()
    }


def progress_logger(
    log: Callable[[str], None], what: str, every_seconds: float = 5.0
) -> Callable[[dict], None]:
    """A callback that logs progress {done, total, photos_per_second} as a line every few seconds."""
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
