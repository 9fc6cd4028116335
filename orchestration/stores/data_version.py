"""DVC: which version of the photos this is, whether the disk holds it, and recording data and builds."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import io
import logging
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from geoloc.files import write_text
from orchestration.plan.chain import CHAIN, SHARED, Stage, artefact, lineage_path, output_folder
from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from dvc.repo import Repo

T = TypeVar("T")
LOCK_WAIT_SECONDS = 120.0


def data_version(workspace: Workspace) -> str:
    """The version of data/ that data.dvc names (DVC's md5 of the folder), without importing DVC.

    Raises WorkspaceError where no data were ever recorded.
    """
    if not workspace.data_pointer.exists():
        raise WorkspaceError(
            f"{workspace.root} holds no photos yet: data.dvc is absent; add some with: geoloc ingest"
        )
    pointer = yaml.safe_load(workspace.data_pointer.read_text(encoding="utf-8"))
    return str(pointer["outs"][0]["md5"])


def data_changes(workspace: Workspace) -> list[str]:
    """What in data/ differs from the version in data.dvc, a line each; none means that they agree.

    The pointer says what was recorded, not what is on disk: without this check lineage could lie.
    """
    if not workspace.pool.exists():
        return ["data/ is absent; fetch it with: dvc pull data.dvc"]
    status = _with_repo(workspace, lambda repo: repo.status(targets=[str(workspace.data_pointer)]))
    return [f"{item}" for entries in status.values() for item in _flatten(entries)]


def record_data(workspace: Workspace) -> str:
    """`dvc add data`: record what is in data/ as a new version in data.dvc; returns that version."""
    _with_repo(workspace, lambda repo: repo.add([str(workspace.pool)]))
    return data_version(workspace)


def pull_data(workspace: Workspace) -> None:
    """`dvc pull data.dvc`: fetch the version that data.dvc names into data/."""
    _with_repo(workspace, lambda repo: repo.pull(targets=[str(workspace.data_pointer)]))


def commit_stages(workspace: Workspace, recipe: str, stages: list[str]) -> None:
    """Write what Dagster built into dvc.lock, so that `dvc status` is clean and `dvc repro` does nothing."""
    if not stages:
        return
    names = [dvc_stage_name(recipe, stage) for stage in stages]

    def commit(repo: Repo) -> None:
        for name in names:
            repo.commit(target=name, force=True)

    _with_repo(workspace, commit)


def unrecorded_stages(workspace: Workspace, recipe: str, wanted: Collection[str]) -> list[str]:
    """The wanted stages whose last build dvc.lock does not have, in order, without importing DVC.

    Every build writes a new lineage record, so that file's md5 tells.
    """
    file = workspace.root / "dvc.lock"
    locked = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"] if file.exists() else {}
    missing = []
    for stage in CHAIN:
        record = lineage_path(workspace, recipe, stage.name)
        if stage.name not in wanted or not record.is_file():
            continue
        outs = locked.get(dvc_stage_name(recipe, stage.name), {}).get("outs", [])
        known = {out["path"]: out.get("md5") for out in outs}
        md5 = hashlib.md5(record.read_bytes(), usedforsecurity=False).hexdigest()
        if known.get(record.relative_to(workspace.root).as_posix()) != md5:
            missing.append(stage.name)
    return missing


def write_pipeline(workspace: Workspace, recipe: str) -> bool:
    """Write dvc.yaml: one stage for each box of the chain, for this recipe and those already there.

    The file is generated so that each stage names exactly the settings that it reads; returns whether it
    changed.
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
        for stage in CHAIN:
            stages[dvc_stage_name(recipe, stage.name)] = _pipeline_stage(workspace, recipe, stage)
    return {"stages": stages}


def dvc_stage_name(recipe: str, stage: str) -> str:
    """The stage's name in dvc.yaml."""
    return artefact(recipe, stage).replace("/", "-")


def _pipeline_stage(workspace: Workspace, recipe: str, stage: Stage) -> dict[str, Any]:
    def relative(path: Path) -> str:
        return path.relative_to(workspace.root).as_posix()

    shared = stage.name in SHARED
    command = f"geoloc build --only {stage.name} --no-commit" + ("" if shared else f" --recipe {recipe}")
    described: dict[str, Any] = {
        "cmd": command,
        "desc": stage.description,
        "deps": ["data"] * stage.reads_photos
        + [relative(output_folder(workspace, recipe, name)) for name in stage.inputs],
    }
    described["deps"] += _from_elsewhere(workspace, recipe, stage)
    # DVC refuses to track keys that a file does not have: an absent section takes its defaults, and one that is
    # added later comes into this file with the next `geoloc build`.
    params: list[Any] = _named_sections(workspace.root / "params.yaml", stage)
    overridden = _named_sections(workspace.recipes / f"{recipe}.yaml", stage)
    params += [{f"recipes/{recipe}.yaml": overridden}] * bool(overridden)
    if params:
        described["params"] = params
    outs = [
        relative(output_folder(workspace, recipe, stage.name)),
        relative(lineage_path(workspace, recipe, stage.name)),
    ]
    described["outs"] = (
        list(outs) if _versions_builds(workspace) else [{out: {"cache": False}} for out in outs]
    )
    described["meta"] = {} if shared else {"recipe": recipe}
    return described


def _versions_builds(workspace: Workspace) -> bool:
    """Whether DVC keeps the builds as well as the photos. Not where the default remote lies inside the workspace,
    as the sample's does: such a remote is committed to git, and builds must not be.
    """
    config = configparser.ConfigParser()
    config.read(workspace.root / ".dvc" / "config", encoding="utf-8")
    remote = config.get("core", "remote", fallback=None)
    url = config.get(f"'remote \"{remote}\"'", "url", fallback="") if remote else ""
    inside = (workspace.root / ".dvc" / url).resolve().is_relative_to(workspace.root)
    return not url or "://" in url or not inside


def _from_elsewhere(workspace: Workspace, recipe: str, stage: Stage) -> list[str]:
    """Outputs of other recipes and the file of weights that a stage reads, relative to the workspace."""
    from orchestration.plan.settings import borrowed, load_settings

    settings = load_settings(workspace, recipe)
    found = borrowed(settings, stage.sections)
    paths = [
        output_folder(workspace, *source).relative_to(workspace.root).as_posix() for source in found.values()
    ]
    is_file = "weights" not in found and settings.model.weights not in ("none", "registry")
    return paths + ([settings.model.weights] if is_file and "model" in stage.sections else [])


def _named_sections(file: Path, stage: Stage) -> list[str]:
    """The sections of a settings file that this stage reads."""
    values = yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file.exists() else {}
    return [section for section in stage.sections if section in values]


def _with_repo(workspace: Workspace, action: Callable[[Repo], T]) -> T:
    """Run `action` on the DVC repository; where another DVC command holds the lock, try again for two minutes.

    DVC itself has no wait option: of two commands at once, one fails.
    """
    from dvc.exceptions import DvcException  # 1.3 s to import: not for `--help`
    from dvc.lock import LockError
    from dvc.repo import Repo

    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            # DVC resolves stage names and paths from the current folder, whatever repository it was given.
            with contextlib.chdir(workspace.root), _quiet_dvc(), Repo(str(workspace.root)) as repo:
                return action(repo)
        except LockError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        except DvcException as error:
            raise WorkspaceError(f"DVC: {error}") from error


@contextlib.contextmanager
def _quiet_dvc() -> Iterator[None]:
    """Keep DVC's progress bars and notices out of our own output; its errors are raised all the same."""
    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _flatten(entries: Any) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, dict):
            for kind, changed in entry.items():
                for path, state in changed.items() if isinstance(changed, dict) else []:
                    yield f"{kind}: {path} is {state}"
        else:
            yield str(entry)
