"""The code version of a stage: a hash of the syntax trees of the modules that it runs."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geoloc.files import sha256_bytes

CARRIERS = ("orchestration.assets.inputs",)
"""Modules in the stages' folder that only load inputs, and so do not count as a stage's code."""


@functools.cache
def code_version(module: str) -> str:
    """A hash of the code that a module runs: the syntax trees of the module and of the project's modules that it
    imports, directly or not, as far as they count (see `code_counts`). Comments, docstrings and layout do not count."""
    digest = hashlib.sha256()
    for name, file in sorted(imported_modules(module, code_counts).items()):
        digest.update(f"{name}:{_parsed(name, file).code}\n".encode())
        for data in data_files(file):
            digest.update(f"{data.name}:{sha256_bytes(data.read_bytes())}\n".encode())
    return digest.hexdigest()[:16]


def data_files(module: Path) -> list[Path]:
    """The files in folders without code inside a package, such as the report's templates: what its modules read is as
    good as code. None for a module that is no package."""
    if module.name != "__init__.py":
        return []
    folders = [path for path in module.parent.iterdir() if path.is_dir() and path.name != "__pycache__"]
    plain = [folder for folder in folders if not (folder / "__init__.py").exists()]
    return sorted(path for folder in plain for path in folder.rglob("*") if path.is_file())


def code_counts(name: str) -> bool:
    """Whether a module of the project can change the output of a stage.

    Settings modules do not count: their values are compared with the record key by key. Of orchestration only the
    stages' own files count; the rest finds inputs, writes records and draws in the UI.
    """
    if name.rpartition(".")[2].endswith("settings"):  # loop_settings too
        return False
    if name.split(".")[0] == "orchestration":
        return name.startswith("orchestration.assets.") and name not in CARRIERS
    return True


def imported_modules(module: str, follow: Callable[[str], bool] = lambda name: True) -> dict[str, Path]:
    """The source files, by module name, of a module and of the project's modules that it imports, directly or not.
    Nothing is imported. Modules for which `follow` is false are left out, and their imports are not followed."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = None if name in found or not follow(name) else _module_file(name)
        if file is not None:
            found[name] = file
            waiting.extend(_parsed(name, file).imports)
    return found


@dataclass(frozen=True)
class _Parsed:
    """The result of parsing one source file."""

    imports: tuple[str, ...]
    code: str


@functools.cache
def _parsed(name: str, file: Path) -> _Parsed:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    _drop_type_checking(tree)
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return _Parsed(tuple(dict.fromkeys(_project_imports(tree, package))), code_hash(tree))


@functools.cache
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


def _drop_type_checking(tree: ast.Module) -> None:
    """Remove code that only type checkers read: it never runs."""
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse)
    ]


def _project_imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
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


def code_hash(tree: ast.Module) -> str:
    """A hash of a module's syntax tree without its docstrings, which are removed from `tree` in place."""
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
