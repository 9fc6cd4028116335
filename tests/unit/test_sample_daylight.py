"""The sun of the sample planet against published values and what must hold anywhere; and the hours people keep."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.sample.daylight import (
    ANY_LIGHT,
    DAYLIGHT,
    DUSK,
    NIGHT,
    local_times,
    to_utc,
    utc_offset_hours,
)
from geoloc.sun import sun_coordinates, sun_position

A_DAY = np.arange(0, 86_400, 600).astype("timedelta64[s]")


def test_the_example_of_the_solar_position_algorithm() -> None:
    """Reda and Andreas, Solar Position Algorithm, NREL/TP-560-34302 (2008), table A5.1: Golden, Colorado.

    Elevation without refraction 39.872046, azimuth 194.34024 degrees.
    """
    elevation, azimuth = sun_position(np.datetime64("2003-10-17T19:30:30"), 39.742476, -105.1786)
    assert elevation == pytest.approx(39.872, abs=0.01)
    assert azimuth == pytest.approx(194.340, abs=0.01)


def test_the_examples_of_meeus() -> None:
    """Astronomical Algorithms, examples 25.a and 28.b: 1992 October 13, 0 h."""
    declination, equation_minutes = sun_coordinates(np.datetime64("1992-10-13T00:00:00"))
    assert declination == pytest.approx(-7.78507, abs=0.001)
    assert equation_minutes == pytest.approx(13 + 42.6 / 60, abs=0.02)


@pytest.mark.parametrize(
    ("utc", "declination"),
    [("2010-03-20T17:32", 0.0), ("2010-06-21T11:28", 23.44), ("2010-12-21T23:38", -23.44)],
)
def test_equinox_and_solstices(utc: str, declination: float) -> None:
    """Instants of the seasons of 2010, in universal time, as the US Naval Observatory lists them."""
    assert sun_coordinates(np.datetime64(utc))[0] == pytest.approx(declination, abs=0.01)


def test_sunrise_and_sunset_in_london_on_midsummer_day_of_2012() -> None:
    """04:43 and 21:21 British Summer Time as almanacs print it: the centre is then 0.83 degrees down."""
    utc = np.array(["2012-06-21T03:43", "2012-06-21T20:21"], "datetime64[s]")
    elevation, azimuth = sun_position(utc, 51.507, -0.128)
    np.testing.assert_allclose(elevation, -0.83, atol=0.15)
    assert 45 < azimuth[0] < 55
    assert 305 < azimuth[1] < 315


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1)),
    st.floats(-65, 65),
    st.floats(-179, 179),
)
def test_at_solar_noon_the_sun_stands_on_the_meridian(
    when: datetime, latitude: float, longitude: float
) -> None:
    day = np.datetime64(when, "D").astype("datetime64[s]")
    mean_noon = day + np.timedelta64(round(43_200 - longitude * 240), "s")
    _, equation = sun_coordinates(mean_noon)
    noon = mean_noon - np.timedelta64(round(float(equation) * 60), "s")
    declination, _ = sun_coordinates(noon)
    elevation, azimuth = sun_position(noon, latitude, longitude)
    assert elevation == pytest.approx(90 - abs(latitude - declination), abs=0.02)
    if elevation < 80:  # near the zenith azimuth turns fast
        meridian = 180.0 if latitude > declination else 0.0
        assert abs((azimuth - meridian + 180) % 360 - 180) < 0.2
    earlier, later = (sun_position(noon + np.timedelta64(h, "h"), latitude, longitude) for h in (-2, 2))
    assert earlier[0] < elevation
    assert later[0] < elevation
    assert earlier[1] < 180 < later[1]  # in the east, then in the west


def test_at_the_poles_the_sun_circles_at_its_declination() -> None:
    utc = np.datetime64("2012-05-04T00:00:00") + A_DAY
    declination, _ = sun_coordinates(utc)
    np.testing.assert_allclose(sun_position(utc, 90.0, 0.0)[0], declination, atol=1e-6)
    np.testing.assert_allclose(sun_position(utc, -90.0, 0.0)[0], -declination, atol=1e-6)


def test_midnight_sun_and_polar_night_in_tromso() -> None:
    assert sun_position(np.datetime64("2012-06-21T00:00:00") + A_DAY, 69.65, 18.96)[0].min() > 2
    assert sun_position(np.datetime64("2012-12-21T00:00:00") + A_DAY, 69.65, 18.96)[0].max() < -2


def test_fifteen_degrees_east_are_an_hour_earlier() -> None:
    utc = np.datetime64("2011-08-09T00:00:00") + A_DAY
    here, _ = sun_position(utc, 47.0, 8.0)
    east, _ = sun_position(utc - np.timedelta64(3600, "s"), 47.0, 23.0)
    np.testing.assert_allclose(here, east, atol=0.02)


def test_half_of_the_earth_is_lit() -> None:
    rng = np.random.default_rng(0)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000)))
    elevation, azimuth = sun_position(
        np.datetime64("2011-02-03T04:05:06"), latitude, rng.uniform(-180, 180, 20_000)
    )
    assert (elevation > 0).mean() == pytest.approx(0.5, abs=0.012)
    assert (azimuth >= 0).all()
    assert (azimuth < 360).all()


@pytest.mark.parametrize(
    ("longitude", "hours"), [(0, 0), (7.4, 0), (7.6, 1), (-7.6, -1), (139.7, 9), (180, 12), (-180, -12)]
)
def test_nautical_time_zones(longitude: float, hours: int) -> None:
    assert utc_offset_hours(longitude) == hours


def places(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    day = np.datetime64("2008-01-01") + rng.integers(0, 2500, count).astype("timedelta64[D]")
    return day, rng.uniform(-58, 58, count), rng.uniform(-180, 180, count)


@pytest.mark.parametrize(
    ("light", "low", "high", "at_least"),
    [(DAYLIGHT, 0.5, 90, 0.995), (DUSK, -8.1, 2.1, 0.995), (NIGHT, -90, -6, 0.98)],
)
def test_people_find_the_light_that_they_want(light: int, low: float, high: float, at_least: float) -> None:
    day, latitude, longitude = places(4000)
    taken = local_times(day, latitude, longitude, np.full(4000, light), np.arange(4000))
    assert (taken.astype("datetime64[D]") == day).all()
    elevation, _ = sun_position(to_utc(taken, utc_offset_hours(longitude)), latitude, longitude)
    assert ((elevation >= low) & (elevation <= high)).mean() >= at_least


def test_the_curve_of_the_day() -> None:
    day, latitude, longitude = places(8000)
    taken = local_times(day, latitude, longitude, np.full(8000, DAYLIGHT), np.arange(8000))
    hour = (taken - day.astype("datetime64[s]")).astype(np.int64) // 3600
    share = np.bincount(hour, minlength=24) / len(hour)
    assert share[10:17].sum() > 0.6
    assert share[:6].sum() + share[22:].sum() < 0.001
    indoors = local_times(day, latitude, longitude, np.full(8000, ANY_LIGHT), np.arange(8000))
    at_dinner = (indoors - day.astype("datetime64[s]")).astype(np.int64) // 3600
    assert np.isin(at_dinner, [18, 19, 20, 21]).mean() > 0.4


def test_an_hour_depends_on_its_own_row_only() -> None:
    day, latitude, longitude = places(300)
    light, key = np.arange(300) % 4, np.arange(300)
    together = local_times(day, latitude, longitude, light, key)
    some = np.arange(0, 300, 7)
    alone = local_times(day[some], latitude[some], longitude[some], light[some], key[some])
    np.testing.assert_array_equal(together[some], alone)


def test_where_there_is_no_such_light_people_are_about_all_the_same() -> None:
    winter = np.full(200, np.datetime64("2012-12-21"))
    north = (np.full(200, 75.0), np.full(200, 20.0))
    taken = local_times(winter, *north, np.full(200, DAYLIGHT), np.arange(200))
    hour = (taken - winter.astype("datetime64[s]")).astype(np.int64) // 3600
    assert hour.min() >= 6
    assert hour.max() <= 21
    dusk = local_times(np.full(200, np.datetime64("2012-06-21")), *north, np.full(200, DUSK), np.arange(200))
    assert (dusk.astype("datetime64[D]") == np.datetime64("2012-06-21")).all()
