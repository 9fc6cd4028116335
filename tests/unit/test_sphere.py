"""Spherical maths against formulas other than the code's: dot products, cross products, rotations, s2sphere."""

import math

import numpy as np
import pytest
import s2sphere
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geoloc.sphere import (
    EARTH_RADIUS_KM,
    LEVELS_KM,
    bearing,
    destination,
    distance_km,
    from_vectors,
    group_means,
    is_valid,
    unit_vectors,
)

latitudes = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, -0.0, 45.0]))
longitudes = st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, 180.0, 0.0, 90.0, -90.0]))
points = st.tuples(latitudes, longitudes)
inner_points = st.tuples(st.floats(-89, 89), longitudes)  # where bearings mean something
many = settings(deadline=None)


def vector(latitude, longitude):
    """A point on the unit sphere in plain Python, x to (0, 0), z to the north pole."""
    a, b = math.radians(latitude), math.radians(longitude)
    return (math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a))


def cross(a, b):
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def angle(a, b):
    """Angle between vectors by atan2 of cross and dot: exact at every size, and not the haversine."""
    return math.atan2(math.hypot(*cross(a, b)), dot(a, b))


def test_the_earth_and_the_levels_are_those_of_the_literature():
    assert EARTH_RADIUS_KM == 6371.0088
    assert LEVELS_KM == {"street": 1.0, "city": 25.0, "region": 200.0, "country": 750.0, "continent": 2500.0}
    assert list(LEVELS_KM.values()) == sorted(LEVELS_KM.values())


class TestDistance:
    @given(points, points)
    @many
    def test_agrees_with_the_angle_between_vectors(self, a, b):
        expected = 6371.0088 * angle(vector(*a), vector(*b))
        # Near antipodes the haversine is good to sqrt(eps), which is 0.1 m.
        assert float(distance_km(*a, *b)) == pytest.approx(expected, rel=1e-12, abs=2e-4)

    @given(inner_points, st.floats(1e-7, 1e-3), st.floats(0, 360))
    @many
    def test_centimetres_are_not_lost(self, a, degrees, direction):
        lat = a[0] + degrees * math.cos(direction)
        lon = a[1] + degrees * math.sin(direction)
        expected = 6371.0088 * angle(vector(*a), vector(lat, lon))
        assert float(distance_km(*a, lat, lon)) == pytest.approx(expected, rel=1e-6, abs=1e-9)

    @given(points, points, points)
    @many
    def test_is_a_metric(self, a, b, c):
        ab, ba, bc, ac = (float(distance_km(*x, *y)) for x, y in ((a, b), (b, a), (b, c), (a, c)))
        assert ab == ba
        assert ac <= ab + bc + 1e-3
        assert 0 <= ab <= math.pi * 6371.0088 + 1e-9
        assert float(distance_km(*a, *a)) == 0

    def test_known_distances(self):
        assert float(distance_km(0, 0, 0, 90)) == pytest.approx(math.pi / 2 * 6371.0088, rel=1e-14)
        assert float(distance_km(90, 12, -90, -77)) == pytest.approx(math.pi * 6371.0088, rel=1e-9)
        assert float(distance_km(0, 179.5, 0, -179.5)) == pytest.approx(
            math.radians(1) * 6371.0088, rel=1e-12
        )
        # Paris to New York on this sphere, by s2sphere's own formula.
        paris, york = (
            s2sphere.LatLng.from_degrees(48.8566, 2.3522),
            s2sphere.LatLng.from_degrees(40.7128, -74.006),
        )
        expected = paris.get_distance(york).radians * 6371.0088
        assert float(distance_km(48.8566, 2.3522, 40.7128, -74.006)) == pytest.approx(expected, rel=1e-12)
        assert expected == pytest.approx(5837, abs=1)

    def test_broadcasts_and_passes_nan(self):
        made = distance_km([[0.0], [10.0]], 0.0, np.zeros(3), [0.0, np.nan, 90.0])
        assert made.shape == (2, 3)
        assert np.isnan(made).tolist() == [[False, True, False]] * 2
        assert made[1, 0] == pytest.approx(math.radians(10) * 6371.0088)


class TestVectors:
    @given(points)
    @many
    def test_unit_vectors_are_s2spheres(self, a):
        expected = s2sphere.LatLng.from_degrees(*a).to_point()
        assert unit_vectors(*a) == pytest.approx([expected[k] for k in range(3)], abs=1e-15)

    @given(st.lists(points, min_size=1, max_size=10), st.floats(1e-6, 1e6))
    @many
    def test_from_vectors_inverts_at_any_length(self, some, length):
        lat, lon = np.array(some).T
        back_lat, back_lon = from_vectors(unit_vectors(lat, lon) * length)
        assert back_lat == pytest.approx(lat, abs=1e-6)
        assert distance_km(lat, lon, back_lat, back_lon) == pytest.approx(np.zeros(len(lat)), abs=1e-8)
        assert np.abs(back_lon).max() <= 180

    def test_shapes(self):
        assert unit_vectors(np.zeros((4, 5)), 1.0).shape == (4, 5, 3)
        assert [x.shape for x in from_vectors(np.ones((4, 5, 3)))] == [(4, 5), (4, 5)]
        assert from_vectors([0.0, 0.0, 2.0])[0] == 90


class TestMeans:
    def test_the_antimeridian_and_a_pole_are_no_special_places(self):
        lat, lon = group_means([0, 0], [179, -179], [0, 0], 1)
        assert (lat[0], abs(lon[0])) == pytest.approx((0, 180))
        assert group_means([80, 80, 80, 80], [0, 90, 180, -90], [0] * 4, 1)[0] == pytest.approx([90])

    def test_points_that_cancel_out_have_no_mean(self):
        assert np.isnan(group_means([0, 0], [0, 180], [0, 0], 1)).all()

    @given(st.lists(st.tuples(latitudes, longitudes, st.integers(-2, 4)), min_size=1, max_size=40))
    @many
    def test_group_means_are_the_mean_of_each_group(self, rows):
        lat, lon, group = (np.array(x) for x in zip(*rows, strict=True))
        made_lat, made_lon = group_means(lat, lon, group, 5)
        assert made_lat.shape == made_lon.shape == (5,)
        for g in range(5):
            inside = group == g
            if not inside.any():
                assert math.isnan(made_lat[g])
                assert math.isnan(made_lon[g])
                continue
            total = np.array([vector(a, b) for a, b in zip(lat[inside], lon[inside], strict=True)]).sum(
                axis=0
            )
            if math.hypot(*total) > 1e-3:
                assert angle(vector(made_lat[g], made_lon[g]), total) < 1e-9

    def test_groups_that_cancel_out_have_no_mean_however_many_points(self):
        # Each pair is 1e-8 degrees from cancelling out: too little to tell a direction.
        lat, lon = np.zeros(2000), np.tile([0.0, 180 - 1e-8], 1000)
        made_lat, made_lon = group_means(lat, lon, np.zeros(2000, dtype=int), 1)
        assert np.isnan(made_lat).all()
        assert np.isnan(made_lon).all()

    def test_a_group_out_of_range_is_an_error_and_no_points_are_none(self):
        with pytest.raises(ValueError, match="group must be below 2, got 2"):
            group_means([0, 0], [0, 0], [0, 2], 2)
        assert np.isnan(group_means([], [], [], 3)[0]).tolist() == [True] * 3


class TestBearing:
    @given(inner_points, inner_points)
    @many
    def test_is_the_angle_from_north_to_the_way_there(self, a, b):
        """By the tangent of the great circle (b less its part along a), resolved on north and east at a."""
        va, vb = vector(*a), vector(*b)
        assume(1e-3 < angle(va, vb) < math.pi - 1e-3)
        tangent = [y - dot(va, vb) * x for x, y in zip(va, vb, strict=True)]
        east = cross((0, 0, 1), va)
        north = cross(va, east)
        expected = math.degrees(math.atan2(dot(tangent, east), dot(tangent, north))) % 360
        made = float(bearing(*a, *b))
        assert 0 <= made < 360
        assert abs((made - expected + 180) % 360 - 180) < 1e-6

    def test_the_four_winds(self):
        made = bearing([0, 0, 0, 0], 0, [1, 0, -1, 0], [0, 1, 0, -1])
        assert made.tolist() == pytest.approx([0, 90, 180, 270])

    @given(inner_points, inner_points)
    @many
    def test_is_below_360(self, a, b):
        assert 0 <= float(bearing(*a, *b)) < 360
        assert float(bearing(0, 0, 1, -1e-18)) == 0  # -1e-17 degrees round to 360


class TestDestination:
    @given(inner_points, st.floats(0, 360), st.floats(0, 20_000))
    @many
    def test_is_so_far_in_that_direction(self, a, direction, km):
        lat, lon = destination(*a, direction, km)
        assert float(distance_km(*a, lat, lon)) == pytest.approx(km, abs=1e-3)
        if 1 < km < 19_000 and abs(lat) < 89:
            made = float(bearing(*a, lat, lon))
            assert abs((made - direction + 180) % 360 - 180) < 1e-4

    def test_known(self):
        quarter = math.pi / 2 * 6371.0088
        assert [float(x) for x in destination(0, 0, 90, quarter)] == pytest.approx([0, 90], abs=1e-9)
        assert float(destination(0, 33, 0, quarter)[0]) == pytest.approx(90)
        assert [float(x) for x in destination(10, 20, 77, 0)] == pytest.approx([10, 20])

    @pytest.mark.parametrize("which", range(4))
    def test_each_argument_broadcasts(self, which):
        arguments = [10.0, 20.0, 30.0, 40.0]
        expected = [float(x) for x in destination(*arguments)]
        arguments[which] = np.full(3, arguments[which])
        lat, lon = destination(*arguments)
        assert lat.tolist() == pytest.approx([expected[0]] * 3)
        assert lon.tolist() == pytest.approx([expected[1]] * 3)


def test_is_valid_is_inclusive_and_knows_nan():
    nan, inf = math.nan, math.inf
    up = math.nextafter
    good = [(90, 180), (-90, -180), (0, 0), (-0.0, 12.5)]
    bad = [(up(90, 91), 0), (up(-90, -91), 0), (0, up(180, 181)), (0, up(-180, -181))]
    bad += [(nan, 0), (0, nan), (inf, 0), (0, -inf)]
    lat, lon = np.array(good + bad).T
    assert is_valid(lat, lon).tolist() == [True] * len(good) + [False] * len(bad)
