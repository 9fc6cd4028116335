"""Stamps: what DVC follows where it does not keep the builds, one small file a stage.

A stamp holds what an output is made from: the settings of its stage, the data version, and the stamps of the stages
above. Trained bytes differ between processors, and run ids and times between runs; a stamp does not, so dvc.lock is
the same wherever the same photos and settings are built. The bytes themselves are in the record of the output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from geoloc.files import write_text
from geoloc.settings import SettingsError
from geoloc.yaml_files import read_yaml
from orchestration.plan.chain import (
    STAGES,
    Stage,
    borrowed,
    inputs_of,
    looks_at_pool,
    output_folder,
    record_path,
    stages_of,
)
from orchestration.plan.settings import BuildSettings, load_settings
from orchestration.stores.data_version import data_version, dvc_config
from orchestration.workspace import Workspace


def stamp_path(workspace: Workspace, recipe: str, stage: str) -> Path:
    """The path of the stamp of a stage's output: beside its record."""
    folder = output_folder(workspace, recipe, stage)
    return folder.parent / "stamps" / f"{folder.name}.json"


def versions_builds(workspace: Workspace) -> bool:
    """Whether DVC keeps the builds as well as the photos. It does not if the default remote lies inside the
    workspace, like the sample's: such a remote is committed to git, and builds must not be."""
    config = dvc_config(workspace)
    remote = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{remote}\"'", "url", fallback="") if remote else ""
    inside = (workspace.root / ".dvc" / url).resolve().is_relative_to(workspace.root)
    return not url or "://" in url or not inside


def write_stamps(workspace: Workspace, settings: BuildSettings, stages: Collection[str]) -> None:
    """Write the stamps of these stages, which must be up to date, unless DVC keeps the builds themselves. Stamps that
    are right already are left alone."""
    if versions_builds(workspace):
        return
    for stage in stages_of(settings):
        if stage.name not in stages or not record_path(workspace, settings.recipe, stage.name).is_file():
            continue
        text = _stamp(workspace, settings, stage)
        path = stamp_path(workspace, settings.recipe, stage.name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)


def stamp_is_known(workspace: Workspace, recipe: str, stage: str) -> bool:
    """Whether a stamp is as dvc.lock says, or as a build would write it now; also if there is none."""
    path = stamp_path(workspace, recipe, stage)
    if not path.is_file():
        return True
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    name = path.relative_to(workspace.root).as_posix()
    lock = workspace.root / "dvc.lock"
    stages = (read_yaml(lock, dict) or {}).get("stages", {}) if lock.exists() else {}
    outs = [out for one in stages.values() for out in one.get("outs") or []]
    if any(out.get("path") == name and out.get("md5") == md5 for out in outs):
        return True
    try:
        settings = load_settings(workspace, recipe)
    except SettingsError:  # the recipe is gone: nothing says what the stamp would be
        return False
    return path.read_text(encoding="utf-8", errors="replace") == _stamp(workspace, settings, STAGES[stage])


def _stamp(workspace: Workspace, settings: BuildSettings, stage: Stage) -> str:
    above = {
        name: (settings.recipe, name) for name in (*stage.after, *inputs_of(settings, stage))
    } | borrowed(settings, stage)
    made_from: dict[str, Any] = {
        "settings": settings.sections(stage.sections),
        "inputs": {name: _hash(stamp_path(workspace, *source)) for name, source in above.items()},
    }
    if looks_at_pool(settings, stage):
        made_from["data"] = data_version(workspace)
    return json.dumps(made_from, indent=2, sort_keys=True) + "\n"


def _hash(stamp: Path) -> str | None:
    return hashlib.sha256(stamp.read_bytes()).hexdigest() if stamp.is_file() else None
