"""`geoloc reproduce`: build a report again, in a scratch workspace with its photos, settings and code, and compare."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from geoloc.files import write_text
from geoloc.photos.catalog import read_catalog
from geoloc.photos.tombstones import Tombstones, read_tombstones
from orchestration.lineage.code import code_version
from orchestration.lineage.origin import CODE, environment, hardware, patch_path
from orchestration.lineage.record import Record
from orchestration.plan.chain import EXTERNAL_FILE, STAGES, WEIGHTS, borrowings, value_at
from orchestration.results.diff import Difference, difference
from orchestration.results.sides import Side, open_side
from orchestration.stores.data_version import data_manifest, with_repo
from orchestration.workspace import Workspace, WorkspaceError, init_workspace

WORKSPACE, SOURCE = "workspace", "code"
"""The folders of a reproduction: the workspace, and the code that built the report."""
_COMMITTED = ("params.yaml", "recipes", "expectations")


@dataclass(frozen=True, eq=False)
class Reproduction:
    """A report that was built again: its difference from the first, the numbers that are not equal to the last digit as
    (name, first, again), the outputs with equal and with other bytes, and what was not as at the first time."""

    difference: Difference
    numbers: int
    unequal: Sequence[tuple[str, Any, Any]]
    equal_outputs: Sequence[str]
    other_outputs: Sequence[str]
    notes: Sequence[str]

    @property
    def reproduced(self) -> bool:
        """Whether every number is equal to the last digit."""
        return not self.unequal

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "reproduced": self.reproduced,
            "numbers": self.numbers,
            "unequal": [list(one) for one in self.unequal],
            "equal_outputs": [*self.equal_outputs],
            "other_outputs": [*self.other_outputs],
            "notes": [*self.notes],
            "difference": self.difference.to_dict(),
        }

    @property
    def lines(self) -> Iterator[str]:
        """The result as text."""
        yield from (f"note: {note}" for note in self.notes)
        yield f"equal bytes: {', '.join(self.equal_outputs) or 'none'}"
        if self.other_outputs:
            yield f"other bytes: {', '.join(self.other_outputs)}"
        if self.reproduced:
            yield f"reproduced: all {self.numbers:,} numbers are equal to the last digit"
            return
        yield f"not reproduced: {len(self.unequal):,} of {self.numbers:,} numbers differ"
        yield from (f"    {name}: {first} and {again}" for name, first, again in self.unequal[:12])
        if len(self.unequal) > 12:
            yield f"    and {len(self.unequal) - 12:,} more"
        yield from self.difference.lines


def reproduce(
    workspace: Workspace, text: str, folder: Path, say: Callable[[str], None] = lambda line: None
) -> Reproduction:
    """Build the report that `text` names again in `folder`, and compare every number.

    `folder` must be empty or missing; afterwards it holds the scratch workspace and the code. Raises WorkspaceError if
    the report cannot be made again: photos were taken down since, the data version or the commit is gone, or the build
    fails.
    """
    side = open_side(workspace, text)
    _require_possible(side)
    if folder.exists() and any(folder.iterdir()):
        raise WorkspaceError(f"{folder} must be empty or missing")
    notes = _notes(side)
    scratch = prepare(side, folder)
    say(f"photos of data version {side.data} and settings of {side.name} in {scratch.root}")
    code = check_out_code(side, folder)
    say(f"code in {code}")
    for recipe in (*_borrowed_recipes(side), side.build.recipe):
        _build(scratch, recipe, code, side.evaluation, say)
    return compared(side, open_side(scratch, side.build.recipe), notes)


def prepare(side: Side, folder: Path) -> Workspace:
    """A workspace in `folder` with the settings and the photos of a report. Raises WorkspaceError."""
    root, origin = folder / WORKSPACE, side.evaluation
    root.mkdir(parents=True)
    home = side.build.workspace
    if origin.workspace_commit:
        _extract(home.root, origin.workspace_commit, _COMMITTED, root)
    if origin.workspace_patch:
        _apply(home, origin.workspace_patch, root, exclude=("data.dvc",))
    if not (root / "params.yaml").is_file():
        raise WorkspaceError(
            f"the settings of {side.name} cannot be had: {home.root} had no commit, and an older geoloc that kept no "
            "patch built it"
        )
    for name in ("recipes", "expectations"):
        (root / name).mkdir(exist_ok=True)
    scratch = init_workspace(root)
    for file in _named_files(side.records.values()):
        if not (home.root / file).is_file():
            raise WorkspaceError(f"{side.name} was made with {file}, which is missing in {home.root}")
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home.root / file, root / file)
    _check_out_photos(side, scratch)
    if gone := _taken_down(side.build.workspace, scratch):
        shutil.rmtree(root)
        raise WorkspaceError(_cannot(side, gone))
    return scratch


def _taken_down(home: Workspace, scratch: Workspace) -> int:
    """How many photos of an older data version were taken down since: DVC's cache may still have them."""
    if not len(read_tombstones(home.pool)):
        return 0
    tombstones = Tombstones(home.pool, home.photographer_key())
    return sum(tombstones.has_bytes(one) for one in read_catalog(scratch.pool, ["sha256"])["sha256"].dropna())


def _cannot(side: Side, gone: int) -> str:
    were = "photos behind it were" if gone != 1 else "photo behind it was"
    return f"{side.name} cannot be reproduced: {gone:,} {were} taken down since it was made"


def _check_out_photos(side: Side, scratch: Workspace) -> None:
    """data/ at the data version of a report, linked or copied from DVC's cache of its workspace."""
    home, version = side.build.workspace, side.data
    manifest = data_manifest(home, version) or {}
    cache = with_repo(home, lambda repo: str(Path(repo.cache.local.path).parents[1]))
    outs = [{"md5": version, "hash": "md5", "nfiles": len(manifest), "path": "data"}]
    write_text(scratch.data_pointer, yaml.safe_dump({"outs": outs}))
    # Copies: a link to the cache would let a mistake in the scratch workspace damage the first one.
    for key, value in (("cache.dir", cache), ("cache.type", "reflink,copy")):
        _run([sys.executable, "-m", "dvc", "config", "-q", "--local", key, value], scratch.root)
    _run([sys.executable, "-m", "dvc", "checkout", "-q", "data.dvc"], scratch.root)


def check_out_code(side: Side, folder: Path) -> Path:
    """The folder with the code that built a report: its commit with the stored patch, or that which runs now where it
    is of equal versions. Raises WorkspaceError if it is neither."""
    origin = side.evaluation
    if origin.code_commit and _has_commit(CODE, origin.code_commit):
        code = folder / SOURCE
        code.mkdir(parents=True)
        _extract(
            CODE,
            origin.code_commit,
            ("geoloc", "orchestration", "params.yaml", "recipes", "expectations"),
            code,
        )
        if origin.code_patch:
            _apply(side.build.workspace, origin.code_patch, code)
        return code
    records = [record for name, record in side.records.items() if name in STAGES]
    if all(code_version(STAGES[one.stage].module) in one.code_versions for one in records):
        return CODE
    raise WorkspaceError(
        f"the code of {side.name} cannot be had: its commit {origin.code_commit or 'none'} is not in {CODE}, and the "
        "code there is another"
    )


def compared(side: Side, again: Side, notes: Sequence[str] = ()) -> Reproduction:
    """Compare a report with one that was built again."""
    found = difference(side, again)
    unequal, count = [], 0
    for test in side.tests:
        first = _numbers(side.load(test).to_dict(), f"{test}")
        second = _numbers(again.load(test).to_dict(), f"{test}") if test in again.tests else {}
        count += len(first)
        unequal += [
            (name, first.get(name), second.get(name))
            for name in {**first, **second}
            if first.get(name) != second.get(name)
        ]
    names = [name for name in side.records if name in again.records and name != "report"]
    equal = [name for name in names if side.records[name].content == again.records[name].content]
    return Reproduction(found, count, unequal, equal, [one for one in names if one not in equal], [*notes])


def _numbers(value: Any, name: str) -> dict[str, Any]:
    """All numbers and texts of an evaluation, by path."""
    if isinstance(value, Mapping):
        return {k: v for key, one in value.items() for k, v in _numbers(one, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for i, one in enumerate(value) for k, v in _numbers(one, f"{name}/{i}").items()}
    return {name: value}


def _require_possible(side: Side) -> None:
    """Raise WorkspaceError for a report whose photos were taken down, or are not in DVC's cache."""
    gone = max([side.taken_down, *(record.taken_down for record in side.borrowed.values())])
    if gone:
        raise WorkspaceError(_cannot(side, gone))
    if not side.data or data_manifest(side.build.workspace, side.data) is None:
        raise WorkspaceError(
            f"the data version {side.data or 'none'} of {side.name} is not in DVC's cache of "
            f"{side.build.workspace.root}: fetch it with `dvc fetch` at the commit that had it; if its garbage was "
            "collected (geoloc forget --gc), the report cannot be made again"
        )


def _notes(side: Side) -> list[str]:
    """What is not as it was when the report was made."""
    record, notes = side.evaluation, []
    now = hardware()
    if not record.hardware:
        notes.append("the processor and threads of the report are not recorded; its last digits may differ")
    for name in ("processor", "gpu"):
        then, here = record.hardware.get(name), now.get(name)
        if then and then != here:
            notes.append(f"made on the {name} {then}, this is {here or 'none'}: the last digits may differ")
    versions = environment()
    changed = [name for name in record.environment if record.environment[name] != versions.get(name)]
    if changed:
        was = ", ".join(
            f"{name} {record.environment[name]} (now {versions.get(name, 'none')})" for name in changed
        )
        notes.append(f"other versions than then: {was}")
    copied = [one.artefact for one in side.records.values() if one.taken_from]
    if copied:
        notes.append(f"taken from another recipe then, made anew now: {', '.join(copied)}")
    return notes


def _borrowed_recipes(side: Side) -> list[str]:
    """The recipes that are borrowed from, each before the one that needs it."""
    found: dict[str, None] = {}

    def walk(records: Mapping[str, Record]) -> None:
        for record in records.values():
            for _, recipe in borrowings(record.settings):
                if recipe != side.build.recipe and recipe not in found:
                    walk(open_side(side.build.workspace, recipe).records)
                    found[recipe] = None

    walk(side.records)
    return list(found)


def _named_files(records: Iterable[Record]) -> list[str]:
    """The files of weights and of embeddings by other programs that settings name."""
    found: dict[str, None] = {}
    for record in records:
        borrowed = {row.setting for row, _ in borrowings(record.settings)}
        if "weights" in record.inputs:
            for key in WEIGHTS:
                named = value_at(record.settings, key)
                if key not in borrowed and isinstance(named, str) and "/" in named:
                    found[named] = None
        if "external" in record.inputs:
            for key in (EXTERNAL_FILE, "embeddings.external.ids"):
                if named := value_at(record.settings, key):
                    found[str(named)] = None
    return list(found)


def _build(scratch: Workspace, recipe: str, code: Path, origin: Record, say: Callable[[str], None]) -> None:
    """Run `geoloc build` with that code, and as many threads as then."""
    threads = origin.hardware.get("threads", "")
    own = {
        "PYTHONPATH": str(code),
        "GEOLOC_WORKSPACE": str(scratch.root),
        **({"OMP_NUM_THREADS": threads} if threads else {}),
    }
    removed = ("DAGSTER_HOME", "MLFLOW_TRACKING_URI")
    command = [sys.executable, "-m", "orchestration.cli", "--workspace", str(scratch.root), "build"]
    if recipe != "default":
        command += ["--recipe", recipe]
    process = subprocess.Popen(
        [*command, "--no-commit"],
        cwd=scratch.root,
        env={k: v for k, v in os.environ.items() if k not in removed} | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        last = line.rstrip() or last
        say(f"    {line.rstrip()}")
    if process.wait():
        raise WorkspaceError(f"the build of {recipe} in {scratch.root} failed: {last}")


def _has_commit(folder: Path, commit: str) -> bool:
    done = subprocess.run(
        ["git", "-C", str(folder), "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True, check=False
    )
    return done.returncode == 0


def _extract(folder: Path, commit: str, paths: Sequence[str], target: Path) -> None:
    """Write the paths that a commit has, relative to `folder`, below `target`. Raises WorkspaceError."""
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-tree", "-r", "--name-only", commit, "--", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        raise WorkspaceError(f"the commit {commit} is not in {folder}: {listed.stderr.strip()}")
    there = [
        path
        for path in paths
        if any(f"{line}/".startswith(f"{path}/") for line in listed.stdout.splitlines())
    ]
    if not there:
        return
    done = subprocess.run(
        ["git", "-C", str(folder), "archive", "--format=tar", commit, "--", *there],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise WorkspaceError(
            f"the commit {commit} of {folder} cannot be read: {done.stderr.decode().strip()}"
        )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(target, filter="data")


def _apply(workspace: Workspace, sha256: str, target: Path, exclude: Sequence[str] = ()) -> None:
    """Apply a stored patch to the files below `target`. Raises WorkspaceError if it is missing or does not fit."""
    patch = patch_path(workspace, sha256)
    if not patch.is_file():
        raise WorkspaceError(
            f"the patch {sha256[:12]} with the uncommitted changes of then is missing: {patch} was removed"
        )
    leave = [f"--exclude={name}" for name in exclude]
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", *leave, str(patch)],
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(target.parent)},  # no checkout around it
    )
    if done.returncode:
        raise WorkspaceError(f"the patch {patch.name} does not apply: {' '.join(done.stderr.split())}")


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkspaceError(f"{' '.join(command[2:])} failed in {folder}: {' '.join(done.stderr.split())}")
