"""The facts of an output: what its stage returned for people, kept beside the record. They are no content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from geoloc.files import atomic_folder, read_json, write_text
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.lineage.seal import sealed
from orchestration.tables import markdown

TABLE_ROWS = 50
"""The most rows that are kept of a table: the output has all."""
ENGINE = "engine"
"""The fact that names what ran a network; its last digits depend on it."""
_FILE = "facts.json"


def facts_folder(build: Build, stage: str) -> Path:
    """The folder with the facts of a stage's output, `lineage/facts/<stage>` of its recipe."""
    return build.record_path(stage).parent / "facts" / stage


def keep_facts(build: Build, record: Record, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the facts of an output in place of those of the one before; returns them as `read_facts` does.

    Data frames become Markdown. Files must lie in the stage's output; only their names are kept.
    """
    folder = build.folder(record.stage)
    kept = {"content": record.content, "facts": [_stored(key, value, folder) for key, value in facts.items()]}
    with atomic_folder(facts_folder(build, record.stage)) as new:
        # NaN is allowed: what a stage measured is shown as it is.
        plain = json.loads(json.dumps(kept, default=_plain))
        write_text(new / _FILE, json.dumps(sealed(plain), indent=2, ensure_ascii=False) + "\n")
    return read_facts(build, record)


def read_facts(build: Build, record: Record) -> dict[str, Any]:
    """The kept facts of an output by title: plain values, Markdown, and files as paths in the output.

    Empty if there are none, or if they are of another output.
    """
    try:
        kept = read_json(facts_folder(build, record.stage) / _FILE)
        found = kept["facts"] if kept["content"] == record.content else []
        folder = build.folder(record.stage)
        return {key: folder / value if kind == "file" else value for key, kind, value in found}
    except (OSError, ValueError, TypeError, KeyError):  # never kept, or damaged: only for people
        return {}


def _stored(key: str, value: Any, folder: Path) -> tuple[str, str, Any]:
    if isinstance(value, Path):
        return key, "file", value.relative_to(folder).as_posix()
    if isinstance(value, pd.DataFrame):
        return key, "value", markdown(value.head(TABLE_ROWS).itertuples(index=False), value.columns)
    return key, "value", value


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python; anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
