"""JPEG files as a row of segments: metadata stripped without touching a pixel, and a look for missing ends."""

from __future__ import annotations

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
APP0, APP14, COM = 0xE0, 0xEE, 0xFE
_ALONE = {0x01, SOI, *range(0xD0, 0xD8)}  # markers with no length and no content
MOST_SCANS = 100
"""A progressive file has about ten. Thousands fit into a small file, and each costs a pass over the whole picture."""


class JpegStructureError(ValueError):
    """The bytes are not a complete JPEG. `truncated` is whether they end too early."""

    def __init__(self, detail: str, *, truncated: bool = False, scans: bool = False) -> None:
        super().__init__(detail)
        self.truncated = truncated
        self.scans = scans


def strip_metadata(data: bytes) -> bytes:
    """The same picture, bit for bit, without metadata.

    Dropped: every application segment (EXIF, XMP, IPTC, colour profile, thumbnails) but the JFIF header and Adobe's
    colour transform, which say how to decode; comments; and what follows the end of the picture. ITU-T T.81, annex B.
    Raises JpegStructureError for a file that breaks the syntax, ends before its end marker, or has over 100 scans.
    """
    if data[:2] != b"\xff\xd8":
        raise JpegStructureError("does not begin as a JPEG")
    kept = [b"\xff\xd8"]
    at, scans = 2, 0
    while True:
        at, marker = _next_marker(data, at)
        if marker == EOI:
            kept.append(b"\xff\xd9")
            return b"".join(kept)
        if marker in _ALONE:
            kept.append(bytes((0xFF, marker)))
            continue
        end = _segment_end(data, at)
        if not (APP0 <= marker <= 0xEF or marker == COM):
            kept.append(bytes((0xFF, marker)) + data[at:end])
        elif marker == APP0 and data[at + 2 : at + 7] == b"JFIF\0" and end - at >= 16:
            # the header's 14 bytes, with a thumbnail of 0 by 0
            kept.append(b"\xff\xe0\x00\x10" + data[at + 2 : at + 14] + b"\x00\x00")
        elif marker == APP14 and data[at + 2 : at + 7] == b"Adobe":
            kept.append(b"\xff\xee" + data[at:end])
        at = end
        if marker == SOS:
            scans += 1
            if scans > MOST_SCANS:
                raise JpegStructureError(f"has over {MOST_SCANS} scans", scans=True)
            end = _scan_end(data, at)
            kept.append(data[at:end])
            at = end


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
