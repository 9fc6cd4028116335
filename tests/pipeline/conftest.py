"""Workspaces: a small one with generated photos, built once a run and copied; and a bare one with records only."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from orchestration.cli import main
from orchestration.lineage.build import Build
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace
from tests.unit import pretended

SMALL = {
    "note": "Built on generated photos by the tests.",
    "seed": 3,
    "splits": {"validation": {"share": 0.15}, "test": {"share": 0.2}},
    "partitions": {"fine": {"s2": {"max_photos": 30, "min_photos": 5}}},
    "model": {"backbone": "mobilenet_v3_small", "image_size": 64},
    "training": {"epochs": 2, "batch_size": 16},
    "evaluation": {"resamples": 50, "explained": 2},
}


BELOW_PARTITION = ["partition", "classifier", "embeddings", "index", "evaluation", "report"]
"""The stages that may change when the partition does."""


@pytest.fixture(scope="session", autouse=True)
def _quiet_home(tmp_path_factory: pytest.TempPathFactory):
    """Git needs a name to commit with; nothing outside the temporary folder is read or written."""
    os.environ.update(
        GIT_CONFIG_GLOBAL=str(tmp_path_factory.mktemp("git") / "config"), GEOLOC_PHOTOGRAPHER_KEY="tests"
    )
    for key, value in (("user.name", "Tests"), ("user.email", "tests@localhost")):
        subprocess.run(["git", "config", "--global", key, value], check=True)


@pytest.fixture(scope="session", autouse=True)
def _torch_runs_networks() -> Iterator[None]:
    """An export takes 5 to 15 s a network. test_exported_build.py makes some; the other tests do without, as a build
    does whose network cannot be exported."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("orchestration.assets.exporting.export_network", _no_export)
        yield


@pytest.fixture(autouse=True)
def _no_model_for_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's export of a network takes 8 s; trainings of tests do without."""
    for stage in ("metric", "cross_view_model"):
        monkeypatch.setattr(f"orchestration.assets.{stage}.log_served_model", lambda *arguments: "")


Pixels = Callable[..., NDArray[np.uint8]]


def _real() -> Pixels:
    """What draws figures, whether they are blank now or not."""
    from geoloc.reports import style  # imports matplotlib

    return getattr(style.pixels, "drawn", style.pixels)


def _coarse() -> Pixels:
    """Draws a ninth of the pixels: no test looks at more."""
    real = _real()
    return lambda figure, dpi: real(figure, dpi // 3)


@pytest.fixture(scope="module", autouse=True)
def _blank_figures() -> Iterator[None]:
    """To draw its figures is most of a report's time: the reports of tests have blank ones, but `original` and those
    of tests that take `drawn`. The tests of tests/unit look at all kinds of figures."""

    def blank(*arguments: object) -> NDArray[np.uint8]:
        return np.full((4, 4, 4), 255, np.uint8)

    blank.drawn = _real()  # type: ignore[attr-defined]
    with _figures(blank):
        yield


@pytest.fixture
def drawn(_blank_figures: None) -> Iterator[None]:
    """Reports with their figures."""
    with _figures(_coarse()):
        yield


@contextlib.contextmanager
def _figures(pixels: Pixels) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for module in ("style", "photo_figures"):
            patched.setattr(f"geoloc.reports.{module}.pixels", pixels)
        yield


def _no_export(*arguments: object) -> float:
    from geoloc.models.export import ExportError  # imports torch

    raise ExportError("the tests save its time")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory, _torch_runs_networks: None) -> Iterator[Path]:
    """A workspace with 300 generated photos and one finished build, made once for all workers of the run.

    Only copied: two processes never open one database, and no test finds what another has left.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    root = shared / "workspace" / "w"
    finished, failed = shared / "workspace.finished", shared / "workspace.failed"
    with _locked(shared / "workspace.lock"):
        if failed.exists():
            pytest.fail("the build of the tests' workspace failed in another worker, which tells why")
        if not finished.exists():
            failed.touch()
            with _figures(_coarse()):
                _build(root)
            failed.unlink()
            finished.touch()
    before = _linked_files(root)
    yield root
    changed = [str(path) for path, state in _linked_files(root).items() if before.get(path) != state]
    assert not changed, f"a test changed files in place that copies share: {changed}; unlink them first"


def _build(root: Path) -> None:
    assert main(["init", str(root)]) == 0
    (root / "params.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(["--workspace", str(root), "sample", "--photos", "300", "--seed", "5"]) == 0
    assert main(["--workspace", str(root), "build"]) == 0
    commit_all(root)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`; who waits sleeps, and the kernel lets go of it however a process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


LINKED = ("data", "build", ".dvc/cache", ".git/objects")
"""Folders whose files are replaced and never edited, and make up nearly all of a workspace's size."""
EDITED = (".json",)
"""Except these, which tests do edit. They are small."""


def copy_workspace(source: Path, target: Path) -> Workspace:
    """A copy that shares the large files with its source by hard links. Databases and settings are copied."""
    linked = {str(path) for path in _linked_files(source)}

    def link_or_copy(file: str, to: str) -> str:
        if file in linked:
            os.link(file, to)
            return to
        return shutil.copy2(file, to)

    shutil.copytree(source, target, symlinks=True, copy_function=link_or_copy)
    return Workspace.open(target)


def _linked_files(root: Path) -> dict[Path, tuple[int, int]]:
    """The files that copies share, with size and time of the last change. Git sets the time of an object that it is
    given again, and never changes one."""
    files = (path for folder in LINKED for path in (root / folder).rglob("*"))
    kept = [path for path in files if path.suffix not in EDITED and path.is_file() and not path.is_symlink()]
    return {
        path: (path.stat().st_size, 0 if ".git" in path.parts else path.stat().st_mtime_ns) for path in kept
    }


@pytest.fixture(scope="session")
def built(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The built workspace, one for each worker. Do not change it: take `workspace`."""
    return copy_workspace(original, tmp_path_factory.mktemp("built") / "w")


@pytest.fixture
def workspace(original: Path, tmp_path: Path) -> Workspace:
    """A copy of the built workspace, free to change. Files in its folders LINKED are replaced, not edited."""
    copied = copy_workspace(original, tmp_path / "w")
    copied.set_environment()
    return copied


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a workspace as `geoloc init` makes it, to be copied: starting git and DVC takes seconds."""
    root = tmp_path_factory.mktemp("initialised") / "w"
    assert main(["init", str(root)]) == 0
    return root


@pytest.fixture
def bare_workspace(tmp_path: Path) -> Workspace:
    """A workspace for questions about what is stale: no git, DVC or MLflow, and every stage pretended to be built."""
    made = pretended.bare_workspace(tmp_path / "bare", SMALL)
    pretended.pretend(Build(made))
    return made


def facts(workspace: Workspace, recipe: str, stage: str) -> Mapping[str, dg.MetadataValue]:
    """What the page of a stage's asset shows in the Dagster UI."""
    workspace.set_environment()
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey([recipe, stage]))
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata


def commit_all(root: Path) -> None:
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(root), "commit", "-qm", "state"], check=True)


def geoloc(workspace: Workspace, *arguments: str) -> int:
    """The command line in this process."""
    return main(["--workspace", str(workspace.root), *arguments])


def build_without_report(workspace: Workspace, recipe: str) -> int:
    """Build the recipe but for its report, a fifth of a small build, for tests that do not look at it."""
    stages = [stage.name for stage in Build(workspace, recipe).stages if stage.name != "report"]
    return geoloc(workspace, "build", "--recipe", recipe, "--only", *stages, "--no-commit")


def geoloc_process(workspace: Workspace, *arguments: str, **keywords: object) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "orchestration.cli", "--workspace", str(workspace.root), *arguments]
    return subprocess.Popen(command, text=True, **keywords)  # type: ignore[call-overload]


class Forked:
    """A command in a forked process, which need not import everything again; leads a group of its own.

    `command` returns its exit status. With `caught`, what it and its processes print is read from `printed`.
    """

    def __init__(self, command: Callable[[], int | None], *, caught: bool = False) -> None:
        read, write = os.pipe() if caught else (None, None)
        self.printed = None if read is None else os.fdopen(read, encoding="utf-8")
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._run, args=(command, write))
        self._process.start()
        if write is not None:
            os.close(write)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @staticmethod
    def _run(command: Callable[[], int | None], output: int | None) -> None:
        os.setsid()
        if output is not None:
            for standard in (1, 2):
                os.dup2(output, standard)
            sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
            os.closerange(3, 4096)  # a lock that this process holds would be the other's too
        sys.exit(command())

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def end(self) -> int | None:
        """Wait for its end; returns its exit status."""
        self._process.join()
        return self.poll()

    def kill(self) -> None:
        """End it and what it started by SIGKILL, and wait for that."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.join()


def forked_geoloc(workspace: Workspace, *arguments: str) -> Forked:
    """The command line in a forked process."""
    return Forked(lambda: geoloc(workspace, *arguments))


def stand_in(workspace: Workspace, recipe: str, **training: object) -> None:
    """A copy of the default recipe's partition and evaluation as a further recipe, recorded as trained otherwise."""
    (workspace.recipes / f"{recipe}.yaml").write_text("note: stands in\n")
    for stage in ("splits", "partition", "evaluation"):
        shutil.copytree(output_folder(workspace, "default", stage), output_folder(workspace, recipe, stage))
    for stage in ("splits", "classifier", "evaluation"):
        record = Build(workspace).record(stage)
        assert record is not None
        settings = dict(record.settings)
        if stage == "classifier":
            settings["training"] = {**settings["training"], **training}
        dataclasses.replace(record, recipe=recipe, settings=settings).write(
            Build(workspace, recipe).record_path(stage)
        )
