"""The audit: from any output back to the photos, the code and the settings that made it."""

from __future__ import annotations

import dataclasses
from typing import Any

from geoloc.files import DamagedFile, content_hash, read_json
from geoloc.retrieval.settings import ExternalSettings
from orchestration.lineage.answered import read_answers
from orchestration.lineage.asked import Answered, Asked, Output, Photo, Pool, find, output_build
from orchestration.lineage.behind import (
    made_of_other_splits,
    photo_facts,
    photos_behind,
    shard_photos,
)
from orchestration.lineage.build import Build
from orchestration.lineage.checks import results_for_now
from orchestration.lineage.earlier import record_with
from orchestration.lineage.numbers import find_number
from orchestration.lineage.record import Record
from orchestration.lineage.shown import state_text, taken_down_text
from orchestration.plan.chain import EXTERNAL_FILE, SHARED, STAGES, WEIGHTS, borrowings, value_at
from orchestration.stores.data_version import data_version, verify_data
from orchestration.stores.models import versions_of_run
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
    elif isinstance(asked, Answered):
        return _audit_answers(workspace, asked)
    else:
        build = output_build(workspace, asked)
        if asked.content:
            return _audit_earlier(build, asked)
        tree = audit(build, asked.stage)
        number = {"number": find_number(build, asked.number)} if asked.number else {}
        shared = asked.stage in SHARED
        behind = _photos(build, shared, build.built(asked.stage).inputs.get("data"))
        if not shared and made_of_other_splits(build, build.built(asked.stage)):
            splits, count = build.name("splits"), build.built("splits").taken_down
            behind["note"] = (
                f"{taken_down_text(count)} from {splits} since: the counts are of those that are left"
                if count
                else f"{splits} was built again since: the counts are of the splits now"
            )
        return tree | {"named_by": asked.why} | number | {"photos": behind, "differs": differences(tree)}
    state = _data_leaf(workspace)
    behind = _photos(Build(workspace), True, state["content"])
    return found | {"data": state, "photos": behind, "differs": differences(state)}


def _audit_earlier(build: Build, asked: Output) -> dict[str, Any]:
    """As `audit_asked`, of an output that was replaced since."""
    record = record_with(build, asked.stage, asked.content)
    if record is None:
        raise WorkspaceError(f"{asked} has no record any more")
    tree = _Audit(build).of_record(record)
    photos = _photos(build, asked.stage in SHARED, None)
    if asked.stage not in SHARED and made_of_other_splits(build, record):
        photos["note"] = f"{build.name('splits')} was built again since: the counts are of the splits now"
    return tree | {"named_by": asked.why, "photos": photos, "differs": differences(tree)}


def _audit_answers(workspace: Workspace, asked: Answered) -> dict[str, Any]:
    """As `audit_asked`, of answers of `geoloc locate`: the outputs that gave them, as they were then."""
    answers = read_answers(asked.file, asked.photo)
    build, outputs = Build(workspace, str(answers.made_by["recipe"])), dict(answers.made_by["outputs"])
    walk = _Audit(build)
    made_from = [walk.of_content(stage, content) for stage, content in outputs.items() if stage in STAGES]
    if model := answers.made_by.get("model"):
        made_from.append(_of_model(workspace, str(model)))
    tree = _leaf(f"{asked}", answers.sha256, "intact") | {"made_from": made_from}
    told = {
        "answers": {"photos": answers.photos, "located": answers.located},
        "question": answers.made_by.get("question", {}),
        **({"answer": dict(answers.one)} if answers.one else {}),
    }
    return tree | told | {"photos": _photos(build, False, None), "differs": differences(tree)}


def _of_model(workspace: Workspace, model: str) -> dict[str, Any]:
    """The tree of the output that registered a model; "missing" if the workspace has no such model any more."""
    try:
        found = find(workspace, model)
    except WorkspaceError:
        return _leaf(model, "", "missing")
    if not isinstance(found, Output):
        return _leaf(model, "", "missing")
    build = Build(workspace, found.recipe)
    walk = _Audit(build)
    record = record_with(build, found.stage, found.content) if found.content else None
    return walk.of_record(record) if record is not None else walk.of_stage(found.stage)


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
        found[f"{tree['artefact']}: {state_text(tree)}"] = None
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
            self.trees[stage] = self._tree(
                record,
                on_disk=self._state(record),
                changed_files=self.build.changed_files(record),
                checks=self._checks(stage),
            )
        return self.trees[stage]

    def of_record(self, record: Record) -> dict[str, Any]:
        """An output that was replaced since: of its files and checks nothing is kept."""
        name = f"{record.stage} {record.content}"
        if name not in self.trees:
            self.trees[name] = self._tree(record, on_disk="replaced", changed_files=[], checks=[])
        return self.trees[name]

    def of_content(self, stage: str, content: str) -> dict[str, Any]:
        """The output of a stage that had this content, there now or not."""
        tree = self.of_stage(stage)
        if tree["content"] == content:
            return tree
        if (record := record_with(self.build, stage, content)) is not None:
            return self.of_record(record)
        leaf = _leaf(self.build.name(stage), content, "replaced" if tree["content"] else "missing")
        return leaf | {"taken_down": tree["taken_down"]} if tree.get("taken_down") else leaf

    def _tree(self, record: Record, **state: Any) -> dict[str, Any]:
        run = record.mlflow_run
        return {
            **dataclasses.asdict(record),
            **state,
            "models": versions_of_run(self.build.workspace, run) if run and not record.taken_from else [],
            "made_from": [
                self.of_input(record, name, content)
                for name, content in record.inputs.items()
                if name != "checks"  # shown with each output that they are of
            ],
        }

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
        return self.of_content(name, content)

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
