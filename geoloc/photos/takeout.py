"""Reads place and time from the JSON files that Google Takeout puts beside photos."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geoloc.files import open_regular
from geoloc.photos.facts import PhotoFacts

MOST_BYTES = 1024 * 1024
_LONGEST = 46
"""Takeout cuts a sidecar's name, less `.json`, to so many characters."""

_MIDDLE = ".supplemental-metadata"
_NUMBERED = re.compile(r"(.+)(\(\d{1,5}\))(\.[^.]+)")
_EDITED = re.compile(r"(.+)-edited(\.[^.]+)")
_OURS = ("photoTakenTime", "geoData", "geoDataExif")


class TakeoutError(ValueError):
    """A sidecar cannot be read."""


def takeout_name(photo: str, names: Collection[str]) -> str | None:
    """The sidecar of `photo` among the `names` of its folder; None for none.

    `IMG.jpg.json`, `IMG.jpg.supplemental-metadata.json` and all that Takeout cuts from the latter; the number of
    `IMG(1).jpg` stands behind the rest (`IMG.jpg(1).json`). `IMG-edited.jpg` has the sidecar of `IMG.jpg`.
    """
    edited = _EDITED.fullmatch(photo)
    originals = [photo] if edited is None else [photo, edited[1] + edited[2]]
    for original in originals:
        for name in _names(original):
            if name in names:
                return name
    return None


def _names(photo: str) -> Iterator[str]:
    numbered = _NUMBERED.fullmatch(photo)
    number = ""
    if numbered is not None:
        yield f"{photo}.json"
        photo, number = numbered[1] + numbered[3], numbered[2]
    for cut in range(len(_MIDDLE), -1, -1):
        yield f"{photo}{_MIDDLE[:cut]}{number}.json"
    if len(photo) > _LONGEST - len(number):
        yield f"{photo[:_LONGEST]}{number}.json"
        yield f"{photo[: _LONGEST - len(number)]}{number}.json"


def read_takeout(path: Path) -> PhotoFacts | None:
    """geoData (else geoDataExif) and photoTakenTime of a sidecar, the latter in UTC; None for JSON of other makers.

    Coordinates of (0, 0) are Takeout's for none. Raises TakeoutError for what is no JSON, or OSError.
    """
    with open_regular(path) as stream:
        data = stream.read(MOST_BYTES + 1)
    return parse_takeout(data)


def parse_takeout(data: bytes) -> PhotoFacts | None:
    """As `read_takeout`, of the bytes."""
    if len(data) > MOST_BYTES:
        raise TakeoutError(f"it has over {MOST_BYTES} bytes")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TakeoutError(f"it is no JSON: {error}") from None
    if not isinstance(record, dict) or not any(name in record for name in _OURS):
        return None
    taken = _taken(record.get("photoTakenTime"))
    facts = [_placed(record.get(name), taken) for name in ("geoData", "geoDataExif")]
    return next((found for found in facts if found.placed), PhotoFacts(taken=taken))


def _placed(value: Any, taken: str | None) -> PhotoFacts:
    place = value if isinstance(value, dict) else {}
    return PhotoFacts(_number(place.get("latitude")), _number(place.get("longitude")), taken)


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _taken(value: Any) -> str | None:
    """Unix seconds, written as text; None for none, and for 0, which is a clock that was never set."""
    seconds = str(value.get("timestamp")) if isinstance(value, dict) else ""
    if not re.fullmatch(r"-?\d{1,12}", seconds) or int(seconds) == 0:
        return None
    try:
        return datetime.fromtimestamp(int(seconds), UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None
