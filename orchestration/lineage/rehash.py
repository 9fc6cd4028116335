"""`geoloc audit --verify`: every hash is computed again from the bytes on disk, and what no longer matches is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc.files import DamagedFile, damage_named, sha256_bytes
from geoloc.photos.catalog import CATALOG_FILE, read_catalog
from geoloc.photos.pairs import overhead_pool
from geoloc.yaml_files import read_yaml
from orchestration.lineage.build import Build, files_content
from orchestration.lineage.checks import CheckResult
from orchestration.lineage.earlier import earlier_folder
from orchestration.lineage.origin import patch_path
from orchestration.lineage.record import Record
from orchestration.lineage.seal import SEAL, broken_seal
from orchestration.plan.chain import STAGES
from orchestration.stores.champion import Version, all_versions
from orchestration.stores.data_version import data_manifest, data_version
from orchestration.stores.serving import CONTENT, content_of
from orchestration.stores.stamps import stamp_is_known
from orchestration.workspace import Workspace, WorkspaceError

_RECORD = tuple(Record.__dataclass_fields__)
_CHECK = tuple(CheckResult.__dataclass_fields__)
_FACTS = ("content", "facts")
_POINTER = (
    "outs", "deps", "md5", "wdir", "frozen", "desc", "meta",
    "hash", "size", "nfiles", "path", "cache", "remote", "persist", "push", "type", "labels", "isexec",
)  # fmt: skip
"""The keys that DVC writes into data.dvc, or lets a person write."""
_TAKEN_DOWN = b"(taken down)"
"""What a take-down leaves in place of words that name a photo (operations/traces.py): such a patch is not as it was."""


@dataclass(frozen=True)
class Verified:
    """What was computed again: the number of files and outputs, what does not match (a line each, which names the
    file), and what could not be compared, because an older geoloc kept no hash of it."""

    files: int
    outputs: int
    differs: tuple[str, ...]
    unknown: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "files": self.files,
            "outputs": self.outputs,
            "differs": [*self.differs],
            "unknown": [*self.unknown],
        }

    @property
    def lines(self) -> Iterator[str]:
        """The result as text."""
        yield f"verified: {self.files:,} files, {self.outputs} outputs and the photos, all hashes computed again"
        yield from (f"    no seal: {name}" for name in self.unknown)
        yield "    every byte is as recorded" if not self.differs else "not as recorded:"
        yield from (f"    {line}" for line in self.differs)


def verify_all(workspace: Workspace) -> Verified:
    """Compute all hashes of a workspace again: photos, outputs, and the files that tell of them."""
    wanted = []
    for path in [*workspace.build.glob("lineage/*.json"), *workspace.build.glob("*/lineage/*.json")]:
        folder = path.parent.parent
        wanted.append((None if folder == workspace.build else folder.name, path.stem))
    wanted.sort(key=lambda one: (one[0] or "", list(STAGES).index(one[1])))
    return _verified(workspace, wanted, all_versions(workspace))


def verify_tree(workspace: Workspace, tree: dict[str, Any]) -> Verified:
    """As `verify_all`, of what is in the tree of an audit; outputs that were replaced are not there to be read."""
    wanted: dict[tuple[str | None, str], None] = {}
    runs: set[str | None] = set()

    def walk(node: dict[str, Any]) -> None:
        runs.add(node.get("mlflow_run"))
        if "code_version" in node and node["on_disk"] != "replaced":
            shared = node["artefact"] == node["stage"]
            wanted[(None if shared else node["recipe"], node["stage"])] = None
        for branch in node.get("made_from", ()):
            walk(branch)

    walk(tree)
    return _verified(workspace, wanted, [one for one in all_versions(workspace) if one.run_id in runs])


def _verified(
    workspace: Workspace, wanted: Collection[tuple[str | None, str]], models: Collection[Version]
) -> Verified:
    count = _Count()
    differs = [*_data(workspace, count)]
    for recipe, stage in wanted:
        differs += _output(Build(workspace, recipe) if recipe else Build(workspace), stage, count)
    differs += _models(workspace, models, count)
    return Verified(count.files, len(wanted), tuple(dict.fromkeys(differs)), tuple(count.unsealed))


class _Count:
    """What was looked at so far."""

    def __init__(self) -> None:
        self.files = 0
        self.unsealed: list[str] = []


def _output(build: Build, stage: str, count: _Count) -> Iterator[str]:
    """What of an output, its record, checks, facts, patches and stamp is not as it was written."""
    path = build.record_path(stage)
    facts = path.parent / "facts" / stage / "facts.json"
    files = [(path, _RECORD), (build.checks_path(stage), _CHECK), (facts, _FACTS)]
    files += [(one, _RECORD) for one in sorted(earlier_folder(build, stage).glob("*.json"))]
    for file, known in files:
        if file == path or file.exists():
            yield from _sealed(build.workspace, file, known, count)
    try:
        record = Record.read(path)
    except WorkspaceError as error:
        yield f"{_name(build.workspace, path)}: {error}"
        return
    if record is None:
        yield f"{_name(build.workspace, path)} is missing"
        return
    yield from _files(build, record, count)
    yield from _with_mlflow(build, record, count)
    for patch in filter(None, (record.workspace_patch, record.code_patch)):
        yield from _patch(build.workspace, patch, count)
    if not stamp_is_known(build.workspace, build.recipe, stage):
        yield f"the stamp of {build.name(stage)} is neither as dvc.lock says nor as a build would write it"


def _files(build: Build, record: Record, count: _Count) -> Iterator[str]:
    """The files of an output that do not have the hashes in its record; and a record that contradicts itself."""
    if record.artefact != build.name(record.stage):
        yield f"the record of {build.name(record.stage)} is that of {record.artefact}"
    folder = build.folder(record.stage)
    count.files += len(record.files)
    for name in build.changed_files(record):
        where = f"{_name(build.workspace, folder)}{'' if name == '.' else f'/{name}'}"
        if name not in record.files and name != ".":
            yield f"{where} is in no record"
        elif not (folder / name).exists():
            yield f"{where} is missing"
        else:
            yield f"{where} was changed"
    if record.files and files_content(record.files, STAGES[record.stage]) != record.content:
        yield f"the record of {record.artefact}: its content hash is not that of its files"


def _with_mlflow(build: Build, record: Record, count: _Count) -> Iterator[str]:
    """The copies of an output's files that its MLflow run has, where they differ. After a take-down they do."""
    if not record.mlflow_run or record.taken_down:
        return
    kept = build.workspace.mlflow / "artifacts" / record.mlflow_run / "artifacts"
    for name, sha256 in record.files.items():
        if (file := kept / name).is_file():
            count.files += 1
            if sha256_bytes(file.read_bytes()) != sha256:
                yield f"{_name(build.workspace, file)} was changed: it is not the file of {record.artefact}"


def _models(workspace: Workspace, models: Collection[Version], count: _Count) -> Iterator[str]:
    """The registered models whose packed build is not what was registered or promoted. One that was promoted is
    registered twice, with the same files."""
    for folder in dict.fromkeys(one.folder for one in models):
        same = [one for one in models if one.folder == folder]
        names = " and ".join(map(str, same))
        known = {one.tags[CONTENT] for one in same if CONTENT in one.tags}
        count.files += sum(path.is_file() for path in folder.rglob("*"))
        if not folder.is_dir():
            yield f"{_name(workspace, folder)}, the files of {names}, is missing"
        elif not known:
            count.unsealed.append(f"{_name(workspace, folder)}, the files of {names}")
        elif known != {content_of(folder)}:
            yield f"{_name(workspace, folder)} was changed: it is not what was registered as {names}"


def _sealed(workspace: Workspace, file: Path, known: Collection[str], count: _Count) -> Iterator[str]:
    count.files += 1
    if why := broken_seal(file, known):
        yield f"{_name(workspace, file)}: {why}"
    elif SEAL.encode() not in file.read_bytes():
        count.unsealed.append(_name(workspace, file))


def _patch(workspace: Workspace, sha256: str, count: _Count) -> Iterator[str]:
    file = patch_path(workspace, sha256)
    count.files += 1
    if not file.is_file():
        yield f"{_name(workspace, file)} is missing"
    elif sha256_bytes(data := file.read_bytes()) != sha256:
        if _TAKEN_DOWN in data:
            count.unsealed.append(_name(workspace, file))
        else:
            yield f"{_name(workspace, file)} was changed"


def _data(workspace: Workspace, count: _Count) -> Iterator[str]:
    """The files of the photos that are not those of the version in data.dvc, each read to its end."""
    if not workspace.data_pointer.exists():
        return
    try:
        version = data_version(workspace)
        with damage_named(workspace.data_pointer):
            pointer = read_yaml(workspace.data_pointer, dict)
            (out,) = pointer["outs"]
            if unknown := [name for name in (*pointer, *out) if name not in _POINTER]:
                raise ValueError(f"unknown key {unknown[0]!r}")
    except DamagedFile as error:
        yield str(error)
        return
    found = {
        path.relative_to(workspace.pool).as_posix(): path
        for path in sorted(workspace.pool.rglob("*"))
        if path.is_file()
    }
    count.files += len(found) + 1
    md5s = {name: _md5(path) for name, path in found.items()}
    size = sum(path.stat().st_size for path in found.values())
    expected = data_manifest(workspace, version)
    if expected is None:
        if _folder_md5(md5s) != version:
            yield "data/ is not the version in data.dvc, and DVC's cache does not know that version"
        changed = set(md5s) if _folder_md5(md5s) != version else set()
    else:
        changed = {name for name in {**expected, **md5s} if expected.get(name) != md5s.get(name)}
        for name in sorted(changed):
            state = "is missing" if name not in md5s else "was changed" if name in expected else "is new"
            yield f"data/{name} {state}{_photos_in(workspace, name) if name in md5s else ''}"
    if not changed and (out.get("hash", "md5"), out.get("size", size), out.get("nfiles", len(found))) != (
        "md5", size, len(found)
    ):  # fmt: skip
        yield f"data.dvc was changed: its hash, size or number of files is not that of data/ ({size}, {len(found)})"
    catalogs = (CATALOG_FILE, "overhead/" + CATALOG_FILE)
    if not changed.intersection(catalogs):
        for pool in (workspace.pool, overhead_pool(workspace.pool)):
            if not changed and (pool / CATALOG_FILE).is_file():
                yield from _photos(workspace, pool, None)


def _photos_in(workspace: Workspace, name: str) -> str:
    """Which photos of a changed shard are not as the catalog says; "" for other files and damaged catalogs."""
    file = workspace.pool / name
    if file.suffix != ".tar":
        return ""
    try:
        found = list(_photos(workspace, file.parent.parent, file.name))
    except (ValueError, OSError):
        return ""
    return f" ({'; '.join(found[:3])}{' ...' if len(found) > 3 else ''})" if found else ""


def _photos(workspace: Workspace, pool: Path, shard: str | None) -> Iterator[str]:
    """The stored photos of a pool, or of one shard, whose bytes do not have the SHA-256 in the catalog."""
    columns = ["photo_id", "sha256", "shard", "offset", "length"]
    with damage_named(pool / CATALOG_FILE):
        catalog = read_catalog(pool, columns).dropna(subset=["shard"])
    for name, rows in catalog.groupby("shard"):
        if shard is not None and name != shard:
            continue
        file = pool / "shards" / str(name)
        if not file.is_file():
            continue
        with file.open("rb") as stream:
            for row in rows.itertuples():
                stream.seek(int(row.offset))
                if sha256_bytes(stream.read(int(row.length))) != row.sha256:
                    yield f"photo {row.photo_id} in {_name(workspace, file)} is not as the catalog says"


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _folder_md5(md5s: dict[str, str]) -> str:
    """DVC's version of a folder with these files."""
    entries = [{"md5": md5, "relpath": name} for name, md5 in sorted(md5s.items())]
    text = json.dumps(entries, sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"


def _name(workspace: Workspace, path: Path) -> str:
    return path.relative_to(workspace.root).as_posix()
