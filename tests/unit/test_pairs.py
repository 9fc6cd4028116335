"""Street and overhead pairs: only what both pools store, nothing twice, nothing lost without a reason."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.photos.catalog import COLUMNS, write_catalog
from geoloc.photos.pairs import (
    LATER_COLUMNS,
    PAIRS_FILE,
    SCHEMA,
    PairsSummary,
    add_pairs,
    overhead_pool,
    read_pairs,
)
from geoloc.photos.pool import PoolBusyError, locked
from geoloc.photos.quarantine import QUARANTINE_FILE, read_quarantine

STREET, TILES = ("a", "b", "c"), ("o-a", "o-b", "o-c")


def write_pool(folder, stored, bare=()):
    """A pool whose catalog has these ids, the bare ones by metadata only; shards are not looked at."""
    ids = [*stored, *bare]
    rows = pd.DataFrame(dict.fromkeys(COLUMNS), index=range(len(ids)), dtype=object)
    rows = rows.assign(photo_id=ids, source="s", latitude=1.0, longitude=2.0)
    known = {"width": 8, "height": 8, "sha256": "0" * 64, "phash": "0" * 16, "shard": "x.tar", "offset": 512,
             "length": 9}  # fmt: skip
    for name, value in known.items():
        rows[name] = [value] * len(stored) + [None] * len(bare)
    folder.mkdir(parents=True, exist_ok=True)
    write_catalog(folder, rows)


@pytest.fixture
def pool(tmp_path):
    write_pool(tmp_path / "data", STREET, bare=["m"])
    write_pool(overhead_pool(tmp_path / "data"), TILES, bare=["o-m"])
    return tmp_path / "data"


def pair(photo="a", tile="o-a", heading=90.0, city="Lyon, FR", **more):
    return {"photo_id": photo, "overhead_id": tile, "heading": heading, "city": city, **more}


def table(*rows):
    return pd.DataFrame(list(rows), columns=["photo_id", "overhead_id", "heading", "city"])


def files(pool):
    return {path.name: path.read_bytes() for path in sorted(pool.iterdir()) if path.is_file()}


def test_no_pairs_is_an_empty_table_with_the_right_columns(tmp_path):
    found = read_pairs(tmp_path)
    assert list(found.columns) == SCHEMA.names
    assert len(found) == 0
    assert found["heading"].dtype == np.float64


def test_pairs_are_kept_in_order_and_the_split_city_is_the_city(pool):
    assert add_pairs(pool, table(pair("b", "o-b", 0), pair())) == PairsSummary(added=2)
    found = read_pairs(pool)
    assert found.drop(columns=list(LATER_COLUMNS)).to_dict("list") == {
        "photo_id": ["b", "a"], "overhead_id": ["o-b", "o-a"], "heading": [0.0, 90.0], "city": ["Lyon, FR"] * 2,
        "split_city": ["Lyon, FR"] * 2,
    }  # fmt: skip
    early = [field for field in SCHEMA if field.name not in LATER_COLUMNS]
    assert list(pq.read_schema(pool / PAIRS_FILE)) == early  # columns of nulls are not written


def test_a_split_city_that_is_given_is_kept(pool):
    add_pairs(pool, pd.DataFrame([pair(split_city="Rhône"), pair("b", "o-b", split_city=None)]))
    assert read_pairs(pool)["split_city"].tolist() == ["Rhône", "Lyon, FR"]


def test_one_photo_may_have_several_tiles_and_one_tile_several_photos(pool):
    assert add_pairs(pool, table(pair("a", "o-a"), pair("a", "o-b"), pair("b", "o-a"))).added == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("x"), "pair_without_photo"),
        (pair("m"), "pair_without_photo"),  # known by metadata: no pixels to match
        (pair("o-a"), "pair_without_photo"),  # a tile is no street photo
        (pair(tile="o-x"), "pair_without_tile"),
        (pair(tile="o-m"), "pair_without_tile"),
        (pair(tile="a"), "pair_without_tile"),
        (pair(photo=None), "missing_id"),
        (pair(tile=""), "missing_id"),
    ],
)
def test_a_pair_without_both_photos_is_in_quarantine_and_counted(pool, row, reason):
    summary = add_pairs(pool, table(row, pair("b", "o-b")), source="mine")
    assert summary == PairsSummary(added=1, dropped={reason: 1})
    assert summary.seen == 2
    assert read_pairs(pool)["photo_id"].tolist() == ["b"]
    away = read_quarantine(pool)
    assert away[["source", "reason", "severity"]].to_numpy().tolist() == [["mine", reason, "pair"]]
    assert f"dropped: {reason} 1" in str(summary)


def test_a_pair_leaves_quarantine_once_its_photo_is_there(pool):
    rows = table(pair("x", "o-a"), pair("y", "o-a"))
    assert add_pairs(pool, rows).dropped == {"pair_without_photo": 2}
    write_pool(pool, [*STREET, "x"])
    assert add_pairs(pool, rows) == PairsSummary(added=1, dropped={"pair_without_photo": 1})
    assert read_quarantine(pool)["photo_id"].tolist() == ["y"]


@pytest.mark.parametrize("heading", [-0.5, 360.5, math.inf, "north"])
def test_a_bad_heading_is_dropped_and_the_pair_kept(pool, heading):
    summary = add_pairs(pool, table(pair(heading=heading)))
    assert summary == PairsSummary(added=1, fields_dropped={"bad_heading": 1})
    assert math.isnan(read_pairs(pool)["heading"][0])
    away = read_quarantine(pool)
    assert away[["reason", "severity", "detail"]].to_numpy().tolist() == [
        ["bad_heading", "field", f"heading is {heading}"]
    ]
    assert add_pairs(pool, table(pair(heading=heading))).already_present == 1


def test_a_full_turn_is_north_and_unknown_stays_unknown(pool):
    summary = add_pairs(pool, table(pair(heading=360), pair("b", "o-b", None), pair("c", "o-c", "12.5")))
    assert summary == PairsSummary(added=3)
    assert read_pairs(pool)["heading"].fillna(-1).tolist() == [0.0, -1.0, 12.5]


def test_size_of_the_tile_and_north_of_the_heading_are_kept_and_bad_ones_counted(pool):
    rows = [
        pair(tile_metres=128.0, heading_reference="magnetic"),
        pair("b", "o-b", tile_metres="wide", heading_reference="grid"),
        pair("c", "o-c", tile_metres=0),
    ]
    summary = add_pairs(pool, pd.DataFrame(rows))
    assert (summary.added, summary.fields_dropped) == (3, {"bad_heading_reference": 1, "bad_tile_size": 2})
    found = read_pairs(pool)
    assert found["heading_reference"].tolist()[:1] == ["magnetic"]
    assert found["heading_reference"].isna().tolist() == [False, True, True]
    assert found["heading"].isna().tolist() == [False, True, False]
    assert found["tile_metres"].isna().tolist() == [False, True, True]
    # An early pool that lacks the size is not contradicted by it, and another size is a conflict.
    again = add_pairs(pool, pd.DataFrame([pair("c", "o-c", tile_metres=64.0), pair(tile_metres=64.0)]))
    assert (again.already_present, again.dropped) == (1, {"pair_conflict": 1})


def test_known_pairs_are_never_rewritten(pool):
    add_pairs(pool, table(pair()))
    changed = table(pair(heading=91.0), pair(city="Paris, FR"), pair())
    assert add_pairs(pool, changed) == PairsSummary(already_present=1, dropped={"pair_conflict": 2})
    assert read_pairs(pool)[["heading", "city"]].to_numpy().tolist() == [[90.0, "Lyon, FR"]]


def test_the_first_of_one_table_stands(pool):
    summary = add_pairs(pool, table(pair(), pair(), pair(heading=3.0)))
    assert summary == PairsSummary(added=1, already_present=1, dropped={"pair_conflict": 1})


def test_adding_again_changes_no_byte(pool):
    rows = table(pair(), pair("b", "o-b", None, None), pair("x"), pair("c", "o-c", 999.0))
    first = add_pairs(pool, rows)
    before = files(pool)
    second = add_pairs(pool, rows)
    assert files(pool) == before
    assert (second.added, second.already_present, second.dropped) == (0, 3, first.dropped)


def test_a_write_that_fails_leaves_the_pairs_as_they_were(pool, monkeypatch):
    add_pairs(pool, table(pair()))
    before = files(pool)

    def fail(*_args, **_keywords):
        raise OSError("disk full")

    monkeypatch.setattr("geoloc.photos.pairs.pq.write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        add_pairs(pool, table(pair("b", "o-b")))
    assert files(pool) == before


def test_a_busy_pool_and_wrong_tables_are_told(pool, tmp_path):
    with locked(pool), pytest.raises(PoolBusyError):
        add_pairs(pool, table(pair()))
    with pytest.raises(ValueError, match="missing: overhead_id"):
        add_pairs(pool, pd.DataFrame({"photo_id": ["a"]}))
    with pytest.raises(ValueError, match="source"):
        add_pairs(pool, table(pair()), source=" ")
    with pytest.raises(FileNotFoundError, match=r"catalog\.parquet is missing"):
        add_pairs(tmp_path / "none", table(pair()))
    assert not (pool / QUARANTINE_FILE).exists()


def expected(known, rows):
    """The same, one pair at a time: pairs afterwards, and how many were added, known and dropped."""
    kept, added, present, dropped = dict(known), 0, 0, 0
    for photo, tile, heading, city in rows:
        if photo not in STREET or tile not in TILES:
            dropped += 1
            continue
        value = (None if heading is None or not 0 <= heading <= 360 else heading % 360, city)
        if (photo, tile) not in kept:
            kept[photo, tile] = value
            added += 1
        elif kept[photo, tile] == value:
            present += 1
        else:
            dropped += 1
    return kept, added, present, dropped


ROWS = st.lists(
    st.tuples(
        st.sampled_from([*STREET, "x", None]),
        st.sampled_from([*TILES, "o-x", None]),
        st.sampled_from([None, 0.0, 360.0, 7.5, -1.0, 1e9]),
        st.sampled_from([None, "Lyon, FR", "Nice, FR"]),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=3))
def test_any_tables_in_any_order_give_what_one_pair_at_a_time_gives(tmp_path_factory, tables):
    pool = tmp_path_factory.mktemp("pool")
    write_pool(pool, STREET)
    write_pool(overhead_pool(pool), TILES)
    known = {}
    for rows in tables:
        known, added, present, dropped = expected(known, rows)
        summary = add_pairs(pool, table(*(dict(zip(table().columns, row, strict=True)) for row in rows)))
        assert (summary.added, summary.already_present) == (added, present)
        assert (sum(summary.dropped.values()), summary.seen) == (dropped, len(rows))
        found = read_pairs(pool).astype(object)
        found = found.where(found.notna(), None)
        assert {(r.photo_id, r.overhead_id): (r.heading, r.city) for r in found.itertuples()} == known
        assert list(zip(found["photo_id"], found["overhead_id"], strict=True)) == list(known)
        assert len(read_quarantine(pool)) <= sum(len(t) for t in tables) * 2
