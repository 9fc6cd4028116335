"""dvc.yaml and dvc.lock: the chain as DVC stages, and the record of what was built."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from geoloc.files import write_text
from orchestration.plan.chain import (
    CHAIN,
    SHARED,
    Stage,
    artefact,
    borrowed,
    inputs_of,
    output_folder,
    record_path,
    stages_of,
    uses,
    value_at,
)
from orchestration.plan.seeds import plain, without_seed
from orchestration.plan.settings import BuildSettings, load_settings
from orchestration.stores.data_version import with_repo
from orchestration.stores.stamps import stamp_path, versions_builds
from orchestration.workspace import Workspace

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
    locked = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"] if file.exists() else {}
    missing = []
    for stage in CHAIN:
        proof = _proof(workspace, recipe, stage.name)
        if stage.name not in wanted or not proof.is_file():
            continue
        outs = locked.get(dvc_stage_name(recipe, stage.name), {}).get("outs", [])
        known = {out["path"]: out.get("md5") for out in outs}
        md5 = hashlib.md5(proof.read_bytes(), usedforsecurity=False).hexdigest()
        if known.get(proof.relative_to(workspace.root).as_posix()) != md5:
            missing.append(stage.name)
    return missing


def _proof(workspace: Workspace, recipe: str, stage: str) -> Path:
    """The file that changes with every build of an output that dvc.lock must learn of."""
    return (record_path if versions_builds(workspace) else stamp_path)(workspace, recipe, stage)


def write_pipeline(workspace: Workspace, recipe: str) -> bool:
    """Write dvc.yaml: one stage per row of the chain, for this recipe and for those already there.

    The file is generated so that each stage names exactly the settings that it reads. Returns whether it changed.
    """
    text = PIPELINE_HEADER + yaml.safe_dump(
        pipeline(workspace, sorted({recipe, *pipeline_recipes(workspace)})), sort_keys=False, width=100
    )
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
    if not workspace.dvc_yaml.exists():
        return []
    stages = yaml.safe_load(workspace.dvc_yaml.read_text(encoding="utf-8")).get("stages", {})
    return sorted({stage["meta"]["recipe"] for stage in stages.values() if "recipe" in stage.get("meta", {})})


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
        "deps": ["data"] * stage.looks_at_pool
        + [relative(output(workspace, recipe, name)) for name in above]
        + [relative(output(workspace, *source)) for source in borrowed(settings, stage).values()]
        + _weights_file(settings, stage),
    }
    # DVC refuses to track keys that a file does not have: a missing one has its default, and one that is added later
    # enters this file with the next `geoloc build`.
    params: list[Any] = _given_settings(workspace.root / "params.yaml", stage)
    file = f"{without_seed(recipe)}.yaml"
    overridden = _given_settings(workspace.recipes / file, stage)
    params += [{f"recipes/{file}": overridden}] * bool(overridden)
    if params:
        described["params"] = params
    outs = [relative(output(workspace, recipe, stage.name))]
    if versioned:
        outs.append(relative(record_path(workspace, recipe, stage.name)))
    described["outs"] = outs if versioned else [{out: {"cache": False}} for out in outs]
    described["meta"] = {} if shared else {"recipe": recipe}
    return described


def _weights_file(settings: BuildSettings, stage: Stage) -> list[str]:
    """The weights file that a stage reads, relative to the workspace."""
    is_file = "weights" not in borrowed(settings, stage) and settings.model.weights not in (
        "none",
        "registry",
    )
    return [settings.model.weights] if is_file and uses(stage, "model.weights") else []


def _given_settings(file: Path, stage: Stage) -> list[str]:
    """The settings that this stage uses and that a file sets."""
    values = yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file.exists() else {}
    return [key for key in stage.sections if value_at(values, key) is not None]
