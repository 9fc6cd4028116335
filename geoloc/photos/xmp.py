"""Reads place, time and heading from XMP, inside a photo or beside it, without trusting the XML."""

from __future__ import annotations

import re
from pathlib import Path
from xml.parsers import expat

from PIL import Image

from geoloc.files import open_regular
from geoloc.photos.facts import PhotoFacts, degrees, letter, north
from geoloc.photos.quarantine import Reason

MOST_BYTES = 16 * 1024 * 1024
"""XMP of a photo edited by hand has some thousand bytes; of one with masks, some million."""

_DEEPEST = 200
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns# "
_EXIF = "http://ns.adobe.com/exif/1.0/ "
_TIMES = (
    _EXIF + "DateTimeOriginal",
    "http://ns.adobe.com/photoshop/1.0/ DateCreated",
    _EXIF + "DateTimeDigitized",
    "http://ns.adobe.com/xap/1.0/ CreateDate",
)
_ANGLE = re.compile(
    r"([+-]?\d{1,10}(?:\.\d{1,20})?)(?:,(\d{1,10}(?:\.\d{1,20})?))?(?:,(\d{1,10}(?:\.\d{1,20})?))?\s*([NSEWnsew])?"
)
_RATIONAL = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(?:/(\d{1,20}))?")


class XmpError(ValueError):
    """The bytes are no XMP that is safe to read."""


def embedded_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet in an opened image; None for none."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    return packet if isinstance(packet, bytes) else None


def read_xmp(packet: bytes) -> PhotoFacts:
    """Coordinates (exif:GPSLatitude as `48,51.5N`, signed degrees too), direction and time of an XMP packet.

    XMP specification, part 2, "GPSCoordinate". Raises XmpError for what is no XML, and for a document type: nothing in
    XMP needs one, and entities that expand to gigabytes do.
    """
    found = _properties(packet)
    latitude = longitude = problem = None
    if letter(found.get(_EXIF + "GPSStatus")) == "V":
        if _EXIF + "GPSLatitude" in found:
            problem = (Reason.MISSING_COORDINATES, "GPSStatus is V: the coordinates in XMP are void")
    else:
        try:
            latitude = _angle("GPSLatitude", found, "NS")
            longitude = _angle("GPSLongitude", found, "EW")
        except ValueError as error:
            problem = (Reason.MALFORMED_COORDINATES, f"XMP: {error}")
            latitude = longitude = None
    direction = found.get(_EXIF + "GPSImgDirection")
    return PhotoFacts(
        latitude,
        longitude,
        next((found[name] for name in _TIMES if found.get(name)), None),
        None if direction is None else _rational(direction),
        north(found.get(_EXIF + "GPSImgDirectionRef")),
        problem,
    )


def read_xmp_file(path: Path) -> PhotoFacts:
    """As `read_xmp`, of a sidecar. Raises XmpError, or OSError."""
    with open_regular(path) as stream:
        packet = stream.read(MOST_BYTES + 1)
    return read_xmp(packet)


def _properties(packet: bytes) -> dict[str, str]:
    """Simple properties of the photo itself by `namespace name`: those of rdf:RDF / rdf:Description, as attributes or
    as elements. What lies deeper is of something else: a place that is shown, an earlier version."""
    if len(packet) > MOST_BYTES:
        raise XmpError(f"XMP has over {MOST_BYTES} bytes")
    found: dict[str, str] = {}
    open_elements: list[str] = []
    text: list[str] = []
    parser = expat.ParserCreate(namespace_separator=" ")

    def refuse(*_: object) -> None:
        raise XmpError("XMP with a document type is not read")

    def described() -> bool:
        return open_elements[-2:] == [_RDF + "RDF", _RDF + "Description"]

    def start(name: str, attributes: dict[str, str]) -> None:
        open_elements.append(name)
        if len(open_elements) > _DEEPEST:
            raise XmpError(f"XMP is over {_DEEPEST} elements deep")
        text.clear()
        if described():
            for key, value in attributes.items():
                found.setdefault(key, value.strip())

    def end(name: str) -> None:
        open_elements.pop()
        value = "".join(text).strip()
        if value and described():
            found.setdefault(name, value)
        text.clear()

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    try:
        # padding is common around UTF-8; in UTF-16 a zero is half a letter
        parser.Parse(packet if b"\0" in packet[:4] else packet.strip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, LookupError, UnicodeError) as error:  # LookupError: an unknown encoding
        raise XmpError(f"XMP cannot be read: {error}") from None
    return found


def _angle(name: str, found: dict[str, str], hemispheres: str) -> float | None:
    value = found.get(_EXIF + name)
    if value is None:
        return None
    match = _ANGLE.fullmatch(value)
    if match is None:
        raise ValueError(f"{name} is {value[:80]!r}, not as 48,51.5N")
    whole, minutes, seconds, hemisphere = match.groups()
    hemisphere = letter(hemisphere or found.get(_EXIF + name + "Ref"))
    if not hemisphere and minutes is None:
        return float(whole)  # signed degrees, as some write against the specification
    return degrees(name, [float(part or 0) for part in (whole, minutes, seconds)], hemisphere, hemispheres)


def _rational(value: str) -> float:
    """`1234/10` or `123.4` as a float; NaN for anything else, and for a denominator of 0."""
    match = _RATIONAL.fullmatch(value)
    if match is None or (match[2] is not None and int(match[2]) == 0):
        return float("nan")
    return float(match[1]) / int(match[2] or 1)
