"""Forward lineage: which outputs, models and reports used a photo, a photographer's photos, or a data version."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from geoloc.photos.catalog import read_catalog
from geoloc.photos.photographers import photographer_id
from orchestration.lineage.asked import read_earlier, read_records
from orchestration.lineage.behind import direct_uses, made_of_other_splits, photo_ids, pools_of, split_builds
from orchestration.lineage.build import Build
from orchestration.lineage.earlier import record_with
from orchestration.lineage.record import Record
from orchestration.plan.chain import STAGES, borrowings
from orchestration.stores.data_version import data_version, photos_of_version
from orchestration.stores.models import versions_of_run
from orchestration.workspace import PHOTOGRAPHER_KEY_VARIABLE, Workspace, WorkspaceError

KINDS = ("photo", "photographer", "data-version")
CARRIED = ("split by", "embedded in")
"""Uses that put only a row of the photo's own into an output: what is made from that need not depend on the photo."""
LEARNT_FROM = ("trained", "validated", "reference in")
FORMS = "photo:ID, photographer:ID or data-version:HASH"


def uses(workspace: Workspace, text: str) -> dict[str, Any]:
    """What used the photos that `text` names, see FORMS.

    `outputs` are those that photos went into directly, with how and how many; `made_from_those` the others that were
    made from these; `earlier` those that were replaced since and whose data version had one of the photos; `models`
    the registered versions, and `reports` the reports, among them all. Raises WorkspaceError for another form, and for
    what the workspace does not know.
    """
    kind, _, name = text.partition(":")
    if kind not in KINDS or not name:
        raise WorkspaceError(f"--uses must be {FORMS}; got {text!r}")
    records, _ = read_records(workspace)
    if kind == "data-version":
        return _of_version(workspace, records, name)
    ids = frozenset(_photos(workspace, kind, name))
    direct: list[dict[str, Any]] = [
        {"artefact": artefact, "stage": use.stage, "recipe": build.recipe, "how": use.how, "photos": use.photos,
         "note": _note(build, use.stage)}
        for build in split_builds(workspace)
        for use in direct_uses(build, ids)
        for artefact in [build.name(use.stage) + use.part]
    ]  # fmt: skip
    used = {(str(one["recipe"]), str(one["stage"])) for one in direct if one["how"] not in CARRIED}
    below = [
        record for record in _below(workspace, records, used) if (record.recipe, record.stage) not in used
    ]
    earlier = _earlier_with(workspace, ids)
    touched = [record for record in records if (record.recipe, record.stage) in used] + below
    learned = {str(one["recipe"]) for one in direct if one["how"] in LEARNT_FROM}
    return {
        "uses_of": text,
        "photos": sorted(ids),
        "outputs": direct,
        "made_from_those": [_named(record) for record in below],
        "earlier": [_named(record) | {"photos": count} for record, count in earlier],
        **_models_and_reports(workspace, [*touched, *(record for record, _ in earlier)], learned),
    }


def uses_lines(found: dict[str, Any]) -> Iterator[str]:
    """The answer of `uses` as text."""
    count = len(found.get("photos", ()))
    yield found["uses_of"] + (f": {count:,} photo{'s' * (count != 1)}" if "photos" in found else "")
    for one in found["outputs"]:
        many = f", {one['photos']:,} of them" if one.get("photos") is not None and count > 1 else ""
        note = f" ({one['note']})" if one.get("note") else ""
        yield f"    {one['how']} {one['artefact']}{many}{note}"
    if not found["outputs"]:
        yield "    used by nothing built"
    if found["made_from_those"]:
        yield "made from those:"
        yield from (
            f"    {one['artefact']}  content {one['content'][:12]}" for one in found["made_from_those"]
        )
    if found["earlier"]:
        yield "earlier outputs, replaced since, of a data version that had them:"
        yield from (
            f"    {one['artefact']}  content {one['content'][:12]}, made {one['made']}"
            for one in found["earlier"]
        )
    models = [f"{one['name']}/{one['version']} ({one['how']})" for one in found["models"]]
    yield "models: " + (", ".join(models) or "none registered")
    yield "reports: " + (", ".join(one["artefact"] for one in found["reports"]) or "none")


def _photos(workspace: Workspace, kind: str, name: str) -> list[str]:
    """The ids of the photos that are asked about."""
    if kind == "photo":
        found = photo_ids(workspace, name)
    else:
        wanted = {name}
        if (
            PHOTOGRAPHER_KEY_VARIABLE in os.environ
            or (workspace.root / ".geoloc" / "photographer.key").exists()
        ):
            wanted.add(photographer_id(name, workspace.photographer_key()))
        catalogs = [read_catalog(pool, ["photo_id", "photographer"]) for pool in pools_of(workspace)]
        found = [str(one) for c in catalogs for one in c.loc[c["photographer"].isin(wanted), "photo_id"]]
    if not found:
        raise WorkspaceError(
            f"no photo of this workspace is {kind}:{name}; a {kind} that was taken down is not known any more, and "
            "`geoloc audit OUTPUT` says how many photos were taken down from an output"
        )
    return found


def _note(build: Build, stage: str) -> str:
    """What makes it uncertain that an output used the photos."""
    record = build.record(stage)
    if stage == "splits" or record is None or not made_of_other_splits(build, record):
        return ""
    splits = build.record("splits")
    if splits is not None and splits.taken_down:
        return ""
    return "made from other splits than those now"


def _below(workspace: Workspace, records: list[Record], used: set[tuple[str, str]]) -> list[Record]:
    """The outputs that were made from the used ones, directly or not, in the order of the chain."""
    found: list[Record] = []
    touched = {(record.recipe, record.stage): record.content for record in records}
    reached = set(used)
    waiting = True
    while waiting:
        new = [
            record
            for record in records
            if record not in found
            and any(
                source in reached and touched.get(source) == content for source, content in _sources(record)
            )
        ]
        found += new
        reached |= {(record.recipe, record.stage) for record in new}
        waiting = bool(new)
    order = list(STAGES)
    return sorted(found, key=lambda one: (one.recipe, order.index(one.stage)))


def _sources(record: Record) -> Iterator[tuple[tuple[str, str], str]]:
    """The outputs that an output was made from, as (recipe, stage) and content."""
    borrowed = {row.name: (recipe, row.stage) for row, recipe in borrowings(record.settings)}
    for name, content in record.inputs.items():
        if name in borrowed:
            yield borrowed[name], content
        elif name in STAGES:
            yield (record.recipe, name), content


def _of_version(workspace: Workspace, records: list[Record], name: str) -> dict[str, Any]:
    """What was made from a data version, named by its hash or the first eight digits or more."""
    everything = [*records, *read_earlier(workspace)]
    known = {record.inputs["data"] for record in everything if "data" in record.inputs}
    if workspace.data_pointer.exists():
        known.add(data_version(workspace))
    matches = sorted(one for one in known if one.startswith(name.lower()) and len(name) >= 8)
    matches = matches or sorted(one for one in known if one == name)
    if len(matches) != 1:
        raise WorkspaceError(
            f"data-version:{name} must be one that this workspace knows, by 8 digits or more: "
            f"{', '.join(sorted(known)) or 'none'}; {len(matches)} match"
        )
    versions = _Versions(workspace)
    of = [record for record in everything if matches[0] in versions.of(record)]
    now = [record for record in of if record in records]
    before = [record for record in of if record not in records]
    return {
        "uses_of": f"data-version:{matches[0]}",
        "outputs": [_named(one) | {"how": "made from it:", "photos": None, "note": ""} for one in now],
        "made_from_those": [],
        "earlier": [_named(one) for one in before],
        **_models_and_reports(workspace, of, {record.recipe for record in of}),
    }


class _Versions:
    """The data versions behind records. Each output is walked once."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.known: dict[tuple[str, str, str], frozenset[str]] = {}

    def of(self, record: Record) -> frozenset[str]:
        """The data versions that an output was made from, directly or not."""
        key = (record.recipe, record.stage, record.content)
        if key not in self.known:
            self.known[key] = frozenset()  # two recipes that borrow from each other end here
            found = {record.inputs["data"]} if "data" in record.inputs else set()
            for (recipe, stage), content in _sources(record):
                above = record_with(Build(self.workspace, recipe), stage, content)
                found |= self.of(above) if above is not None else set()
            self.known[key] = frozenset(found)
        return self.known[key]


def _earlier_with(workspace: Workspace, ids: frozenset[str]) -> list[tuple[Record, int]]:
    """The outputs that were replaced since and whose data version had some of the photos, with how many it had."""
    versions, found, counts = _Versions(workspace), [], dict[str, int]()
    for record in read_earlier(workspace):
        for version in versions.of(record):
            if version not in counts:
                try:
                    counts[version] = len(ids & photos_of_version(workspace, version))
                except WorkspaceError:  # not in DVC's cache any more: nobody can tell
                    counts[version] = 0
        most = max((counts[version] for version in versions.of(record)), default=0)
        if most:
            found.append((record, most))
    return found


def _named(record: Record) -> dict[str, Any]:
    return {
        "artefact": record.artefact,
        "recipe": record.recipe,
        "stage": record.stage,
        "content": record.content,
        "made": record.started_at,
    }


def _models_and_reports(
    workspace: Workspace, records: list[Record], learned: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    """The registered models and the reports among records; `learned`: the recipes that learned from the photos or
    refer to them, and were not only measured on them."""
    runs = {one.mlflow_run: one.recipe for one in records if one.mlflow_run and not one.taken_from}
    models = [
        model | {"how": "learned from them" if recipe in learned else "measured on them"}
        for run, recipe in runs.items()
        for model in versions_of_run(workspace, run)
    ]
    return {"models": models, "reports": [_named(one) for one in records if one.stage == "report"]}
