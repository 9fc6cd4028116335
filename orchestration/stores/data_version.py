"""DVC: the data version, whether the files on disk match it, and recording a new one."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import io
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from geoloc.files import damage_named, one_line, read_json, read_text, write_json
from geoloc.yaml_files import read_yaml
from orchestration.stores.take_downs import require_no_take_down
from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from dvc.repo import Repo

T = TypeVar("T")
LOCK_WAIT_SECONDS = 120.0
_VERSION = re.compile(r"[0-9a-f]{32}(\.dir)?")


def data_version(workspace: Workspace) -> str:
    """The version of data/ that data.dvc names (DVC's md5 of the folder). Does not import DVC.

    Raises WorkspaceError if no data were ever recorded, DamagedFile if data.dvc is not DVC's.
    """
    if not workspace.data_pointer.exists():
        raise WorkspaceError(
            f"{workspace.root} holds no photos yet: data.dvc is missing; add some with: geoloc ingest"
        )
    pointer = read_yaml(workspace.data_pointer, dict) or {}
    with damage_named(workspace.data_pointer):
        (out,) = pointer["outs"]
        # The path comes last in the file: where it is whole, so is the hash.
        if out["path"] != workspace.pool.name or not isinstance(out["md5"], str):
            raise ValueError(f"outs must be {workspace.pool.name} with its md5, got {out}")
        return str(out["md5"])


def data_changes(workspace: Workspace) -> list[str]:
    """The differences between data/ and the version in data.dvc, a line each; empty if they agree.

    data.dvc holds what was recorded, not what is on disk: without this check lineage could be wrong.
    """
    if not workspace.pool.exists():
        return ["data/ is missing; fetch it with: dvc pull data.dvc"]
    status = with_repo(workspace, lambda repo: repo.status(targets=[str(workspace.data_pointer)]))
    whole = [f"{item}" for entries in status.values() for item in _flatten(entries)]
    return (_changed_files(workspace) or whole) if whole else []


def _changed_files(workspace: Workspace) -> list[str]:
    """The files below data/ that are not those of the version, where DVC still knows them."""
    status = with_repo(workspace, lambda repo: repo.data_status(granular=True, untracked_files="no"))
    return [
        f"{path} is {kind}"
        for kind, paths in status["uncommitted"].items()
        for path in paths
        if isinstance(path, str) and path.startswith("data/") and not path.endswith("/")
    ]


def verify_data(workspace: Workspace) -> str:
    """The data version, once data/ on disk is known to be it; everything that reads photos asks this first.

    Files whose size, inode and time of change are those of the last check are not read again, as in DVC. Raises
    WorkspaceError that lists the differences, and what to do, if data/ is not the version in data.dvc, and while a
    take-down is unfinished.
    """
    require_no_take_down(workspace)
    version, files = data_version(workspace), _file_states(workspace.pool)
    state = {"version": version, "files": files}
    if _read_state(workspace) == state:
        return version
    if changes := data_changes(workspace):
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise WorkspaceError(
            f"data/ is not the version that data.dvc names: {'; '.join(changes[:3])}{more}; record it with "
            "`dvc add data`, or undo it with `dvc checkout data.dvc`"
        )
    if _file_states(workspace.pool) == files:  # else it changed while DVC looked: ask again next time
        write_json(_state_path(workspace), state)
    return version


def _state_path(workspace: Workspace) -> Path:
    return workspace.root / ".geoloc" / "data-state.json"


def _read_state(workspace: Workspace) -> Any:
    try:
        return read_json(_state_path(workspace))
    except (OSError, ValueError):  # never checked, or damaged: check
        return None


def _file_states(folder: Path) -> dict[str, list[int]]:
    """Size, time of change in nanoseconds, and inode of each file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): [state.st_size, state.st_mtime_ns, state.st_ino]
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and (state := path.lstat())
    }


def dvc_config(workspace: Workspace) -> configparser.ConfigParser:
    """DVC's settings of a workspace, .dvc/config. Raises DamagedFile for another file. Does not import DVC."""
    file, config = workspace.root / ".dvc" / "config", configparser.ConfigParser(interpolation=None)
    if file.exists():
        text = read_text(file)
        with damage_named(file):
            config.read_string(text, source=file.name)
    return config


def record_data(workspace: Workspace) -> str:
    """`dvc add data`: record the content of data/ as a new version in data.dvc; returns that version."""
    with_repo(workspace, lambda repo: repo.add([str(workspace.pool)]))
    return data_version(workspace)


def collect_garbage(workspace: Workspace, *, remote: bool = False) -> None:
    """`dvc gc --workspace`: keep only what data.dvc and dvc.lock name now in DVC's cache, and in the default remote.

    Older versions of photos and builds that are nowhere else are lost.
    """
    with_repo(workspace, lambda repo: repo.gc(workspace=True, cloud=remote, force=True))


def data_manifest(workspace: Workspace, version: str) -> dict[str, str] | None:
    """The MD5 of each file of a data version, by path below data/; None if DVC's cache does not have it whole."""

    def read(repo: Repo) -> dict[str, str] | None:
        md5 = version.removesuffix(".dir")
        file = Path(repo.cache.local.path) / md5[:2] / f"{md5[2:]}.dir"
        if not file.is_file() or hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            return None
        return {entry["relpath"]: entry["md5"] for entry in read_json(file, list)}

    return with_repo(workspace, read)


def photos_of_version(workspace: Workspace, version: str) -> frozenset[str]:
    """The ids of the photos that a data version has, read from DVC's cache.

    `version` is the md5 in a data.dvc, with or without its ".dir". Raises WorkspaceError if the cache lacks it.
    """
    from geoloc.photos.catalog import CATALOG_FILE, PARTS_FOLDER, read_catalog  # not for `--help`

    def copy(repo: Repo, folder: Path) -> None:
        cached = Path(repo.cache.local.path)  # content-addressed: <two digits>/<the rest>
        name = f"{version.removesuffix('.dir')}.dir"
        for entry in read_json(cached / name[:2] / name[2:], list):
            path, md5 = Path(entry["relpath"]), entry["md5"]
            if path == Path(CATALOG_FILE) or path.parent == Path(PARTS_FOLDER):
                (folder / path).parent.mkdir(exist_ok=True)
                shutil.copyfile(cached / md5[:2] / md5[2:], folder / path)

    if not _VERSION.fullmatch(version):
        raise WorkspaceError(
            f"a data version is the md5 in a data.dvc, such as {data_version(workspace)}; got {version!r}"
        )
    with tempfile.TemporaryDirectory() as folder:
        try:
            with_repo(workspace, lambda repo: copy(repo, Path(folder)))
            return frozenset(read_catalog(Path(folder), ["photo_id"])["photo_id"])
        except FileNotFoundError:
            raise WorkspaceError(
                f"the data version {version} is not in DVC's cache; check out its data.dvc, run `dvc pull data.dvc`, "
                "and come back: the cache keeps it"
            ) from None


def with_repo(workspace: Workspace, action: Callable[[Repo], T]) -> T:
    """Run `action` on the DVC repository; if another DVC command holds the lock, try again for two minutes.

    DVC itself has no option to wait: of two commands at once, one fails.
    """
    from dvc.exceptions import DvcException  # 1.3 s to import: not for `--help`
    from dvc.lock import LockError
    from dvc.repo import Repo

    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            # DVC resolves stage names and paths from the current folder, not from the repository that it is given.
            with contextlib.chdir(workspace.root), _quiet_dvc(), Repo(str(workspace.root)) as repo:
                return action(repo)
        except LockError as error:
            if time.monotonic() > deadline:
                raise WorkspaceError(
                    f"DVC is busy in {workspace.root}: {' '.join(str(error).split())}"
                ) from None
            time.sleep(0.5)
        except DvcException as error:
            raise WorkspaceError(f"DVC: {one_line(error)}") from error


@contextlib.contextmanager
def _quiet_dvc() -> Iterator[None]:
    """Keep DVC's progress bars and notices out of our output; its errors are still raised."""
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
