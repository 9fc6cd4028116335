"""JPEG files as a row of segments: metadata stripped without touching a pixel, and a look for missing ends."""

from __future__ import annotations

from dataclasses import dataclass

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, APP14 = 0xE0, 0xEE
_QUANTISATION, _RESTARTS, _RESERVED = 0xDB, 0xDD, 0xC8
_DECODING = {SOS, _QUANTISATION, _RESTARTS, *range(0xC0, 0xD0)} - {_RESERVED}  # SOF, DHT and DAC begin with C
"""Segments without which pixels cannot be decoded: frame and scan headers and their tables."""

_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_ALONE = {0x01, SOI, *range(0xD0, 0xD8)}  # markers with no length and no content
MOST_SCANS = 100
"""A progressive file has about ten. Thousands fit into a small file, and each costs a pass over the whole picture."""


class JpegStructureError(ValueError):
    """The bytes are not a complete JPEG. `truncated` is whether they end too early."""

    def __init__(self, detail: str, *, truncated: bool = False, scans: bool = False) -> None:
        super().__init__(detail)
        self.truncated = truncated
        self.scans = scans


@dataclass(frozen=True)
class Stripped:
    """A JPEG without metadata. scan_ends: where in `data` the coded pixels of each scan end."""

    data: bytes
    scan_ends: tuple[int, ...]

    def without_tail(self, end: int, count: int) -> bytes:
        """The bytes without the last `count` of the scan that ends at `end`."""
        return self.data[: end - count] + self.data[end:]


def strip_metadata(data: bytes) -> Stripped:
    """The same picture, bit for bit, without metadata.

    Kept: what decoding needs, of application segments the JFIF header and Adobe's colour transform. Dropped: all
    others (EXIF, XMP, IPTC, colour profile, thumbnails), comments, segments that decoders skip, and what follows the
    end of the picture. ITU-T T.81, annex B. Raises JpegStructureError for a file that breaks the syntax, ends before
    its end marker, or has over 100 scans.
    """
    if data[:2] != b"\xff\xd8":
        raise JpegStructureError("does not begin as a JPEG")
    kept = [b"\xff\xd8"]
    at = 2
    scan_ends: list[int] = []
    while True:
        at, marker = _next_marker(data, at)
        if marker == EOI:
            kept.append(b"\xff\xd9")
            return _placed(kept, scan_ends)
        if marker in _ALONE:
            kept.append(bytes((0xFF, marker)))
            continue
        end = _segment_end(data, at)
        if marker in _DECODING:
            kept.append(bytes((0xFF, marker)) + data[at:end])
        elif marker == APP0 and data[at + 2 : at + 7] == b"JFIF\0" and end - at >= 2 + _JFIF_BYTES:
            # the header's 14 bytes, with a thumbnail of 0 by 0
            kept.append(b"\xff\xe0\x00\x10" + data[at + 2 : at + _JFIF_BYTES] + b"\x00\x00")
        elif marker == APP14 and data[at + 2 : at + 7] == b"Adobe" and end - at >= 2 + _ADOBE_BYTES:
            kept.append(b"\xff\xee\x00\x0e" + data[at + 2 : at + 2 + _ADOBE_BYTES])
        at = end
        if marker == SOS:
            if len(scan_ends) == MOST_SCANS:
                raise JpegStructureError(f"has over {MOST_SCANS} scans", scans=True)
            end = _scan_end(data, at)
            kept.append(data[at:end])
            scan_ends.append(len(kept))
            at = end


def _placed(kept: list[bytes], scan_ends: list[int]) -> Stripped:
    """`scan_ends` in bytes, from numbers of parts."""
    ends, at = [], 0
    for number, part in enumerate(kept, 1):
        at += len(part)
        if number in scan_ends:
            ends.append(at)
    return Stripped(b"".join(kept), tuple(ends))


def _next_marker(data: bytes, at: int) -> tuple[int, int]:
    """Where the content after the next marker begins, and the marker; fill bytes are skipped."""
    if at >= len(data):
        raise JpegStructureError("ends before its end marker", truncated=True)
    if data[at] != 0xFF:
        raise JpegStructureError(f"has no marker at byte {at}")
    while at < len(data) and data[at] == 0xFF:
        at += 1
    if at >= len(data):
        raise JpegStructureError("ends before its end marker", truncated=True)
    if data[at] == 0:
        raise JpegStructureError(f"has no marker at byte {at}")
    return at + 1, data[at]


def _segment_end(data: bytes, at: int) -> int:
    if at + 2 > len(data):
        raise JpegStructureError("ends within a segment", truncated=True)
    length = int.from_bytes(data[at : at + 2])
    if length < 2:
        raise JpegStructureError(f"has a segment of length {length} at byte {at}")
    if at + length > len(data):
        raise JpegStructureError("ends within a segment", truncated=True)
    return at + length


def _scan_end(data: bytes, at: int) -> int:
    """Where the coded pixels from `at` on end: at the next marker but a stuffed zero or a restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise JpegStructureError("ends within the picture", truncated=True)
        follower = data[at + 1]
        if follower == 0 or 0xD0 <= follower <= 0xD7:
            at += 2
        elif follower == 0xFF:  # a fill byte
            at += 1
        else:
            return at
