"""What is stored is pixels only, whatever a file carries; formats are told apart by their bytes and named."""

import io
import random
import struct

import pytest
from PIL import Image, PngImagePlugin

from geoloc.photos.decoding import UnreadablePhoto, check_and_normalise
from geoloc.photos.quarantine import Reason
from tests.photo_fixtures import encoded, exif, jpeg, picture
from tests.raw_exif import with_segment, xmp

MARK = b"SECRET Zoe 48.1N"
PLAIN = {
    "baseline": jpeg(1, 96, 64),
    "progressive": jpeg(1, 96, 64, progressive=True),
    "grey": jpeg(1, 96, 64, mode="L"),
    "restarts": jpeg(1, 96, 64, restart_marker_blocks=2),
}


def stored(data: bytes) -> bytes:
    assert MARK in data
    photo = check_and_normalise(data)
    assert MARK not in photo.bytes
    return photo.bytes


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
def test_segments_and_trailers_are_stripped_without_loss(data):
    plain = check_and_normalise(data)
    assert plain.lossless
    adobe = b"Adobe\0\x64\0\0\0\0\x01"
    found = [stored(data + b"\0\0\x01\x0a" + MARK + b"SEFT")]  # a trailer of Samsung
    for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEF, 0xFE, 0xDC, 0xF0, 0xFD):
        found.append(stored(with_segment(data, marker, MARK)))
    assert set(found) == {plain.bytes}
    if b"JFIF" in data:  # the transform is told by both, in agreement
        again = check_and_normalise(with_segment(data, 0xEE, adobe + MARK))
        assert MARK not in again.bytes


@pytest.mark.parametrize("data", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("mark", [MARK, b"anna", "Москва".encode(), "Zoë 48.1".encode("utf-16-le")])
def test_bytes_before_the_end_marker_are_not_stored(data, mark):
    photo = check_and_normalise(data[:-2] + mark + data[-2:])
    assert mark not in photo.bytes
    assert photo.encoded_again == "a JPEG with bytes in it that are no pixels"


def test_binary_bytes_before_the_end_marker_are_found():
    rng = random.Random(1)
    for length in (8, 12, 40, 400):
        foreign = bytes(rng.randrange(1, 255) for _ in range(length))
        photo = check_and_normalise(PLAIN["baseline"][:-2] + foreign + b"\xff\xd9")
        assert not photo.lossless
        assert foreign not in photo.bytes


def test_bytes_behind_a_scan_and_between_segments_are_not_stored():
    data = PLAIN["progressive"]
    second = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
    assert not check_and_normalise(data[:second] + MARK + data[second:]).lossless
    stored(data[:second] + MARK + data[second:])
    tables = data.index(b"\xff\xdb")
    stored(data[:tables] + MARK + data[tables:])


@pytest.mark.parametrize("seed", range(40))
def test_a_clean_jpeg_is_never_suspected(seed):
    quality = 40 + seed
    for options in ({}, {"progressive": True}, {"optimize": True}, {"subsampling": 0}):
        data = encoded(picture(seed, 33 + seed, 47 + 2 * seed), quality=quality, **options)
        assert check_and_normalise(data).lossless


def other_pictures() -> dict[str, bytes]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", MARK.decode())
    text.add_itxt("XML:com.adobe.xmp", xmp().decode() + MARK.decode())
    data = exif(1, 2)
    data[0x010E] = MARK.decode()
    second = exif(1, 2)
    second[0x010E] = MARK.decode()
    many = io.BytesIO()
    picture(1).save(many, "MPO", save_all=True, append_images=[picture(2)], exif=second)
    return {
        "png": encoded(picture(1), "PNG", pnginfo=text) + MARK,
        "webp": encoded(picture(1), "WEBP", exif=data, xmp=xmp() + MARK),
        "gif": encoded(picture(1).convert("P"), "GIF", comment=MARK),
        "tiff": encoded(picture(1), "TIFF", exif=data) + MARK,
        "heic": encoded(picture(1, 64, 64), "HEIF", exif=data.tobytes(), xmp=xmp() + MARK),
        "avif": encoded(picture(1, 64, 64), "AVIF", exif=data.tobytes()) + MARK,
        "bmp": encoded(picture(1), "BMP") + MARK,
        "mpo": many.getvalue() + MARK,
    }


@pytest.mark.parametrize("name", ["png", "webp", "gif", "tiff", "heic", "avif", "bmp", "mpo"])
def test_nothing_but_pixels_of_other_formats(name):
    Image.open(io.BytesIO(stored(other_pictures()[name]))).load()


def test_heic_is_read_upright():
    image = picture(5, 64, 32)
    photo = check_and_normalise(encoded(image, "HEIF", exif=exif(orientation=6).tobytes(), quality=90))
    assert (photo.width, photo.height) == (32, 64)
    assert photo.encoded_again == "a HEIF, no JPEG"


def test_a_damaged_heic_is_damaged():
    data = encoded(picture(5, 64, 64), "HEIF")
    for cut in (40, len(data) // 2, len(data) - 10):
        with pytest.raises(UnreadablePhoto) as caught:
            check_and_normalise(data[:cut])
        assert caught.value.reason in (Reason.UNREADABLE_IMAGE, Reason.TRUNCATED_IMAGE)


def raw(tags: dict[int, int]) -> bytes:
    """A TIFF with a small picture in front, as cameras write raw files."""
    data = encoded(picture(1, 160, 120), "TIFF")
    at = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[at : at + 2])[0]
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries = [entry for entry in entries if struct.unpack("<H", entry[:2])[0] not in tags]
    entries += [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries.sort(key=lambda entry: struct.unpack("<H", entry[:2])[0])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (raw({50706: 0x00000401}), "DNG"),
        (raw({254: 1, 330: 8}), "thumbnail"),
        (raw({262: 32803}), "sensor"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(100), "CR2"),
        (b"\0\0\0\x18ftypcrx " + bytes(100), "CR3"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(100), "RAF"),
        (b"\xff\x0a" + bytes(100), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100), "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100), "JPEG 2000"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "video"),
    ],
)
def test_what_is_not_supported_is_not_called_damaged(data, name):
    with pytest.raises(UnreadablePhoto, match=f"{name}.* is not supported") as caught:
        check_and_normalise(data)
    assert caught.value.reason == Reason.UNSUPPORTED_FORMAT


def test_a_tiff_that_is_a_photo_is_no_raw_file():
    assert check_and_normalise(encoded(picture(1), "TIFF")).width == 48
    assert check_and_normalise(raw({254: 0})).width == 160


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, RecursionError, struct.error, AssertionError])
def test_whatever_a_decoder_raises_is_a_reason(error, monkeypatch):
    def fail(self):
        raise error("inside")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(UnreadablePhoto, match="inside"):
        check_and_normalise(encoded(picture(1), "PNG"))
