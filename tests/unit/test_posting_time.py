"""Models of time: the paper's features, the prior in closed form, and daylight against the hour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geoloc.models.context_inputs import top_cells
from geoloc.models.daylight import DaylightModel, chance_of_daylight
from geoloc.models.posting_time import TimePrior, time_features
from geoloc.models.time_settings import TimePriorSettings
from tests.unit.localizer_world import probabilities

POINTS = np.array([[50.0, 0.0], [50.0, 5.0], [-30.0, 150.0]])


def test_features_are_scaled_as_in_the_paper():
    times = pd.Series(
        pd.to_datetime(["2012-01-01T00:59:00", "2012-12-08T23:00:00", None])
    )  # Sunday, Saturday
    expected = [[-11.5 / 24, -2.5 / 7, -5.5 / 12], [11.5 / 24, 3.5 / 7, 5.5 / 12], [np.nan] * 3]
    np.testing.assert_allclose(time_features(times), expected, atol=1e-6)
    in_zone = pd.Series(pd.to_datetime(["2012-01-01T02:59:00+02:00"]))
    np.testing.assert_allclose(time_features(in_zone)[0], expected[0], atol=1e-6)


def test_the_network_sees_the_top_cells_renormalised_their_mass_and_the_time():
    p = np.array([[0.4, 0.1, 0.3, 0.2], [np.nan] * 4, [1, 0, 0, 0]])
    times = pd.Series(pd.to_datetime(["2012-07-04T12:00:00", "2012-07-04T00:00:00", None]))
    found = top_cells(p, times, 2)
    rows = found.rows(np.array([0])).numpy()[0]
    np.testing.assert_allclose(rows, [4 / 7, 0, 3 / 7, 0, 0.7, 0.5 / 24, 0.5 / 7, 0.5 / 12], atol=1e-6)
    assert found.readable.tolist() == [True, False, False]  # unreadable, without a time
    assert found.size == 8
    with pytest.raises(ValueError, match="a time for each of 3 photos, got 2"):
        top_cells(p, times[:2])


def hourly(hours: list[int]) -> pd.Series:
    return pd.Series(pd.to_datetime([f"2012-05-05T{hour:02d}:30" for hour in hours]))


def test_the_prior_is_bayes_rule_on_counted_times():
    cells = np.array([0] * 40 + [2] * 40 + [-1] * 10)
    times = hourly([12] * 40 + [2] * 40 + [5] * 10)
    prior = TimePrior.count(cells, times, POINTS, TimePriorSettings(smoothing=0.001))
    p = np.array([[0.5, 0.0, 0.5], [0.5, 0.0, 0.5], [0.2, 0.3, 0.5], [np.nan] * 3])
    queries = pd.concat([hourly([12, 2]), pd.Series([pd.NaT, pd.NaT])], ignore_index=True)
    found = prior.apply(p, queries)
    np.testing.assert_allclose(found[:2], [[1, 0, 0], [0, 0, 1]], atol=1e-3)
    np.testing.assert_allclose(found[2], p[2], atol=1e-6)  # no time, no change
    assert np.isnan(found[3]).all()
    # By hand: p(cell) p(hour | cell) p(weekday | cell) p(month | cell), with one band's photos as the pseudo-counts.
    soft = TimePrior.count(cells, times, POINTS, TimePriorSettings(smoothing=10))
    every = (40 + 10 / 24) / 90  # the share of hour 12 of all photos, drawn to 1 / 24
    band = (40 + 10 * every) / 50
    assert np.exp(soft.hour[0, 12]) == pytest.approx((40 + 10 * band) / 50)
    assert np.exp(soft.hour[1, 12]) == pytest.approx(band)  # no photos: its neighbours' hours
    np.testing.assert_allclose(np.exp(soft.hour).sum(axis=1), 1)


def test_the_power_of_the_prior_is_fitted_on_other_photos(tmp_path):
    numbers = np.random.default_rng(0)
    cells = numbers.integers(0, 3, 3000)
    peaks = np.array([12, 13, 2])
    telling = hourly(((peaks[cells] + numbers.normal(0, 3, 3000).round()) % 24).astype(int).tolist())
    noise = hourly(numbers.integers(0, 24, 3000).tolist())
    p = probabilities(3000, 3, 1, spread=0.3)
    half, rest = slice(0, 1500), slice(1500, 3000)

    def fitted(times: pd.Series) -> TimePrior:
        counted = TimePrior.count(cells[half], times[half], POINTS, TimePriorSettings())
        return counted.calibrated(p[rest], times[rest].reset_index(drop=True), cells[rest])

    assert fitted(telling).power == pytest.approx(1, abs=0.25)
    assert fitted(noise).power < 0.4
    nothing = pd.Series([pd.NaT] * 5)
    assert fitted(telling).calibrated(p[:5], nothing, cells[:5]).power == 0

    fitted(telling).save(tmp_path / "prior")
    again = TimePrior.load(tmp_path / "prior")
    np.testing.assert_array_equal(again.apply(p[:9], telling[:9]), fitted(telling).apply(p[:9], telling[:9]))


def test_the_clock_tells_where_it_is_light():
    times = pd.Series(pd.to_datetime(["2015-06-21T12:00", "2015-06-21T00:00", "2015-12-21T20:00", None]))
    light = chance_of_daylight(times, np.array([0.0, 68.0, -50.0]))
    np.testing.assert_allclose(light[0], [1, 1, 1], atol=0.01)
    np.testing.assert_allclose(light[1], [0, 0.9, 0], atol=0.1)  # the midnight sun
    assert light[2, 2] > 0.5 > light[2, 0] > light[2, 1]
    assert np.isnan(light[3]).all()


def test_daylight_in_a_photo_moves_it_to_where_the_sun_is_up():
    numbers = np.random.default_rng(0)
    hours = numbers.integers(0, 24, 400)
    day = (hours > 6) & (hours < 18)
    x = np.where(day, 1.0, -1.0)[:, None] + numbers.normal(0, 0.2, (400, 2))
    model = DaylightModel.fit(x, hourly(hours.tolist()), np.zeros(400))
    assert (model.chances(x) > 0.5)[day].all()
    midnight = pd.Series(pd.to_datetime(["2015-06-21T00:00", "2015-06-21T00:00", None]))
    p = np.full((3, 2), 0.5)
    found = model.apply(p, np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]]), midnight, np.array([0.0, 68.0]))
    assert found[0, 1] > 0.85 > 0.15 > found[1, 1]
    np.testing.assert_allclose(found[2], 0.5)
    with pytest.raises(ValueError, match="photos by day and by night"):
        DaylightModel.fit(x[:4], hourly([12] * 4), np.zeros(4))
