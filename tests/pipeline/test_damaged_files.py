"""Truncated and foreign files end in one line that names the file, whichever command meets them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from orchestration.lineage.build import Build
from orchestration.workspace import Workspace
from tests.pipeline.conftest import copy_workspace, geoloc

RECIPE = "note: of a test\n"


@pytest.fixture(scope="module")
def damaged(original, tmp_path_factory) -> Workspace:
    """A built workspace whose files are damaged one at a time and put back."""
    made = copy_workspace(original, tmp_path_factory.mktemp("damaged") / "w")
    (made.recipes / "tried.yaml").write_text(RECIPE)
    made.set_environment()
    return made


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def binary(data: bytes) -> bytes:
    return bytes(range(128, 256)) * 8


def conflict(data: bytes) -> bytes:
    """What git leaves of two branches."""
    return b"<<<<<<< HEAD\n" + data + b"=======\n" + data + b">>>>>>> other\n"


def a_list(data: bytes) -> bytes:
    return b"[1, 2]\n"


def nul(data: bytes) -> bytes:
    return b"seed: \0\n"


def twice(data: bytes) -> bytes:
    return b"note: one\nnote: two\n"


def tab(data: bytes) -> bytes:
    return b"seed:\n\t- 1\n"


def nothing_in_it(data: bytes) -> bytes:
    return b"{}"


def foreign(data: bytes) -> bytes:
    """A whole table of something else."""
    return bytes(pd.DataFrame({"x": [1]}).to_parquet())


BUILD = ("build", "--only", "splits", "--no-commit")
AGAIN = ("build", "--only", "partition", "--force", "--no-commit")
WHOLE = ("build",)
REPORT = ("build", "--only", "report", "--force", "--no-commit")
AUDIT = ("audit", "default/partition")
NUMBER = ("audit", "report:test/[L]NN/city")
LOCATE = ("locate", "PHOTO")
TRIED = ("build", "--only", "splits", "--recipe", "tried", "--no-commit")
CLAIMS = ("claims",)
SETTINGS = ("settings",)
ACCEPT = ("accept", "partition", "--reason", "tried")
ACCEPT_SPLITS = ("accept", "splits", "--reason", "tried")
INGEST = ("ingest", "folder", "FOLDER", "--photographer", "me")
UI = ("ui", "--port", "1")

CASES = [
    ("params.yaml", (binary, a_list, conflict, nul, twice, tab), (BUILD, AUDIT, LOCATE, ACCEPT)),
    ("recipes/tried.yaml", (binary, a_list, conflict, nul, twice), (TRIED,)),
    ("data.dvc", (empty, half, binary, a_list, conflict, nothing_in_it, twice), (BUILD, AUDIT, ACCEPT_SPLITS)),
    ("dvc.yaml", (binary, a_list, conflict), (WHOLE,)),
    ("dvc.lock", (binary, a_list, conflict), (WHOLE,)),
    (".dvc/config", (binary, nul, conflict), (WHOLE,)),
    ("data/catalog.parquet", (empty, half, foreign), (BUILD, AUDIT, INGEST)),
    ("data/quarantine.parquet", (empty, half, foreign), (BUILD, AUDIT, INGEST)),
    ("data/photographers.json", (half, a_list, nothing_in_it), (INGEST,)),
    ("build/default/lineage/partition.json", (empty, half, binary, a_list, nothing_in_it), (BUILD[:1], AUDIT, ACCEPT)),
    ("build/default/splits/splits.parquet", (half, foreign), (AUDIT, CLAIMS)),
    ("build/default/partition/partitions.json", (half, nothing_in_it), (CLAIMS,)),
    ("build/default/partition/fine/cells.parquet", (half, foreign), (CLAIMS,)),
    ("build/default/partition/fine/partition.json", (half, a_list), (CLAIMS,)),
    ("build/default/evaluation/evaluations.json", (half, nothing_in_it), (NUMBER, CLAIMS, REPORT)),
    ("build/default/evaluation/test/evaluation.json", (half, nothing_in_it), (NUMBER, CLAIMS, REPORT)),
    ("build/default/evaluation/test/per_photo.parquet", (half, foreign), (NUMBER, REPORT)),
    ("build/default/classifier/training.json", (half, a_list), (REPORT,)),
    (".dagster/history/runs.db", (half, nul), (AGAIN, UI)),
    (".dagster/history/runs/index.db", (half, nul), (AGAIN,)),
    (".dagster/dagster.yaml", (binary, conflict), (AGAIN, UI)),
    ("mlflow/mlflow.db", (half, nul), (("audit", f"models:/m-{'0' * 32}"),)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "damage", "command"),
    [
        pytest.param(file, damage, command, id=f"{file}-{damage.__name__}-{command[0]}")
        for file, damages, commands in CASES
        # Every damage by one command, and every command by one damage: their readers are the same.
        for damage, command in [
            *((damage, commands[0]) for damage in damages),
            *((damages[0], c) for c in commands[1:]),
        ]
    ],
)
def test_a_damaged_file_is_named_in_one_line(damaged, capfd, tmp_path, file, damage, command):
    path = damaged.root / file
    whole = path.read_bytes()
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    words = {"PHOTO": str(tmp_path / "photo.png"), "FOLDER": str(tmp_path / "folder")}
    replace(path, damage(whole))
    try:
        capfd.readouterr()
        assert geoloc(damaged, *(words.get(word, word) for word in command)) in (1, 2)
        lines = capfd.readouterr().err.splitlines()
        told = [line for line in lines if line.startswith("geoloc: ")]
        assert lines[-1:] == told
        assert path.name in told[0]
        assert "Traceback" not in "".join(lines)
    finally:
        replace(path, whole)


def replace(path: Path, data: bytes) -> None:
    """New bytes under a new inode: the old ones may be shared with other workspaces."""
    path.unlink()
    path.write_bytes(data)


def test_a_cache_that_is_damaged_is_made_again(damaged):
    state = damaged.root / ".geoloc" / "data-state.json"
    for data in (b"", b"[1", bytes(range(256))):
        state.write_bytes(data)
        assert geoloc(damaged, "audit", "photos") == 0
        assert state.read_bytes().startswith(b"{")


def test_a_damaged_record_of_one_output_hides_no_other(damaged, capsys):
    path = Build(damaged).record_path("index")
    whole = path.read_bytes()
    replace(path, half(whole))
    try:
        assert geoloc(damaged, "audit", "default/embeddings") == 0
        for words in ("index", "default/index", "build/default/index"):
            capsys.readouterr()
            assert geoloc(damaged, "audit", words) == 1
            assert "index.json is damaged" in capsys.readouterr().err
    finally:
        replace(path, whole)


def test_a_locked_database_is_not_damaged(damaged):
    from orchestration.stores.databases import check_mlflow

    with sqlite3.connect(damaged.mlflow / "mlflow.db") as database:
        database.execute("BEGIN EXCLUSIVE")
        check_mlflow(damaged)
        database.rollback()
    database.close()
