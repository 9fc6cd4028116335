"""Shards and catalog: a photo is where the catalog says, in a tar that any tool reads."""

import os
import pickle
import signal
import tarfile
import threading
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.photos.catalog import (
    COLUMNS,
    CatalogError,
    empty_catalog,
    read_catalog,
    read_table,
    write_catalog,
    write_table,
)
from geoloc.photos.photographers import photographer_id, photographer_ids
from geoloc.photos.shards import ShardReader, ShardWriter, member_key
from tests.photo_fixtures import read_photo_bytes

PHOTOS = {f"a/b.c {i}": bytes([i]) * (i * 300) for i in range(6)}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path, "photos-000000.tar") as writer:
        for photo_id, data in PHOTOS.items():
            writer.add(photo_id, data)
    return tmp_path


def test_tarfile_reads_what_is_written(pool):
    with tarfile.open(pool / "shards" / "photos-000000.tar") as tar:
        found = {unquote(m.name.removesuffix(".jpg")): tar.extractfile(m).read() for m in tar}
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in tar.getmembers()} == {(0, 0, 0, "")}
    assert found == PHOTOS


def test_places_are_where_tarfile_finds_the_data(tmp_path):
    with ShardWriter(tmp_path, "s.tar") as writer:
        places = [writer.add(photo_id, data) for photo_id, data in PHOTOS.items()]
    with tarfile.open(tmp_path / "shards" / "s.tar") as tar:
        assert places == [(m.offset_data, m.size) for m in tar]
    for (offset, length), data in zip(places, PHOTOS.values(), strict=True):
        assert read_photo_bytes(tmp_path, "s.tar", offset, length) == data


def test_equal_photos_give_equal_bytes(pool, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with ShardWriter(other, "photos-000000.tar") as writer:
        for photo_id, data in PHOTOS.items():
            writer.add(photo_id, data)
    name = "shards/photos-000000.tar"
    assert (other / name).read_bytes() == (pool / name).read_bytes()


def test_a_shard_appears_whole_or_not_at_all(tmp_path):
    def fail() -> None:
        with ShardWriter(tmp_path, "s.tar") as writer:
            writer.add("a", b"x")
            assert not (tmp_path / "shards" / "s.tar").exists()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "shards").iterdir()) == []
    with ShardWriter(tmp_path, "s.tar") as writer:
        writer.add("a", b"x")
    with pytest.raises(FileExistsError, match="never rewritten"):
        ShardWriter(tmp_path, "s.tar")


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_member_keys_are_safe_and_distinct(a, b):
    key = member_key(a)
    assert len(key) <= 90
    assert "." not in key
    assert "/" not in key
    assert key.isascii()
    assert (key == member_key(b)) == (a == b)


def test_reader_refuses_what_cannot_be(pool):
    with ShardReader(pool) as reader:
        with pytest.raises(ValueError, match="file name"):
            reader.read("../catalog.parquet", 0, 1)
        with pytest.raises(ValueError, match="at least 0"):
            reader.read("photos-000000.tar", -1, 1)
        with pytest.raises(EOFError, match="ends before"):
            reader.read("photos-000000.tar", 0, 10**6)
        with pytest.raises(FileNotFoundError):
            reader.read("photos-000009.tar", 0, 1)


def test_reader_keeps_few_files_open_and_serves_threads(tmp_path):
    for shard in range(12):
        with ShardWriter(tmp_path, f"{shard}.tar") as writer:
            writer.add("x", bytes([shard]) * 700)
    wrong = []
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    with ShardReader(tmp_path, most_open=3) as reader:

        def work(seed: int) -> None:
            for shard in np.random.default_rng(seed).integers(0, 12, 400).tolist():
                if reader.read(f"{shard}.tar", 512, 700) != bytes([shard]) * 700:
                    wrong.append(shard)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        if descriptors.exists():
            assert len(list(descriptors.iterdir())) - before <= 3
    assert wrong == []
    if descriptors.exists():
        assert len(list(descriptors.iterdir())) == before


def test_reader_works_in_a_forked_child_and_pickles(pool):
    with ShardReader(pool) as reader:
        expected = reader.read("photos-000000.tar", 1024, 300)
        assert expected == PHOTOS["a/b.c 1"]
        assert pickle.loads(pickle.dumps(reader)).read("photos-000000.tar", 1024, 300) == expected
        if not hasattr(os, "fork"):
            return
        with reader._lock:  # as if another thread were reading at the moment of the fork
            child = os.fork()
            if child == 0:
                signal.alarm(10)  # a child that waits for the lock would wait for ever
                os._exit(0 if reader.read("photos-000000.tar", 1024, 300) == expected else 1)
        assert os.waitpid(child, 0)[1] == 0


def rows(count: int) -> pd.DataFrame:
    frame = pd.DataFrame({name: [None] * count for name in COLUMNS})
    frame["photo_id"] = [f"id{i}" for i in range(count)]
    frame["source"] = "s"
    frame["latitude"], frame["longitude"] = 1.0, 2.0
    return frame


def test_catalog_round_trip(tmp_path):
    frame = rows(3)
    frame["heading"] = [None, 90.5, None]
    frame["taken_at"] = pd.to_datetime(["2020-01-02 03:04:05.678901", None, None])
    stored = {
        "width": 4,
        "height": 5,
        "sha256": "ab",
        "phash": "0" * 16,
        "shard": "s.tar",
        "offset": 2**53 + 1,
        "length": 9,
    }
    for name, value in stored.items():
        frame[name] = pd.Series([value, None, None], dtype=object)
    write_catalog(tmp_path, frame)
    found = read_catalog(tmp_path)
    assert list(found.columns) == list(COLUMNS)
    assert (found.dtypes == empty_catalog().dtypes).all()
    assert found["offset"].tolist()[0] == 2**53 + 1
    assert found["taken_at"][0] == pd.Timestamp("2020-01-02 03:04:05.678901")
    assert found["heading"].isna().tolist() == [True, False, True]
    first = (tmp_path / "catalog.parquet").read_bytes()
    write_catalog(tmp_path, found)
    assert (tmp_path / "catalog.parquet").read_bytes() == first
    assert read_catalog(tmp_path, ["longitude", "photo_id"]).columns.tolist() == ["longitude", "photo_id"]


def test_catalog_bytes_do_not_tell_how_it_was_put_together(tmp_path):
    frame = rows(5000)
    write_catalog(tmp_path, frame)
    whole = (tmp_path / "catalog.parquet").read_bytes()
    table = read_table(tmp_path)
    write_table(tmp_path, pa.concat_tables([table.slice(0, 7), table.slice(7, 2000), table.slice(2007)]))
    assert (tmp_path / "catalog.parquet").read_bytes() == whole


def test_catalog_refuses_what_is_none(tmp_path):
    def refuse(match: str, **changes: object) -> None:
        with pytest.raises(CatalogError, match=match):
            write_catalog(tmp_path, rows(2).assign(**changes))
        assert not (tmp_path / "catalog.parquet").exists()

    refuse("photo_id must be unique.*'id0'", photo_id="id0")
    refuse("photo_id has 1 nulls", photo_id=["a", None])
    refuse("latitude must be within ±90", latitude=[0.0, 90.5])
    refuse("longitude has 1 nulls", longitude=[0.0, np.nan])
    refuse("longitude must be within", longitude=[0.0, np.inf])
    refuse("unknown: mood", mood="good")
    refuse("width must be int32", width="wide")
    refuse("shard and width", shard="s.tar")
    with pytest.raises(CatalogError, match="missing: album"):
        write_catalog(tmp_path, rows(2).drop(columns="album"))
    with pytest.raises(FileNotFoundError, match="no photos have been ingested"):
        read_catalog(tmp_path)
    write_catalog(tmp_path, rows(2))
    with pytest.raises(CatalogError, match="no column mood"):
        read_catalog(tmp_path, ["mood"])


def test_photographers_are_keyed_hashes():
    # RFC 4231, test case 2, cut to 16 digits; its key has 4 bytes, so it ends with a zero byte here, as HMAC pads it
    assert photographer_id("what do ya want for nothing?", b"Jefe\0") == "p5bdcc146bf60754e"
    hashed = photographer_ids(pa.array(["b", None, "a", "b"]), b"12345").to_pylist()
    assert hashed == [photographer_id("b", b"12345"), None, photographer_id("a", b"12345"), hashed[0]]
    assert photographer_id("a", b"12345") != photographer_id("a", b"12346")
    with pytest.raises(ValueError, match="photographer_key must be at least 5 bytes, got 0"):
        photographer_id("a", b"")
