"""Pictures from untrusted bytes: checked within limits, brought to the form in which the pool stores them, decoded."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from geoloc.photos.jpeg import JpegStructureError, strip_metadata
from geoloc.photos.quarantine import Reason, Rejected

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
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS if plugin.format in Image.OPEN)
"""What is read. Fewer than Pillow knows: each decoder is a door, and photos come through these."""

JPEG_QUALITY = 95
_BOMB_PIXELS_PER_BYTE = 100
"""A photo has below 40 pixels a byte even at low quality; a blank picture made to fill memory has thousands."""


@dataclass(frozen=True)
class Limits:
    """What a picture may be. Sizes are checked from the header, before anything is decoded."""

    max_pixels: int = 80_000_000
    max_side: int = 20_000
    max_file_bytes: int = 64 * 1024 * 1024
    resize_short_side: int | None = None


class UnreadablePhoto(Rejected):
    """The bytes are no picture within the limits. `reason` is a quarantine code, `detail` is for people."""


@dataclass(frozen=True)
class StoredPhoto:
    """A photo as the pool keeps it.

    bytes: a JPEG, RGB or grey, upright, with no metadata. width, height: its pixels. phash: 16 hex digits, of these
    bytes. lossless: whether its pixels are those of the input, bit for bit.
    """

    bytes: bytes
    width: int
    height: int
    phash: str
    lossless: bool


def check_and_normalise(data: bytes, limits: Limits | None = None) -> StoredPhoto:
    """Check an image file and bring it to the form of the pool.

    A JPEG that is RGB or grey, upright and no larger than wanted keeps its pixels and loses its metadata only.
    Anything else is decoded, turned upright (EXIF orientation), laid on white where transparent, scaled down to
    `resize_short_side`, and encoded as JPEG at quality 95. Every photo is decoded in full, so a damaged one is found
    now. Raises UnreadablePhoto.
    """
    limits = limits or Limits()
    image = _open(data, limits)
    upright = _turn(image) is None
    plain = image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and upright
    if plain and _scale(image.size, limits.resize_short_side) == 1.0:
        return _described(_stripped(data), limits, lossless=True)
    if image.format in ("JPEG", "MPO"):
        _stripped(data)  # finds a missing end
    return _described(_encoded(image, limits), limits, lossless=False)


def decode_rgb(data: bytes, limits: Limits | None = None) -> NDArray[np.uint8]:
    """The picture as uint8 [height, width, 3], RGB, upright. Raises UnreadablePhoto."""
    limits = limits or Limits()
    image = _open(data, limits)
    if image.format in ("JPEG", "MPO"):
        _stripped(data)
    return np.array(_rgb_or_grey(_upright(_load(image))).convert("RGB"))


def perceptual_hash(image: Image.Image) -> str:
    """64-bit perceptual hash, 16 hex digits: signs of the low frequencies of a 32 × 32 cosine transform.

    imagehash.phash (after N. Krawetz, Looks Like It, 2011); near-duplicates differ in few bits.
    """
    import imagehash  # and scipy with it: only ingest pays

    return str(imagehash.phash(image))


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    """Read the header and check its image size."""
    if len(data) > limits.max_file_bytes:
        raise UnreadablePhoto(
            Reason.TOO_LARGE_FILE, f"{len(data)} bytes; the limit is {limits.max_file_bytes}"
        )
    if not data:
        raise UnreadablePhoto(Reason.UNREADABLE_IMAGE, "the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except DECODER_ERRORS as error:
        raise decoder_failure(error) from None
    width, height = image.size
    pixels = width * height
    if pixels > limits.max_pixels or max(width, height) > limits.max_side:
        bomb = pixels > limits.max_pixels and pixels > _BOMB_PIXELS_PER_BYTE * len(data)
        raise UnreadablePhoto(
            Reason.DECOMPRESSION_BOMB if bomb else Reason.OVERSIZED_IMAGE,
            f"{width} × {height} pixels in {len(data)} bytes;"
            f" the limit is {limits.max_pixels} pixels and {limits.max_side} a side",
        )
    if pixels == 0:
        raise UnreadablePhoto(Reason.UNREADABLE_IMAGE, f"{width} × {height} pixels")
    return image


# What Pillow's decoders raise on damaged files; anything else is a fault of ours and must be seen.
DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, OverflowError,
                   ZeroDivisionError, NotImplementedError, MemoryError, Image.DecompressionBombError)  # fmt: skip


def decoder_failure(error: BaseException) -> UnreadablePhoto:
    """What a decoder raised, as a reason for quarantine."""
    if isinstance(error, Image.UnidentifiedImageError):
        return UnreadablePhoto(Reason.UNREADABLE_IMAGE, f"none of {', '.join(FORMATS)}")
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, Image.DecompressionBombError):
        return UnreadablePhoto(Reason.DECOMPRESSION_BOMB, text)
    truncated = isinstance(error, EOFError) or any(
        word in text.lower() for word in ("truncated", "unexpected end", "incomplete")
    )
    return UnreadablePhoto(Reason.TRUNCATED_IMAGE if truncated else Reason.UNREADABLE_IMAGE, text)


def _load(image: Image.Image) -> Image.Image:
    """Decode all pixels of the first picture in the file."""
    try:
        image.load()
    except DECODER_ERRORS as error:
        raise decoder_failure(error) from None
    return image


def _stripped(data: bytes) -> bytes:
    try:
        return strip_metadata(data)
    except JpegStructureError as error:
        reason = Reason.TRUNCATED_IMAGE if error.truncated else Reason.UNREADABLE_IMAGE
        if error.scans:
            reason = Reason.DECOMPRESSION_BOMB
        raise UnreadablePhoto(reason, f"the JPEG {error}") from None


def _described(stored: bytes, limits: Limits, *, lossless: bool) -> StoredPhoto:
    """Decode what will be stored: proof that it can be read, and the picture whose hash the catalog keeps."""
    try:
        image = _load(Image.open(io.BytesIO(stored), formats=("JPEG",)))
    except DECODER_ERRORS as error:
        raise decoder_failure(error) from None
    return StoredPhoto(stored, image.width, image.height, perceptual_hash(image), lossless)


_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag Orientation: what turns each upright."""


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns the picture upright; None for nothing, also where its EXIF is damaged."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except (*DECODER_ERRORS, struct.error):
        return None


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info
    return turned


def _scale(size: tuple[int, int], short_side: int | None) -> float:
    return 1.0 if short_side is None else min(1.0, short_side / min(size))


def _encoded(image: Image.Image, limits: Limits) -> bytes:
    picture = _rgb_or_grey(_upright(_load(image)))
    scale = _scale(picture.size, limits.resize_short_side)
    if scale < 1.0:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture.info.clear()  # save() would write EXIF, profile and comment found there
    buffer = io.BytesIO()
    try:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    except OSError as error:  # over 65,535 pixels a side, with limits that allow it
        raise UnreadablePhoto(Reason.OVERSIZED_IMAGE, str(error)) from None
    return buffer.getvalue()


def _rgb_or_grey(image: Image.Image) -> Image.Image:
    """The picture in mode RGB or L: 16 bits scaled to 8, transparency laid on white."""
    if image.mode in ("RGB", "L"):
        return image if "transparency" not in image.info else _on_white(image.convert("RGBA"))
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) * 255 // 65535).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnreadablePhoto(
            Reason.UNREADABLE_IMAGE, f"pixels of 32 bits (mode {image.mode}) have no known range"
        )
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
