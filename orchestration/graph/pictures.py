"""Pictures for the Dagster UI, drawn from a stage's output. They are not content and change no output."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from geoloc.files import atomic_path
from orchestration.lineage.build import Build
from orchestration.lineage.record import Record
from orchestration.run.facts import facts_folder, read_facts

KINDS = {".png": "png", ".jpg": "jpeg"}
"""Suffixes of the files that are shown as pictures, with their MIME subtypes."""
MAPS_OF_REPORT = ("errors of the first method",)
"""The facts of a report that are maps."""
_SMALL = (380, 180)
"""Pixels: fits the description of an asset without "Show more"."""


def pictures(build: Build, record: Record) -> dict[str, Path]:
    """PNG pictures by title for the page of an asset; empty for most stages. Those that are missing are drawn."""
    drawn = _map_files(build, record)
    missing = {name: file for name, file in drawn.items() if not file.is_file()}
    if missing:
        from geoloc.reports.maps import partition_map
        from orchestration.assets.inputs import load_partitions

        partitions = load_partitions(build.folder(record.stage))
        for name, file in missing.items():
            with atomic_path(file) as temporary:
                temporary.write_bytes(partition_map(partitions[name]))
    return {f"{name}/map": file for name, file in drawn.items()}


def maps(build: Build, stage: str) -> dict[str, Path]:
    """The maps of an output that have been drawn, by title. Draws nothing."""
    record = build.record(stage)
    if record is None:
        return {}
    found = {f"{name}: the cells": file for name, file in _map_files(build, record).items()}
    if stage == "report":
        facts = read_facts(build, record)
        found |= {title: facts[title] for title in MAPS_OF_REPORT if isinstance(facts.get(title), Path)}
    return {title: file for title, file in found.items() if file.is_file()}


def as_markdown(image: Path | bytes, title: str = "picture") -> str:
    """A PNG or JPEG picture inside Markdown, so that the UI needs no file server to show it."""
    data = image if isinstance(image, bytes) else image.read_bytes()
    kind = KINDS[image.suffix] if isinstance(image, Path) else "png"
    return f"![{title}](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def small(image: Path) -> bytes:
    """A picture as PNG of few colours that fits an asset's description."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(image) as opened:
        shown = opened.convert("RGB")
        shown.thumbnail(_SMALL)
        shown.quantize(256, method=Image.Quantize.FASTOCTREE).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _map_files(build: Build, record: Record) -> dict[str, Path]:
    """The files of the maps of partitions, by name: beside the facts, and named by what they show."""
    if record.stage != "partition":
        return {}
    folder = facts_folder(build, record.stage)
    return {name: folder / f"{name}-{part.content[:16]}.png" for name, part in record.parts.items()}
