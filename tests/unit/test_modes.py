"""Mean shift on the sphere, against a grid over the whole sphere and against gradient ascent written in a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from geoloc.retrieval.density import DensitySettings, densest, kernel_density, neighbour_weights
from geoloc.retrieval.modes import find_modes, modes_of
from geoloc.sphere import EARTH_RADIUS_KM, destination, distance_km, unit_vectors
from tests.unit.test_density import made_neighbours


def density_at(latitude, longitude, of_latitude, of_longitude, weights, sigma):
    """Equation 1 as a share at any points [P], for one query."""
    km = distance_km(latitude[:, None], longitude[:, None], of_latitude[None], of_longitude[None])
    return np.exp(-0.5 * (np.degrees(km / EARTH_RADIUS_KM) / sigma) ** 2) @ (weights / weights.sum())


@pytest.mark.parametrize("sigma", [8.0, 20.0])
@pytest.mark.parametrize("seed", range(2))
def test_modes_are_the_peaks_of_a_grid_over_the_sphere(sigma, seed):
    rng = np.random.default_rng(seed)
    middles = np.array([[89.0, 10.0], [-10.0, 179.5], [20.0, -60.0]])
    chosen = middles[rng.integers(0, 3, 25)]
    lat, lon = destination(chosen[:, 0], chosen[:, 1], rng.uniform(0, 360, 25), rng.exponential(900, 25))
    weights = rng.uniform(0.2, 1, 25)
    found = modes_of(lat[None], lon[None], weights[None], sigma)
    # Points spread evenly, so that the poles are no special case.
    count = 10_000
    z = 1 - (2 * np.arange(count) + 1) / count
    grid = np.degrees(np.arcsin(z)), (np.arange(count) * 137.50776405003785 + 180) % 360 - 180
    values = density_at(*grid, lat, lon, weights, sigma)
    spacing = EARTH_RADIUS_KM * np.sqrt(4 * np.pi / count)
    points = unit_vectors(*grid)
    near = cKDTree(points).query_ball_point(points, 2.5 * spacing / EARTH_RADIUS_KM)
    peaks = [i for i in np.flatnonzero(values > 1e-4) if values[i] >= values[near[i]].max()]
    real = found.share[0] > 1e-4
    km = distance_km(
        found.latitude[0][real][:, None], found.longitude[0][real][:, None], grid[0][peaks], grid[1][peaks]
    )
    assert (km.min(axis=0) < 2 * spacing).all()  # each peak of the grid is a mode
    assert (km.min(axis=1) < 2 * spacing).all()  # and each mode a peak
    assert found.share[0, 0] >= values.max()
    at = density_at(found.latitude[0][real], found.longitude[0][real], lat, lon, weights, sigma)
    np.testing.assert_allclose(found.share[0][real], at, rtol=1e-9)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 16.0])
def test_masses_are_the_weights_that_climb_to_a_mode(sigma):
    latitude, longitude, similarity = made_neighbours(6, 40, seed=3)
    similarity[2, 5:] = np.nan
    latitude[2, 5:] = longitude[2, 5:] = np.nan
    found = find_modes(latitude, longitude, similarity, DensitySettings(sigma=sigma))
    weights = neighbour_weights(similarity, 10.0)
    np.testing.assert_allclose(found.mass.sum(axis=1), 1, atol=1e-12)
    assert (np.diff(found.share, axis=1) <= 0).all()
    assert ((found.of[2] >= 0) == (np.arange(40) < 5)).all()
    best = densest(latitude, longitude, similarity, DensitySettings(sigma=sigma))
    assert (found.share[:, 0] >= best.share * (1 - 1e-12)).all()  # a mode is no less dense than any neighbour
    for q in range(6):
        for mode in range(found.mass.shape[1]):
            assert found.mass[q, mode] == pytest.approx(weights[q][found.of[q] == mode].sum(), abs=1e-12)
    # By hand: small steps uphill from a neighbour end where its mode is.
    for q, start in ((0, 0), (1, 7), (3, 21), (5, 39)):
        lat, lon, w = latitude[q], longitude[q], weights[q]
        here = np.array([lat[start]]), np.array([lon[start]])
        step = sigma * 20.0
        while step > 1e-3:
            around = destination(here[0], here[1], np.arange(0, 360, 10), step)
            values = density_at(*around, lat, lon, w, sigma)
            if values.max() > density_at(*here, lat, lon, w, sigma)[0] * (1 + 1e-13):
                here = around[0][values.argmax()][None], around[1][values.argmax()][None]
            else:
                step /= 2
        mode = found.of[q, start]
        gap = distance_km(here[0][0], here[1][0], found.latitude[q, mode], found.longitude[q, mode])
        assert gap < 0.02 * 111 * sigma


def test_queries_do_not_touch_each_other_and_none_has_no_mode():
    latitude, longitude, similarity = made_neighbours(5, 30, seed=8)
    latitude[3], longitude[3], similarity[3] = np.nan, np.nan, np.nan
    settings_ = DensitySettings(sigma=4.0)
    together = find_modes(latitude, longitude, similarity, settings_)
    assert np.isnan(together.latitude[3]).all()
    assert together.mass[3].sum() == 0
    for q in (0, 1, 2, 4):
        alone = find_modes(latitude[[q]], longitude[[q]], similarity[[q]], settings_)
        width = alone.share.shape[1]
        np.testing.assert_allclose(together.share[q, :width], alone.share[0], rtol=1e-12)
        assert (together.of[q] == alone.of[0]).all()
    assert find_modes(np.empty((2, 0)), np.empty((2, 0)), np.empty((2, 0)), settings_).mass.shape == (2, 0)


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(1e-6, 60), st.floats(0.0, 0.9))
@settings(deadline=None, max_examples=60)
def test_two_equal_neighbours_closer_than_two_sigma_have_their_middle_as_mode(lat, lon, sigma, apart):
    """Two equal Gaussians have one peak, halfway, up to a distance of 2σ (less on a strongly curved sphere)."""
    km = float(np.radians(2 * sigma * apart) * EARTH_RADIUS_KM)
    if apart * sigma > 30:
        return
    other = destination(lat, lon, 77.0, km)
    middle = destination(lat, lon, 77.0, km / 2)
    found = modes_of(np.array([[lat, other[0]]]), np.array([[lon, other[1]]]), np.ones((1, 2)), sigma)
    assert found.mass.tolist() == [[pytest.approx(1.0)]]
    gap = distance_km(found.latitude[0, 0], found.longitude[0, 0], *middle)
    assert gap <= 1e-3 * np.radians(sigma) * EARTH_RADIUS_KM + 1e-8


def test_two_far_groups_are_two_modes_with_their_weights():
    lat, lon = np.array([[0.0, 0.1, 60.0]]), np.array([[179.95, -179.95, 20.0]])
    found = modes_of(lat, lon, np.array([[1.0, 1.0, 3.0]]), 1.0)
    assert found.mass[0] == pytest.approx([0.6, 0.4])
    assert found.of[0].tolist() == [1, 1, 0]
    assert (found.latitude[0, 1], abs(found.longitude[0, 1])) == pytest.approx((0.05, 180.0), abs=1e-6)


def test_what_modes_cannot_be_found_of_is_refused():
    three = np.zeros((1, 3))
    with pytest.raises(ValueError, match="one shape"):
        modes_of(three, three, np.zeros((1, 2)), 1.0)
    with pytest.raises(ValueError, match="sigma must be above 0, got 0"):
        modes_of(three, three, three, 0)
    with pytest.raises(ValueError, match="not in flat degrees"):
        find_modes(three, three, three, DensitySettings(flat=True))


def test_modes_agree_with_the_densest_neighbour_where_kernels_do_not_meet():
    latitude, longitude, similarity = made_neighbours(10, 20, seed=2, cluster=False)
    found = find_modes(latitude, longitude, similarity, DensitySettings(sigma=1e-3))
    weights = neighbour_weights(similarity, 10.0)
    order = np.argsort(-weights, axis=1, kind="stable")
    np.testing.assert_allclose(found.mass, np.take_along_axis(weights, order, axis=1), rtol=1e-9)
    np.testing.assert_allclose(
        found.share[:, 0], kernel_density(latitude, longitude, weights, 1e-3).max(axis=1)
    )
