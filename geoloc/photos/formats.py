"""Which files are photos by their names, which formats are read, and what the bytes of the others are."""

from __future__ import annotations

from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pillow_heif import HeifImageFile, register_heif_opener

# Only the picture: no thumbnails and depth maps, and no threads of its own beside those of ingest.
register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)

# Plugins register their formats when they are imported, and Image.open fails on a format that is not registered.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,
    MpoImagePlugin.MpoImageFile,
    PngImagePlugin.PngImageFile,
    WebPImagePlugin.WebPImageFile,
    TiffImagePlugin.TiffImageFile,
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    AvifImagePlugin.AvifImageFile,
    HeifImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS if plugin.format in Image.OPEN)
"""What is read. Fewer than Pillow knows: each decoder is a door, and photos come through these."""

# fmt: off
READ_SUFFIXES = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
    ".avif", ".heic", ".heif", ".hif",
])
# fmt: on
# fmt: off
UNREAD_SUFFIXES = frozenset([
    ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".psd", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw",
    ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".3fr", ".erf", ".mrw",
    ".rwl", ".iiq",
])
# fmt: on
"""Photos in formats that are not read: they belong in quarantine with that reason, not ignored."""

PHOTO_SUFFIXES = READ_SUFFIXES | UNREAD_SUFFIXES

_JPEG, _TIFF = b"\xff\xd8\xff", (b"II*\0", b"MM\0*")
_SIGNATURES = (
    (0, _JPEG, "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftypavi", "AVIF"),
    (0, _TIFF[0], "TIFF"),
    (0, _TIFF[1], "TIFF"),
)
_UNREAD = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"8BPS", "Photoshop"),
    (4, b"ftypcrx", "a raw format (CR3)"),
    (0, b"II\x1a\0\0\0HEAPCCDR", "a raw format (CRW)"),
    (8, b"CR\x02", "a raw format (CR2)"),
    (0, b"FUJIFILMCCD-RAW", "a raw format (RAF)"),
    (0, b"IIU\0", "a raw format (RW2)"),
    (0, b"IIRO", "a raw format (ORF)"),
    (0, b"IIRS", "a raw format (ORF)"),
    (0, b"MMOR", "a raw format (ORF)"),
    (0, b"FOVb", "a raw format (X3F)"),
    (0, b"\0MRM", "a raw format (MRW)"),
    (4, b"ftypisom", "a video"),
    (4, b"ftypmp4", "a video"),
    (4, b"ftypqt", "a video"),
)
SIGNATURE_BYTES = 32
"""How much of a file `known_format` and `unread_format` look at."""

_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_IFDS, _DNG_VERSION = 254, 262, 330, 50706
_SENSOR = (32803, 34892)  # PhotometricInterpretation of colour filter arrays and linear raw


def known_format(head: bytes) -> str | None:
    """The format that the first bytes of a file announce, read or not; None for none that a photo has."""
    return unread_format(head) or _match(head, _SIGNATURES)


def unread_format(head: bytes) -> str | None:
    """The format, by the first bytes of a file, where it is one that is not read."""
    return _match(head, _UNREAD)


def raw_format(image: Image.Image) -> str | None:
    """What kind of raw file an image of format TIFF is: its first picture is a thumbnail or no picture; None for a
    TIFF that is a photo."""
    return _raw_kind(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def raw_format_of_file(stream: BinaryIO) -> str | None:
    """As `raw_format`, of a file that Pillow does not open."""
    stream.seek(0)
    head = stream.read(8)
    if not head.startswith(_TIFF):
        return None
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(head)
        stream.seek(tags.next)
        tags.load(stream)
        return _raw_kind(tags)
    except Exception:  # damaged, and so of no kind
        return None


def _raw_kind(tags: TiffImagePlugin.ImageFileDirectory_v2) -> str | None:
    if _DNG_VERSION in tags:
        return "a raw format (DNG)"
    if tags.get(_PHOTOMETRIC) in _SENSOR:
        return "a raw format (pixels of a sensor)"
    thumbnail = tags.get(_NEW_SUBFILE_TYPE, 0)
    if isinstance(thumbnail, int) and thumbnail & 1 and _SUB_IFDS in tags:
        return "a raw format (TIFF whose first picture is a thumbnail)"
    return None


def _match(head: bytes, signatures: tuple[tuple[int, bytes, str], ...]) -> str | None:
    return next((name for at, sign, name in signatures if head[at : at + len(sign)] == sign), None)
