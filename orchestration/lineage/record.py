"""The audit trail: from any artefact back to the photos, the code and the settings that made it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from geoloc.files import content_hash, read_json, sha256_bytes, write_json
from geoloc.models.settings import RECIPE
from geoloc.settings import settings_hash
from orchestration.plan.chain import STAGES, Stage, artefact, lineage_path, output_folder
from orchestration.plan.settings import BuildSettings, borrowed, weights_file
from orchestration.stores.data_version import data_version
from orchestration.workspace import Workspace, WorkspaceError

PACKAGES = (
    "geoloc",
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "faiss-gpu",
    "faiss-cpu",
    "pillow",
    "dagster",
    "dvc",
)


@dataclass(frozen=True)
class Lineage:
    """What made one artefact: the contract of design.md, as it stands in `<recipe>/lineage/<stage>.json`.

    `inputs` maps the name of each input to its content hash (for `data`, DVC's version of the photos).
    """

    artefact: str
    stage: str
    recipe: str
    content: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    settings_hash: str
    code_version: str
    workspace_commit: str | None
    workspace_dirty: bool | None
    code_commit: str | None
    code_dirty: bool | None
    dagster_run: str | None
    mlflow_run: str | None
    started_at: str
    seconds: float
    environment: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Lineage | None:
        """The record at `path`; None where there is none."""
        return cls(**read_json(path)) if path.is_file() else None

    def write(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))


@dataclass(frozen=True)
class Expected:
    """What an up-to-date artefact would have been made from."""

    inputs: dict[str, str]
    settings: dict[str, Any]
    settings_hash: str
    code_version: str

    def differences(self, found: Lineage) -> list[str]:
        """Why `found` is out of date, in words; none when it is up to date."""
        why = [
            f"{name} changed" for name, content in self.inputs.items() if found.inputs.get(name) != content
        ]
        if found.settings_hash != self.settings_hash:
            changed = [k for k, v in self.settings.items() if found.settings.get(k) != v] or ["settings"]
            why.append(f"settings changed: {', '.join(changed)}")
        if found.code_version != self.code_version:
            why.append("code changed")
        return why


def expected_lineage(workspace: Workspace, settings: BuildSettings, stage: Stage) -> Expected:
    """What the stage would be made from now. Raises WorkspaceError where an input has not been built."""
    inputs = {"data": data_version(workspace)} if stage.reads_photos else {}
    for name in stage.inputs:
        found = Lineage.read(lineage_path(workspace, settings.recipe, name))
        if found is None:
            raise WorkspaceError(
                f"{artefact(settings.recipe, stage.name)} needs {artefact(settings.recipe, name)}, which is not "
                f"built yet; build it with: geoloc build --recipe {settings.recipe} --only {name}"
            )
        inputs[name] = found.content
    for name, (recipe, other) in borrowed(settings, stage.sections).items():
        inputs[name] = content_of(workspace, settings.recipe, recipe, other)
    if "model" in stage.sections and "weights" not in inputs and (file := weights_file(workspace, settings)):
        inputs["weights"] = content_hash(file)
    used = settings.sections(stage.sections)
    return Expected(inputs, used, settings_hash(used), code_version(stage.module))


def content_of(workspace: Workspace, borrower: str, recipe: str, stage: str) -> str:
    """The content hash of another recipe's output, which the recipe `borrower` takes something from.

    Raises WorkspaceError where it is not what its record says: nobody could tell what was made from it.
    """
    found = Lineage.read(lineage_path(workspace, recipe, stage))
    on_disk = stage_content(workspace, recipe, STAGES[stage])
    if found is None or on_disk != found.content:
        why = "is not built yet" if found is None else "was changed or removed since it was built"
        raise WorkspaceError(
            f"{borrower} takes from {artefact(recipe, stage)}, which {why}; "
            f"build it with: geoloc build --recipe {recipe}"
        )
    return found.content


def why_stale(workspace: Workspace, settings: BuildSettings, stage: Stage) -> list[str]:
    """Why the stage's output is out of date, in words; none when it is up to date and whole."""
    found = Lineage.read(lineage_path(workspace, settings.recipe, stage.name))
    if found is None:
        return ["never built"]
    why = expected_lineage(workspace, settings, stage).differences(found)
    if not why and stage_content(workspace, settings.recipe, stage) != found.content:
        why = ["its files were changed or removed"]
    return why


def stage_content(workspace: Workspace, recipe: str, stage: Stage) -> str | None:
    """The content hash of a stage's output on disk, leaving out its volatile files; None where it is absent."""
    folder = output_folder(workspace, recipe, stage.name)
    if not folder.is_dir():
        return None
    return folder_content(folder, stage)


def folder_content(folder: Path, stage: Stage) -> str:
    """The content hash of `folder` as an output of `stage`."""
    kept = [path for path in sorted(folder.iterdir()) if path.name not in stage.volatile]
    return content_hash(*kept)


@functools.cache
def code_version(module: str) -> str:
    """A hash of the code that a module runs: its own syntax tree and those of the project's modules that it
    imports, directly or not. Comments, docstrings and layout do not count, so editing them rebuilds nothing.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_imported_files(module).items()):
        digest.update(f"{name}:{_code_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def code_modules(module: str) -> list[str]:
    """The project's modules that count in `code_version`."""
    return sorted(_imported_files(module))


# Modules that carry a stage but do not shape its content; a change there must not retrain a model.
PLUMBING = ("orchestration.workspace", "orchestration.stores.data_version", "orchestration.lineage.record",
            "orchestration.plan.chain", "orchestration.stores.tracking", "orchestration.plan.settings",
            "orchestration.run.stage", "orchestration.run.teacher")  # fmt: skip


def _imported_files(module: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _module_file(name)
        if file is None or name in found or name in PLUMBING:
            continue
        found[name] = file
        waiting.extend(_project_imports(name, file))
    return found


def _module_file(name: str) -> Path | None:
    """The source file of a project's module, without importing it (its parents are looked up, not run)."""
    root = importlib.util.find_spec(name.split(".")[0])
    if root is None or not root.submodule_search_locations:
        return None
    path = Path(next(iter(root.submodule_search_locations))).joinpath(*name.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _project_imports(name: str, file: Path) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(
                    [*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])]
                )
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        for imported in names:
            if imported.split(".")[0] in ("geoloc", "orchestration"):
                parts = imported.split(".")  # importing a.b.c runs a, a.b and a.b.c
                yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def _code_hash(file: Path) -> str:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return sha256_bytes(ast.dump(tree).encode())


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that `folder` is in, and whether tracked files differ from it.

    dvc.lock does not count: a build writes it. (None, None) outside a checkout or before the first commit.
    """

    def git(*arguments: str) -> str | None:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)*dvc.lock")
    return commit, None if changed is None else bool(changed)


def environment() -> dict[str, str]:
    """The versions and the machine that made an artefact."""
    versions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def find_artefact(workspace: Workspace, name: str) -> tuple[str, str]:
    """Recipe and stage of what a user calls an artefact: `report`, `sample/report`, a path in build/, or a
    content hash or MLflow or Dagster run id (or its first eight characters or more).

    Raises WorkspaceError that lists what exists.
    """
    records = {record.artefact: record for record in all_lineage(workspace)}
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
    if len(matches) == 1 or (matches and len({m.dagster_run for m in matches}) == 1 and name not in STAGES):
        return matches[-1].recipe, matches[-1].stage
    if matches:
        raise WorkspaceError(f"{name} could be {', '.join(m.artefact for m in matches)}: name one of them")
    known = ", ".join(sorted(records)) or "none: build something first with `geoloc build`"
    raise WorkspaceError(f"{name} is not an artefact of this workspace; known: {known}")


def all_lineage(workspace: Workspace) -> list[Lineage]:
    """Every lineage record of the workspace, in the order of the chain."""
    paths = [*workspace.build.glob("lineage/*.json"), *workspace.build.glob("*/lineage/*.json")]
    records = [record for record in map(Lineage.read, paths) if record is not None]
    order = {name: i for i, name in enumerate(STAGES)}
    return sorted(records, key=lambda record: (record.recipe, order.get(record.stage, 99)))


def audit(workspace: Workspace, recipe: str, stage: str) -> dict[str, Any]:
    """The lineage of an artefact as a tree: its own record, whether the files on disk still are what the record
    says, and under `made_from` the same for each input; the photos' version ends every branch.

    Raises WorkspaceError where the artefact has not been built.
    """
    if Lineage.read(lineage_path(workspace, recipe, stage)) is None:
        raise WorkspaceError(f"{artefact(recipe, stage)} has not been built")
    return _Audit(workspace, recipe).of_stage(stage)


class _Audit:
    """One walk; what is reached twice is hashed once."""

    def __init__(self, workspace: Workspace, recipe: str) -> None:
        self.workspace, self.recipe = workspace, recipe
        self.trees: dict[str, dict[str, Any]] = {}

    def of_stage(self, stage: str) -> dict[str, Any]:
        if stage not in self.trees:
            record = Lineage.read(lineage_path(self.workspace, self.recipe, stage))
            if record is None:
                return {
                    "artefact": artefact(self.recipe, stage),
                    "content": "",
                    "on_disk": "absent",
                    "made_from": [],
                }
            on_disk = stage_content(self.workspace, self.recipe, STAGES[stage])
            self.trees[stage] = {
                **dataclasses.asdict(record),
                "on_disk": _state(on_disk, record.content),
                "made_from": [
                    self.of_input(record, name, content) for name, content in record.inputs.items()
                ],
            }
        return self.trees[stage]

    def of_input(self, record: Lineage, name: str, content: str) -> dict[str, Any]:
        """An input as it was when `record` was made; one that was built again since is told as replaced."""
        if name == "data":
            leaf = _state(data_version(self.workspace), content)
        elif name == "weights" and not record.settings["model"]["weights"].startswith(RECIPE):
            file = self.workspace.root / record.settings["model"]["weights"]
            leaf = _state(content_hash(file) if file.is_file() else None, content)
        elif name == "weights":
            return self.of_recipe(
                record.settings["model"]["weights"].removeprefix(RECIPE), "classifier", content
            )
        elif name == "teacher":
            return self.of_recipe(
                record.settings["training"]["distillation"]["recipe"], "embeddings", content
            )
        else:
            tree = self.of_stage(name)
            if tree["content"] == content:
                return tree
            name, leaf = artefact(self.recipe, name), "replaced"
        return {"artefact": name, "content": content, "on_disk": leaf, "made_from": []}

    def of_recipe(self, recipe: str, stage: str, content: str) -> dict[str, Any]:
        """What was taken from another recipe. One that was built again since is not walked: it may lead back here."""
        found = Lineage.read(lineage_path(self.workspace, recipe, stage))
        if found is not None and found.content == content:
            return _Audit(self.workspace, recipe).of_stage(stage)
        leaf = "absent" if found is None else "replaced"
        return {"artefact": artefact(recipe, stage), "content": content, "on_disk": leaf, "made_from": []}


def _state(found: str | None, recorded: str) -> str:
    return "absent" if found is None else "intact" if found == recorded else "changed"


def audit_lines(tree: dict[str, Any]) -> Iterator[str]:
    """The tree of `audit` as text; an artefact met twice is told in full once."""
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
        for branch in node["made_from"]:
            yield from walk(branch, indent, "← ")

    yield from walk(tree, "", "")
