"""Fields and screening: what a source writes is read as it means it, or named as damaged."""

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoloc.photos.exif import read_exif
from geoloc.photos.screening import screen
from geoloc.photos.sources.candidates import Candidates
from geoloc.photos.sources.fields import numbers, text, times, typed, unquoted
from tests.photo_fixtures import KEY, encoded, exif, picture

clocks = st.datetimes(datetime(1840, 1, 1), datetime(2099, 12, 31))


@given(clocks, st.integers(-14 * 60, 14 * 60))
def test_iso_times_with_zone(clock, minutes):
    zoned = clock.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    local, utc, damaged = times(pa.array([zoned.isoformat(sep=" ")]), 1)
    assert local.to_pylist() == [clock]
    assert utc.to_pylist() == [zoned.astimezone(UTC).replace(tzinfo=None)]
    assert not damaged.any()


@given(clocks)
def test_the_same_moment_in_every_form(clock):
    second = clock.replace(microsecond=0)
    forms = [
        second.strftime("%Y:%m:%d %H:%M:%S").zfill(19),
        second.isoformat(),
        f"{second:%Y-%m-%d %H:%M:%S} UTC",
        f"{second:%Y%m%dT%H%M%SZ}",
        f"{second:%Y%m%d%H%M%S}",
        f"{second.year}:{second.month}:{second.day} {second.hour}:{second:%M:%S}",
    ]
    local, utc, damaged = times(pa.array(forms), len(forms))
    assert local.to_pylist() == [second] * len(forms)
    assert utc.to_pylist() == [second] * len(forms)
    assert not damaged.any()
    typed_columns = [pa.array([second], pa.timestamp("ms")), pa.array([second], pa.timestamp("us", "UTC"))]
    for column in typed_columns:
        assert times(column, 1)[1].to_pylist() == [second]


@given(st.integers(10**8, 19 * 10**8 - 1))
def test_nine_or_ten_digits_are_unix_seconds(seconds):
    local, utc, damaged = times(pa.array([str(seconds), f"{seconds}.0"]), 2)
    expected = datetime(1970, 1, 1) + timedelta(seconds=seconds)
    assert local.to_pylist() == utc.to_pylist() == [expected] * 2
    assert not damaged.any()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(
            ["2013", "41456.5", "41456", "0", "130701", "-1", "20130732", "2013070112", "1372680000000"]
        ),
        pa.array([2013, 0, 41456, 20130732]),
        pa.array([41456.5, 2013.0, 0.0]),
    ],
)
def test_a_number_is_a_time_only_where_it_must_be_one(column):
    local, _, damaged = times(column, len(column))
    assert local.null_count == len(column)
    assert damaged.all()


def test_a_day_without_signs_is_that_day():
    for column in (pa.array(["20130701"]), pa.array([20130701]), pa.array([20130701.0])):
        assert times(column, 1)[0].to_pylist() == [datetime(2013, 7, 1)]


def test_damaged_times_are_damaged_and_unknown_ones_unknown():
    bad = [
        "30:13.0",
        "00:00.0",
        "2013-02-30 10:00:00",
        "2013-01-01 25:00:00",
        "yesterday",
        "2013:13:01 00:00:00",
        "NA",
    ]
    unknown = [None, "", "  ", "0000:00:00 00:00:00", "    :  :     :  :  "]
    local, utc, damaged = times(pa.array(bad + unknown), len(bad + unknown))
    assert damaged.tolist() == [True] * len(bad) + [False] * len(unknown)
    assert local.null_count == utc.null_count == len(bad + unknown)


@given(
    st.lists(st.floats() | st.none(), max_size=8),
    st.lists(st.sampled_from(["12,5", "x", "1_0", "--1", "٣"]), max_size=2),
)
def test_numbers(values, wrong):
    column = pa.array([None if v is None else repr(v) for v in values] + wrong, pa.string())
    got, bad = numbers(column, len(column))
    assert bad.tolist() == [False] * len(values) + [True] * len(wrong)
    for value, found in zip(values, got.to_pylist(), strict=False):
        assert found == value or (math.isnan(value) and math.isnan(found))
    assert got.null_count == values.count(None) + len(wrong)


def test_text():
    assert text(pa.array([" NA ", "", None, "007"]), 4).to_pylist() == ["NA", None, None, "007"]
    assert text(pa.array([b"caf\xc3\xa9", b"caf\xe9"]), 2).to_pylist() == ["café", "caf\\xe9"]
    assert text(pa.array([12.0, 12.5, None]), 3).to_pylist() == ["12", "12.5", None]
    assert text(pa.array([7, None]), 2).to_pylist() == ["7", None]
    assert unquoted(pa.array(["a+b%2Bc", None, "caf%C3%A9"])).to_pylist() == ["a b+c", None, "café"]


def batch(**columns: list[object]) -> Candidates:
    count = len(next(iter(columns.values())))
    raw = {
        "latitude": [1.0] * count,
        "longitude": [2.0] * count,
        "photo_id": [f"i{n}" for n in range(count)],
        **columns,
    }
    table, faults, _ = typed(
        pa.array([f"r{n}" for n in range(count)]), {name: pa.array(values) for name, values in raw.items()}
    )
    return Candidates(table, faults=faults)


@pytest.mark.parametrize(
    ("latitude", "longitude", "expected"),
    [
        (None, 2.0, "missing_coordinates"),
        (1.0, None, "missing_coordinates"),
        (math.nan, 2.0, "non_finite_coordinates"),
        (1.0, -math.inf, "non_finite_coordinates"),
        (90.001, 2.0, "out_of_range_coordinates"),
        (1.0, -180.001, "out_of_range_coordinates"),
        (0.0, -0.0, "zero_coordinates"),
    ],
)
def test_bad_coordinates(latitude, longitude, expected):
    screened = screen(batch(latitude=[5.0, latitude, 90.0], longitude=[0.0, longitude, -180.0]), "s", KEY)
    assert screened.table["photo_id"].to_pylist() == ["i0", "i2"]
    assert screened.rows.tolist() == [0, 2]
    [row] = screened.turned_away.to_pylist()
    assert (row["source"], row["reference"], row["photo_id"]) == ("s", "r1", "i1")
    assert (row["reason"], row["severity"]) == (expected, "photo")


def test_equator_and_meridian_are_places():
    assert screen(batch(latitude=[0.0, 51.48], longitude=[32.5, 0.0]), "s", KEY).table.num_rows == 2


def test_malformed_coordinates_and_missing_ids():
    screened = screen(
        batch(latitude=["1", "one", "3"], longitude=["1", "2", "3"], photo_id=["a", "b", None]), "s", KEY
    )
    assert screened.table["photo_id"].to_pylist() == ["a"]
    found = {row["reference"]: row["reason"] for row in screened.turned_away.to_pylist()}
    assert found == {"r1": "malformed_coordinates", "r2": "missing_id"}


def test_bad_fields_are_dropped_and_the_photo_kept():
    screened = screen(
        batch(
            heading=[360.0, -1.0, math.nan, 12.5, None],
            prob_indoor=[1.0, 1.1, None, math.inf, 0.0],
            taken_at=["2013-01-01 00:00:00", "1700-01-01 00:00:00", "2150-01-01 00:00:00", "30:13.0", None],
            posted_at=["2013-01-01 00:00:00", "1356998400", None, "0", "soon"],
        ),
        "s",
        KEY,
    )
    assert screened.turned_away.num_rows == 0
    table = screened.table
    assert table["heading"].to_pylist() == [0.0, None, None, 12.5, None]
    assert table["prob_indoor"].to_pylist() == [1.0, None, None, None, 0.0]
    assert table["taken_at"].to_pylist() == [datetime(2013, 1, 1), None, None, None, None]
    assert table["posted_at"].to_pylist() == [datetime(2013, 1, 1), datetime(2013, 1, 1), None, None, None]
    found = sorted((row["reference"], row["reason"]) for row in screened.field_faults.to_pylist())
    assert found == [
        ("r1", "bad_heading"), ("r1", "bad_probability"), ("r1", "bad_time"),
        ("r2", "bad_heading"), ("r2", "bad_time"), ("r3", "bad_probability"), ("r3", "bad_time"), ("r3", "bad_time"),
        ("r4", "bad_time"),
    ]  # fmt: skip
    assert set(screened.field_faults["severity"].to_pylist()) == {"field"}


def test_a_photo_is_not_taken_after_it_is_posted():
    screened = screen(
        batch(taken_at=["2013-01-02", "2013-01-03"], posted_at=["2013-01-01", "2013-01-01"]), "s", KEY
    )
    assert screened.table["taken_at"].to_pylist() == [datetime(2013, 1, 2), None]
    assert screened.table["posted_at"].null_count == 0


@given(st.floats(-90, 90), st.floats(-180, 180), st.floats(0, 359.99))
def test_exif_coordinates(latitude, longitude, heading):
    data = exif(latitude, longitude, heading=heading, taken="2013:07:01 12:00:00")
    image = Image.Image()
    image._exif = data
    facts = read_exif(image)
    assert facts.latitude == pytest.approx(latitude, abs=1e-7)
    assert facts.longitude == pytest.approx(longitude, abs=1e-7)
    assert facts.heading == pytest.approx(heading, abs=0.01)
    assert facts.taken == "2013:07:01 12:00:00"


def through_a_file(made: Image.Exif) -> object:
    import io

    return read_exif(Image.open(io.BytesIO(encoded(picture(1), exif=made))))


def test_exif_of_a_known_place():
    facts = through_a_file(exif(-33.8568, 151.2153))  # Sydney Opera House: south and east
    assert (facts.latitude, facts.longitude) == pytest.approx((-33.8568, 151.2153), abs=1e-6)
    assert (facts.taken, facts.heading, facts.problem) == (None, None, None)


def test_exif_without_hemisphere_is_malformed_and_zero_denominators_are_no_number():
    no_side = exif(10, 20)
    del no_side.get_ifd(0x8825)[1]
    assert "GPSLatitudeRef is missing" in str(through_a_file(no_side).problem)
    from PIL.TiffImagePlugin import IFDRational

    broken = exif(10, 20, gps={4: (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))})
    facts = through_a_file(broken)
    assert facts.latitude == pytest.approx(10)
    assert math.isnan(facts.longitude)
    assert np.isnan(
        screen(batch(latitude=[1.0], longitude=[2.0]), "s", KEY).table["heading"].to_numpy()
    ).all()
    assert through_a_file(Image.Exif()).latitude is None
