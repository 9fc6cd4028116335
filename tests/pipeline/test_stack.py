"""The dependencies work together where they are known not to."""

from __future__ import annotations

import re
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parents[2]


def test_dagster_parses_string_selections():
    # dvc's hydra and omegaconf pin an antlr runtime that breaks this; pyproject.toml overrules it.
    assert dg.AssetSelection.from_string("group:models") == dg.AssetSelection.groups("models")


def test_the_lock_holds_hashes_and_no_addresses():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    entries = re.split(r"\n(?=\S)", lock.strip())
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_library_imports_nothing_of_the_orchestration():
    forbidden = re.compile(
        r"^\s*(?:from|import)\s+(dagster|dvc|mlflow|great_expectations|orchestration)\b", re.M
    )
    offenders = [path for path in (ROOT / "geoloc").rglob("*.py") if forbidden.search(path.read_text())]
    assert offenders == []


ROOMS = [
    "photos",
    "partitions",
    "losses",
    "models",
    "training",
    "retrieval",
    "localizers",
    "evaluation",
    "reports",
]
"""Left to right as in design.md; a room may import itself and those before it. `sample` stands apart."""


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_one_way(room):
    later = ROOMS[ROOMS.index(room) + 1 :]
    if room == "losses":
        later = [name for name in later if name != "models"]
    for path in (ROOT / "geoloc" / room).rglob("*.py"):
        for imported in re.findall(r"(?:from|import) geoloc\.(\w+)", path.read_text()):
            assert imported not in later, f"{path.relative_to(ROOT)} imports geoloc.{imported}"
