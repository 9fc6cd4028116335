"""The plan of the sample planet: one world, whoever looks at it, where nobody stands in a wall or in the sea."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.land import is_land
from geoloc.sample import plan as planning
from geoloc.sample.fields import fields
from geoloc.sample.geography import all_cities, cities, city_rows, to_degrees
from geoloc.sample.hashing import choice, mixed, uniform
from geoloc.sample.plan import landmark, plans, to_street
from geoloc.sample.surroundings import Surroundings, surroundings
from geoloc.sphere import distance_km
from tests.unit.sample_frame import to_metres

IDS = cities(60, 3)["city"].to_numpy()
city_ids = st.sampled_from(IDS.tolist())


def test_hashes_are_evenly_spread_and_single_numbers_agree_with_arrays() -> None:
    keys = np.arange(40_000)
    assert np.abs(np.bincount(choice(8, keys, 5), minlength=8) - 5000).max() < 300
    made = uniform(keys, 1)
    assert made.min() >= 0
    assert made.max() < 1
    assert abs(np.corrcoef(made[:-1], made[1:])[0, 1]) < 0.02
    flipped = np.bitwise_count(mixed(keys) ^ mixed(keys + 1))  # neighbours differ in half of the bits
    assert 31 < flipped.mean() < 33
    assert len(set(mixed(keys, 2).tolist())) == len(keys)
    assert mixed(3, 4).shape == ()
    for a, b in itertools.product((-(2**40), -1, 0, 7), (0, 3, 2**35)):
        assert int(mixed(a, b)) == int(mixed(np.array([a]), b)[0])
    assert int(mixed(1, 2, 3)) == 10429134899480657104  # the planet is what it was


@given(st.floats(-60, 60), st.floats(-180, 180), st.floats(-30_000, 30_000), st.floats(-30_000, 30_000))
def test_the_frame_goes_there_and_back_in_true_metres(
    latitude: float, longitude: float, east: float, north: float
) -> None:
    made_latitude, made_longitude = to_degrees(latitude, longitude, east, north)
    assert -180 <= made_longitude <= 180
    back = to_metres(latitude, longitude, made_latitude, made_longitude)
    np.testing.assert_allclose(back, (east, north), atol=1e-4)
    true = float(distance_km(latitude, longitude, made_latitude, made_longitude)) * 1000
    assert true == pytest.approx(np.hypot(east, north), rel=0.01, abs=0.1)


def test_cities_are_real_and_coasts_are_by_the_sea() -> None:
    table = all_cities().set_index("name")
    paris = table[table["country_code"] == "FR"].loc["Paris"]
    assert float(distance_km(48.8566, 2.3522, paris["latitude"], paris["longitude"])) < 10
    assert np.isnan(paris["seaward"])
    assert np.isinf(paris["shore_m"])
    chicago, barcelona = table.loc["Chicago"], table[table["country_code"] == "ES"].loc["Barcelona"]
    assert np.isinf(chicago["shore_m"])  # the raster counts lakes as land
    assert 60 < barcelona["seaward"] < 200  # the sea is to the south-east
    coast = all_cities()[np.isfinite(all_cities()["shore_m"])]
    ahead_latitude, ahead_longitude = to_degrees(
        coast["latitude"], coast["longitude"],
        60_000 * np.sin(np.radians(coast["seaward"])), 60_000 * np.cos(np.radians(coast["seaward"])),
    )  # fmt: skip
    # 60 km ahead there is mostly water: islands and far shores are the rest.
    assert is_land(ahead_latitude, ahead_longitude).mean() < 0.25
    motifs = all_cities().groupby("motif")["country_code"].nunique()
    assert motifs["beach"] > 40
    assert motifs["fjord"] > 8


def test_fields_are_continuous_everywhere() -> None:
    latitude, longitude = np.array([10.0, 89.9999, 45.0]), np.array([179.99999, 0.0, 30.0])
    beside = fields(
        latitude + np.array([0, 0, 1e-4]), longitude + np.array([2e-5, 180.0, 0]), 5, 4.0, 12.0, 1
    )
    np.testing.assert_allclose(fields(latitude, longitude, 5, 4.0, 12.0, 1), beside, atol=1e-3)
    rng = np.random.default_rng(0)
    sphere = np.degrees(np.arcsin(rng.uniform(-1, 1, 4000))), rng.uniform(-180, 180, 4000)
    many = fields(*sphere, 6, 4.0, 12.0, 1)
    assert np.abs(many.mean(axis=0)).max() < 0.25
    assert 0.5 < many.std(axis=0).min() < many.std(axis=0).max() < 0.9


def test_cities_draw_needs_a_count() -> None:
    assert cities(10, 1)["city"].is_monotonic_increasing
    assert set(cities(10, 1)["city"]) != set(cities(10, 2)["city"])
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        cities(0, 1)
    with pytest.raises(KeyError):
        city_rows([-1])


@settings(deadline=None)
@given(city_ids, st.floats(-4000, 4000), st.floats(-4000, 4000), st.floats(-25, 25), st.floats(-25, 25))
def test_neighbours_see_the_same_world(city: int, east: float, north: float, de: float, dn: float) -> None:
    """What two overlapping surroundings say of a house, a tree and the ground is the same."""
    one, other = surroundings(city, east, north, 90.0), surroundings(city, east + de, north + dn, 90.0)
    for kind in ("houses", "trees", "monuments", "signs"):
        first, second = _absolute(one, kind), _absolute(other, kind)
        shared = first.keys() & second.keys()
        for name in shared:
            np.testing.assert_allclose(first[name], second[name], atol=1e-6)
        inner = {n for n, v in first.items() if _middle_distance(v, kind, other) < 80}
        assert inner <= second.keys()
    rng = np.random.default_rng(1)
    p, q = rng.uniform(-40, 40, (2, 200))
    there = one.ground(p, q)
    again = other.ground(p + one.p - other.p, q + one.q - other.q)
    assert (there == again).mean() > 0.995  # points on an edge may fall to either side


def _absolute(around: Surroundings, kind: str) -> dict[int, tuple[float, ...]]:
    things = getattr(around, kind)
    if kind == "houses":
        rows = zip(things.p0 + around.p, things.p1 + around.p, things.q0 + around.q, things.q1 + around.q,
                   things.height, strict=True)  # fmt: skip
    else:
        rows = zip(things.p + around.p, things.q + around.q, things.radius, things.height, strict=True)
    return {int(n): tuple(map(float, row)) for n, row in zip(things.number, rows, strict=True)}


def _middle_distance(values: tuple[float, ...], kind: str, around: Surroundings) -> float:
    if kind == "houses":
        p, q = (values[0] + values[1]) / 2, (values[2] + values[3]) / 2
    else:
        p, q = values[:2]
    return float(np.hypot(p - around.p, q - around.q))


def test_houses_stand_apart_and_off_the_streets() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for city in IDS[:25]:
        around = surroundings(int(city), *rng.normal(0, 700, 2), 150.0)
        h = around.houses
        seen += len(h.p0)
        for a, b in itertools.combinations(range(len(h.p0)), 2):
            over_p = min(h.p1[a], h.p1[b]) - max(h.p0[a], h.p0[b])
            over_q = min(h.q1[a], h.q1[b]) - max(h.q0[a], h.q0[b])
            assert min(over_p, over_q) <= 1e-9
        share = rng.uniform(0, 1, (2, 20, 1))
        ground = around.ground(h.p0 + share[0] * (h.p1 - h.p0), h.q0 + share[1] * (h.q1 - h.q0))
        assert np.isin(ground, [planning.YARD]).all()
        assert (
            np.isin(around.ground(around.trees.p, around.trees.q), [planning.ROAD, planning.WATER]).sum() == 0
        )
    assert seen > 500


@pytest.mark.slow
def test_photographers_stand_on_streets_or_at_the_water() -> None:
    rng = np.random.default_rng(5)
    city = IDS[rng.integers(0, len(IDS), 1500)]
    spread = rng.choice([300.0, 2000.0, 20_000.0], 1500)
    east, north, along = to_street(city, rng.normal(0, spread), rng.normal(0, spread))
    assert along.min() >= 0
    assert along.max() < 180
    kinds = []
    for c, e, n, bearing in zip(city.tolist(), east.tolist(), north.tolist(), along.tolist(), strict=True):
        around = surroundings(c, e, n, 60.0)
        h = around.houses
        assert not ((h.p0 < 0) & (h.p1 > 0) & (h.q0 < 0) & (h.q1 > 0)).any()
        kinds.append(int(around.ground(np.zeros(1), np.zeros(1))[0]))
        if kinds[-1] == planning.ROAD:  # the street goes on in its direction, both ways
            turn = np.radians(bearing - float(around.plan.turn))
            step = np.array([-12.0, -6.0, 6.0, 12.0])
            ahead = around.ground(step * np.sin(turn), step * np.cos(turn))
            assert np.isin(ahead, [planning.ROAD, planning.LINE, planning.SHORE, planning.WATER]).all()
    count = np.bincount(kinds, minlength=planning.GROUNDS)
    assert count[planning.WATER] == 0
    assert count[[planning.ROAD, planning.LINE, planning.SHORE]].sum() == 1500
    assert count[planning.SHORE] > 10


def test_the_landmark_has_a_square_to_itself() -> None:
    east, north = landmark(IDS)
    assert np.hypot(east, north).max() < 500
    for city, e, n in zip(IDS.tolist(), east.tolist(), north.tolist(), strict=True):
        around = surroundings(city, e, n, 30.0)
        assert around.landmark == pytest.approx((0.0, 0.0), abs=1e-6)
        assert int(around.ground(np.zeros(1), np.zeros(1))[0]) in (
            planning.SQUARE,
            planning.SHORE,
            planning.WATER,
        )
        h = around.houses
        assert not ((h.p0 < 5) & (h.p1 > -5) & (h.q0 < 5) & (h.q1 > -5)).any()


def test_plans_of_many_cities_are_those_of_each() -> None:
    together = plans(IDS)
    for k in (0, 7, 31):
        alone = plans(IDS[k])
        for name in type(together).__dataclass_fields__:
            assert getattr(together, name)[k] == getattr(alone, name), name


def test_cities_thin_out_and_traffic_keeps_to_its_side() -> None:
    city = int(IDS[0])
    middle, country = surroundings(city, 0, 0, 150.0), surroundings(city, 25_000, 3_000, 150.0)
    assert middle.density > 0.5 > 0.05 > country.density
    assert len(middle.houses.p0) > 2 * len(country.houses.p0)
    right, left = surroundings(city, 0, 0, 150.0), surroundings(city, 0, 0, 150.0, left=True)
    p, q = (x.ravel() for x in np.meshgrid(np.arange(-100, 100, 0.5), np.arange(-100, 100, 0.5)))
    differ = right.ground(p, q) != left.ground(p, q)
    assert 0 < differ.sum() < 0.02 * len(p)
    assert np.isin(right.ground(p, q)[differ], [planning.ROAD, planning.LINE]).all()
