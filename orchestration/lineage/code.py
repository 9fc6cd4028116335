"""The code version of a stage: a hash of the syntax trees of the modules that it runs."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from geoloc.files import sha256_bytes

CARRIERS = ("orchestration.assets.inputs",)
"""Modules beside the stages that load what stages work on and do not shape what they make."""


@functools.cache
def code_version(module: str) -> str:
    """A hash of the code that a module runs: its own syntax tree and those of the project's modules that it
    imports, directly or not, as far as they count (see `code_counts`). Comments, docstrings and layout do not.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_imported_files(module).items()):
        digest.update(f"{name}:{_code_hash(file)}\n".encode())
    return digest.hexdigest()[:16]


def code_modules(module: str) -> list[str]:
    """The project's modules that count in `code_version`."""
    return sorted(_imported_files(module))


def code_counts(name: str) -> bool:
    """Whether a module of the project can change what a stage makes.

    Settings modules only declare: their values are compared with the record key by key. All of orchestration but the
    stages' own files carries: it finds inputs, writes records, draws in the UI.
    """
    if name.rpartition(".")[2] == "settings":
        return False
    if name.split(".")[0] == "orchestration":
        return name.startswith("orchestration.assets.") and name not in CARRIERS
    return True


def _imported_files(module: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _module_file(name)
        if file is None or name in found or not code_counts(name):
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
    for node in ast.walk(_tree(file)):
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


@functools.cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _code_hash(file: Path) -> str:
    # Parsed anew: docstrings are taken out of the tree.
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
