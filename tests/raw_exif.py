"""EXIF written byte by byte, so that tests can make every type, sign and damage that cameras and editors leave."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from tests.photo_fixtures import jpeg

Entry = tuple[int, object]
ASCII, LONG, RATIONAL, SIGNED = 2, 4, 5, 10
_SIZES = {1: 1, ASCII: 1, 3: 2, LONG: 4, RATIONAL: 8, 7: 1, SIGNED: 8}


def _payload(kind: int, value: object) -> bytes:
    if kind == ASCII:
        return value if isinstance(value, bytes) else str(value).encode() + b"\0"
    if kind in (1, 7):
        return bytes(value)  # type: ignore[call-overload]
    if kind == 3:
        return b"".join(struct.pack("<H", number) for number in value)  # type: ignore[attr-defined]
    if kind == LONG:
        return b"".join(struct.pack("<I", number) for number in value)  # type: ignore[attr-defined]
    form = "<ii" if kind == SIGNED else "<II"
    mask = 0xFFFFFFFF if kind == RATIONAL else -1
    return b"".join(struct.pack(form, n & mask, d & mask) for n, d in value)  # type: ignore[attr-defined]


def _ifd(entries: Mapping[int, Entry], at: int) -> bytes:
    rows, extra = b"", b""
    data_at = at + 2 + 12 * len(entries) + 4
    for tag, (kind, value) in sorted(entries.items()):
        raw = _payload(kind, value)
        count = len(raw) // _SIZES[kind]
        if len(raw) <= 4:
            field = raw.ljust(4, b"\0")
        else:
            field = struct.pack("<I", data_at + len(extra))
            extra += raw + b"\0" * (len(raw) % 2)
        rows += struct.pack("<HHI", tag, kind, count) + field
    return struct.pack("<H", len(entries)) + rows + b"\0\0\0\0" + extra


def tiff(
    gps: Mapping[int, Entry] | None = None,
    exif: Mapping[int, Entry] | None = None,
    ifd0: Mapping[int, Entry] | None = None,
) -> bytes:
    """A TIFF header with directories and no picture."""
    base = dict(ifd0 or {})
    parts = {tag: entries for tag, entries in ((0x8769, exif), (0x8825, gps)) if entries is not None}
    base |= {tag: (LONG, [0]) for tag in parts}
    at, body = 8 + len(_ifd(base, 8)), b""
    for tag, entries in parts.items():
        base[tag] = (LONG, [at])
        part = _ifd(entries, at)
        body, at = body + part, at + len(part)
    return b"II*\0" + struct.pack("<I", 8) + _ifd(base, 8) + body


def dms(
    latitude_ref: object, latitude: object, longitude_ref: object, longitude: object, kind: int = RATIONAL
) -> dict[int, Entry]:
    """The GPS directory of two angles; a reference of None is left out."""
    made: dict[int, Entry] = {2: (kind, latitude), 4: (kind, longitude)}
    for tag, ref in ((1, latitude_ref), (3, longitude_ref)):
        if ref is not None:
            made[tag] = (ASCII, ref)
    return made


def angle(degrees: float, minutes: float = 0, seconds: float = 0) -> list[tuple[int, int]]:
    """Three rationals."""
    return [(round(value * 100), 100) for value in (degrees, minutes, seconds)]


def taken(text: str) -> dict[int, Entry]:
    """The EXIF directory of a time."""
    return {0x9003: (ASCII, text)}


def photo(seed: int, *, xmp: bytes | None = None, **directories: Mapping[int, Entry]) -> bytes:
    """A JPEG with these directories and an XMP packet."""
    data = jpeg(seed, exif=b"Exif\0\0" + tiff(**directories)) if directories else jpeg(seed)
    return data if xmp is None else with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)


def with_segment(data: bytes, marker: int, content: bytes, at: int = 2) -> bytes:
    """A JPEG with one more segment."""
    return data[:at] + bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content + data[at:]


def xmp(attributes: str = "", inside: str = "") -> bytes:
    """An XMP packet with properties of the photo, as attributes or as elements."""
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
        f" {attributes}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()
