"""The gallery: one offline HTML page that shows a collection, its photos, tiles, albums and the world map of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.result import table_records
from geoloc.files import write_text
from geoloc.reports.maps import photo_map
from geoloc.reports.pages import data_uri, image_uri, render

GALLERY_FILE = "gallery.html"
TILES = ("photos", "photographers", "countries", "albums", "street and overhead pairs")
"""Facts that are shown large at the top, if a gallery has them."""


@dataclass(frozen=True)
class GalleryPhoto:
    """A photo with its caption. `thumbnail` is JPEG or PNG bytes, or None."""

    photo_id: str
    thumbnail: bytes | None
    place: str = ""
    when: str = ""
    about: str = ""


@dataclass(frozen=True)
class GalleryGroup:
    """Photos that belong together: of a continent, an album, a burst, near-duplicates of each other."""

    title: str
    about: str
    photos: tuple[GalleryPhoto, ...]


@dataclass(frozen=True)
class GalleryPair:
    """A street photo and the tile of its place from above, north up. heading: degrees clockwise from north, where the
    street camera looked; NaN where unknown."""

    street: GalleryPhoto
    overhead_id: str
    tile: bytes | None
    heading: float = math.nan


@dataclass(frozen=True, eq=False)
class GalleryInput:
    """The content of a gallery. Sections without content are left out; equal input gives equal bytes."""

    data_version: str
    banners: tuple[str, ...] = ()
    """Warnings at the very top (geoloc.reports.banner)."""
    about: tuple[str, ...] = ()
    """What the collection is, in sentences, the first the most important."""
    latitude: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Degrees, of all photos: the dots of the map."""
    longitude: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    facts: Mapping[str, str] = field(default_factory=dict)
    """Counts and the like of the whole collection, by label, in order."""
    continents_table: pd.DataFrame | None = None
    """A row per continent."""
    sources: pd.DataFrame | None = None
    """A row per source: source, photos."""
    continents: tuple[GalleryGroup, ...] = ()
    albums: tuple[GalleryGroup, ...] = ()
    """Photos in order of time."""
    pairs: tuple[GalleryPair, ...] = ()
    duplicates: tuple[GalleryGroup, ...] = ()
    bursts: tuple[GalleryGroup, ...] = ()
    no_cue: tuple[GalleryPhoto, ...] = ()


def write_gallery(folder: Path | str, gallery: GalleryInput) -> Path:
    """Write gallery.html under `folder`, whole or not at all, and return its path. Raises as `gallery_html`."""
    path = Path(folder) / GALLERY_FILE
    write_text(path, gallery_html(gallery))
    return path


def gallery_numbers(gallery: GalleryInput) -> dict[str, Any]:
    """Returns the gallery's content as JSON values: the facts, and the ids of the photos shown."""

    def groups(shown: tuple[GalleryGroup, ...]) -> list[list[str]]:
        return [[photo.photo_id for photo in group.photos] for group in shown]

    return {
        "facts": dict(gallery.facts),
        "continents": {group.title: [p.photo_id for p in group.photos] for group in gallery.continents},
        "albums": groups(gallery.albums),
        "pairs": [[pair.street.photo_id, pair.overhead_id] for pair in gallery.pairs],
        "near_duplicates": groups(gallery.duplicates),
        "bursts": groups(gallery.bursts),
        "no_cue": [photo.photo_id for photo in gallery.no_cue],
    }


def gallery_html(gallery: GalleryInput) -> str:
    """The page as text. It needs no network and runs nothing. Raises ValueError for pictures that are neither JPEG
    nor PNG.
    """
    world = None
    if len(gallery.latitude):
        world = data_uri(photo_map(gallery.latitude, gallery.longitude))
    sections = {
        "map": bool(world), "continents": gallery.continents, "albums": gallery.albums, "pairs": gallery.pairs,
        "alike": gallery.duplicates or gallery.bursts, "no-cue": gallery.no_cue, "counts": gallery.facts,
    }  # fmt: skip
    return render(
        "gallery.html.j2",
        gallery=gallery,
        present=[name for name, content in sections.items() if content],
        world=world,
        tiles=[(label, gallery.facts[label]) for label in TILES if label in gallery.facts],
        continents=_groups(gallery.continents),
        albums=_groups(gallery.albums),
        duplicates=_groups(gallery.duplicates),
        bursts=_groups(gallery.bursts),
        no_cue=[_shot(photo) for photo in gallery.no_cue],
        pairs=[
            {
                "street": _shot(pair.street),
                "overhead_id": pair.overhead_id,
                "tile": None if pair.tile is None else image_uri(pair.tile),
                "heading": None if math.isnan(pair.heading) else f"{pair.heading:.1f}",
                "compass": "" if math.isnan(pair.heading) else compass(pair.heading),
            }
            for pair in gallery.pairs
        ],
        continents_table=_rows(gallery.continents_table),
        sources=_rows(gallery.sources),
    )


def compass(heading: float) -> str:
    """The nearest of the eight winds to a heading in degrees: north, north-east, ..."""
    winds = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")
    return winds[round(heading / 45.0) % 8]


def _groups(groups: tuple[GalleryGroup, ...]) -> list[dict[str, Any]]:
    return [{"title": g.title, "about": g.about, "photos": [_shot(p) for p in g.photos]} for g in groups]


def _shot(photo: GalleryPhoto) -> dict[str, Any]:
    return {
        "photo_id": photo.photo_id,
        "picture": None if photo.thumbnail is None else image_uri(photo.thumbnail),
        "place": photo.place,
        "when": photo.when,
        "about": photo.about,
    }


def _rows(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else table_records(table)
