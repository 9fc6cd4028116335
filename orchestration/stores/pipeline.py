"""dvc.yaml and dvc.lock: the chain as DVC stages, and the record of what was built."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from geoloc.files import damage_named, read_yaml, write_text
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
from orchestration.plan.settings import BuildSettings, load_settings
from orchestration.stores.data_version import dvc_config, with_repo
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

    Every build writes a new lineage record, so the md5 of that file is compared.
    """
    file = workspace.root / "dvc.lock"
    locked = read_stages(file)
    missing = []
    for stage in CHAIN:
        record = record_path(workspace, recipe, stage.name)
        if stage.name not in wanted or not record.is_file():
            continue
        outs = locked.get(dvc_stage_name(recipe, stage.name), {}).get("outs", [])
        with damage_named(file):
            known = {out["path"]: out.get("md5") for out in outs}
        md5 = hashlib.md5(record.read_bytes(), usedforsecurity=False).hexdigest()
        if known.get(record.relative_to(workspace.root).as_posix()) != md5:
            missing.append(stage.name)
    return missing


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
    with damage_named(workspace.dvc_yaml):
        stages = read_stages(workspace.dvc_yaml).values()
        return sorted({stage["meta"]["recipe"] for stage in stages if "recipe" in stage.get("meta", {})})


def read_stages(file: Path) -> dict[str, dict[str, Any]]:
    """The stages in dvc.yaml or dvc.lock, by name; none without the file. Raises DamagedFile for another file."""
    if not file.exists():
        return {}
    with damage_named(file):
        found = (read_yaml(file, dict) or {}).get("stages") or {}
        if bad := [name for name, stage in found.items() if not isinstance(stage, dict)]:
            raise ValueError(f"the stage {bad[0]} must be a mapping")
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
    return artefact(recipe, stage).replace("/", "-")


def _pipeline_stage(workspace: Workspace, settings: BuildSettings, stage: Stage) -> dict[str, Any]:
    recipe, shared = settings.recipe, stage.name in SHARED

    def relative(path: Path) -> str:
        return path.relative_to(workspace.root).as_posix()

    command = f"geoloc build --only {stage.name} --no-commit" + ("" if shared else f" --recipe {recipe}")
    above = dict.fromkeys((*stage.after, *inputs_of(settings, stage)))
    described: dict[str, Any] = {
        "cmd": command,
        "desc": stage.description,
        "deps": ["data"] * stage.looks_at_pool
        + [relative(output_folder(workspace, recipe, name)) for name in above]
        + _from_elsewhere(workspace, settings, stage),
    }
    # DVC refuses to track keys that a file does not have: a missing one has its default, and one that is added later
    # enters this file with the next `geoloc build`.
    params: list[Any] = _given_settings(workspace.root / "params.yaml", stage)
    overridden = _given_settings(workspace.recipes / f"{recipe}.yaml", stage)
    params += [{f"recipes/{recipe}.yaml": overridden}] * bool(overridden)
    if params:
        described["params"] = params
    outs = [
        relative(output_folder(workspace, recipe, stage.name)),
        relative(record_path(workspace, recipe, stage.name)),
    ]
    described["outs"] = (
        list(outs) if _versions_builds(workspace) else [{out: {"cache": False}} for out in outs]
    )
    described["meta"] = {} if shared else {"recipe": recipe}
    return described


def _versions_builds(workspace: Workspace) -> bool:
    """Whether DVC keeps the builds as well as the photos. It does not if the default remote lies inside the
    workspace, like the sample's: such a remote is committed to git, and builds must not be."""
    config = dvc_config(workspace)
    remote = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{remote}\"'", "url", fallback="") if remote else ""
    inside = (workspace.root / ".dvc" / url).resolve().is_relative_to(workspace.root)
    return not url or "://" in url or not inside


def _from_elsewhere(workspace: Workspace, settings: BuildSettings, stage: Stage) -> list[str]:
    """The outputs of other recipes and the weights file that a stage reads, relative to the workspace."""
    found = borrowed(settings, stage)
    paths = [
        output_folder(workspace, *source).relative_to(workspace.root).as_posix() for source in found.values()
    ]
    is_file = "weights" not in found and settings.model.weights not in ("none", "registry")
    return paths + ([settings.model.weights] if is_file and uses(stage, "model.weights") else [])


def _given_settings(file: Path, stage: Stage) -> list[str]:
    """The settings that this stage uses and that a file sets."""
    values = read_yaml(file, dict) or {} if file.exists() else {}
    return [key for key in stage.sections if value_at(values, key) is not None]
