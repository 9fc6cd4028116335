"""Writes the sample: a folder of JPEGs and a table photos.csv, as a photographer's export might look."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from geoloc.files import atomic_folder
from geoloc.sample.looks import looks
from geoloc.sample.scene import Shot, draw
from geoloc.sample.world import SampleSettings, make_photos
from geoloc.settings import parse

COLUMNS = (
    "photo_id",
    "file",
    "latitude",
    "longitude",
    "photographer",
    "taken_at",
    "posted_at",
    "album",
    "heading",
    "prob_indoor",
)
FAULTS = (
    "truncated image",
    "not an image",
    "no such file",
    "no coordinates",
    "coordinates (0, 0)",
    "latitude out of range",
    "repeated id",
)


@dataclass(frozen=True)
class SampleSummary:
    """What was written: good photos, rows with a fault on purpose, bytes of JPEG."""

    photos: int
    faulty: int
    photographers: int
    cities: int
    jpeg_bytes: int


def make_sample(
    folder: Path | str,
    photos: int = 3500,
    seed: int = 0,
    settings: SampleSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampleSummary:
    """Write `photos` good photos and a few faulty ones into `folder`, which it replaces whole.

    photos.csv has the columns photo_id, file (relative to the folder), latitude, longitude (degrees),
    photographer, taken_at (local), posted_at (UTC), album, heading (degrees), prob_indoor; unknown is empty.
    The same arguments write the same bytes. `progress` is called with (done, total). Raises ValueError for
    fewer than 2 photos.
    """
    if photos < 2:
        raise ValueError(f"photos must be at least 2, got {photos}")
    settings = parse(SampleSettings, {}) if settings is None else settings
    table = make_photos(photos, seed, settings)
    faulty = _faulty_rows(table, settings, seed)
    look = looks(table["latitude"], table["longitude"], table["city"])
    jpeg_bytes = 0
    with atomic_folder(folder) as temporary:
        for parent in sorted({Path(file).parent for file in [*table["file"], *faulty["file"]]}):
            (temporary / parent).mkdir(parents=True, exist_ok=True)
        shots = _shots(table, seed)
        for number, (file, copy_of) in enumerate(zip(table["file"], table["copy_of"], strict=True)):
            if copy_of < 0:
                data = _jpeg(draw(look, number, shots[number], settings.size), settings.quality)
                (temporary / file).write_bytes(data)
                jpeg_bytes += len(data)
            if progress is not None:
                progress(number + 1, photos)
        for copy, original in table.loc[table["copy_of"] >= 0, ["file", "copy_of"]].itertuples(index=False):
            data = (temporary / table["file"].iloc[original]).read_bytes()
            (temporary / copy).write_bytes(data)
            jpeg_bytes += len(data)
        _write_faulty_files(temporary, table, faulty)
        _write_table(temporary / "photos.csv", pd.concat([table, faulty], ignore_index=True))
    return SampleSummary(
        photos=photos,
        faulty=len(faulty),
        photographers=int(table["photographer"].nunique()),
        cities=int(table["city"].nunique()),
        jpeg_bytes=jpeg_bytes,
    )


def _shots(table: pd.DataFrame, seed: int) -> list[Shot]:
    """The shot of each row: photos of a burst share the scene and differ in grain and a shake of the hand."""
    shake = np.random.default_rng([seed, 3]).integers(-1, 2, (len(table), 2)).tolist()
    columns = (table[name].tolist() for name in ("scene", "hour", "urban", "indoor"))
    return [
        Shot((seed, 4, scene), (seed, 5, number), hour, urban, indoor, (shake[number][0], shake[number][1]))
        for number, (scene, hour, urban, indoor) in enumerate(zip(*columns, strict=True))
    ]


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, optimize=True)
    return stream.getvalue()


def _faulty_rows(table: pd.DataFrame, settings: SampleSettings, seed: int) -> pd.DataFrame:
    """Rows for the quarantine: copies of good rows with ids and files of their own, each with one fault."""
    rng = np.random.default_rng([seed, 6])
    kinds = [kind for kind in FAULTS for _ in range(settings.faulty_each)]
    rows = table.iloc[rng.integers(0, len(table), len(kinds))].reset_index(drop=True)
    rows["fault"] = kinds
    rows["original"] = rows["file"]
    rows["album"] = None
    repeated = rows["fault"] == "repeated id"
    rows["photo_id"] = rows["photo_id"].where(repeated, [f"x{n:06d}" for n in range(len(rows))])
    rows["file"] = [f"faulty/x{n:06d}.jpg" for n in range(len(rows))]
    rows.loc[rows["fault"] == "no coordinates", ["latitude", "longitude"]] = np.nan
    rows.loc[rows["fault"] == "coordinates (0, 0)", ["latitude", "longitude"]] = 0.0
    rows.loc[rows["fault"] == "latitude out of range", "latitude"] += 180.0
    return rows


def _write_faulty_files(folder: Path, table: pd.DataFrame, faulty: pd.DataFrame) -> None:
    """The files of the faulty rows. A repeated id comes with another picture, so that it is a true conflict."""
    for number, row in enumerate(faulty.itertuples(index=False)):
        data = (folder / row.original).read_bytes()
        if row.fault == "no such file":
            continue
        if row.fault == "truncated image":
            data = data[: len(data) // 2]
        elif row.fault == "not an image":
            data = b"<html><body>404: this photo is no longer here</body></html>\n"
        else:  # a picture of its own: the file of a good photo would be taken for a copy of that
            picture = np.asarray(Image.open(io.BytesIO(data)))[:, ::-1].copy()
            picture[: 8 + number % 8] = 255 - picture[: 8 + number % 8]
            data = _jpeg(picture, 80)
        (folder / row.file).write_bytes(data)


def _write_table(path: Path, rows: pd.DataFrame) -> None:
    text = rows.assign(
        latitude=_decimals(rows["latitude"], 6),
        longitude=_decimals(rows["longitude"], 6),
        heading=_decimals(rows["heading"], 1),
        prob_indoor=_decimals(rows["prob_indoor"], 4),
        taken_at=rows["taken_at"].dt.strftime("%Y-%m-%d %H:%M:%S"),
        posted_at=rows["posted_at"].dt.strftime("%Y-%m-%d %H:%M:%S"),
    )[list(COLUMNS)]
    text.to_csv(path, index=False, lineterminator="\n", na_rep="")


def _decimals(values: pd.Series, digits: int) -> pd.Series:
    """Numbers as text with fixed decimals, so that no writer's idea of shortest text gets into the bytes."""
    return values.map(lambda v: None if pd.isna(v) else f"{v:.{digits}f}")
