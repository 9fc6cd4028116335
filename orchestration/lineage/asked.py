"""What a user's words name: an output, a number of a report, a photo or the pool."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geoloc.files import sha256_bytes
from orchestration.lineage.answered import is_answers
from orchestration.lineage.behind import near_photo_ids, photo_ids
from orchestration.lineage.build import Build
from orchestration.lineage.earlier import earlier_records
from orchestration.lineage.numbers import FORM
from orchestration.lineage.record import Record
from orchestration.plan.chain import STAGES, artefact
from orchestration.plan.seeds import plain
from orchestration.plan.settings import DEFAULT_RECIPE, is_recipe_name
from orchestration.stores.data_version import data_version
from orchestration.stores.history import materializations
from orchestration.stores.models import is_model_name, run_of_model
from orchestration.stores.pipeline import read_stages
from orchestration.workspace import Workspace, WorkspaceError

ACCEPTED = (
    "a stage (report, default/report), a number (report:test/[L]NN/city), a photo (its id, photo:ID or a picture), a "
    "path (build/default/index, data/shards/x.tar), answers of geoloc locate (their file, FILE#PHOTO), a model "
    "(models:/NAME/VERSION), a run id, a materialization (RUN:ASSET), or a hash (8 digits or more)"
)
_NUMBER = re.compile(r"(?:(?P<recipe>[^/:]+)/)?(?:report|evaluation):(?P<number>.+)")
_MATERIALIZATION = re.compile(r"(?P<run>[0-9a-f][0-9a-f-]{7,35})[:/@ ](?P<asset>[^:]+)", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f-]{8,}(\.dir)?", re.IGNORECASE)


@dataclass(frozen=True)
class Output:
    """An output of a build; `why` says how the words name it, if not by its name. `content` is the hash of an earlier
    output of that name, which was replaced since."""

    recipe: str
    stage: str
    why: str = ""
    number: str = ""
    content: str = ""

    def __str__(self) -> str:
        name = artefact(self.recipe, self.stage)
        return f"{name} {self.content[:12]}, replaced since" if self.content else name


@dataclass(frozen=True)
class Photo:
    """A photo, by id."""

    photo_id: str

    def __str__(self) -> str:
        return f"photo:{self.photo_id}"


@dataclass(frozen=True)
class Pool:
    """The photos, at the version that data.dvc names; or those in one shard."""

    shard: Path | None = None

    def __str__(self) -> str:
        return "data" if self.shard is None else f"data/{self.shard.name}"


@dataclass(frozen=True)
class Answered:
    """Answers of `geoloc locate` in a file, or one of them."""

    file: Path
    photo: str = ""

    def __str__(self) -> str:
        return f"the answers in {self.file}"


Asked = Output | Photo | Pool | Answered


def find(workspace: Workspace, text: str) -> Asked:
    """What `text` names in a workspace; see ACCEPTED.

    Raises WorkspaceError, which lists what is accepted and what is near, if it names nothing or several things.
    """
    records, damaged = read_records(workspace)
    if match := _NUMBER.fullmatch(text):
        recipe = match["recipe"] or DEFAULT_RECIPE
        stage = text.removeprefix(f"{match['recipe']}/").partition(":")[0]
        return Output(recipe, stage, number=match["number"])
    if text.startswith("photo:"):
        found = photo_ids(workspace, text.removeprefix("photo:"))
        return _one(text, [Photo(one) for one in found], lambda: _near(workspace, records, text), damaged)
    named = [record for record in records if text in (record.artefact, record.stage)]
    if named:
        return _one(text, [Output(record.recipe, record.stage) for record in named], list, damaged)
    if "models:/" not in text and (by_path := _by_path(workspace, records, damaged, text)) is not None:
        return by_path
    if match := _MATERIALIZATION.fullmatch(text):
        run_id, asset = match["run"].lower(), match["asset"].strip().replace(" ", "/")
        if found_then := _materialized(workspace, records, run_id, asset):
            return _one(text, found_then, list, damaged)
    candidates: list[Asked] = []
    if _HEX.fullmatch(text):
        candidates += _by_hash(workspace, records, text.lower())
        candidates = candidates or list(_by_earlier_hash(workspace, text.lower()))
        candidates = candidates or _materialized(workspace, records, text.lower())[-1:]
    if is_model_name(text) and (run := run_of_model(workspace, text)):
        why = f"model {text}, made by MLflow run {run}"
        made = [
            Output(record.recipe, record.stage, why)
            for record in records
            if record.mlflow_run == run and not record.taken_from
        ]
        made = made or [
            Output(record.recipe, record.stage, why, content=record.content)
            for record in read_earlier(workspace)
            if record.mlflow_run == run and not record.taken_from
        ]
        if not made:
            raise WorkspaceError(
                f"{text} was made by MLflow run {run}, and no output of this workspace is of that run any more"
            )
        candidates += made
    if not text.startswith("models:/"):
        candidates += [Photo(one) for one in photo_ids(workspace, text)]
    return _one(text, candidates, lambda: _near(workspace, records, text), damaged)


def read_records(workspace: Workspace) -> tuple[list[Record], dict[str, WorkspaceError]]:
    """All lineage records of the workspace, in the order of the chain; and the errors of those that are damaged, by
    the name of the output."""
    records, damaged = [], {}
    for path in [*workspace.build.glob("lineage/*.json"), *workspace.build.glob("*/lineage/*.json")]:
        try:
            record = Record.read(path)
        except WorkspaceError as error:
            damaged[(path.parent.parent / path.stem).relative_to(workspace.build).as_posix()] = error
            continue
        if record is not None:
            records.append(record)
    order = {name: i for i, name in enumerate(STAGES)}
    return sorted(records, key=lambda one: (one.recipe, order.get(one.stage, 99))), damaged


def read_earlier(workspace: Workspace) -> list[Record]:
    """The records of outputs that were replaced since, the newest first."""
    found = []
    for folder in [*workspace.build.glob("lineage/earlier/*"), *workspace.build.glob("*/lineage/earlier/*")]:
        shared = folder.parents[2] == workspace.build
        if shared or is_recipe_name(folder.parents[2].name):
            build = Build(workspace) if shared else Build(workspace, folder.parents[2].name)
            found += earlier_records(build, folder.name)
    return sorted(found, key=lambda one: one.started_at, reverse=True)


def _one(text: str, candidates: Iterable[Asked], near: object, damaged: dict[str, WorkspaceError]) -> Asked:
    """The only candidate. Raises WorkspaceError if there are several or none."""
    found = list(dict.fromkeys(candidates))
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(map(str, found[:12])) + (f" and {len(found) - 12} more" if len(found) > 12 else "")
        raise WorkspaceError(f"{text} is ambiguous: it could be {shown}")
    for name, error in damaged.items():
        if text in (name, name.rpartition("/")[2]):
            raise error
    close = near()  # type: ignore[operator]
    hint = f"; near: {', '.join(close)}" if close else ""
    raise WorkspaceError(f"{text} is not known in this workspace; accepted: {ACCEPTED}{hint}")


def _near(workspace: Workspace, records: list[Record], text: str) -> list[str]:
    """The outputs and photos with names like `text`; all outputs if none is like it."""
    outputs = [record.artefact for record in records]
    known = [*outputs, *{record.stage for record in records}, *near_photo_ids(workspace)]
    return difflib.get_close_matches(text.removeprefix("photo:"), known, 5, 0.6) or outputs[:12]


def _by_path(
    workspace: Workspace, records: list[Record], damaged: dict[str, WorkspaceError], text: str
) -> Asked | None:
    """What an existing path is part of; None for a text that is no path."""
    bases = (workspace.root, Path.cwd())
    if "#" in text and not any((base / text).exists() for base in bases):
        name, _, photo = text.rpartition("#")
        file = next((base / name for base in reversed(bases) if (base / name).is_file()), None)
        return Answered(file.resolve(), photo) if file is not None and is_answers(file) else None
    found = [(base / text).resolve() for base in bases]
    found = [path for path in found if path.exists() and path != workspace.root]
    if not found:
        return None
    full = next((path for path in found if path.is_relative_to(workspace.root)), found[0])
    if full.is_relative_to(workspace.build):
        parts = full.relative_to(workspace.build).parts
        if len(parts) > 1 and parts[-2] in (
            "lineage",
            "checks",
            "stamps",
            "facts",
        ):  # beside the outputs, about one
            parts = (*parts[:-2], Path(parts[-1]).stem)
        if "earlier" in parts and (record := Record.read(full)) is not None:
            return Output(record.recipe, record.stage, f"the record {text}", content=record.content)
        for name in ("/".join(parts[:2]), "/".join(parts[:1])):
            if name in damaged:
                raise damaged[name]
            for record in records:
                if record.artefact == name:
                    return Output(record.recipe, record.stage)
        return None
    if full.is_relative_to(workspace.mlflow):
        for part in full.relative_to(workspace.mlflow).parts:
            run = run_of_model(workspace, part) if is_model_name(part) else part
            for record in records:
                if run and record.mlflow_run == run and not record.taken_from:
                    return Output(record.recipe, record.stage, f"files of MLflow run {run}")
        return None
    if full == workspace.data_pointer or full.is_relative_to(workspace.pool):
        return Pool(full if full.suffix == ".tar" else None)
    if full.is_file() and is_answers(full):
        return Answered(full)
    return _by_picture(workspace, full) if full.is_file() else None


def _by_picture(workspace: Workspace, file: Path) -> Photo | None:
    """The photo of the pool whose stored pixels are those of a file; None if there is none."""
    from geoloc.photos.decoding import check_and_normalise
    from geoloc.photos.quarantine import Rejected

    try:
        stored = check_and_normalise(file.read_bytes()).bytes
    except Rejected:
        return None
    found = photo_ids(workspace, sha256_bytes(stored))
    return Photo(found[0]) if found else None


def _by_hash(workspace: Workspace, records: list[Record], text: str) -> Iterator[Asked]:
    """What has an id or hash that starts with `text`: outputs, files of outputs, runs, DVC's md5s, the data version."""
    matches = []
    for record in records:
        ids = (
            record.content,
            record.mlflow_run,
            record.dagster_run,
            *(p.content for p in record.parts.values()),
        )
        files = [name for name, sha256 in record.files.items() if sha256.startswith(text)]
        if any(one and one.startswith(text) for one in ids):
            matches.append((record, ""))
        elif files:
            matches.append((record, f"file {files[0]} of {record.artefact}"))
    # A reused output has the content, files and runs of its source; one run makes several outputs.
    matches = [(record, why) for record, why in matches if not record.taken_from] or matches
    if len({record.dagster_run for record, _ in matches}) == 1:
        of_run = [one for one in matches if (one[0].dagster_run or "").startswith(text)]
        matches = of_run[-1:] or matches
    yield from (Output(record.recipe, record.stage, why) for record, why in matches)
    if workspace.data_pointer.exists() and data_version(workspace).startswith(text):
        yield Pool()
    for name, stage in read_stages(workspace.root / "dvc.lock").items():
        outs = [out for out in stage.get("outs") or [] if str(out.get("md5", "")).startswith(text)]
        for record in records:
            if any(f"build/{record.artefact}" == out.get("path") for out in outs):
                yield Output(record.recipe, record.stage, f"{name} in dvc.lock")


def _by_earlier_hash(workspace: Workspace, text: str) -> Iterator[Asked]:
    """As `_by_hash`, among the outputs that were replaced since. Of several outputs of one run, the last."""
    matches = [
        one
        for one in read_earlier(workspace)
        if any(id and id.startswith(text) for id in (one.content, one.mlflow_run, one.dagster_run))
    ]
    if len({one.dagster_run for one in matches}) == 1:
        order = list(STAGES)
        matches = sorted(matches, key=lambda one: order.index(one.stage))[-1:]
    yield from (
        Output(one.recipe, one.stage, f"an output of before: {text}", content=one.content) for one in matches
    )


def _materialized(workspace: Workspace, records: list[Record], run: str, asset: str = "") -> list[Asked]:
    """The outputs that a run of Dagster materialized, in order; those of one asset if it is named."""
    found: list[Asked] = []
    everything = [*records, *read_earlier(workspace)]
    for one in materializations(workspace, run):
        if asset and asset not in (one.stage, f"{one.group}/{one.stage}", f"{one.group}__{one.stage}"):
            continue
        named = [r for r in everything if r.stage == one.stage and one.group in ("", plain(r.recipe))]
        match = next((r for r in named if r.content == one.content), None)
        if match is None:
            continue
        why = f"materialized by Dagster run {one.run} at {one.at}"
        content = "" if match in records else match.content
        found.append(Output(match.recipe, match.stage, why, content=content))
    return found


def output_build(workspace: Workspace, asked: Output) -> Build:
    """The build of an output, which is known to be built. Raises WorkspaceError if it is not."""
    if not (workspace.build / asked.recipe).is_dir() and asked.number:
        raise WorkspaceError(
            f"{asked.recipe} has no build; a number is named [RECIPE/]{FORM}; build it with: geoloc build --recipe "
            f"{asked.recipe}"
        )
    build = Build(workspace, asked.recipe)
    build.built(asked.stage)
    return build
