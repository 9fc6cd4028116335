"""Reads place, time and heading from a photo's EXIF, and nothing else."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from typing import Any

from PIL import Image

from geoloc.photos.facts import PhotoFacts, degrees, letter, north
from geoloc.photos.quarantine import Reason

_GPS, _EXIF = 0x8825, 0x8769
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_GPS_TIME, _GPS_STATUS, _DIRECTION_REF, _DIRECTION, _GPS_DATE = 7, 9, 16, 17, 29
_ORIGINAL, _DIGITIZED = 0x9003, 0x9004
_OFFSET_ORIGINAL, _OFFSET_DIGITIZED = 0x9011, 0x9012
_FURTHEST_ZONE = timedelta(hours=14)
_UNKNOWN = re.compile(r"[0:\-/ T]*")


def read_exif(image: Image.Image) -> PhotoFacts:
    """EXIF 2.32: GPSLatitude and GPSLongitude with their Ref, GPSImgDirection with its Ref, and the time.

    The time is DateTimeOriginal, else DateTimeDigitized, else the GPS's own in the zone of OffsetTimeOriginal (UTC
    without one), with the Offset of the time that it is. Coordinates are void where GPSStatus is V. Damaged EXIF counts
    as none.
    """
    try:
        exif = image.getexif()
        gps, inner = dict(exif.get_ifd(_GPS)), dict(exif.get_ifd(_EXIF))
    except Exception:  # Pillow raises whatever a damaged directory leads to
        return PhotoFacts()
    latitude = longitude = problem = None
    if letter(gps.get(_GPS_STATUS)) == "V":
        if _LATITUDE in gps or _LONGITUDE in gps:
            problem = (Reason.MISSING_COORDINATES, "GPSStatus is V: the coordinates are void")
    else:
        try:
            latitude = _degrees("GPSLatitude", gps, _LATITUDE, _LATITUDE_REF, "NS")
            longitude = _degrees("GPSLongitude", gps, _LONGITUDE, _LONGITUDE_REF, "EW")
        except ValueError as error:
            problem = (Reason.MALFORMED_COORDINATES, str(error))
            latitude = longitude = None
    taken, offset = _time(inner.get(_ORIGINAL)), _offset(inner, _OFFSET_ORIGINAL)
    if taken is None and (taken := _time(inner.get(_DIGITIZED))) is not None:
        offset = _offset(inner, _OFFSET_DIGITIZED)
    elif taken is None and (taken := _gps_time(gps, inner)) is not None:
        offset = offset or timedelta()
    return PhotoFacts(
        latitude,
        longitude,
        taken,
        _number(gps[_DIRECTION]) if _DIRECTION in gps else None,
        north(gps.get(_DIRECTION_REF)),
        problem,
        None if taken is None or offset is None else offset / timedelta(hours=1),
    )


def _degrees(name: str, gps: dict[int, Any], tag: int, ref_tag: int, hemispheres: str) -> float | None:
    """Signed degrees; ValueError for another form, or for no hemisphere."""
    if tag not in gps:
        return None
    parts = gps[tag]
    if not isinstance(parts, tuple | list) or len(parts) != 3:
        raise ValueError(f"{name} is {str(parts)[:80]}, not degrees, minutes and seconds")
    return degrees(name, [_number(part) for part in parts], letter(gps.get(ref_tag)), hemispheres)


def _time(value: object) -> str | None:
    """The text of a time; None for none, and for the zeros or blanks of a clock that was never set."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    text = "" if value is None else str(value).strip(" \0\t\r\n")
    return None if _UNKNOWN.fullmatch(text) else text


def _gps_time(gps: dict[int, Any], inner: dict[int, Any]) -> str | None:
    """The time of the satellites, which is UTC, on the clock of the photo's zone where that is known; None for none."""
    date, parts = _time(gps.get(_GPS_DATE)), gps.get(_GPS_TIME)
    if date is None or not isinstance(parts, tuple | list) or len(parts) != 3:
        return None
    hours, minutes, seconds = (_number(part) for part in parts)
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds <= 60):  # false for NaN
        return None
    try:
        day = datetime.strptime(date.replace("-", ":"), "%Y:%m:%d")
        clock = day + timedelta(hours=hours, minutes=minutes, seconds=round(seconds))
        clock += _offset(inner, _OFFSET_ORIGINAL) or timedelta()
    except (ValueError, OverflowError):
        return None
    return clock.isoformat(sep=" ", timespec="seconds")


def _offset(inner: dict[int, Any], tag: int) -> timedelta | None:
    """How much a clock is ahead of UTC; None if that is missing or no time zone."""
    match = re.fullmatch(r"([+-])(\d\d):(\d\d)", _time(inner.get(tag)) or "")
    if match is None:
        return None
    size = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if size > _FURTHEST_ZONE:
        return None
    return -size if match[1] == "-" else size


def _number(value: Any) -> float:
    """A rational as a float; NaN for a denominator of 0 or what is no number."""
    try:
        return float(value)
    except (ArithmeticError, TypeError, ValueError):
        return math.nan
