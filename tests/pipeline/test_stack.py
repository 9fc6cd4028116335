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


LIBRARY = [
    {"sphere", "sun", "settings", "files", "yaml_files", "memory", "processors"},
    {"photos", "land", "places", "countries"},
    {"partitions"},
    {"losses", "models"},
    {"training"},
    {"retrieval"},
    {"localizers"},
    {"evaluation"},
    {"reports"},
]
"""Rooms and files of geoloc, left to right as in design.md: one may import itself, its neighbours in a set, and those
before it. `sample` stands apart."""
HOUSE = [
    {"workspace", "errors", "tables"},
    {"plan"},
    {"stores"},
    {"lineage"},
    {"run"},
    {"assets"},
    {"quality"},
    {"graph", "results", "locate", "operations"},
    {"commands"},
    {"cli", "definitions"},
]
"""The same of orchestration."""


@pytest.mark.parametrize(("package", "order"), [("geoloc", LIBRARY), ("orchestration", HOUSE)])
def test_rooms_import_one_way(package, order):
    place = {name: i for i, names in enumerate(order) for name in names}
    rooms = {
        path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or any(path.glob("*.py"))
    }
    assert rooms - {"sample", "__init__", "__pycache__"} <= set(place), (
        "a new room needs its place in the order"
    )
    offenders = []
    for path in (ROOT / package).rglob("*.py"):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        for imported in re.findall(rf"(?:from|import) {package}\.(\w+)", path.read_text()):
            if room in place and place.get(imported, 99) > place[room]:
                offenders.append(f"{path.relative_to(ROOT)} imports {package}.{imported}")
    assert offenders == []
