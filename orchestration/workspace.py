"""A workspace: the folder under git and DVC that holds one collection of photos, its settings and its builds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from geoloc.files import atomic_path, write_text

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
            DAGSTER_HOME=str(_plainly_named(self.dagster_home)),
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

        Created at random if it is missing and no photographer was hashed yet. It must stay the same for the life of a
        collection: with another key every known photographer looks new. It is never committed. Raises WorkspaceError
        for a lost key, or for one that is too short.
        """
        from geoloc.photos.photographers import RESTORE, SHORTEST_KEY, key_fingerprint

        given = os.environ.get(PHOTOGRAPHER_KEY_VARIABLE)
        path = self.root / ".geoloc" / "photographer.key"
        if not given and not path.exists():
            known = key_fingerprint(self.pool)
            if known is not None:
                raise WorkspaceError(
                    f"{path} is missing, and photographers were hashed with it (fingerprint {known}; or set"
                    f" {PHOTOGRAPHER_KEY_VARIABLE}): {RESTORE.format(path=self.pool / 'photographers.json')}"
                )
            _create_key(path)
        key = given.encode() if given else path.read_bytes().strip()
        if len(key) < SHORTEST_KEY:
            raise WorkspaceError(
                f"{PHOTOGRAPHER_KEY_VARIABLE if given else path} must hold a key of at least {SHORTEST_KEY} bytes,"
                f" got {len(key)}"
            )
        return key


def _create_key(path: Path) -> None:
    """Write a random key for the owner's eyes only, unless another process was first."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(descriptor)
        # A link appears whole or not at all, and never over what is there.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def _plainly_named(folder: Path) -> Path:
    """`folder`, or a link to it where its path has characters that Dagster cannot open a database under.

    Dagster puts the path into a URL as it is, where "?" ends it and "%20" is a space. The link is in a private folder
    for temporary files. Raises WorkspaceError if that is not this user's.
    """
    if not {"?", "%"} & set(str(folder)):
        return folder
    base = Path(tempfile.gettempdir()) / f"geoloc-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    state = base.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise WorkspaceError(f"{base} must be a folder that only you can write to; remove it")
    link = base / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not (link.is_symlink() and link.readlink() == folder):
        with atomic_path(link) as temporary:
            temporary.symlink_to(folder)
    return link


def init_workspace(folder: Path, photo_note: str = "", *, sample: bool = False) -> Workspace:
    """Create a workspace in `folder`: git, DVC, params.yaml, recipes/, expectations/ and .gitignore.

    The settings are for real photos, or with `sample` those of the sample planet.

    Existing files are kept; a .gitignore and the suites of expectations/ are completed, so a second call brings what a
    newer geoloc needs, or is a no-op. Raises WorkspaceError if git or DVC fails.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    template = template_folder()
    settings = template / "params.yaml" if sample else SETTINGS_FOR_PHOTOS
    suites = sorted((template / "expectations").glob("*.json"))
    for source in (settings, template / "recipes"):
        target = folder / source.name
        if target.exists():
            continue
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            write_text(
                target,
                source.read_text(encoding="utf-8").replace(NOTE_LINE, f"note: {json.dumps(photo_note)}\n"),
            )
    (folder / "expectations").mkdir(exist_ok=True)
    for suite in suites:
        if not (target := folder / "expectations" / suite.name).exists():
            write_text(target, suite.read_text(encoding="utf-8"))
    _complete_gitignore(folder / ".gitignore")
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


def _complete_gitignore(path: Path) -> None:
    """Add to a .gitignore what it lacks of GITIGNORE: the key of the photographers must never be staged."""
    there = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    last: dict[str, str] = {}  # a later line overrides an earlier one
    for line in (line.strip() for line in there.splitlines()):
        last[line.removeprefix("!").strip("/")] = line
    missing = [line for line in GITIGNORE.splitlines() if last.get(line.strip("/"), "!").startswith("!")]
    if missing:
        start = there if not there or there.endswith("\n") else there + "\n"
        with atomic_path(path) as temporary:
            text = start + "\n".join(missing) + "\n"
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


NOTE_LINE = 'note: ""\n'
SETTINGS_FOR_PHOTOS = Path(__file__).parent / "templates" / "params.yaml"
"""The params.yaml of a new workspace; the checkout's own is for the sample planet."""


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
