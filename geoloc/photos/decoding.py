"""Pictures from untrusted bytes: checked within limits, brought to the form in which the pool stores them, decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile

from geoloc.photos.formats import (
    FORMATS,
    SIGNATURE_BYTES,
    known_format,
    raw_format,
    raw_format_of_file,
    unread_format,
)
from geoloc.photos.jpeg import JpegStructureError, Stripped, strip_metadata
from geoloc.photos.quarantine import Reason, Rejected

JPEG_QUALITY = 95
_BOMB_PIXELS_PER_BYTE = 100
"""A photo has below 40 pixels a byte even at low quality; a blank picture made to fill memory has thousands."""


@dataclass(frozen=True)
class Limits:
    """What a picture may be. Sizes are checked from the header, before anything is decoded."""

    max_pixels: int = 80_000_000
    max_side: int = 20_000
    min_side: int = 1
    max_file_bytes: int = 64 * 1024 * 1024
    resize_short_side: int | None = None


class UnreadablePhoto(Rejected):
    """The bytes are no picture within the limits. `reason` is a quarantine code, `detail` is for people."""


@dataclass(frozen=True)
class StoredPhoto:
    """A photo as the pool keeps it.

    bytes: a JPEG, RGB or grey, upright, of pixels only. width, height: its pixels. phash: 16 hex digits, of these
    bytes. encoded_again: why its pixels are not those of the input, bit for bit; None where they are.
    """

    bytes: bytes
    width: int
    height: int
    phash: str
    encoded_again: str | None

    @property
    def lossless(self) -> bool:
        """Whether its pixels are those of the input, bit for bit."""
        return self.encoded_again is None


def check_and_normalise(data: bytes, limits: Limits | None = None) -> StoredPhoto:
    """Check an image file and bring it to the form of the pool.

    A JPEG that is RGB or grey, upright and no larger than wanted keeps its pixels and loses its metadata only.
    Anything else is decoded, turned upright (EXIF orientation), laid on white where transparent, scaled down to
    `resize_short_side`, and encoded as JPEG at quality 95; so is a JPEG with foreign bytes between or behind its coded
    pixels. Every photo is decoded in full, so a damaged one is found now. Raises UnreadablePhoto.
    """
    limits = limits or Limits()
    image = _open(data, limits)
    stripped, why = _plain(image, data, limits)
    if stripped is not None and why is None:
        picture, foreign = _decoded(stripped)
        if not foreign:
            return StoredPhoto(stripped.data, *picture.size, perceptual_hash(picture), None)
        why = _FOREIGN
    encoded = _encoded(image, limits)
    return StoredPhoto(encoded, *(picture := _reopened(encoded)).size, perceptual_hash(picture), why)


_FOREIGN = "a JPEG with bytes in it that are no pixels"


def _plain(image: ImageFile.ImageFile, data: bytes, limits: Limits) -> tuple[Stripped | None, str | None]:
    """The stripped file where it is a JPEG that can be stripped, and why it cannot be stored so; None: it can."""
    if image.format not in ("JPEG", "MPO"):
        return None, f"a {image.format}, no JPEG"
    try:
        stripped = strip_metadata(data)
    except JpegStructureError as error:
        if error.truncated:
            raise UnreadablePhoto(Reason.TRUNCATED_IMAGE, f"the JPEG {error}") from None
        if error.scans:
            raise UnreadablePhoto(Reason.DECOMPRESSION_BOMB, f"the JPEG {error}") from None
        return None, _FOREIGN
    if image.mode not in ("RGB", "L"):
        return stripped, f"a JPEG of colours {image.mode}"
    if _turn(image) is not None:
        return stripped, "a JPEG that had to be turned upright"
    return stripped, None if _scale(image.size, limits.resize_short_side) == 1.0 else "scaled down"


def decode_rgb(data: bytes, limits: Limits | None = None) -> NDArray[np.uint8]:
    """The picture as uint8 [height, width, 3], RGB, upright. Raises UnreadablePhoto."""
    limits = limits or Limits()
    image = _open(data, limits)
    _plain(image, data, limits)  # finds a missing end
    return np.array(_rgb_or_grey(_upright(_load(image))).convert("RGB"))


def checked_pixels(data: bytes, limits: Limits | None = None) -> NDArray[np.uint8]:
    """The pixels that the pool would hold of an image file: `decode_rgb` of what `check_and_normalise` stores, but most
    photos are decoded only once. Raises UnreadablePhoto."""
    limits = limits or Limits()
    image = _open(data, limits)
    stripped, why = _plain(image, data, limits)
    if stripped is not None and why is None:
        picture, foreign = _decoded(stripped)
        if not foreign:
            return np.array(picture.convert("RGB"))
    return decode_rgb(_encoded(image, limits))


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
    image = open_image(io.BytesIO(data))
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
    if min(width, height) < limits.min_side:
        detail = f"{width} × {height} pixels; a photo has at least {limits.min_side} a side"
        raise UnreadablePhoto(Reason.TOO_SMALL_IMAGE, detail)
    return image


def open_image(stream: BinaryIO) -> ImageFile.ImageFile:
    """The header of an image file, pixels not yet decoded. Raises UnreadablePhoto, with "not supported" for formats
    that are intact and not read."""
    head = stream.read(SIGNATURE_BYTES)
    stream.seek(0)
    if not head:
        raise UnreadablePhoto(Reason.UNREADABLE_IMAGE, "the file is empty")
    unread = unread_format(head)
    if unread is None:
        try:
            image = Image.open(stream, formats=FORMATS)
            unread = raw_format(image)
        except Exception as error:
            unread = raw_format_of_file(stream)
            if unread is None:
                raise decoder_failure(error, head) from None
    if unread is not None:
        raise UnreadablePhoto(Reason.UNSUPPORTED_FORMAT, f"{unread} is not supported; convert it to JPEG")
    return image


def decoder_failure(error: Exception, head: bytes = b"") -> UnreadablePhoto:
    """What a decoder raised, as a reason for quarantine. head: the first bytes of the file.

    Decoders of damaged files raise whatever the damage leads to (RuntimeError, MemoryError, struct.error, ...).
    """
    if isinstance(error, Image.UnidentifiedImageError):
        format = known_format(head)
        detail = f"none of {', '.join(FORMATS)}" if format is None else f"begins as {format}, but is damaged"
        return UnreadablePhoto(Reason.UNREADABLE_IMAGE, detail)
    text = f"{type(error).__name__}: {error}"[:300]
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
    except Exception as error:
        raise decoder_failure(error) from None
    return image


def _reopened(stored: bytes) -> Image.Image:
    return _load(Image.open(io.BytesIO(stored), formats=("JPEG",)))


_TAIL = 4


def _decoded(stripped: Stripped) -> tuple[Image.Image, bool]:
    """The picture, and whether bytes that are no pixels stand behind the coded pixels of a scan.

    Decoders skip such bytes in silence. A tail is suspected if a decoder that got all but the end marker does not ask
    for more (with several scans it always asks), or if it reads as text. It is foreign if the pixels stay the same
    without it. Fewer than 4 bytes are not found.
    """
    stream = _EndApart(stripped.data)
    picture = _load(Image.open(stream, formats=("JPEG",)))
    for end in stripped.scan_ends:
        if not stream.asked_for_end or _is_text(stripped.data[end - _TAIL : end]):
            shorter = _reopened(stripped.without_tail(end, _TAIL))
            if ImageChops.difference(picture, shorter).getbbox() is None:
                return picture, True
    return picture, False


class _EndApart(io.BytesIO):
    """A JPEG that gives its end marker only to who asks for it, after everything else."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._end = len(data) - 2
        self.asked_for_end = False

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._end - self.tell()
        if left <= 0:
            self.asked_for_end = True
            return super().read(size)
        return super().read(left if size is None or size < 0 else min(size, left))


def _is_text(tail: bytes) -> bool:
    """Whether bytes may be the end of text in UTF-8 or UTF-16."""
    while tail and 0x80 <= tail[0] < 0xC0:
        tail = tail[1:]
    try:
        text = tail.decode()
    except UnicodeDecodeError:
        return False
    return all(sign.isprintable() or sign in "\0\t\r\n" for sign in text)


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
    except Exception:  # damaged EXIF
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
