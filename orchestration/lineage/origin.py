"""Where an output was made: the commits of workspace and code, and the environment."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

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
