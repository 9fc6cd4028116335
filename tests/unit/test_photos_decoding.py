"""Decoding: untrusted bytes end as an upright RGB or grey JPEG without metadata, or as a reason."""

import io
import struct
import zlib

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin

from geoloc.photos.decoding import Limits, UnreadablePhoto, check_and_normalise, decode_rgb
from geoloc.photos.jpeg import JpegStructureError, strip_metadata
from geoloc.photos.quarantine import Reason
from tests.limits import under_limits
from tests.photo_fixtures import encoded, exif, jpeg, picture


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def reason(data: bytes, limits: Limits | None = None) -> Reason:
    with pytest.raises(UnreadablePhoto) as caught:
        check_and_normalise(data, limits)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_plain_jpeg_keeps_its_pixels_and_loses_its_metadata(mode, progressive):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"progressive": progressive, "icc_profile": profile, "comment": b"SECRETCOMMENT"}
    data = jpeg(1, mode=mode, exif=exif(10, 20, taken="2020:01:01 00:00:00"), **options)
    photo = check_and_normalise(data + b"SECRETTRAILER")
    assert photo.lossless
    np.testing.assert_array_equal(pixels(photo.bytes), pixels(data))
    assert b"SECRET" in data
    assert b"SECRET" not in photo.bytes
    stored = Image.open(io.BytesIO(photo.bytes))
    assert not stored.getexif()
    assert set(stored.info) <= {
        "jfif",
        "jfif_version",
        "jfif_unit",
        "jfif_density",
        "dpi",
        "progressive",
        "progression",
    }
    assert (photo.width, photo.height) == (48, 32)
    assert photo.phash == str(imagehash.phash(stored))
    assert len(photo.phash) == 16
    assert check_and_normalise(photo.bytes).bytes == photo.bytes


def test_jfif_thumbnail_is_stripped():
    data = jpeg(1)
    assert data[2:4] == b"\xff\xe0"
    thumbnail = bytes(range(200, 212)) * 1
    header = data[4 + 2 : 4 + 2 + 12] + b"\x02\x02" + thumbnail
    with_thumbnail = data[:4] + (len(header) + 2).to_bytes(2) + header + data[20:]
    assert pixels(with_thumbnail).shape == (32, 48, 3)
    assert strip_metadata(with_thumbnail) == strip_metadata(data)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_is_applied(orientation):
    image = picture(3)
    data = encoded(image, quality=95, exif=exif(orientation=orientation))
    photo = check_and_normalise(data)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), dtype=int)
    assert (photo.height, photo.width) == expected.shape[:2]
    assert np.abs(pixels(photo.bytes).astype(int) - expected).mean() < 4
    np.testing.assert_array_equal(decode_rgb(data), expected)
    assert not photo.lossless


def test_transparency_is_laid_on_white():
    image = Image.new("RGBA", (32, 32), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    for made in (image, image.quantize(16), image.convert("LA")):
        photo = check_and_normalise(encoded(made, "PNG"))
        assert pixels(photo.bytes)[16, 4].min() >= 250


@pytest.mark.parametrize(
    ("mode", "format"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("1", "PNG"), ("P", "GIF"), ("RGB", "WEBP")]
)
def test_other_modes_become_what_pillow_shows(mode, format):
    data = encoded(picture(5).convert(mode), format)
    photo = check_and_normalise(data)
    stored = Image.open(io.BytesIO(photo.bytes))
    assert stored.mode in ("RGB", "L")
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)
    assert np.abs(np.asarray(stored.convert("RGB"), dtype=int) - shown).mean() < (
        25 if mode in ("1", "P") else 5
    )  # dithered


def test_sixteen_bits_are_scaled_not_cut():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None, :].repeat(64, axis=0)
    photo = check_and_normalise(encoded(Image.fromarray(ramp), "PNG"))
    assert np.abs(pixels(photo.bytes).astype(int)[32] - ramp[0] // 257).max() <= 3


def test_resize_by_short_side():
    photo = check_and_normalise(jpeg(2, 300, 200), Limits(resize_short_side=50))
    assert (photo.width, photo.height) == (75, 50)
    small = jpeg(2, 45, 30)
    assert check_and_normalise(small, Limits(resize_short_side=50)).lossless


@pytest.mark.parametrize("cut", [2, 10, 300])
@pytest.mark.parametrize("options", [{}, {"exif": exif(orientation=6)}, {"progressive": True}])
@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_jpeg(cut, options, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)  # another library may set it
    data = jpeg(1, 64, 64, **options)
    assert reason(data[:-cut]) == Reason.TRUNCATED_IMAGE
    with pytest.raises(UnreadablePhoto):
        decode_rgb(data[:-cut])


def test_truncated_png():
    assert reason(encoded(picture(1), "PNG")[:-200]) == Reason.TRUNCATED_IMAGE


def test_unreadable():
    assert reason(b"") == Reason.UNREADABLE_IMAGE
    assert reason(b"GIF89a but not really") == Reason.UNREADABLE_IMAGE
    assert reason(b"<svg/>") == Reason.UNREADABLE_IMAGE
    assert reason(encoded(Image.new("F", (8, 8)), "TIFF")) == Reason.UNREADABLE_IMAGE


def png_of_nothing(width: int, height: int) -> bytes:
    """A PNG whose header tells any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("global_limit", [None, 1000, 10**12])
def test_bombs_are_found_before_decoding_whatever_pillow_is_set_to(global_limit, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", global_limit)
    assert reason(png_of_nothing(60_000, 60_000)) == Reason.DECOMPRESSION_BOMB


def test_sizes():
    data = jpeg(1, 100, 40)
    assert reason(data, Limits(max_side=99)) == Reason.OVERSIZED_IMAGE
    assert reason(data, Limits(max_pixels=3999)) == Reason.OVERSIZED_IMAGE
    assert reason(data, Limits(max_file_bytes=len(data) - 1)) == Reason.TOO_LARGE_FILE
    assert (
        check_and_normalise(data, Limits(max_side=100, max_pixels=4000, max_file_bytes=len(data))).width
        == 100
    )


@pytest.mark.parametrize("options", [{}, {"exif": exif(orientation=6)}])
def test_a_jpeg_of_thousands_of_scans_is_a_bomb(options):
    data = jpeg(1, progressive=True, **options)
    scan = data.rindex(b"\xff\xda")
    assert reason(data[:-2] + data[scan:-2] * 200 + b"\xff\xd9") == Reason.DECOMPRESSION_BOMB


def test_png_text_does_not_reach_the_pool():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "SECRET")
    photo = check_and_normalise(encoded(picture(1), "PNG", pnginfo=info, exif=exif(1, 2)))
    assert b"SECRET" not in photo.bytes
    assert not Image.open(io.BytesIO(photo.bytes)).getexif()


@under_limits()
@settings(deadline=None)
@given(data=st.data())
def test_damage_never_escapes_as_another_error(data):
    """Flipped, cut and spliced bytes end as a photo or as UnreadablePhoto."""
    original = data.draw(st.sampled_from(SAMPLES))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))]
    limits = Limits(max_pixels=1_000_000, max_side=4000)
    try:
        photo = check_and_normalise(bytes(damaged), limits)
    except UnreadablePhoto:
        return
    assert pixels(photo.bytes).shape[:2] == (photo.height, photo.width)


SAMPLES = [
    jpeg(1, exif=exif(1, 2, orientation=6)),
    jpeg(2, progressive=True),
    encoded(picture(3), "PNG"),
    encoded(picture(4), "WEBP"),
    encoded(picture(5).convert("P"), "GIF"),
    encoded(picture(6), "TIFF", exif=exif(1, 2)),
]


@under_limits()
@settings(deadline=None)
@given(body=st.binary(max_size=60))
def test_strip_metadata_raises_only_its_own_error(body):
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x10JFIF\0"):
        try:
            stripped = strip_metadata(start + body).data
        except JpegStructureError:
            continue
        assert stripped.startswith(b"\xff\xd8")
        assert stripped.endswith(b"\xff\xd9")
