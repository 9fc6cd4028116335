"""Dirt: deliberate faults and oddities in some rows of the sample planet. The truth is recorded apart.

Ingest must reject some rows and keep others that are wrong in ways no single row shows. As the truth is known, the
recall and precision of data checks can be measured.
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from geoloc.sample.daylight import to_utc
from geoloc.sample.hashing import mixed, uniform
from geoloc.sample.settings import DirtSettings
from geoloc.sphere import destination

NOT_KEPT = (
    "truncated image", "not an image", "no such file", "no coordinates", "zero coordinates",
    "latitude out of range", "repeated id",
)  # fmt: skip
"""Extra rows, which ingest rejects."""

WRONG_PLACE = ("swapped coordinates", "wrong coordinates", "gps noise")
WRONG_TIME = ("missing time", "impossible time")
"""Photos with a wrong row that ingest keeps; it drops an impossible time."""

ODD = ("cmyk", "16-bit", "alpha", "exif rotation", "grey")
"""Photos that are right and kept, in an unusual file format."""

COPIES = ("exact copy", "near copy")
"""Copies by another photographer; the place is right."""

DIRT = (*NOT_KEPT, *WRONG_PLACE, *WRONG_TIME, *ODD, *COPIES)
"""Every kind. The names are fixed: truth.csv has them, and "" for a row without dirt."""

_SETTING_OF = {"16-bit": "sixteen_bit"}
_GPS_M = (200.0, 500.0)
_FAR_KM = (800.0, 12_000.0)
_DAYS_BEFORE = (3, 60)
_TURN_BACK = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""How an upright picture is stored, by EXIF orientation (2.32)."""


def share_of(kind: str, settings: DirtSettings) -> float:
    """Returns the share of a kind in the settings; not for COPIES."""
    share: float = getattr(settings, _SETTING_OF.get(kind, kind.replace(" ", "_")))
    return share


def soiled(shots: pd.DataFrame, settings: DirtSettings, seed: int, version: int) -> pd.DataFrame:
    """Returns the shots with dirt, and the extra rows (NOT_KEPT) at the end, RangeIndex.

    Adds `kind` (one of DIRT or "") and `file` (path of the picture in the sample's folder). Extra rows are shots of
    their own. A kind has fewer rows than its share only if there are too few photos.
    """
    rng = np.random.default_rng([seed, 80, version])
    table = shots.assign(kind=_kinds(shots, settings, rng))
    extra = _rows_on_top(shots, settings, version, rng)
    table = pd.concat([table, extra], ignore_index=True)
    table["file"] = _files(table, len(shots), version)
    return table


def _kinds(shots: pd.DataFrame, settings: DirtSettings, rng: np.random.Generator) -> NDArray[np.object_]:
    kinds = np.full(len(shots), "", object)
    copied = shots["copy_of"].to_numpy() >= 0
    kinds[copied] = shots["copy_kind"].to_numpy(object)[copied] + " copy"
    free = ~copied  # neither copies nor their originals, so that a row has one fault
    free[shots["copy_of"].to_numpy()[copied]] = False
    for kind in (*WRONG_PLACE, *WRONG_TIME, *ODD):
        eligible = free & _can_be_swapped(shots) if kind == "swapped coordinates" else free
        rows = rng.permutation(np.flatnonzero(eligible))[: _rows(kind, len(shots), settings)]
        kinds[rows] = kind
        free[rows] = False
    return kinds


def _rows(kind: str, photos: int, settings: DirtSettings) -> int:
    return round(photos * share_of(kind, settings))


def _can_be_swapped(shots: pd.DataFrame) -> NDArray[np.bool_]:
    """Where latitude and longitude, when exchanged, are in range and another place."""
    latitude, longitude = shots["latitude"].to_numpy(), shots["longitude"].to_numpy()
    return (np.abs(longitude) <= 90) & (np.abs(latitude - longitude) > 1)


def _rows_on_top(
    shots: pd.DataFrame, settings: DirtSettings, version: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Extra shots, each at the place of another shot with the opposite heading. Their faults are added later."""
    kinds = [kind for kind in NOT_KEPT for _ in range(_rows(kind, len(shots), settings))]
    extra = shots.iloc[rng.integers(0, len(shots), len(kinds))].reset_index(drop=True)
    extra["kind"] = np.array(kinds, object)
    own = np.array([f"p{version}-x{n:05d}" for n in range(len(extra))], object)
    extra["photo_id"] = np.where(extra["kind"] == "repeated id", extra["photo_id"].to_numpy(object), own)
    extra["heading"] = ((extra["heading"] + 180.0) % 360.0).round(1)
    for name in ("scene", "shot_key"):
        extra[name] = (mixed(extra[name], 81, np.arange(len(extra))) >> np.uint64(1)).astype(np.int64)
    extra["copy_of"], extra["copy_kind"], extra["overhead"] = np.int64(-1), "", False
    return extra


def _files(table: pd.DataFrame, photos: int, version: int) -> list[str]:
    names = table["photo_id"].to_list()
    names[photos:] = [f"p{version}-x{n:05d}" for n in range(len(table) - photos)]
    suffixes = [suffix(kind, number) for number, kind in enumerate(table["kind"].to_list())]
    return [
        f"photos/{n // 1000:03d}/{name}{end}"
        for n, (name, end) in enumerate(zip(names, suffixes, strict=True))
    ]


def suffix(kind: str, number: int) -> str:
    """Returns the file suffix of a picture of a kind. `number`: of the row, which chooses PNG or TIFF."""
    if kind == "16-bit":
        return (".png", ".tif")[number % 2]
    return ".png" if kind == "alpha" else ".jpg"


def spoil_records(records: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Returns the records with the faults that are in the row itself, as photos.csv has them.

    `records` has the correct latitude, longitude, taken_at, posted_at; `table` has kind, shot_key, taken_at,
    utc_offset_h of the same rows.
    """
    made, kind, key = records.copy(), table["kind"].to_numpy(object), table["shot_key"].to_numpy()
    latitude, longitude = (made[name].to_numpy(np.float64, copy=True) for name in ("latitude", "longitude"))
    swapped = kind == "swapped coordinates"
    latitude[swapped], longitude[swapped] = longitude[swapped], latitude[swapped]
    for name, (low, high) in (
        ("wrong coordinates", _FAR_KM),
        ("gps noise", (_GPS_M[0] / 1000, _GPS_M[1] / 1000)),
    ):
        at = kind == name
        km = low + (high - low) * uniform(key[at], 82)
        moved = destination(latitude[at], longitude[at], 360 * uniform(key[at], 83), km)
        latitude[at], longitude[at] = moved
    latitude[kind == "no coordinates"] = longitude[kind == "no coordinates"] = np.nan
    latitude[kind == "zero coordinates"] = longitude[kind == "zero coordinates"] = 0.0
    latitude[kind == "latitude out of range"] += 181.0
    made["latitude"], made["longitude"] = latitude.round(6), longitude.round(6)
    made["taken_at"] = made["taken_at"].mask(kind == "missing time")
    made["posted_at"] = made["posted_at"].mask(kind == "impossible time", _too_early(table))
    return made


def _too_early(table: pd.DataFrame) -> pd.Series:
    """UTC 3 to 60 days before each photo was taken."""
    low, high = (86_400 * days for days in _DAYS_BEFORE)
    before = np.floor(low + (high - low) * uniform(table["shot_key"], 84)).astype("timedelta64[s]")
    return pd.Series(to_utc(table["taken_at"].to_numpy(), table["utc_offset_h"]) - before, table.index)


def spoil_picture(data: bytes, kind: str, number: int) -> bytes:
    """Returns a picture's file (JPEG) with the fault of its kind; unchanged if the fault is not in the file.

    `number`, of the row, chooses the variant within a kind. Raises ValueError for "no such file".
    """
    if kind == "no such file":
        raise ValueError("a row of kind 'no such file' has no picture")
    if kind == "truncated image":
        return data[: len(data) // 2]
    if kind == "not an image":
        return b"<html><body>404: this photo is no longer here</body></html>\n"
    if kind not in ODD:
        return data
    image = _decoded(data)
    if kind == "cmyk":
        return _encoded(image.convert("CMYK"), "JPEG", quality=90)
    if kind == "grey":
        return _encoded(image.convert("L"), "JPEG", quality=90)
    if kind == "16-bit":
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        return _encoded(Image.fromarray(deep), "PNG" if suffix(kind, number) == ".png" else "TIFF")
    if kind == "alpha":
        return _encoded(_framed_by_nothing(image), "PNG")
    orientation = tuple(_TURN_BACK)[number % len(_TURN_BACK)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded(image.transpose(_TURN_BACK[orientation]), "JPEG", quality=90, exif=exif)


def near_copy(data: bytes, number: int) -> bytes:
    """Returns a near copy of a picture (JPEG): smaller, more compressed or slightly cropped."""
    image = _decoded(data)
    way = number % 3
    if way == 0:
        smaller = tuple(max(16, side * (90 - number % 16) // 100) for side in image.size)
        image = image.resize((smaller[0], smaller[1]), Image.Resampling.LANCZOS)
    if way == 1:
        cut = max(1, min(image.size) // 64)
        image = image.crop((cut, cut, image.width - cut, image.height - cut))
    return _encoded(image, "JPEG", quality=45 if way == 2 else 85)


def _framed_by_nothing(image: Image.Image) -> Image.Image:
    """The image with a transparent frame, a fortieth of its width."""
    alpha = np.zeros((image.height, image.width), np.uint8)
    frame = max(1, image.width // 40)
    alpha[frame:-frame, frame:-frame] = 255
    made = image.convert("RGBA")
    made.putalpha(Image.fromarray(alpha))
    return made


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def _encoded(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()
