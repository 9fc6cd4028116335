"""The audit: from any output back to the photos, the code and the settings that made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoloc.files import content_hash
from orchestration.lineage.build import Build
from orchestration.lineage.checks import results_for_now
from orchestration.lineage.record import Record
from orchestration.plan.chain import STAGES, borrowings, value_at
from orchestration.stores.data_version import verify_data
from orchestration.workspace import Workspace, WorkspaceError


def find_artefact(workspace: Workspace, name: str) -> tuple[str, str]:
    """Recipe and stage of the artefact that a user names: `report`, `sample/report`, a path in build/, or (the first
    eight characters or more of) a content hash, an MLflow run id or a Dagster run id.

    Raises WorkspaceError that lists what exists.
    """
    records = {record.artefact: record for record in all_records(workspace)}
    path = Path(name)
    for base in (Path.cwd(), workspace.root):
        full = (base / path).resolve()
        if full.is_relative_to(workspace.build):
            parts = full.relative_to(workspace.build).parts
            for length in (2, 1):
                if "/".join(parts[:length]) in records:
                    record = records["/".join(parts[:length])]
                    return record.recipe, record.stage
    matches = [
        record
        for record in records.values()
        if name in (record.artefact, record.stage)
        or (
            len(name) >= 8
            and any(i and i.startswith(name) for i in (record.content, record.mlflow_run, record.dagster_run))
        )
    ]
    if name not in STAGES:  # a reused output has the content and the runs of its source
        matches = [record for record in matches if not record.taken_from] or matches
    if len(matches) == 1 or (matches and len({m.dagster_run for m in matches}) == 1 and name not in STAGES):
        return matches[-1].recipe, matches[-1].stage
    if matches:
        raise WorkspaceError(f"{name} is ambiguous: it could be {', '.join(m.artefact for m in matches)}")
    known = ", ".join(sorted(records)) or "none: build something first with `geoloc build`"
    raise WorkspaceError(f"{name} is not an artefact of this workspace; known: {known}")


def all_records(workspace: Workspace) -> list[Record]:
    """All lineage records of the workspace, in the order of the chain."""
    paths = [*workspace.build.glob("lineage/*.json"), *workspace.build.glob("*/lineage/*.json")]
    records = [record for record in map(Record.read, paths) if record is not None]
    order = {name: i for i, name in enumerate(STAGES)}
    return sorted(records, key=lambda record: (record.recipe, order.get(record.stage, 99)))


def audit(build: Build, stage: str) -> dict[str, Any]:
    """The lineage of an output as a tree: its record, whether the files on disk match it, and under `made_from` the
    same for each input. Every branch ends at the data version.

    Raises WorkspaceError if the output has not been built.
    """
    build.built(stage)
    return _Audit(build).of_stage(stage)


class _Audit:
    """One walk. Each output is hashed once, however often it is reached."""

    def __init__(self, build: Build) -> None:
        self.build = build
        self.trees: dict[str, dict[str, Any]] = {}

    def of_stage(self, stage: str) -> dict[str, Any]:
        if stage not in self.trees:
            record = self.build.record(stage)
            if record is None:
                return _leaf(self.build.name(stage), "", "missing")
            self.trees[stage] = {
                **dataclasses.asdict(record),
                "on_disk": _state(self.build.content(stage), record.content),
                "checks": self._checks(stage),
                "made_from": [
                    self.of_input(record, name, content)
                    for name, content in record.inputs.items()
                    if name != "checks"  # shown with each output that they are of
                ],
            }
        return self.trees[stage]

    def _checks(self, stage: str) -> list[dict[str, Any]]:
        """What the checks of an output found; one that has not run on it is "not run"."""
        return [
            {"name": name, "result": one.result if one else "not run", "detail": one.detail if one else ""}
            for name, one in results_for_now(self.build, stage).items()
        ]

    def of_input(self, record: Record, name: str, content: str) -> dict[str, Any]:
        """An input as it was when `record` was made; marked as replaced if it was built again since."""
        if name == "data":
            return _leaf(name, content, _data_state(self.build.workspace, content))
        for row, recipe in borrowings(record.settings):
            if row.name == name:
                return self.of_recipe(recipe, row.stage, content)
        if name == "weights":
            file = self.build.workspace.root / value_at(record.settings, "model.weights")
            return _leaf(name, content, _state(content_hash(file) if file.is_file() else None, content))
        tree = self.of_stage(name)
        return tree if tree["content"] == content else _leaf(self.build.name(name), content, "replaced")

    def of_recipe(self, recipe: str, stage: str, content: str) -> dict[str, Any]:
        """An output borrowed from another recipe. If it was built again since, it is not walked: it may lead back
        here."""
        other = self.build.of(recipe)
        found = other.record(stage)
        if found is not None and found.content == content:
            return _Audit(other).of_stage(stage)
        return _leaf(other.name(stage), content, "missing" if found is None else "replaced")


def _data_state(workspace: Workspace, recorded: str) -> str:
    try:
        return _state(verify_data(workspace), recorded)
    except WorkspaceError:  # the photos on disk are not the version in data.dvc, whichever that is
        return "changed" if workspace.pool.is_dir() else "missing"


def _leaf(name: str, content: str, on_disk: str) -> dict[str, Any]:
    return {"artefact": name, "content": content, "on_disk": on_disk, "made_from": []}


def _state(found: str | None, recorded: str) -> str:
    return "missing" if found is None else "intact" if found == recorded else "changed"


def audit_lines(tree: dict[str, Any]) -> Iterator[str]:
    """The tree of `audit` as text; an artefact that occurs twice is printed in full once."""
    seen: set[str] = set()

    def walk(node: dict[str, Any], indent: str, arrow: str) -> Iterator[str]:
        yield f"{indent}{arrow}{node['artefact']}  content {node['content'][:12]}  {node['on_disk']}"
        indent += "    "
        if node["artefact"] in seen:
            if node["made_from"]:
                yield f"{indent}(as above)"
            return
        seen.add(node["artefact"])
        if "settings" in node:
            yield f"{indent}settings {node['settings_hash'][:12]}, code {node['code_version']}"
            for kind in ("workspace", "code"):
                commit, dirty = node[f"{kind}_commit"], node[f"{kind}_dirty"]
                yield f"{indent}{kind} commit {commit or 'none'}{' with uncommitted changes' if dirty else ''}"
            for name in ("Dagster", "MLflow"):
                if run := node[f"{name.lower()}_run"]:
                    yield f"{indent}{name} run {run}"
            yield f"{indent}made {node['started_at']} in {node['seconds']:.1f} s"
            if node["taken_from"]:
                yield f"{indent}taken from {node['taken_from']}, equal in inputs, settings and code"
            for name, part in node["parts"].items():
                if part["taken_from"]:
                    yield f"{indent}{name} taken from {part['taken_from']}, equal in inputs, settings and code"
            for check in node["checks"]:
                yield f"{indent}check {check['name']}: {check['result']}" + (
                    f" ({check['detail']})" if check["result"] not in ("passed", "not run") else ""
                )
            for one in node["accepted"]:
                yield (
                    f"{indent}accepted for code {one['code_version']} by {one['by']} on {one['at']}: {one['reason']}"
                )
        for branch in node["made_from"]:
            yield from walk(branch, indent, "← ")

    yield from walk(tree, "", "")
