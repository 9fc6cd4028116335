"""Whether outputs are what their records say and were made from each other: asked before anything answers from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from geoloc.files import sha256_bytes
from geoloc.retrieval.pca import PCA_FILE
from orchestration.lineage.build import Build
from orchestration.lineage.checks import output_of, read_results
from orchestration.lineage.code import code_version
from orchestration.lineage.record import Record
from orchestration.lineage.stale import data_wanted
from orchestration.plan.chain import GRAPH_FILE, STAGES, inputs_of, looks_at_pool
from orchestration.plan.checks import checks_of
from orchestration.workspace import WorkspaceError


def require_recorded(build: Build, stages: Sequence[str], links: Sequence[str] = ()) -> dict[str, Record]:
    """The records of `stages` and `links`, in the order of the chain, once the outputs are known to be consistent.

    Each output of `stages` is hashed and compared with its record. Those of `links` are not read: their records connect
    the others, as embeddings connect an index with its network. Raises WorkspaceError, which names both sides and the
    command that mends it, for a missing or foreign record, an output that is not what its record says, one that was
    made from another input than the one that is there now, and a failed check.
    """
    records = {name: _own_record(build, name) for name in STAGES if name in (*stages, *links)}
    for name, record in records.items():
        if name in stages and (found := build.content(name)) != record.content:
            raise _unusable(
                build,
                f"{build.name(name)} is not what its record says "
                f"(content {found[:12] if found else 'missing'}, recorded {record.content[:12]})",
            )
        unread = [above for above, *_ in STAGES[name].only if above not in record.inputs]
        for above in [one for one in STAGES[name].inputs if one not in unread]:
            used = record.inputs.get(above, "none")
            if above in records and used != records[above].content and not _lost_photos(above, records):
                raise _unusable(
                    build,
                    f"{build.name(name)} was made from another {build.name(above)} than the one there now "
                    f"(content {used[:12]}, now {records[above].content[:12]})",
                )
        _require_no_failed_check(build, name, record)
    return records


def _lost_photos(name: str, records: Mapping[str, Record]) -> bool:
    """Whether an output is the splits that all was made from, but for photos that were taken down since."""
    return name == "splits" and records[name].taken_down > 0


def require_as_embedded(build: Build, embeddings: Record) -> None:
    """Raise WorkspaceError if the exported network or the principal components beside embeddings are not the files that
    their record names, or were made for another layer or components than the settings ask for now; the stage's other
    files are not read."""
    folder = build.folder(embeddings.stage)
    for name in (GRAPH_FILE, PCA_FILE):
        file = folder / name
        if (sha256_bytes(file.read_bytes()) if file.is_file() else None) != embeddings.files.get(name):
            raise WorkspaceError(
                f"{build.name(embeddings.stage)} is not what its record says ({name} was changed or removed); build it "
                f"again with: {build.command(embeddings.stage)} --force"
            )
    if changed := build.settings.changes(embeddings.settings, ("embeddings.layer", "embeddings.pca")):
        raise WorkspaceError(
            f"{build.name('index')} was made with other embeddings than the settings describe now "
            f"({', '.join(changed)} changed); build it again with: {build.command()}"
        )


def out_of_date(build: Build, records: Mapping[str, Record]) -> dict[str, list[str]]:
    """Why outputs that are consistent would nevertheless be built again, by stage; empty if none would be.

    Looks at records only, so it costs no hashing; stages above that were never built are left out.
    """
    reasons = {}
    above = _above(build, records)
    for stage in build.stages:
        record = records.get(stage.name) or (build.record(stage.name) if stage.name in above else None)
        if record is None:
            continue
        made = {name: build.record(name) for name in inputs_of(build.settings, stage)}
        why = [f"{name} changed" for name, of in made.items() if of and record.inputs.get(name) != of.content]
        if looks_at_pool(build.settings, stage) and build.workspace.data_pointer.exists():
            why += ["photos changed"] * (record.inputs.get("data") != data_wanted(build, stage))
        if changed := build.settings.changes(record.settings, stage.sections):
            why.append(f"settings changed: {', '.join(changed)}")
        if stage.name in records and code_version(stage.module) not in record.code_versions:
            why.append("code changed")
        if why:
            reasons[stage.name] = why
    return reasons


def unchecked(build: Build, records: Mapping[str, Record]) -> dict[str, list[str]]:
    """The checks that have not run on these outputs, by stage."""
    missing = {}
    for name, record in records.items():
        ran = {
            found.name for found in read_results(build, name).values() if found.output == output_of(record)
        }
        if absent := [check.name for check in checks_of(build.settings, name) if check.name not in ran]:
            missing[name] = absent
    return missing


def _above(build: Build, names: Collection[str]) -> set[str]:
    """The stages that these are made from, directly or not."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        new = [one for one in inputs_of(build.settings, STAGES[waiting.pop()]) if one not in found]
        found.update(new)
        waiting += new
    return found


def _own_record(build: Build, name: str) -> Record:
    """The record of an output, which must be there and be its own."""
    record, file = build.record(name), build.record_path(name).relative_to(build.workspace.root)
    if record is None:
        raise _unusable(build, f"{build.name(name)} has no record of what made it ({file} is missing)")
    if record.artefact != build.name(name):
        raise _unusable(build, f"{file} is the record of {record.artefact}, not of {build.name(name)}")
    return record


def _require_no_failed_check(build: Build, name: str, record: Record) -> None:
    """Raise WorkspaceError if a check failed on this output and nobody accepted it."""
    for found in read_results(build, name).values():
        if found.output == output_of(record) and not found.passed:
            raise WorkspaceError(
                f"{build.name(name)} must not be used: it failed its check {found.name}: {found.summary}; mend it and "
                f"run: {build.command(name)}, or accept it: geoloc accept {name} --recipe {build.recipe} "
                f"--check {found.name} --reason TEXT"
            )


def _unusable(build: Build, what: str) -> WorkspaceError:
    return WorkspaceError(f"{what}; build it again with: {build.command()}")
