"""What a photo says of itself, whoever wrote it (EXIF, XMP, a sidecar): place, time and heading, and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from geoloc.photos.quarantine import Reason

TRUE_NORTH, MAGNETIC_NORTH = "true", "magnetic"
_NORTHS = {"T": TRUE_NORTH, "M": MAGNETIC_NORTH}


@dataclass(frozen=True)
class PhotoFacts:
    """latitude, longitude: degrees; None: missing; NaN: present, but not a number. taken: text, as `times` reads it.
    heading: degrees clockwise from heading_reference (TRUE_NORTH, MAGNETIC_NORTH; None: unknown).

    problem: why there are no coordinates although something is there; one reason of quarantine and its detail.
    utc_offset_hours: how much the clock of `taken` is ahead of UTC, where the camera recorded it.
    """

    latitude: float | None = None
    longitude: float | None = None
    taken: str | None = None
    heading: float | None = None
    heading_reference: str | None = None
    problem: tuple[Reason, str] | None = None
    utc_offset_hours: float | None = None

    @property
    def placed(self) -> bool:
        """Whether the coordinates are a place: on the Earth, and not (0, 0), which writers use for none."""
        if self.problem is not None or self.latitude is None or self.longitude is None:
            return False
        on_earth = abs(self.latitude) <= 90 and abs(self.longitude) <= 180  # false for NaN
        return on_earth and (self.latitude, self.longitude) != (0, 0)


def degrees(name: str, parts: Sequence[float], hemisphere: str, hemispheres: str) -> float:
    """Signed degrees from degrees, minutes and seconds and a hemisphere (N or S, E or W).

    NaN if a part is NaN. Raises ValueError for no hemisphere, as half of the Earth would be guessed wrong, and for
    parts that contradict each other: a sign, minutes or seconds beyond 60, a fraction above a smaller part. Degrees
    beyond the pole are returned; screening rejects them.
    """
    if hemisphere not in tuple(hemispheres):
        told = repr(hemisphere) if hemisphere else "missing"
        raise ValueError(f"{name}Ref is {told}, not {hemispheres[0]} or {hemispheres[1]}")
    if any(math.isnan(part) for part in parts):
        return math.nan
    whole, minutes, seconds = parts
    told = f"{name} is {whole:.10g}, {minutes:.10g}, {seconds:.10g}"
    # Rounded seconds are 60 in files of well-known writers.
    if whole < 0 or not 0 <= minutes < 60 or not 0 <= seconds <= 60:
        raise ValueError(f"{told}: not degrees, minutes and seconds of one angle without sign")
    if (whole % 1 and (minutes or seconds)) or (minutes % 1 and seconds):
        raise ValueError(f"{told}: a fraction above a smaller part")
    return (whole + minutes / 60 + seconds / 3600) * (1 if hemisphere == hemispheres[0] else -1)


def letter(value: object) -> str:
    """A one-letter code of EXIF (N, T, V) as written by many: bytes or text, either case, padded; '' for none.

    A whole word (North) counts as its letter, other text as itself, so that it is refused with its own name.
    """
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    text = str("" if value is None else value).strip(" \0\t\r\n").upper()[:20]
    return text[0] if text in ("NORTH", "SOUTH", "EAST", "WEST") else text


def north(value: object) -> str | None:
    """What a heading is measured from: T or M of EXIF as TRUE_NORTH, MAGNETIC_NORTH; None for anything else."""
    return _NORTHS.get(letter(value))
