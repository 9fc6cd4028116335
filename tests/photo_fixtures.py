"""Small photos, archives and tables made in memory, for the tests of the pool."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from geoloc.photos.ingest import IngestSummary, ingest
from geoloc.photos.settings import IngestSettings
from geoloc.photos.shards import ShardReader
from geoloc.photos.sources import open_source

KEY = b"a key of the tests"


def picture(seed: int, width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """Smooth noise: compresses as a photo does, and differs from seed to seed in its perceptual hash."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(seed: int, width: int = 48, height: int = 32, mode: str = "RGB", **options: object) -> bytes:
    return encoded(picture(seed, width, height, mode), quality=85, **options)


def exif(
    latitude: float | None = None,
    longitude: float | None = None,
    *,
    taken: str | None = None,
    heading: float | None = None,
    orientation: int | None = None,
    gps: Mapping[int, object] | None = None,
) -> Image.Exif:
    """EXIF as a camera writes it: degrees, minutes and seconds with a hemisphere."""
    made = Image.Exif()
    made[0x010F] = "SECRETMAKER"
    if orientation is not None:
        made[0x0112] = orientation
    if taken is not None:
        made.get_ifd(0x8769)[0x9003] = taken
    place = made.get_ifd(0x8825)
    if latitude is not None:
        place[1], place[2] = ("N" if latitude >= 0 else "S"), _dms(abs(latitude))
    if longitude is not None:
        place[3], place[4] = ("E" if longitude >= 0 else "W"), _dms(abs(longitude))
    if heading is not None:
        place[16], place[17] = "T", IFDRational(round(heading * 100), 100)
    place.update(gps or {})
    return made


def _dms(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    whole = int(degrees)
    minutes = int((degrees - whole) * 60)
    seconds = (degrees - whole - minutes / 60) * 3600
    return IFDRational(whole, 1), IFDRational(minutes, 1), IFDRational(round(seconds * 10_000), 10_000)


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo | str, bytes | dict[str, object]]]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members:
            data = json.dumps(content).encode() if isinstance(content, dict) else content
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            if member.isreg():
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def photo_table(folder: Path, count: int, first: int = 0, *, width: int = 48) -> Path:
    """A table of `count` good photos, each with an image file, by three photographers."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["photo_id,file,latitude,longitude,photographer"]
    for i in range(first, first + count):
        (folder / "images" / f"{i}.jpg").write_bytes(jpeg(i, width))
        lines.append(f"id{i},images/{i}.jpg,{10 + i * 0.25},{20 - i * 0.5},person{i % 3}")
    path = folder / "photos.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def take_in(
    pool: Path, kind: str, path: Path | str, *, source: str = "test", settings: dict[str, object] | None = None,
    **options: object,
) -> IngestSummary:  # fmt: skip
    return ingest(
        pool,
        open_source(kind, path, **options),
        source=source,
        photographer_key=KEY,
        settings=IngestSettings(**{"workers": 2, **(settings or {})}),  # type: ignore[arg-type]
    )


def contents(pool: Path) -> dict[str, bytes]:
    """Every file of a pool."""
    return {
        path.relative_to(pool).as_posix(): path.read_bytes()
        for path in sorted(pool.rglob("*"))
        if path.is_file()
    }


def read_photo_bytes(pool: Path, shard: str, offset: int, length: int) -> bytes:
    """The stored bytes of one photo."""
    with ShardReader(pool) as reader:
        return reader.read(shard, offset, length)
