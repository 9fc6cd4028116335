"""A workspace: the folder under git and DVC that holds one collection of photos, its settings and its builds."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from geoloc.files import write_text

PHOTOGRAPHER_KEY_VARIABLE = "GEOLOC_PHOTOGRAPHER_KEY"

DAGSTER_YAML = """\
# Written by geoloc. One run at a time: stages share the CPU, the GPU and DVC's lock.
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
  runs:
    max_concurrent_runs: 1
# A run whose process never starts, or does not end when it is told to, is ended.
run_monitoring:
  enabled: true
"""

GITIGNORE = "/data\n/build/\n/mlflow/\n/.dagster/\n/.geoloc/\n"


class WorkspaceError(ValueError):
    """The folder is not a workspace, or something that it needs is missing. The message names the remedy."""


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace, all absolute. Reading them creates nothing."""

    root: Path

    @classmethod
    def open(cls, folder: Path | str) -> Workspace:
        """The workspace at `folder`. Raises WorkspaceError if it has no params.yaml."""
        root = Path(folder).resolve()
        if not (root / "params.yaml").is_file():
            raise WorkspaceError(
                f"{root} is not a workspace (no params.yaml); make one with: geoloc init {folder}"
            )
        return cls(root)

    @property
    def pool(self) -> Path:
        return self.root / "data"

    @property
    def data_pointer(self) -> Path:
        return self.root / "data.dvc"

    @property
    def dvc_yaml(self) -> Path:
        return self.root / "dvc.yaml"

    @property
    def recipes(self) -> Path:
        return self.root / "recipes"

    @property
    def expectations(self) -> Path:
        return self.root / "expectations"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def scratch(self) -> Path:
        return self.root / ".geoloc" / "scratch"

    @property
    def dagster_home(self) -> Path:
        return self.root / ".dagster"

    @property
    def mlflow(self) -> Path:
        return self.root / "mlflow"

    def set_environment(self) -> None:
        """Configure Dagster, DVC, MLflow and Great Expectations for this workspace, quiet and offline, by environment
        variables.

        These tools read the environment when they are imported or started, so call this before. Child processes (the
        Dagster UI, its code server) inherit it.
        """
        self.dagster_home.mkdir(exist_ok=True)
        settings = self.dagster_home / "dagster.yaml"
        if not settings.exists():
            write_text(settings, DAGSTER_YAML)
        os.environ.update(
            DAGSTER_HOME=str(self.dagster_home),
            GEOLOC_WORKSPACE=str(self.root),
            DVC_NO_ANALYTICS="1",
            MLFLOW_DISABLE_TELEMETRY="true",
            MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
            GX_ANALYTICS_ENABLED="false",
        )
        # Waiting threads sleep instead of spinning. On a machine with other work, spinning made training ten or more
        # times slower; on an idle machine there is no difference.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    def photographer_key(self) -> bytes:
        """The secret key for hashing photographer ids: from the environment, else from .geoloc/.

        Created at random if it is missing. It must stay the same for the life of a collection: with another key every
        known photographer looks new. It is never committed.
        """
        given = os.environ.get(PHOTOGRAPHER_KEY_VARIABLE)
        if given:
            return given.encode()
        path = self.root / ".geoloc" / "photographer.key"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_text(path, secrets.token_hex(32) + "\n")
            path.chmod(0o600)
        return path.read_text().strip().encode()


def init_workspace(folder: Path, photo_note: str = "") -> Workspace:
    """Create a workspace in `folder`: git, DVC, params.yaml, recipes/, expectations/ and .gitignore.

    Existing files are kept, so a second call is a no-op. Raises WorkspaceError if git or DVC fails.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    template = template_folder()
    for name in ("params.yaml", "recipes", "expectations"):
        source, target = template / name, folder / name
        if target.exists():
            continue
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            write_text(
                target,
                source.read_text(encoding="utf-8").replace(SAMPLE_NOTE_LINE, f"note: {photo_note!r}\n"),
            )
    if not (folder / ".gitignore").exists():
        write_text(folder / ".gitignore", GITIGNORE)
    if not (folder / ".git").exists():
        _run(["git", "init", "-q"], folder)
    if not (folder / ".dvc").exists():
        dvc = [sys.executable, "-m", "dvc"]
        _run([*dvc, "init", "-q"], folder)
        for key, value in (
            ("core.analytics", "false"),
            ("core.check_update", "false"),
            ("core.autostage", "false"),
            ("cache.type", "reflink,hardlink,copy"),
        ):
            _run([*dvc, "config", "-q", key, value], folder)
    return Workspace.open(folder)


SAMPLE_NOTE_LINE = 'note: ""\n'


def template_folder() -> Path:
    """The folder with the files of a new workspace: the checkout that geoloc runs from, else the installed copy."""
    for folder in (Path(__file__).parent.parent, Path(sysconfig.get_path("data")) / "share" / "geoloc"):
        if (folder / "params.yaml").is_file():
            return folder
    raise WorkspaceError("geoloc's template files (params.yaml, recipes/, expectations/) are not installed")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkspaceError(f"{' '.join(command)} failed in {folder}: {done.stderr.strip()}")
