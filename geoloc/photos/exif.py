"""Reads place, time and heading from a photo's EXIF, and nothing else."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from PIL import Image

_GPS, _EXIF = 0x8825, 0x8769
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _DIRECTION = 1, 2, 3, 4, 17
_TAKEN = 0x9003  # DateTimeOriginal
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError,
           struct.error)  # fmt: skip


@dataclass(frozen=True)
class ExifFacts:
    """latitude, longitude: degrees; None: missing; NaN: present, but not a number. taken: text. heading: degrees.

    malformed: why the coordinates cannot be read, where they are there but in no form that EXIF knows.
    """

    latitude: float | None = None
    longitude: float | None = None
    taken: str | None = None
    heading: float | None = None
    malformed: str | None = None


def read_exif(image: Image.Image) -> ExifFacts:
    """EXIF 2.32 tags GPSLatitude, GPSLongitude (with their Ref), GPSImgDirection and DateTimeOriginal.

    The direction is kept as it is, true or magnetic. Damaged EXIF counts as none.
    """
    try:
        exif = image.getexif()
        gps, inner = dict(exif.get_ifd(_GPS)), dict(exif.get_ifd(_EXIF))
    except _DAMAGE:
        return ExifFacts()
    malformed = None
    latitude = longitude = None
    try:
        latitude = _degrees(gps, _LATITUDE, _LATITUDE_REF, "NS")
        longitude = _degrees(gps, _LONGITUDE, _LONGITUDE_REF, "EW")
    except _DAMAGE as error:
        malformed = str(error)
    taken = inner.get(_TAKEN)
    if isinstance(taken, bytes):
        taken = taken.decode("ascii", "replace")
    return ExifFacts(
        latitude,
        longitude,
        None if taken is None else str(taken).strip(" \0") or None,
        _rational(gps[_DIRECTION]) if _DIRECTION in gps else None,
        malformed,
    )


def _degrees(gps: dict[int, Any], tag: int, ref_tag: int, signs: str) -> float | None:
    """Degrees from degrees, minutes and seconds; ValueError for another form, or for no hemisphere."""
    if tag not in gps:
        return None
    parts = gps[tag]
    name = "GPSLatitude" if tag == _LATITUDE else "GPSLongitude"
    if not isinstance(parts, tuple | list) or len(parts) != 3:
        raise ValueError(f"{name} is {str(parts)[:80]}, not degrees, minutes and seconds")
    ref = gps.get(ref_tag)
    ref = ref.decode("ascii", "replace") if isinstance(ref, bytes) else ref
    ref = str(ref or "").strip(" \0").upper()[:1]
    if not ref or ref not in signs:
        # Half of the Earth would be guessed wrong.
        raise ValueError(f"{name}Ref is {ref!r}, not {signs[0]} or {signs[1]}")
    degrees, minutes, seconds = map(_rational, parts)
    return (degrees + minutes / 60 + seconds / 3600) * (1 if ref == signs[0] else -1)


def _rational(value: Any) -> float:
    """A rational as a float; NaN for a denominator of 0 or what is no number."""
    try:
        return float(value)
    except (ZeroDivisionError, TypeError, ValueError):
        return math.nan
