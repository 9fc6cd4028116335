"""Where an output was made: the commits of workspace and code, what differed from them, and the environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from geoloc.files import atomic_path, sha256_bytes
from geoloc.processors import network_threads, processors
from orchestration.workspace import Workspace

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
CODE = Path(__file__).parents[2]
"""The folder that holds the packages geoloc and orchestration."""
CODE_PATHS = ("geoloc", "orchestration")
WORKSPACE_PATHS = ("params.yaml", "recipes", "expectations", "data.dvc")
"""What of a workspace decides what is built. dvc.yaml and dvc.lock are written by builds."""
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""The commit that a checkout without commits differs from: git's tree of no files."""


@dataclass(frozen=True)
class Origin:
    """The commit that a checkout was at, whether it was dirty, and the patch from that commit to the files on disk.

    The patch is a binary diff of git, of the named paths, with untracked files; "" if they do not differ. It is from
    the empty tree before the first commit. All None outside a checkout.
    """

    commit: str | None = None
    dirty: bool | None = None
    patch: str | None = None


def workspace_origin(workspace: Workspace) -> Origin:
    """The state of a workspace. `dirty`: any tracked file but dvc.lock differs from the commit, or the patch is not
    empty."""
    found = _origin(workspace.root, WORKSPACE_PATHS)
    if found.commit is None:
        return found
    return Origin(found.commit, git_state(workspace.root)[1] or found.dirty, found.patch)


def code_origin() -> Origin:
    """The state of the checkout that geoloc runs from; that of an installed package is unknown."""
    if not _git(CODE, "ls-files", "--", *CODE_PATHS):  # installed into a folder of somebody's checkout
        return Origin()
    return _origin(CODE, CODE_PATHS)


def keep_patch(workspace: Workspace, patch: str | None) -> str | None:
    """Store a patch in build/lineage/patches, once; returns its SHA-256. None if there is nothing to store."""
    if not patch:
        return None
    data = patch.encode("utf-8", "surrogateescape")
    file = patch_path(workspace, sha256_bytes(data))
    if not file.is_file():
        with atomic_path(file) as temporary:
            temporary.write_bytes(data)
    return file.stem


def patch_path(workspace: Workspace, sha256: str) -> Path:
    """The file of a stored patch."""
    return workspace.build / "lineage" / "patches" / f"{sha256}.patch"


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout that `folder` is in, and whether tracked files differ from it.

    dvc.lock does not count: a build writes it. (None, None) outside a checkout or before the first commit.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)*dvc.lock")
    return commit.strip(), None if changed is None else bool(changed)


def commit_text(commit: str | None, dirty: bool | None) -> str:
    """A commit as text for people and tags."""
    return f"{commit or 'none'}{' with uncommitted changes' if dirty else ''}"


def _origin(folder: Path, paths: Sequence[str]) -> Origin:
    if _git(folder, "rev-parse", "--git-dir") is None:
        return Origin()
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    patch = _patch(folder, commit.strip() if commit else _EMPTY_TREE, paths)
    return Origin(commit.strip(), bool(patch), patch) if commit else Origin(None, None, patch)


def _patch(folder: Path, base: str, paths: Sequence[str]) -> str:
    """The difference of some paths from a tree, with untracked files that git does not ignore. The checkout's own
    index and objects stay as they are."""
    known = (_git(folder, "ls-files", "--", *paths) or "").splitlines()
    there = [
        path
        for path in paths
        if (folder / path).exists() or any(name == path or name.startswith(f"{path}/") for name in known)
    ]
    objects = _git(folder, "rev-parse", "--git-path", "objects")
    if not there or objects is None:
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        own = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((folder / objects.strip()).resolve()),
        }
        Path(scratch, "objects").mkdir()
        if base != _EMPTY_TREE:
            _git(folder, "read-tree", base, own=own)
        present = [path for path in there if (folder / path).exists()]
        if present:
            _git(folder, "add", "--all", "--", *present, own=own)
        for path in set(there) - set(present):
            _git(folder, "rm", "-r", "--cached", "--quiet", "--", path, own=own)
        diff = ("diff", "--cached", "--binary", "--full-index", "--no-color", "--no-ext-diff", "--no-renames")
        return _git(folder, *diff, "--relative", base, "--", *there, own=own) or ""


def _git(folder: Path, *arguments: str, own: dict[str, str] | None = None) -> str | None:
    """The output of a git command; None if it fails."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **(own or {})},
    )
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None


def environment() -> dict[str, str]:
    """The versions and the machine that an artefact is made with."""
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


def hardware() -> dict[str, str]:
    """What the last digits of a number depend on beside the versions: the processor, its threads, the GPU if torch
    uses one."""
    found = {
        "processor": _processor(),
        "processors": str(processors()),
        "threads": str(network_threads()),
    }
    torch = sys.modules.get("torch")  # a stage that did not import it uses no GPU
    if torch is not None:
        found["torch threads"] = str(torch.get_num_threads())
        if torch.cuda.is_available():
            found["gpu"] = str(torch.cuda.get_device_name(0))
    return found


def _processor() -> str:
    """The name of the processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
