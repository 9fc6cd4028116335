"""dvc.yaml and dvc.lock: the chain as DVC stages, and the record of what was built."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from geoloc.files import damage_named, write_text
from geoloc.models.settings import NAMED_WEIGHTS
from geoloc.training.metric_settings import CLASSIFIER
from geoloc.yaml_files import read_yaml
from orchestration.plan.chain import (
    CHAIN,
    EXTERNAL_FILE,
    SHARED,
    WEIGHTS,
    Stage,
    artefact,
    borrowed,
    inputs_of,
    looks_at_pool,
    output_folder,
    record_path,
    stages_of,
    uses,
    value_at,
)
from orchestration.plan.seeds import plain
from orchestration.plan.settings import BuildSettings, load_settings, settings_files, why_unusable
from orchestration.stores.data_version import with_repo
from orchestration.stores.stamps import stamp_path, versions_builds
from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from dvc.repo import Repo


def commit_stages(workspace: Workspace, recipe: str, stages: list[str]) -> None:
    """Record built stages in dvc.lock, so that `dvc status` is clean and `dvc repro` does nothing."""
    if not stages:
        return
    names = [dvc_stage_name(recipe, stage) for stage in stages]

    def commit(repo: Repo) -> None:
        for name in names:
            repo.commit(target=name, force=True)

    with_repo(workspace, commit)


def unrecorded_stages(workspace: Workspace, recipe: str, wanted: Collection[str]) -> list[str]:
    """The wanted stages whose last build is missing in dvc.lock, in order. Does not import DVC.

    The md5 of the file that every change reaches is compared: the record where DVC keeps the builds, else the stamp.
    """
    file = workspace.root / "dvc.lock"
    locked = read_stages(file)
    missing = []
    for stage in CHAIN:
        proof = _proof(workspace, recipe, stage.name)
        if stage.name not in wanted or not proof.is_file():
            continue
        outs = locked.get(dvc_stage_name(recipe, stage.name), {}).get("outs", [])
        with damage_named(file):
            known = {out["path"]: out.get("md5") for out in outs}
        md5 = hashlib.md5(proof.read_bytes(), usedforsecurity=False).hexdigest()
        if known.get(proof.relative_to(workspace.root).as_posix()) != md5:
            missing.append(stage.name)
    return missing


def _proof(workspace: Workspace, recipe: str, stage: str) -> Path:
    """The file that changes with every build of an output that dvc.lock must learn of."""
    return (record_path if versions_builds(workspace) else stamp_path)(workspace, recipe, stage)


def record_build(workspace: Workspace, recipe: str, wanted: Collection[str]) -> None:
    """Write dvc.yaml for this recipe, and what dvc.lock lacks of the wanted stages to it."""
    write_pipeline(workspace, recipe)
    commit_stages(workspace, recipe, unrecorded_stages(workspace, recipe, wanted))


def write_pipeline(workspace: Workspace, recipe: str, say: Callable[[str], None] = lambda _: None) -> bool:
    """Write dvc.yaml: one stage per row of the chain, for this recipe and for those already there.

    The file is generated so that each stage names exactly the settings that it reads. Another recipe that cannot be
    used now (its file is missing or invalid) keeps its stages as they are, and `say` is called with a line that names
    it. Returns whether the file changed. Raises SettingsError if `recipe` itself is invalid.
    """
    before = _stages(workspace)
    own = pipeline(workspace, [recipe])["stages"]
    stages = {name: own[name] for name in own if name in SHARED}
    for other in sorted({recipe, *_recipes(before)}):
        why = None if other == recipe else why_unusable(workspace, other)
        if why is None:
            stages |= own if other == recipe else pipeline(workspace, [other])["stages"]
        else:
            say(
                f"the recipe {other} cannot be used: {why}; its stages stay as they are in dvc.yaml; mend it, or drop "
                f"them with: geoloc build --drop {shlex.quote(other)}"
            )
            stages |= {name: stage for name, stage in before.items() if _recipe(stage) == other}
    return _write_stages(workspace, stages)


def forget_stages(workspace: Workspace, names: Collection[str]) -> None:
    """Remove stages from dvc.lock: what it named of them is not kept for it, and it is not what is on disk."""
    lock = workspace.root / "dvc.lock"

    def unlock(repo: Repo) -> None:
        with repo.lock:
            locked = read_yaml(lock, dict)
            locked["stages"] = {name: one for name, one in locked["stages"].items() if name not in names}
            write_text(lock, yaml.safe_dump(locked, sort_keys=False))

    if lock.exists():
        with_repo(workspace, unlock)


def drop_recipes(workspace: Workspace, recipes: Collection[str]) -> None:
    """Remove the stages of recipes from dvc.lock and dvc.yaml; their outputs stay in build/.

    Raises WorkspaceError, before anything is changed, if dvc.yaml has no stages of one of them.
    """
    stages = _stages(workspace)
    known = _recipes(stages)
    if unknown := [recipe for recipe in recipes if recipe not in known]:
        raise WorkspaceError(
            f"--drop must name recipes with stages in dvc.yaml: {', '.join(known) or 'none'}; got {', '.join(unknown)}"
        )
    dropped = {name for name, stage in stages.items() if _recipe(stage) in recipes}
    forget_stages(workspace, dropped)  # first: a drop that is killed here is completed by the same command
    _write_stages(workspace, {name: stage for name, stage in stages.items() if name not in dropped})


def _write_stages(workspace: Workspace, stages: Mapping[str, Any]) -> bool:
    """Write dvc.yaml with these stages; returns whether it changed."""
    text = PIPELINE_HEADER + yaml.safe_dump({"stages": dict(stages)}, sort_keys=False, width=100)
    if workspace.dvc_yaml.exists() and workspace.dvc_yaml.read_text(encoding="utf-8") == text:
        return False
    write_text(workspace.dvc_yaml, text)
    return True


PIPELINE_HEADER = (
    "# Written by `geoloc build --recipe NAME`: the chain of stages, once for each recipe that this\n"
    "# workspace builds. Every stage runs through the same command line as everything else.\n"
)


def pipeline_recipes(workspace: Workspace) -> list[str]:
    """The recipes that this workspace builds: those with stages in dvc.yaml."""
    return _recipes(_stages(workspace))


def _stages(workspace: Workspace) -> dict[str, Any]:
    """The stages in dvc.yaml, as they are written there."""
    return read_stages(workspace.dvc_yaml)


def _recipes(stages: Mapping[str, Any]) -> list[str]:
    return sorted({recipe for recipe in map(_recipe, stages.values()) if recipe is not None})


def _recipe(stage: Mapping[str, Any]) -> str | None:
    """The recipe of a stage in dvc.yaml; None for one that all recipes share."""
    return stage.get("meta", {}).get("recipe")


def read_stages(file: Path) -> dict[str, dict[str, Any]]:
    """The stages in dvc.yaml or dvc.lock, by name; none without the file. Raises DamagedFile for another file."""
    if not file.exists():
        return {}
    with damage_named(file):
        found = (read_yaml(file, dict) or {}).get("stages") or {}
        if bad := [name for name, stage in found.items() if not isinstance(stage, dict)]:
            raise ValueError(f"the stage {bad[0]} must be a mapping")
        if bad := [name for name, stage in found.items() if not isinstance(stage.get("meta", {}), dict)]:
            raise ValueError(f"meta of the stage {bad[0]} must be a mapping")
        return dict(found)


def pipeline(workspace: Workspace, recipes: list[str]) -> dict[str, Any]:
    """The content of dvc.yaml for these recipes."""
    stages = {}
    for recipe in recipes:
        settings = load_settings(workspace, recipe)
        for stage in stages_of(settings):
            stages[dvc_stage_name(recipe, stage.name)] = _pipeline_stage(workspace, settings, stage)
    return {"stages": stages}


def dvc_stage_name(recipe: str, stage: str) -> str:
    """The stage's name in dvc.yaml."""
    return artefact(plain(recipe), stage).replace("/", "-")


def _pipeline_stage(workspace: Workspace, settings: BuildSettings, stage: Stage) -> dict[str, Any]:
    recipe, shared = settings.recipe, stage.name in SHARED
    versioned = versions_builds(workspace)
    output = output_folder if versioned else stamp_path

    def relative(path: Path) -> str:
        return path.relative_to(workspace.root).as_posix()

    command = f"geoloc build --only {stage.name} --no-commit" + ("" if shared else f" --recipe {recipe}")
    above = dict.fromkeys((*stage.after, *inputs_of(settings, stage)))
    described: dict[str, Any] = {
        "cmd": command,
        "desc": stage.description,
        "deps": ["data"] * looks_at_pool(settings, stage)
        + [relative(output(workspace, recipe, name)) for name in above]
        + [relative(output(workspace, *source)) for source in borrowed(settings, stage).values()]
        + _weights_file(settings, stage)
        + _external_files(settings, stage),
    }
    # DVC refuses to track keys that a file does not have: a missing one has its default, and one that is added later
    # enters this file with the next `geoloc build`.
    params: list[Any] = []
    for file in settings_files(workspace, recipe):
        given: list[Any] = _given_settings(file, stage)
        if file.parent == workspace.recipes:
            given = [{relative(file): given}] * bool(given)
        params += given
    if params:
        described["params"] = params
    outs = [relative(output(workspace, recipe, stage.name))]
    if versioned:
        outs.append(relative(record_path(workspace, recipe, stage.name)))
    # Else DVC would remove an output before it runs the command, which may end with an error and replaces it whole.
    kept = {"persist": True} if versioned else {"cache": False, "persist": True}
    described["outs"] = [{out: dict(kept)} for out in outs]
    described["meta"] = {} if shared else {"recipe": recipe}
    return described


def _weights_file(settings: BuildSettings, stage: Stage) -> list[str]:
    """The weights file that a stage reads, relative to the workspace."""
    if "weights" in borrowed(settings, stage):
        return []
    named = [str(value_at(settings, key)) for key in WEIGHTS if uses(stage, key)]
    return [weights for weights in named if weights not in (CLASSIFIER, *NAMED_WEIGHTS)]


def _external_files(settings: BuildSettings, stage: Stage) -> list[str]:
    """The files of another program's embeddings that a stage reads, relative to the workspace."""
    external = settings.embeddings.external
    return list(external.files) if external is not None and uses(stage, EXTERNAL_FILE) else []


def _given_settings(file: Path, stage: Stage) -> list[str]:
    """The settings that this stage uses and that a file sets."""
    values = read_yaml(file, dict) or {} if file.exists() else {}
    return [key for key in stage.sections if value_at(values, key) is not None]
