"""Answers of `geoloc locate` that were kept in a file: which outputs gave them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoloc.files import damage_named, read_json, sha256_bytes
from orchestration.lineage.record import Record
from orchestration.workspace import WorkspaceError

MADE_BY = "made_by"
"""The key of each answer in JSON, and of the table's metadata, that says what gave it."""
_SHOWN = ("photo", "file", "photo_id", "method", "latitude", "longitude", "place", "confidence", "error")


@dataclass(frozen=True)
class Answers:
    """What gave the answers of a file (`recipe`, `outputs`: content by stage, `question`), the number of answers and
    how many have a place, and the one that was asked for, if one was."""

    made_by: Mapping[str, Any]
    photos: int
    located: int
    sha256: str
    one: Mapping[str, Any] | None = None


def made_by(
    recipe: str, records: Mapping[str, Record], question: Mapping[str, Any], model: str = ""
) -> dict[str, Any]:
    """What an answer names as what gave it, as JSON values: outputs of a build, or a registered `model` such as
    models:/geoloc/3."""
    outputs = {stage: record.content for stage, record in records.items()}
    named = {"model": model} if model else {}
    return {"recipe": recipe, "outputs": outputs, "question": dict(question), **named}


def is_answers(file: Path) -> bool:
    """Whether a file holds answers of `geoloc locate`."""
    try:
        return _rows_and_maker(file) is not None
    except ValueError:
        return False


def read_answers(file: Path, photo: str = "") -> Answers:
    """The answers in a file: JSON of `--json` or Parquet of `--table`. `photo` names one: its file, id or row.

    Raises WorkspaceError for a file without them, answers that name no build, and an unknown photo.
    """
    found = _rows_and_maker(file)
    if found is None:
        raise WorkspaceError(f"{file} holds no answers of `geoloc locate --json` or --table")
    rows, maker = found
    if not isinstance(maker, dict) or not {"recipe", "outputs"} <= set(maker):
        raise WorkspaceError(
            f"{file} does not say what gave its answers: --overhead or an older geoloc wrote it"
        )
    located = sum(row.get("latitude") is not None for row in rows)
    one = None
    if photo or len(rows) == 1:
        one = {name: v for name, v in _row(file, rows, photo).items() if name in _SHOWN and v is not None}
    return Answers(maker, len(rows), located, sha256_bytes(file.read_bytes()), one)


def _row(file: Path, rows: list[dict[str, Any]], photo: str) -> dict[str, Any]:
    if not photo:
        return rows[0]
    names = ("photo", "file", "photo_id")
    found = [row for row in rows if photo in [row.get(name) for name in names]]
    found = found or [row for row in rows if photo in [Path(str(row.get(name))).name for name in names]]
    if not found and photo.isdecimal() and int(photo) < len(rows):
        found = [rows[int(photo)]]
    if len(found) != 1:
        known = ", ".join(str(row.get("photo") or row.get("file")) for row in rows[:5])
        raise WorkspaceError(
            f"{file}#{photo} must name one of its photos, by file, id or row from 0: {known}"
            f"{', ...' if len(rows) > 5 else ''}; {len(found)} are called so"
        )
    return found[0]


def _rows_and_maker(file: Path) -> tuple[list[dict[str, Any]], Any] | None:
    """The answers as mappings, and what gave them; None for a file of another kind. Raises DamagedFile."""
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq  # half a second: only for a table

        with damage_named(file):
            table = pq.ParquetFile(file)
            maker = (table.schema_arrow.metadata or {}).get(MADE_BY.encode())
            if maker is None:
                return None
            names = [name for name in _SHOWN if name in table.schema_arrow.names]
            return table.read(columns=names).to_pylist(), json.loads(maker)
    if file.suffix.lower() != ".json":
        return None
    values = read_json(file)
    rows = values if isinstance(values, list) else [values]
    if not rows or not all(isinstance(row, dict) and {"photo", "method"} <= set(row) for row in rows):
        return None
    return rows, rows[0].get(MADE_BY)
