"""Intervals by photographer: against Wilson's formula, loops, simulations and the bootstrap that they replace."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from geoloc.evaluation.measures.bootstrap import interval, photographer_clusters, resampled_means
from geoloc.evaluation.measures.comparison import compare
from geoloc.evaluation.measures.intervals import differences, holm, shares
from geoloc.photos.owners import photographer_keys


def city(shares_or_differences, confidence=0.95):
    low, high = shares_or_differences.interval(confidence)
    return float(low[0]), float(high[0])


def test_photos_by_as_many_photographers_have_wilsons_interval():
    hits, n = np.arange(900) < 300, 900
    z = stats.norm.ppf(0.975)
    centre, half = 1 / 3 + z * z / 2 / n, z * np.sqrt(2 / 9 / n + (z / 2 / n) ** 2)
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    assert city(shares(hits[:, None], np.arange(n))) == pytest.approx(expected, abs=3e-4)


def test_photographers_who_are_all_right_or_all_wrong_count_once_each():
    # 60 photographers of 10 like photos know as much as 60 photos.
    right = np.arange(60) % 3 == 0
    ten = city(shares(np.repeat(right, 10)[:, None], np.repeat(np.arange(60), 10)))
    assert ten == pytest.approx(city(shares(right[:, None], np.arange(60))), abs=5e-3)


def test_no_hit_is_no_certainty_and_neither_are_hits_only():
    """Of 35 photographers who are all right or all wrong, none is right with a chance of (1 - p)^35."""
    clusters = np.repeat(np.arange(35), 20)
    low, high = city(shares(np.zeros((700, 1)), clusters))
    assert low == 0
    assert 1 - 0.025 ** (1 / 35) <= high < 0.12
    assert city(shares(np.ones((700, 1)), clusters)) == pytest.approx((1 - high, 1))
    alone = shares(np.zeros((9, 1)), np.zeros(9, dtype=int))
    assert np.isnan(alone.interval()).all()


def draw(rng, rate, alike, sizes):
    """Hits of photographers whose own rates are drawn around `rate` with an intraclass correlation `alike`."""
    rates = rng.beta(rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1), len(sizes))
    return (rng.random(sizes.sum()) < np.repeat(rates, sizes)).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "alike"), [(0.02, 0.1), (0.02, 0.3), (0.2, 0.3)])
def test_rare_hits_by_few_photographers_are_covered_where_the_bootstrap_does_not(rate, alike):
    rng = np.random.default_rng(0)
    covered, before, width = [], [], []
    for _ in range(400):
        sizes = np.ceil(np.exp(rng.normal(2.5, 1, 35))).astype(int)
        clusters, hits = np.repeat(np.arange(35), sizes), draw(rng, rate, alike, sizes)[:, None]
        low, high = city(shares(hits, clusters))
        covered.append(low <= rate <= high)
        width.append(high - low)
        old = interval(resampled_means(hits, clusters, resamples=200, seed=1))
        before.append(old[0][0] <= rate <= old[1][0])
    assert np.mean(covered) >= 0.93
    assert np.mean(before) <= 0.9
    assert np.mean(width) < 0.3  # not by saying nothing


@pytest.mark.slow
def test_paired_differences_are_covered_where_few_photos_differ():
    rng = np.random.default_rng(1)
    covered, decided = [], []
    for _ in range(400):
        sizes = np.ceil(np.exp(rng.normal(2.5, 1, 35))).astype(int)
        clusters, differ = np.repeat(np.arange(35), sizes), draw(rng, 0.05, 0.1, sizes)
        gained = differ * np.where(rng.random(len(differ)) < 0.5, 1, -1)
        found = differences(gained[:, None], clusters)
        low, high = city(found)
        covered.append(low <= 0 <= high)
        decided.append(found.p_value()[0] <= 0.05)
    assert np.mean(covered) >= 0.93
    assert np.mean(decided) == pytest.approx(1 - np.mean(covered))


def test_a_difference_is_paired_and_two_like_methods_are_undecided_but_not_certain():
    rng = np.random.default_rng(3)
    a = (rng.random(400) < 0.5).astype(float)
    b, clusters = a.copy(), np.arange(400) // 2
    b[np.flatnonzero(a)[:40]] = 0.0
    hits = np.stack([a, b, a], axis=1)
    table = compare(
        [("a", "b"), ("b", "a"), ("a", "c")], ["a", "b", "c"], hits[:, :, None], clusters, {"city": 25.0}
    )
    assert table["difference"].tolist() == pytest.approx([0.1, -0.1, 0])
    assert table["verdict"].tolist() == ["better", "worse", "undecided"]
    low, high = city(shares(a[:, None], clusters))
    assert table["high"][0] - table["low"][0] < (high - low) * 0.8
    assert table["low"][0] == pytest.approx(-table["high"][1])
    assert table["p"][2] == 1
    assert -0.05 < table["low"][2] < 0 < table["high"][2] < 0.05


@settings(deadline=None)
@given(st.integers(0, 100_000))
def test_what_holds_of_any_photos(seed):
    rng = np.random.default_rng(seed)
    n, people = int(rng.integers(2, 60)), int(rng.integers(2, 9))
    clusters = np.unique(rng.integers(0, people, n), return_inverse=True)[1]
    hits = (rng.random((n, 2)) < rng.random(2)).astype(float)
    found = shares(hits, clusters)
    low, high = found.interval()
    if clusters.max() == 0:
        assert np.isnan(low).all()
        return
    assert (low <= hits.mean(axis=0)).all()
    assert (hits.mean(axis=0) <= high).all()
    assert (high - low > 0.02).all()  # sixty photos are never certain
    narrow = found.interval(0.8)
    assert (narrow[0] >= low - 1e-12).all()
    assert (narrow[1] <= high + 1e-12).all()
    missed = shares(1 - hits, clusters).interval()
    np.testing.assert_allclose(missed, (1 - high, 1 - low), atol=1e-12)
    # Ten copies of every photo, by the same photographers, are no news but for chance among the photos themselves.
    more = shares(np.repeat(hits, 10, axis=0), np.repeat(clusters, 10)).interval()
    assert (more[1] - more[0] > 0.2 * (high - low)).all()

    change = hits[:, :1] - hits[:, 1:]
    one, other = differences(change, clusters), differences(-change, clusters)
    np.testing.assert_allclose(one.interval()[0], -other.interval()[1], atol=1e-12)
    for level in (0.3, 0.05, 0.01):
        low, high = one.interval(1 - level)
        if abs(one.p_value()[0] - level) > 1e-4:
            assert (one.p_value()[0] <= level) == (low[0] > 0 or high[0] < 0)


def test_holm_is_the_step_down_loop():
    p = [0.01, 0.04, np.nan, 0.03, 0.005]
    assert holm(p)[[0, 1, 3, 4]].tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(holm(p)[2])
    assert holm([]).tolist() == []
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]


def test_an_unknown_photographer_is_the_album_then_the_photo():
    """What splits keep together, intervals resample together: ten albums of ten photos are ten, not a hundred."""
    photos = pd.DataFrame(
        {
            "photo_id": [f"p{i:03}" for i in range(100)],
            "photographer": None,
            "source": "flickr",
            "album": [f"album {i // 10}" for i in range(100)],
        }
    )
    clusters = photographer_clusters(photographer_keys(photos))
    assert len(set(clusters)) == 10
    hits = (np.arange(100) // 10 < 3).astype(float)[:, None]
    by_album, by_photo = city(shares(hits, clusters)), city(shares(hits, np.arange(100)))
    assert by_album[1] - by_album[0] > 2.5 * (by_photo[1] - by_photo[0])
    other = photos.assign(source=["a", "b"] * 50)  # an album's name says nothing in another source
    assert len(set(photographer_keys(other))) == 20
    assert len(set(photographer_keys(photos.drop(columns=["album", "source"])))) == 100
    assert len(set(photographer_keys(photos.assign(photographer=["x", None] * 50)))) == 11


def test_impossible_values_are_refused():
    for values, clusters, message in (
        (np.empty((0, 1)), [], "at least one photo"),
        (np.full((3, 1), 2.0), [0, 1, 2], "from 0 to 1, got 2.0"),
        (np.full((3, 1), np.nan), [0, 1, 2], "from 0 to 1, got nan"),
        (np.zeros((3, 1)), [0, 1], "a row for each"),
    ):
        with pytest.raises(ValueError, match=message):
            shares(values, np.array(clusters, dtype=int))
