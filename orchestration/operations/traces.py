"""What else in a workspace names photos: databases and logs of Dagster and MLflow, checks and facts. It is removed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.files import atomic_path, remove_temporary
from geoloc.photos.takedown import Gone, mention
from geoloc.retrieval.takedown import take_from_index, take_from_table
from orchestration.lineage.seal import resealed
from orchestration.operations.outputs import Groups, keep_calibration
from orchestration.plan.chain import SPLITS_FILE
from orchestration.stores.databases import mlflow_database
from orchestration.stores.serving import SPLITS_FOLDER
from orchestration.workspace import Workspace

REMOVED = "(taken down)"
SHORTEST_ID = 4
"""A shorter id is no name: "12" would be found, and removed, in every text."""
_TEXTS = (".json", ".yaml", ".yml", ".csv", ".txt", ".md", ".html", ".out", ".err", ".log", ".patch", "")
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=]+")
"""A picture in the history of the UI. Which photos it shows is not written anywhere."""
_NUMBER = re.compile(r"[-+.e\d]+")
_DIGITS = 7
"""Digits of a coordinate that is no other number by chance."""
_LARGEST_TEXT = 64 * 1024 * 1024


@dataclass(frozen=True)
class Words:
    """The texts that name photos: ids, addresses, hashes and coordinates. Make them with `of`."""

    pattern: re.Pattern[str]
    coordinates: frozenset[str]

    @classmethod
    def of(cls, photos: Sequence[Gone], photographer: str | None = None) -> Words:
        """The texts that name these photos, and their photographer."""
        names, numbers = {photographer} if photographer else set(), set()
        for one in photos:
            names |= {text for text in (one.photo_id, one.url, one.sha256, one.input_sha256) if text}
            for form in ("{}", "{:.6g}", "{:.6f}", "{:.5f}", "{:.4f}"):
                pair = (form.format(one.latitude), form.format(one.longitude))
                numbers |= {", ".join(pair), *(one for one in pair if sum(map(str.isdigit, one)) >= _DIGITS)}
        return cls(
            mention({name for name in names if len(name) >= SHORTEST_ID} | numbers), frozenset(numbers)
        )

    def are_in(self, text: str) -> bool:
        """Whether a text names one of the photos."""
        return self.pattern.search(text) is not None

    def removed(self, text: str) -> str:
        """The text without them; JSON stays JSON."""
        return self.pattern.sub(self._in_place, text)

    def _in_place(self, match: re.Match[str]) -> str:
        return _NUMBER.sub("0", match[0]) if match[0] in self.coordinates else REMOVED


def clean_texts(folder: Path, words: Words) -> None:
    """Remove the words from the text files below a folder."""
    for path in _files(folder):
        if path.suffix not in _TEXTS or path.stat().st_size > _LARGEST_TEXT:
            continue
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue
        if words.are_in(text):
            mode = path.stat().st_mode
            with atomic_path(path) as temporary:
                temporary.write_text(resealed(text, words.removed(text)), encoding="utf-8")
                temporary.chmod(mode)


def clean_history(workspace: Workspace, words: Words) -> None:
    """Remove the words, and all pictures, from Dagster's history and logs: the UI shows them no more."""
    for database in sorted(workspace.dagster_home.rglob("*.db")):
        clean_database(database, words, pictures=True)
    clean_texts(workspace.dagster_home, words)


def clean_mlflow(workspace: Workspace, groups: Groups, words: Words) -> None:
    """Remove photos from what MLflow keeps: its database, evaluations of runs, and the indexes of models."""
    clean_database(mlflow_database(workspace), words)
    artifacts = workspace.mlflow / "artifacts"
    for references in sorted(artifacts.rglob("references.parquet")):
        take_from_index(references.parent, groups)
    for splits in sorted(artifacts.rglob(f"{SPLITS_FOLDER}/{SPLITS_FILE}")):
        take_from_table(splits, groups)
    for evaluations in sorted(artifacts.rglob("evaluations.json")):
        if _is_named_in(evaluations.parent, words):
            keep_calibration(evaluations.parent)
    clean_texts(artifacts, words)


def clean_builds(workspace: Workspace, words: Words) -> None:
    """Remove the words from checks, facts and records, and what killed builds and downloads left half made."""
    for folder in {
        path.parent for path in workspace.build.rglob("*") if path.match(".*.part") or path.match(".*.old")
    }:
        remove_temporary(folder)
    for beside in ("lineage", "checks", "photos"):  # other texts are content, which no photo is named in
        for folder in (workspace.build / beside, *workspace.build.glob(f"*/{beside}")):
            clean_texts(folder, words)
    shutil.rmtree(workspace.scratch, ignore_errors=True)
    for waiting in (workspace.root / ".geoloc" / "downloads").rglob("*.spool"):
        if words.are_in(waiting.read_bytes().decode("latin-1")):
            waiting.unlink()  # the other photos in it are downloaded again


def clean_database(path: Path, words: Words, *, pictures: bool = False) -> None:
    """Remove the words from every text of an SQLite database, and their bytes from its free space."""
    if not path.is_file():
        return
    with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        database.execute("BEGIN IMMEDIATE")
        changed = False
        with database:  # commits, or rolls back if it raises
            for table in tables:
                changed |= _clean_table(database, table, words, pictures)
        # Also where an earlier, killed take-down changed the rows.
        if changed or _is_in_bytes(path, words):
            database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _clean_table(database: sqlite3.Connection, table: str, words: Words, pictures: bool) -> bool:
    columns = [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]
    changed = False
    for column in columns:
        try:
            rows = database.execute(
                f'SELECT rowid, "{column}" FROM "{table}" WHERE typeof("{column}") = \'text\''
            ).fetchall()
        except sqlite3.OperationalError:  # a table without row ids holds settings of SQLite's own
            continue
        for row, text in rows:
            cleaned = words.removed(text)
            if pictures and "data:image/" in cleaned:
                cleaned = _PICTURE.sub("", cleaned)
            if cleaned != text:
                database.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (cleaned, row))
                changed = True
    return changed


def _is_in_bytes(path: Path, words: Words) -> bool:
    return words.are_in(path.read_bytes().decode("latin-1"))


def _is_named_in(folder: Path, words: Words) -> bool:
    """Whether a text or a table below a folder names one of the photos."""
    for path in _files(folder):
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            texts: Iterable[object] = (
                value
                for column in table.columns
                if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
                for value in column.unique().to_pylist()
            )
            if any(isinstance(value, str) and words.are_in(value) for value in texts):
                return True
        elif path.suffix in _TEXTS and words.are_in(path.read_bytes().decode("utf-8", "replace")):
            return True
    return False


def _files(folder: Path) -> list[Path]:
    return [
        Path(above) / name
        for above, _, names in os.walk(folder)
        for name in names
        if not (Path(above) / name).is_symlink()
    ]
