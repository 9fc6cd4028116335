"""A catalog of more rows than one file has: parts, what names them, and looking things up without holding them all."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.files import DamagedFile
from geoloc.photos import catalog, ingest, lookup
from geoloc.photos.catalog import count_photos, read_catalog, write_catalog
from tests.photo_fixtures import contents, photo_table, take_in


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(catalog, "PART_ROWS", 50)
    monkeypatch.setattr(ingest, "_METADATA_ROWS", 30)
    monkeypatch.setattr(lookup, "_MOST_SORTED", 20)
    monkeypatch.setattr("geoloc.photos.sources.delimited._BLOCK_BYTES", 400)


def places(path: Path, count: int) -> Path:
    rows = [f"id{i},{1 + i % 80},{i % 170},p{i % 7}" for i in range(count)]
    path.write_text("\n".join(["photo_id,latitude,longitude,photographer", *rows]) + "\n")
    return path


def test_rows_beyond_one_file_are_parts_with_the_bytes_of_one_write(tmp_path, small_parts):
    pool, table = tmp_path / "pool", places(tmp_path / "places.csv", 130)
    assert take_in(pool, "table", table).added == 130
    frame = read_catalog(pool)
    assert frame["photo_id"].tolist() == [f"id{i}" for i in range(130)]
    assert len(pd.read_parquet(pool / "catalog.parquet")) == 30
    assert [len(pd.read_parquet(path)) for path in catalog.part_paths(pool)] == [50, 50]
    assert count_photos(pool) == 130
    made = contents(pool)
    write_catalog(tmp_path / "once", frame)
    once = contents(tmp_path / "once")
    assert once == {name: made[name] for name in once}
    write_catalog(pool, frame.iloc[:60])  # parts of other rows go
    assert read_catalog(pool)["photo_id"].tolist() == [f"id{i}" for i in range(60)]
    assert len(list((pool / "catalog").iterdir())) == 1


def test_a_second_look_and_another_source_are_accounted_for_across_parts(tmp_path, small_parts):
    pool, table = tmp_path / "pool", places(tmp_path / "places.csv", 130)
    with table.open("a") as file:
        file.write("id3,4,3,p3\nid5,80,80,p5\nid4,,1,p1\n")
    first = take_in(pool, "table", table)
    assert (first.added, first.quarantined) == (130, {"duplicate_id": 2, "missing_coordinates": 1})
    made = contents(pool)
    again = take_in(pool, "table", table)
    assert (again.added, again.already_present, again.quarantined) == (0, 130, first.quarantined)
    assert contents(pool) == made
    other = take_in(pool, "table", table, source="other")
    assert other.added == 130
    ids = read_catalog(pool)["photo_id"]
    assert ids.is_unique
    assert ids[130:].tolist() == [f"other/id{i}" for i in range(130)]


@pytest.mark.parametrize("stage", ["_write_part", "_write_rows"])
def test_killed_between_a_part_and_its_name_the_next_run_ends_with_the_same_bytes(
    tmp_path, small_parts, monkeypatch, stage
):
    pool, table = tmp_path / "pool", places(tmp_path / "places.csv", 130)
    take_in(tmp_path / "whole", "table", table)
    real, calls = getattr(catalog, stage), []

    def killed(*given):
        calls.append(1)
        made = real(*given)
        if len(calls) == 4 - 2 * (stage == "_write_part"):
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(catalog, stage, killed)
    with pytest.raises(KeyboardInterrupt):
        take_in(pool, "table", table)
    monkeypatch.setattr(catalog, stage, real)
    count = count_photos(pool)
    assert 0 < count < 130
    assert read_catalog(pool)["photo_id"].tolist() == [f"id{i}" for i in range(count)]
    resumed = take_in(pool, "table", table)
    assert (resumed.added, resumed.already_present) == (130 - count, count)
    assert contents(pool) == contents(tmp_path / "whole")


def test_photos_with_bytes_are_known_across_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "PART_ROWS", 2)
    monkeypatch.setattr(lookup, "_MOST_SINGLE", 2)
    pool, table = tmp_path / "pool", photo_table(tmp_path, 7)
    assert take_in(pool, "table", table, settings={"shard_bytes": 5000}).added == 7
    made = contents(pool)
    assert take_in(pool, "table", table).already_present == 7
    assert contents(pool) == made


def test_a_reader_beside_an_ingest_sees_no_row_twice(tmp_path, small_parts, monkeypatch):
    pool = tmp_path / "pool"
    take_in(pool, "table", places(tmp_path / "places.csv", 45))
    real = catalog.read_arrow
    more = catalog.read_table(tmp_path / "pool").slice(0, 10)
    more = more.set_column(0, catalog.SCHEMA.field(0), pa.array([f"new{i}" for i in range(10)]))

    def replaced_meanwhile(*given):
        monkeypatch.setattr(catalog, "read_arrow", real)
        catalog.append_table(pool, more)
        return real(*given)

    monkeypatch.setattr(catalog, "read_arrow", replaced_meanwhile)
    assert len(read_catalog(pool)) == read_catalog(pool)["photo_id"].nunique() == 55


def test_a_part_that_is_missing_or_no_name_is_one_line(tmp_path, small_parts):
    pool = tmp_path / "pool"
    take_in(pool, "table", places(tmp_path / "places.csv", 130))
    part = catalog.part_paths(pool)[0]
    part.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=part.name):
        read_catalog(pool)
    table = pa.table({"photo_id": ["a"]}).replace_schema_metadata({b"geoloc.parts": b'["../../etc/passwd"]'})
    pa.parquet.write_table(table, pool / "catalog.parquet")
    with pytest.raises(DamagedFile, match=r"catalog\.parquet is damaged: it names parts that cannot be"):
        read_catalog(pool)


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=9), max_size=9),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=9),
)
def test_an_index_is_a_dictionary_of_lists(tmp_path_factory, added, wanted):
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:  # halves that digests have in common, pieces, single ones
        patch.setattr(lookup, "_MOST_SORTED", 8)
        patch.setattr(lookup, "_MOST_SINGLE", 2)
        index, truth, number = lookup.Index(folder), {}, 0
        for batch in added:
            keys = np.array(batch, np.uint64).reshape(-1, 2)
            numbers = np.arange(number, number + len(batch))
            if len(batch) == 1:
                index.add_one(keys, number)
            else:
                index.add(keys, numbers)
            for key, value in zip(batch, numbers.tolist(), strict=True):
                truth.setdefault(key, []).append(value)
            number += len(batch)
        found = index.find(np.array(wanted, np.uint64))
        for key, one in zip(wanted, found.tolist(), strict=True):
            assert one in truth.get(key, [-1])
            assert index.all(np.array([key], np.uint64)) == truth.get(key, [])


@given(st.lists(st.sampled_from(["a", "b", "", "ä", None]), max_size=12))
def test_digests_are_equal_where_texts_are(texts):
    made = lookup.digests(pa.array(texts, pa.string()))
    clean = [text or "" for text in texts]
    assert lookup.first_ones(made).tolist() == [clean.index(text) for text in clean]
