"""Kernel density over neighbours, against loops written from equation 1 and scikit-learn's KernelDensity."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KernelDensity

from geoloc.retrieval.density import (
    MINIMUM_FEATURE_DISTANCE,
    DensitySettings,
    densest,
    feature_distance,
    kernel_density,
    neighbour_weights,
)
from geoloc.settings import SettingsError, parse
from geoloc.sphere import EARTH_RADIUS_KM, distance_km


def made_neighbours(queries, k, seed, cluster=True):
    """Neighbours in a few clusters and in the wild, similarities falling as an index gives them."""
    rng = np.random.default_rng(seed)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, (queries, k))))
    longitude = rng.uniform(-180, 180, (queries, k))
    if cluster:
        some = rng.random((queries, k)) < 0.4
        latitude = np.where(
            some, np.clip(latitude[:, :1] + rng.normal(0, 3, (queries, k)), -90, 90), latitude
        )
        longitude = np.where(some, longitude[:, :1] + rng.normal(0, 3, (queries, k)), longitude)
        longitude = (longitude + 180) % 360 - 180
    similarity = -np.sort(-rng.uniform(0.5, 0.95, (queries, k)), axis=1)
    return latitude, longitude, similarity.astype(np.float32)


def density_by_the_formula(latitude, longitude, similarity, m, sigma, flat):
    """Equation 1 in plain Python for one query, from the definition of w and N; weights scaled to sum to
    1."""
    weights = [(1 / math.sqrt(2 - 2 * float(s))) ** m for s in similarity]
    total = sum(weights)
    values = []
    for lat, lon in zip(latitude, longitude, strict=True):
        value = 0.0
        for w, other_lat, other_lon in zip(weights, latitude, longitude, strict=True):
            if flat:
                degrees = math.hypot(lat - other_lat, lon - other_lon)
            else:
                degrees = math.degrees(float(distance_km(lat, lon, other_lat, other_lon)) / EARTH_RADIUS_KM)
            gaussian = math.exp(-(degrees**2) / (2 * sigma**2)) / (2 * math.pi * sigma**2)
            value += w / total * gaussian
        values.append(value)
    return np.array(values)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 16.0])
@pytest.mark.parametrize("k", [1, 7, 34, 35, 120])
def test_density_is_equation_1(flat, sigma, k):
    latitude, longitude, similarity = made_neighbours(3, k, seed=k)
    density = kernel_density(latitude, longitude, neighbour_weights(similarity, 10.0), sigma, flat=flat)
    for q in range(3):
        expected = density_by_the_formula(latitude[q], longitude[q], similarity[q], 10.0, sigma, flat)
        np.testing.assert_allclose(density[q] / (2 * np.pi * sigma**2), expected, rtol=1e-9)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 4.0, 16.0])
def test_answers_are_scikit_learns(flat, sigma):
    latitude, longitude, similarity = made_neighbours(40, 100, seed=5)
    found = densest(latitude, longitude, similarity, DensitySettings(sigma=sigma, flat=flat))
    for q in range(40):
        weights = feature_distance(similarity[q]) ** -10.0
        points = np.column_stack([latitude[q], longitude[q]])
        kernel = KernelDensity(bandwidth=sigma)
        if not flat:
            points, kernel = (
                np.radians(points),
                KernelDensity(bandwidth=np.radians(sigma), metric="haversine"),
            )
        log_density = kernel.fit(points, sample_weight=weights).score_samples(points)
        best = int(log_density.argmax())
        assert (found.latitude[q], found.longitude[q]) == (latitude[q, best], longitude[q, best])
        per_unit = 2 * np.pi * kernel.bandwidth**2  # N's own constant, in the units of `points`
        assert found.share[q] == pytest.approx(np.exp(log_density[best]) * per_unit, rel=1e-8)


def test_threads_and_chunks_do_not_change_the_bytes():
    latitude, longitude, similarity = made_neighbours(90, 60, seed=1)
    weights = neighbour_weights(similarity, 10.0)
    one = kernel_density(latitude, longitude, weights, 4.0, threads=1)
    assert one.dtype == np.float64
    assert np.array_equal(one, kernel_density(latitude, longitude, weights, 4.0, threads=3))
    alone = np.concatenate(
        [
            kernel_density(latitude[q : q + 1], longitude[q : q + 1], weights[q : q + 1], 4.0)
            for q in range(90)
        ]
    )
    np.testing.assert_allclose(one, alone, rtol=1e-14)


@given(
    st.floats(-80, 80),
    st.floats(0, 1.5),
    st.lists(st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)), min_size=3, max_size=8),
)
@settings(deadline=None)
def test_a_cluster_across_the_antimeridian_holds_together_on_the_sphere_only(centre, shift, offsets):
    """A cluster on both sides of 180 outweighs one better neighbour elsewhere; in flat degrees it is torn
    apart."""
    n = len(offsets)
    latitude = np.array([[-10.0] + [centre + a for a, _ in offsets] * 2])
    raw = [179.9 + shift + b for _, b in offsets] + [-179.9 + shift + b for _, b in offsets]
    longitude = np.array([[20.0, *(((x + 180) % 360) - 180 for x in raw)]])
    # The lone neighbour weighs as much as 0.75 of the cluster: more than one half, less than the whole.
    weights = np.array([[0.75 * 2 * n] + [1.0] * (2 * n)])
    east = longitude[0, 1:] > 0
    sphere = kernel_density(latitude, longitude, weights, 30.0)
    assert sphere[0].argmax() != 0
    flat = kernel_density(latitude, longitude, weights, 30.0, flat=True)
    if 0.3 < east.mean() < 0.7:
        assert flat[0].argmax() == 0


@given(st.floats(-180, 180), st.integers(0, 10_000))
@settings(deadline=None)
def test_turning_the_earth_turns_the_answer(turn, seed):
    latitude, longitude, similarity = made_neighbours(4, 30, seed)
    chosen = DensitySettings(k=30, sigma=4.0)
    before = densest(latitude, longitude, similarity, chosen)
    after = densest(latitude, (longitude + turn + 180) % 360 - 180, similarity, chosen)
    np.testing.assert_allclose(before.share, after.share, rtol=1e-7)
    np.testing.assert_array_equal(before.column, after.column)


def test_as_sigma_or_k_falls_or_m_rises_the_answer_becomes_the_nearest_neighbour():
    """Section 3.2: "as k decrease, m increase or σ decreases, this output becomes the NN"."""
    latitude, longitude, similarity = made_neighbours(50, 100, seed=9)
    wide = densest(latitude, longitude, similarity, DensitySettings(sigma=16.0, m=1.0))
    assert (wide.column != 0).mean() > 0.5
    for limit in (
        DensitySettings(sigma=1e-4),
        DensitySettings(k=1, sigma=16.0),
        DensitySettings(m=1e6, sigma=16.0),
    ):
        nearest = densest(latitude, longitude, similarity, limit)
        np.testing.assert_array_equal(nearest.column, np.zeros(50))


def test_absent_neighbours_count_for_nothing():
    latitude, longitude, similarity = made_neighbours(6, 40, seed=2)
    holes = np.random.default_rng(0).random((6, 40)) < 0.3
    holes[3] = True
    holed = [np.where(holes, np.nan, a) for a in (latitude, longitude, similarity)]
    found = densest(*holed, DensitySettings(k=40))
    for q in (0, 1, 2, 4, 5):
        kept = ~holes[q]
        alone = densest(
            latitude[q : q + 1, kept],
            longitude[q : q + 1, kept],
            similarity[q : q + 1, kept],
            DensitySettings(),
        )
        assert (found.latitude[q], found.longitude[q]) == (alone.latitude[0], alone.longitude[0])
        assert found.share[q] == pytest.approx(alone.share[0], rel=1e-12)
    assert np.isnan(found.latitude[3])
    assert np.isnan(found.longitude[3])
    assert found.share[3] == 0
    assert found.column[3] == -1
    none = densest(np.empty((2, 0)), np.empty((2, 0)), np.empty((2, 0)), DensitySettings())
    assert np.isnan(none.latitude).all()
    assert (none.column == -1).all()
    density = kernel_density(np.array([[1.0, np.nan]]), np.array([[0.0, np.nan]]), np.full((1, 2), 0.5), 4.0)
    assert density.tolist() == [[0.5, 0.0]]


def test_exact_duplicates_of_the_query_weigh_the_same_and_nothing_overflows():
    # Float32 products of equal vectors come out on both sides of 1.
    similarity = np.array([[1.0000001, 1.0, 0.99999994, 0.9]], dtype=np.float32)
    weights = neighbour_weights(similarity, 10.0)
    assert weights[0, 0] == weights[0, 1] == weights[0, 2]
    assert weights.sum() == pytest.approx(1.0)
    assert feature_distance(1.0) == MINIMUM_FEATURE_DISTANCE
    assert feature_distance(0.0) == pytest.approx(math.sqrt(2))
    assert feature_distance(-1.0) == 2.0
    ratio = weights[0, 3] / weights[0, 0]
    assert ratio == pytest.approx((MINIMUM_FEATURE_DISTANCE / math.sqrt(0.2)) ** 10, rel=1e-5)
    assert np.isfinite(neighbour_weights(similarity, 1e5)).all()
    assert neighbour_weights(np.array([[np.nan, np.nan]]), 10.0).tolist() == [[0.0, 0.0]]


def test_float32_coordinates_are_not_used():
    """Two candidates a metre apart differ in the eighth digit of a density that float32 cannot tell apart."""
    step = 1e-5
    latitude = np.array([[50.0, 50.0 + step, 50.0 + 2 * step, 50.0 + 2 * step]])
    density = kernel_density(latitude, np.full((1, 4), 8.0), np.full((1, 4), 0.25), 4.0)
    assert len(np.unique(density[0, :3])) == 3
    assert np.ptp(density[0]) < 1e-7


def test_ties_go_to_the_nearest_neighbour():
    latitude, longitude = np.array([[10.0, -10.0, -40.0]]), np.array([[0.0, 0.0, 90.0]])
    found = densest(latitude, longitude, np.full((1, 3), 0.8), DensitySettings(k=3))
    assert found.column.tolist() == [0]
    # Copies further down have the same density but for rounding, which must not choose between them.
    latitude, longitude, similarity = (np.tile(a, 2) for a in made_neighbours(200, 50, seed=3))
    assert densest(latitude, longitude, similarity, DensitySettings(sigma=16.0)).column.max() < 50


def test_peaks_fall_stand_apart_and_start_with_the_answer():
    latitude, longitude, similarity = made_neighbours(30, 100, seed=4)
    found = densest(latitude, longitude, similarity, DensitySettings(sigma=4.0, alternatives=6))
    assert found.peak_share.shape == (30, 6)
    np.testing.assert_array_equal(found.peak_latitude[:, 0], found.latitude)
    np.testing.assert_array_equal(found.peak_share[:, 0], found.share)
    assert (np.diff(found.peak_share, axis=1) <= 0).all()
    km = 4.0 * np.pi / 180 * EARTH_RADIUS_KM
    for a in range(6):
        for b in range(a):
            apart = distance_km(
                found.peak_latitude[:, a], found.peak_longitude[:, a],
                found.peak_latitude[:, b], found.peak_longitude[:, b],
            )  # fmt: skip
            assert (apart > km).all()
    together = densest(np.full((1, 5), 3.0), np.full((1, 5), 3.0), np.full((1, 5), 0.5), DensitySettings(k=5))
    assert together.share[0] == pytest.approx(1.0)
    assert np.isnan(together.peak_latitude[0, 1:]).all()
    assert (together.peak_share[0, 1:] == 0).all()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"one shape \[Q, k\]"):
        kernel_density(np.zeros((2, 3)), np.zeros((2, 2)), np.zeros((2, 3)), 1.0)
    with pytest.raises(ValueError, match="sigma must be above 0"):
        kernel_density(np.zeros((1, 1)), np.zeros((1, 1)), np.ones((1, 1)), 0.0)
    with pytest.raises(ValueError, match="finite"):
        kernel_density(np.full((1, 1), np.inf), np.zeros((1, 1)), np.ones((1, 1)), 1.0)
    with pytest.raises(ValueError, match="weights must be at least 0"):
        kernel_density(np.zeros((1, 1)), np.zeros((1, 1)), np.full((1, 1), np.nan), 1.0)
    with pytest.raises(SettingsError, match=r"density\.sigma must be at least 1e-06, got 0"):
        parse(DensitySettings, {"sigma": 0}, "density")
