"""Hostile and enormous inputs: small files that claim, nest or expand to more than there is, under limits."""

import bz2
import gzip
import importlib
import io
import struct
import tarfile
import zlib
from pathlib import Path

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geoloc.photos.catalog import read_catalog
from geoloc.photos.decoding import check_and_normalise
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.sources.candidates import SourceError
from tests.limits import under_limits
from tests.photo_fixtures import jpeg, take_in

MB = 1024**2
HEADER = b"photo_id,latitude,longitude\n"
GOOD = HEADER + b"1,2,3\n"


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of a tar member, of any size."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def member(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + b"\0" * (-len(data) % 512)


def sample(number: int) -> bytes:
    return member(f"{number}.jpg", jpeg(number)) + member(
        f"{number}.json", b'{"latitude": 1, "longitude": 2}'
    )


def record(number: int) -> bytes:
    return msgpack.packb({"id": str(number), "image": jpeg(number), "latitude": 1.0, "longitude": 2.0})


def open_map(key: bytes = b"x") -> bytes:
    """The start of a msgpack record, at the value of a key."""
    return b"\x81\xa1" + key


def many(packed: bytes, count: int) -> bytes:
    """An array of `count` equal values in msgpack."""
    return b"\xdc" + struct.pack(">H", count) + packed * count


def parquet_of_repeats(rows: int, length: int) -> bytes:
    """A table that says one long text so often: a few kB that stand for gigabytes."""
    repeated = pa.DictionaryArray.from_arrays(
        pa.array([0] + [1] * (rows - 1), pa.int32()), pa.array(["a", "9" * length])
    )
    table = pa.table(
        {"photo_id": pa.array([str(i) for i in range(rows)]), "latitude": pa.array([1.0] * rows),
         "longitude": pa.array([2.0] * rows), "album": repeated}
    )  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


TARS = {
    "a member of 8 exabytes": sample(1) + header("2.jpg", 8 * 1024**6),
    "a json of 8 exabytes": sample(1) + member("2.jpg", jpeg(2)) + header("2.json", 8 * 1024**6),
    "a name of a gigabyte": sample(1) + header("././@LongLink", 1024**3, tarfile.GNUTYPE_LONGNAME),
    "a pax header of a gigabyte": sample(1) + header("x", 1024**3, tarfile.XHDTYPE),
    "a negative size": sample(1) + header("2.jpg", -512),
    "a sparse file": sample(1) + header("2.jpg", 512, tarfile.GNUTYPE_SPARSE) + b"7" * 1024,
    "json nested 100,000 deep": sample(1) + member("2.jpg", jpeg(2)) + member("2.json", b"[" * 100_000),
    "objects nested 100,000 deep": sample(1) + member("2.jpg", jpeg(2)) + member("2.json", b'{"a":' * 100_000),
    "a number of a million digits": sample(1)
    + member("2.jpg", jpeg(2))
    + member("2.json", b'{"latitude":' + b"9" * 1_000_000 + b',"longitude":1}'),
    "empty members by the thousand": sample(1) + b"".join(header(f"{i}.txt", 0) for i in range(4_000)),
}  # fmt: skip
SHARDS = {
    "an array of 4 G": record(1) + open_map() + b"\xdd\xff\xff\xff\xff",
    "a map of 4 G": record(1) + open_map() + b"\xdf\xff\xff\xff\xff",
    "bytes of 4 GB": record(1) + open_map(b"image") + b"\xc6\xff\xff\xff\xff",
    "a text of 4 GB": record(1) + open_map() + b"\xdb\xff\xff\xff\xff",
    "an extension of 4 GB": record(1) + open_map() + b"\xc9\xff\xff\xff\xff\x01",
    "arrays nested 100,000 deep": record(1) + open_map() + b"\x91" * 100_000,
    "maps nested 100,000 deep": record(1) + open_map() * 100_000,
    "ten million empty lists": record(1) + open_map() + many(many(many(b"\x90", 10), 1000), 1000),
}  # fmt: skip
TABLES = {
    "a line of 32 MB": ("csv", GOOD + b"2,3," + b"9" * 32 * MB),
    "a quote of many lines": ("csv", GOOD + b'2,3,"' + b"9\n" * 30_000),
    "quotes that never end": ("csv", GOOD + b'"a""\n' * 20_000),
    "cells of quotes": ("csv", GOOD + b'"",' * 1_000_000),
    "a million columns": ("csv", b",".join(b"c%d" % i for i in range(1_000_000)) + b"\n1,2\n"),
    "a cell of a million digits": ("csv", GOOD + b"2," + b"9" * 1_000_000 + b",3\n"),
    "a gzip of a long line": ("csv.gz", gzip.compress(GOOD + b"2,3," + b"9" * 48 * MB, 1)),
    "empty lines by the million": ("csv.bz2", bz2.compress(GOOD + b"\n" * 32 * MB)),
    "a text said a hundred thousand times": ("parquet", parquet_of_repeats(100_000, 100_000)),
}


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What readers import when they are used, once for all processes."""
    for name in ("mp16", "table", "webdataset", "yfcc", "folder"):
        importlib.import_module(f"geoloc.photos.sources.{name}")
    check_and_normalise(jpeg(1))


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_loses_itself_only(tmp_path, name):
    hostile(tmp_path, "webdataset", "a.tar", TARS[name])


@pytest.mark.parametrize("name", SHARDS)
def test_a_hostile_msgpack_shard_loses_itself_only(tmp_path, name):
    hostile(tmp_path, "mp16", "a.msg", SHARDS[name])


@pytest.mark.parametrize("name", TABLES)
def test_a_hostile_table_loses_itself_only(tmp_path, name):
    suffix, data = TABLES[name]
    hostile(tmp_path, "table", f"a.{suffix}", data)


@pytest.mark.parametrize("name", ["a line of 32 MB", "a gzip of a long line"])
def test_hostile_metadata_of_yfcc_loses_itself_only(tmp_path, name):
    suffix, data = TABLES[name]
    row = b"\t".join([b"1", b"a", b"", b"", b"", *[b"2"] * 17, b"0"]) + b"\n"
    text = gzip.decompress(data) if suffix.endswith("gz") else data
    text = row + text.removeprefix(GOOD)
    hostile(tmp_path, "yfcc", f"a.t{suffix[1:]}", gzip.compress(text, 1) if suffix.endswith("gz") else text)


@under_limits(seconds=10, megabytes=350)
def hostile(folder: Path, kind: str, name: str, data: bytes) -> None:
    """What stands before the hostile part is in the pool, and the rest is accounted for."""
    (folder / name).write_bytes(data)
    try:
        account = take_in(folder / "pool", kind, folder / name)
    except SourceError as error:
        told = str(error)
        refused = "\n" not in told and len(told) < 1000
        assert refused, told[:2000]
        return
    assert account.added >= 1
    assert len(read_catalog(folder / "pool")) == account.added
    assert len(read_quarantine(folder / "pool")) == sum(account.quarantined.values()) + sum(
        account.fields_dropped.values()
    )


BOMB = b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 1000 + b'">%s]><x>&z;</x>'


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one colour with these chunks behind its header."""
    from tests.photo_fixtures import encoded, picture

    whole = encoded(picture(1), "PNG")
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return whole[:33] + made + whole[33:]


def directory(entries: list[tuple[int, int, int, int]], following: int) -> bytes:
    """A directory of EXIF: tag, type, count, offset of each entry."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


EXIF = {
    "directories in circles": directory([(0x8825, 4, 1, 8), (0x8769, 4, 1, 8)], 8),
    "65,535 entries over all bytes": directory([(i, 7, 60_000, 8) for i in range(65_535)], 0),
    "counts of 4 G": directory([(0x8825, 4, 2**32 - 1, 8), (2, 5, 2**32 - 1, 8)], 0),
    "an offset beyond the end": directory([(0x8825, 4, 1, 2**32 - 1)], 2**32 - 1),
}
PICTURES = {name: png((b"eXIf", b"II*\0\x08\0\0\0" + data)) for name, data in EXIF.items()} | {
    "text that unpacks to 48 MB": png((b"zTXt", b"a\0\0" + zlib.compress(b"9" * 48 * MB, 1))),
    "xmp that unpacks to 48 MB": png(
        (b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(b"9" * 48 * MB, 1))
    ),
    "a billion laughs": png(
        (
            b"iTXt",
            b"XML:com.adobe.xmp\0\0\0\0\0"
            + BOMB % b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(25)),
        )
    ),
}
SIDECARS = {
    "laughs.xmp": BOMB % b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(25)),
    "attributes.xmp": b"<x " + b" ".join(b'a%d="1"' % i for i in range(500_000)) + b"/>",
    "deep.xmp": b"<x>" * 1_000_000,
    "outside.xmp": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///dev/zero">]><x>&a;</x>',
    "long.xmp": b"<x>" + b"9" * 64 * MB,
    "deep.json": b'{"geoData": ' + b"[" * 1_000_000,
    "long.json": b'{"geoData": "' + b"9" * 64 * MB,
    "digits.json": b'{"geoData": {"latitude": ' + b"9" * 1_000_000 + b', "longitude": 1}}',
}  # fmt: skip


@under_limits(seconds=30, megabytes=350)
def test_hostile_pictures_and_sidecars_are_read_or_turned_away(tmp_path):
    folder = tmp_path / "me"
    folder.mkdir()
    for number, data in enumerate(PICTURES.values()):
        (folder / f"{number}.png").write_bytes(data)
    for number, (name, data) in enumerate(SIDECARS.items()):
        (folder / f"s{number}.jpg").write_bytes(jpeg(number))
        (folder / f"s{number}.jpg{Path(name).suffix}").write_bytes(data)
    account = take_in(tmp_path / "pool", "folder", folder)
    assert account.seen >= len(PICTURES) + len(SIDECARS)
    assert account.added == 0
