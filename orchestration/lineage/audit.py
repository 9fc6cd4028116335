"""The audit: from any output back to the photos, the code and the settings that made it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from geoloc.files import DamagedFile, content_hash, read_json
from geoloc.retrieval.settings import ExternalSettings
from orchestration.lineage.asked import Asked, Output, Photo, Pool, find, output_build
from orchestration.lineage.behind import (
    made_of_other_splits,
    photo_facts,
    photo_lines,
    photos_behind,
    photos_lines,
    shard_photos,
)
from orchestration.lineage.build import Build
from orchestration.lineage.checks import results_for_now
from orchestration.lineage.numbers import find_number, number_line
from orchestration.lineage.record import Record
from orchestration.plan.chain import EXTERNAL_FILE, SHARED, WEIGHTS, borrowings, value_at
from orchestration.stores.data_version import data_version, verify_data
from orchestration.workspace import Workspace, WorkspaceError


def find_artefact(workspace: Workspace, name: str) -> tuple[str, str]:
    """Recipe and stage of the output that `name` names, as in `find`. Raises WorkspaceError for anything else."""
    found = find(workspace, name)
    if not isinstance(found, Output):
        raise WorkspaceError(f"{name} is not an output of a build, but {found}")
    return found.recipe, found.stage


def audit_asked(workspace: Workspace, asked: Asked) -> dict[str, Any]:
    """The answer of `geoloc audit`: what was asked for, what made it, and the photos behind it.

    An output is the tree of `audit`, with `number` if one was asked for; `photos` counts the photos and `differs` lists
    what is not on disk as recorded. Raises WorkspaceError if the output has not been built.
    """
    if isinstance(asked, Photo):
        found = photo_facts(workspace, asked.photo_id)
    elif isinstance(asked, Pool):
        found = {"artefact": str(asked)}
        if asked.shard is not None:
            found["shard_photos"] = shard_photos(workspace, asked.shard)
    else:
        build = output_build(workspace, asked)
        tree = audit(build, asked.stage)
        number = {"number": find_number(build, asked.number)} if asked.number else {}
        shared = asked.stage in SHARED
        behind = _photos(build, shared, build.built(asked.stage).inputs.get("data"))
        if not shared and made_of_other_splits(build, build.built(asked.stage)):
            splits, count = build.name("splits"), build.built("splits").taken_down
            behind["note"] = (
                f"{_taken_down(count)} from {splits} since: the counts are of those that are left"
                if count
                else f"{splits} was built again since: the counts are of the splits now"
            )
        return tree | {"named_by": asked.why} | number | {"photos": behind, "differs": differences(tree)}
    state = _data_leaf(workspace)
    behind = _photos(Build(workspace), True, state["content"])
    return found | {"data": state, "photos": behind, "differs": differences(state)}


def _photos(build: Build, shared: bool, version: str | None) -> dict[str, Any]:
    """The counts of `photos_behind`; what is missing if there are no photos. `version` is that of the whole pool."""
    try:
        found = photos_behind(build, shared)
        return found | {"data_version": found["data_version"] or version}
    except FileNotFoundError as error:
        return {"missing": str(error)}


def _data_leaf(workspace: Workspace) -> dict[str, Any]:
    version = data_version(workspace)
    return _leaf("data", version, _data_state(workspace, version))


def differences(tree: dict[str, Any]) -> list[str]:
    """What in a tree is not on disk as recorded, each named once."""
    found: dict[str, None] = {}
    if tree["on_disk"] != "intact":
        found[f"{tree['artefact']}: {_on_disk(tree)}"] = None
    for branch in tree["made_from"]:
        found |= dict.fromkeys(differences(branch))
    return list(found)


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
                "on_disk": self._state(record),
                "changed_files": self.build.changed_files(record),
                "checks": self._checks(stage),
                "made_from": [
                    self.of_input(record, name, content)
                    for name, content in record.inputs.items()
                    if name != "checks"  # shown with each output that they are of
                ],
            }
        return self.trees[stage]

    def _state(self, record: Record) -> str:
        """Whether an output is as recorded; files that are not content, such as a report's page, count too."""
        if not self.build.folder(record.stage).is_dir():
            return "missing"
        return "changed" if self.build.changed_files(record) else "intact"

    def _checks(self, stage: str) -> list[dict[str, Any]]:
        """What the checks of an output found; one that has not run on it is "not run"."""
        damage, file = "", self.build.checks_path(stage)
        try:
            read_json(file, list)
        except FileNotFoundError:
            pass
        except DamagedFile as error:
            damage = str(error)
        return [
            {
                "name": name,
                "result": one.result if one else "not run",
                "detail": one.detail if one else damage,
            }
            for name, one in results_for_now(self.build, stage).items()
        ]

    def of_input(self, record: Record, name: str, content: str) -> dict[str, Any]:
        """An input as it was when `record` was made; marked as replaced if it was built again since."""
        if name == "data":
            leaf = _leaf(name, content, _data_state(self.build.workspace, content))
            return leaf | {"taken_down": record.taken_down} if record.taken_down else leaf
        for row, recipe in borrowings(record.settings):
            if row.name == name:
                return self.of_recipe(recipe, row.stage, content)
        if name == "weights":
            named = next(filter(None, (value_at(record.settings, key) for key in WEIGHTS)))
            file = self.build.workspace.root / named
            return _leaf(name, content, _state(content_hash(file) if file.is_file() else None, content))
        if name == "external":
            named = (EXTERNAL_FILE, "embeddings.external.ids")
            external = ExternalSettings(
                name="any", **{key.rpartition(".")[2]: record.settings[key] for key in named}
            )
            files = [self.build.workspace.root / file for file in external.files]
            there = all(file.is_file() for file in files)
            return _leaf(name, content, _state(content_hash(*files) if there else None, content))
        tree = self.of_stage(name)
        if tree["content"] == content:
            return tree
        leaf = _leaf(self.build.name(name), content, "replaced")
        return leaf | {"taken_down": tree["taken_down"]} if tree.get("taken_down") else leaf

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


def _on_disk(node: dict[str, Any]) -> str:
    """The state of an output, with the files that changed."""
    if "settings" not in node and node.get(
        "taken_down"
    ):  # a leaf: photos, or an output that is not as it was
        return f"{node['on_disk']}: {_taken_down(node['taken_down'])} since"
    files = [name for name in node.get("changed_files", ()) if name != "."]
    if node["on_disk"] != "changed" or not files:
        return str(node["on_disk"])
    return f"changed: {', '.join(files[:3])}" + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _taken_down(count: int) -> str:
    return f"{count:,} photo{'s' * (count != 1)} {'were' if count != 1 else 'was'} taken down"


def answer_lines(answer: dict[str, Any]) -> Iterator[str]:
    """The answer of `audit_asked` as text."""
    if answer.get("named_by"):
        yield answer["named_by"]
    if "number" in answer:
        yield number_line(answer["number"])
    if "photo_id" in answer:
        yield from photo_lines(answer)
    elif "made_from" in answer:
        yield from audit_lines(answer)
        yield from (f"    {name}: {value}" for name, value in answer.get("facts", {}).items())
    else:
        yield f"{answer['artefact']}  content {answer['data']['content']}  {answer['data']['on_disk']}"
    if "shard_photos" in answer:
        ids = answer["shard_photos"]
        yield f"    {len(ids):,} photos: {', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''}"
    photos = answer["photos"]
    yield ""
    if "missing" in photos:
        yield f"photos: {photos['missing']}"
    else:
        if "note" in photos:
            yield photos["note"]
        yield from photos_lines(photos)
    yield "on disk: all as recorded" if not answer["differs"] else "on disk, not as recorded:"
    yield from (f"    {line}" for line in answer["differs"])


def audit_lines(tree: dict[str, Any]) -> Iterator[str]:
    """The tree of `audit` as text; an artefact that occurs twice is printed in full once."""
    seen: set[str] = set()

    def walk(node: dict[str, Any], indent: str, arrow: str) -> Iterator[str]:
        yield f"{indent}{arrow}{node['artefact']}  content {node['content'][:12]}  {_on_disk(node)}"
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
            if count := node["taken_down"]:
                yield f"{indent}{_taken_down(count)} since it was made: it cannot be made again as it was"
            for check in node["checks"]:
                yield f"{indent}check {check['name']}: {check['result']}" + (
                    f" ({check['detail']})" if check["result"] != "passed" and check["detail"] else ""
                )
            for one in node["accepted"]:
                yield (
                    f"{indent}accepted for code {one['code_version']} by {one['by']} on {one['at']}: {one['reason']}"
                )
        for branch in node["made_from"]:
            yield from walk(branch, indent, "← ")

    yield from walk(tree, "", "")
