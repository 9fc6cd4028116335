"""PlaNet's adaptive partition against a naive recursive splitter on s2sphere, and its rules and errors."""

import itertools
import math

import numpy as np
import pytest
import s2sphere
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.partitions import PartitionSettings, partition_of
from geoloc.partitions.base import PartitionError
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.partitions.settings import S2PartitionSettings
from geoloc.settings import SettingsError, parse
from geoloc.sphere import LEVELS_KM, distance_km
from tests.unit.s2_oracle import latitudes, longitudes, oracle_leaf, skewed_points


def naive_cells(latitude, longitude, t1, t2, max_level):
    """PlaNet section 3 word by word, one cell and one photo at a time, on s2sphere."""
    leaves = [oracle_leaf(a, b) for a, b in zip(latitude, longitude, strict=True)]

    def cut(cell, inside):
        if len(inside) > t1 and cell.level() < max_level:
            return [
                kept
                for child in cell.children()
                for kept in cut(child, [x for x in inside if child.contains(x)])
            ]
        return [(cell.to_token(), len(inside))] if len(inside) >= t2 else []

    faces = [s2sphere.CellId.from_face_pos_level(face, 0, 0) for face in range(6)]
    return [kept for face in faces for kept in cut(face, [x for x in leaves if face.contains(x)])]


point_lists = st.lists(st.tuples(latitudes, longitudes), min_size=1, max_size=60)
# Points in a few tight clusters with repeats, so that small sets are cut deep.
clustered = st.lists(
    st.tuples(
        st.sampled_from(
            [(48.86, 2.35), (48.8601, 2.3501), (0.0, 180.0), (90.0, 0.0), (-33.9, 151.2), (45.0, 45.0)]
        ),
        st.sampled_from([0.0, 1e-9, 1e-6, -1e-6, 1e-4, 0.01, -0.3]),
        st.sampled_from([0.0, 1e-9, -1e-6, 1e-4, 0.02, -0.5]),
    ),
    min_size=1,
    max_size=60,
)
limits = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(0, 30)).map(
    lambda t: S2Settings(max_photos=max(t[0], t[1]), min_photos=min(t[0], t[1]), max_level=t[2])
)


def coordinates_of(cluster):
    latitude = np.array([np.clip(at[0] + a, -90, 90) for at, a, _ in cluster])
    longitude = np.array([np.clip(at[1] + b, -180, 180) for at, _, b in cluster])
    return latitude, longitude


class TestFit:
    @given(clustered, limits)
    @settings(deadline=None)
    def test_a_naive_splitter_finds_the_same_cells(self, cluster, chosen):
        latitude, longitude = coordinates_of(cluster)
        expected = naive_cells(latitude, longitude, chosen.max_photos, chosen.min_photos, chosen.max_level)
        if not expected:
            with pytest.raises(PartitionError, match="no cell is left"):
                S2Partition(chosen).fit(latitude, longitude)
            return
        fitted = S2Partition(chosen).fit(latitude, longitude)
        assert list(zip(fitted.tokens(), fitted.photo_counts().tolist(), strict=True)) == sorted(
            expected, key=lambda kept: kept[0].ljust(16, "0")
        )

    @given(point_lists, limits)
    @settings(deadline=None)
    def test_the_rules_of_planet_hold(self, points, chosen):
        latitude, longitude = np.array(points).T
        try:
            fitted = S2Partition(chosen).fit(latitude, longitude)
        except PartitionError:
            return
        counts, levels = fitted.photo_counts(), fitted.levels()
        assert (counts >= chosen.min_photos).all()
        assert ((counts <= chosen.max_photos) | (levels == chosen.max_level)).all()
        cells = [s2sphere.CellId.from_token(token) for token in fitted.tokens()]
        assert all(a.range_max() < b.range_min() for a, b in itertools.pairwise(cells))
        # Nothing is split without need: the parent of every cell below the faces held more than t1 photos.
        leaves = [oracle_leaf(a, b) for a, b in points]
        for cell in cells:
            if not cell.is_face():
                assert sum(cell.parent().contains(leaf) for leaf in leaves) > chosen.max_photos

    @given(point_lists, limits)
    @settings(deadline=None)
    def test_fitted_photos_are_counted_where_they_are_assigned(self, points, chosen):
        latitude, longitude = np.array(points).T
        try:
            fitted = S2Partition(chosen).fit(latitude, longitude)
        except PartitionError:
            return
        cells = fitted.assign(latitude, longitude)
        assert cells.dtype == np.int32
        assert (
            np.bincount(cells[cells >= 0], minlength=fitted.cell_count).tolist()
            == fitted.photo_counts().tolist()
        )
        assert fitted.fitted_photos == len(points)

    def test_limits_are_inclusive_as_the_paper_says(self):
        """Exactly t1 photos: not split ('more than'). Exactly t2: kept ('less than' is discarded)."""
        latitude, longitude = np.full(5, 48.86), np.full(5, 2.35)
        assert S2Partition(S2Settings(max_photos=5, min_photos=5)).fit(
            latitude, longitude
        ).levels().tolist() == [0]
        deepest = S2Partition(S2Settings(max_photos=4, min_photos=4, max_level=9)).fit(latitude, longitude)
        assert (deepest.levels().tolist(), deepest.photo_counts().tolist()) == ([9], [5])
        with pytest.raises(PartitionError, match=r"no cell is left.*holds 6 of them"):
            S2Partition(S2Settings(max_photos=6, min_photos=6)).fit(latitude, longitude)

    def test_identical_geotags_stop_at_the_level_cap_and_keep_all_their_photos(self):
        latitude, longitude = np.full(1600, 48.85837), np.full(1600, 2.294481)
        fitted = S2Partition(S2Settings(max_photos=100, min_photos=50, max_level=30)).fit(latitude, longitude)
        assert fitted.levels().tolist() == [30]
        assert fitted.photo_counts().tolist() == [1600]
        assert fitted.tokens() == [oracle_leaf(48.85837, 2.294481).to_token()]

    def test_many_skewed_photos_and_other_points_are_assigned_as_s2sphere_does(self):
        latitude, longitude = skewed_points(30_000, 7)
        fitted = S2Partition(S2Settings(max_photos=200, min_photos=20, max_level=20)).fit(latitude, longitude)
        assert fitted.levels().max() == 20  # repeated geotags reach the cap
        cell_of = {token: cell for cell, token in enumerate(fitted.tokens())}
        new_latitude, new_longitude = skewed_points(3000, 8)
        test_latitude = np.concatenate([latitude[:3000], new_latitude])
        test_longitude = np.concatenate([longitude[:3000], new_longitude])
        expected = []
        for a, b in zip(test_latitude, test_longitude, strict=True):
            leaf = oracle_leaf(a, b)
            found = [cell_of.get(leaf.parent(level).to_token(), -1) for level in range(31)]
            expected.append(max(found))
        assert fitted.assign(test_latitude, test_longitude).tolist() == expected
        assert -1 in expected

    def test_order_of_photos_does_not_change_the_cells(self):
        latitude, longitude = skewed_points(4000, 9)
        order = np.random.default_rng(0).permutation(4000)
        one = S2Partition(S2Settings(max_photos=50, min_photos=5)).fit(latitude, longitude)
        other = S2Partition(S2Settings(max_photos=50, min_photos=5)).fit(latitude[order], longitude[order])
        assert one.tokens() == other.tokens()
        assert one.photo_counts().tolist() == other.photo_counts().tolist()

    def test_a_second_fit_forgets_the_first(self):
        fitted = S2Partition(S2Settings(max_photos=10, min_photos=1))
        fitted.fit(*skewed_points(500, 10))
        fitted.fit([10.0], [20.0])
        assert (fitted.cell_count, fitted.photo_counts().tolist()) == (1, [1])
        with pytest.raises(PartitionError, match="no cell is left"):
            S2Partition(S2Settings(max_photos=10, min_photos=2)).fit([1.0], [1.0])
        strict = S2Partition(S2Settings(max_photos=10, min_photos=2)).fit([1.0, 1.0], [1.0, 1.0])
        with pytest.raises(PartitionError, match="no cell is left"):
            strict.fit([1.0], [1.0])
        with pytest.raises(PartitionError, match="not fitted yet"):  # rather than answer from the fit before
            strict.assign([1.0], [1.0])


class TestPoints:
    @pytest.fixture(scope="class")
    def fitted(self):
        return S2Partition(S2Settings(max_photos=100, min_photos=10)).fit(*skewed_points(5000, 11))

    def test_centres_are_s2s(self, fitted):
        for token, (latitude, longitude) in zip(fitted.tokens(), fitted.centres(), strict=True):
            at = s2sphere.CellId.from_token(token).to_lat_lng()
            assert distance_km(latitude, longitude, at.lat().degrees, at.lng().degrees) < 1e-9

    def test_centroids_are_the_mean_direction_of_the_cells_photos(self, fitted):
        latitude, longitude = skewed_points(5000, 11)
        cells = fitted.assign(latitude, longitude)
        for cell in range(0, fitted.cell_count, 5):
            total = [0.0, 0.0, 0.0]
            for a, b in zip(latitude[cells == cell], longitude[cells == cell], strict=True):
                point = s2sphere.LatLng.from_degrees(a, b).to_point()
                total = [s + point[axis] for axis, s in enumerate(total)]
            at = s2sphere.LatLng.from_point(s2sphere.Point(*total))
            assert distance_km(*fitted.centroids()[cell], at.lat().degrees, at.lng().degrees) < 1e-6

    def test_a_centroid_across_the_antimeridian_is_between_its_photos(self):
        fitted = S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([10.0, 10.0], [179.0, -179.0])
        ((latitude, longitude),) = fitted.centroids()
        assert latitude == pytest.approx(10.0, abs=0.01)
        assert abs(longitude) == pytest.approx(180.0, abs=1e-9)

    def test_results_are_copies(self, fitted):
        for array in (fitted.centres(), fitted.centroids(), fitted.photo_counts()):
            array[:] = 0
        assert fitted.photo_counts().min() >= 10
        assert np.abs(fitted.centres()).sum() > 0
        assert np.abs(fitted.centroids()).sum() > 0

    def test_parents_and_children_are_s2s(self, fitted):
        for cell in range(0, fitted.cell_count, 7):
            oracle = s2sphere.CellId.from_token(fitted.tokens()[cell])
            assert fitted.children(cell) == [child.to_token() for child in oracle.children()]
            if not oracle.is_face():
                assert fitted.parent(cell) == oracle.parent().to_token()
        face = S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([0.0], [0.0])
        leaf = S2Partition(S2Settings(max_photos=1, min_photos=1, max_level=30)).fit([0.0, 0.0], [0.0, 0.0])
        assert face.parent(0) is None
        assert leaf.children(0) is None

    def test_cells_nest_in_a_coarser_partition(self, fitted):
        coarse = S2Partition(S2Settings(max_photos=1000, min_photos=300)).fit(*skewed_points(5000, 11))
        outer = fitted.parent_cells(coarse)
        coarse_cells = [s2sphere.CellId.from_token(token) for token in coarse.tokens()]
        for token, found in zip(fitted.tokens(), outer, strict=True):
            holders = [
                k for k, cell in enumerate(coarse_cells) if cell.contains(s2sphere.CellId.from_token(token))
            ]
            assert holders == ([found] if found >= 0 else [])
        assert {-1} < set(outer.tolist())
        face_0, face_3 = (
            S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([0.0], [lon]) for lon in (0.0, 180.0)
        )
        assert face_0.parent_cells(face_3).tolist() == face_3.parent_cells(face_0).tolist() == [-1]
        assert fitted.parent_cells(fitted).tolist() == list(range(fitted.cell_count))
        assert (coarse.parent_cells(fitted) >= 0).sum() == len(set(coarse.tokens()) & set(fitted.tokens()))

    @pytest.mark.parametrize("cell", [-1, 10**9])
    def test_no_cell_is_not_the_last_cell(self, fitted, cell):
        for use in (fitted.polygon, fitted.parent, fitted.children, fitted.rings):
            with pytest.raises(PartitionError, match="cell must be between 0 and"):
                use(cell)

    def test_ceiling_counts_by_hand(self):
        # One cell at Paris with two photos; its centroid lies between them, 11.1 km from each.
        fitted = S2Partition(S2Settings(max_photos=2, min_photos=2)).fit([48.8, 49.0], [2.35, 2.35])
        inside, far = (48.9, 2.35), (-33.9, 151.2)  # Sydney is on another face, in no cell
        latitude, longitude = np.array([inside, (48.8, 2.35), (49.5, 2.35), far]).T
        assert fitted.ceiling(latitude, longitude) == {
            "street": 0.25, "city": 0.5, "region": 0.75, "country": 0.75, "continent": 0.75
        }  # fmt: skip
        (centre,) = fitted.centres()
        km = distance_km(centre[0], centre[1], 48.9, 2.35)
        assert km > 25
        by_centre = fitted.ceiling(
            [48.9, centre[0]], [2.35, centre[1]], {"a": km * 1.001, "b": km * 0.999}, "centre"
        )
        assert by_centre == {"a": 1.0, "b": 0.5}
        assert list(fitted.ceiling([48.9], [2.35])) == list(LEVELS_KM)
        with pytest.raises(PartitionError, match="answer must be one of centroid, centre; got 'median'"):
            fitted.ceiling([0.0], [0.0], answer="median")
        with pytest.raises(PartitionError, match="at least one photo"):
            fitted.ceiling([], [])


class TestErrors:
    @pytest.mark.parametrize(
        ("latitude", "longitude"),
        [(math.nan, 0.0), (0.0, math.inf), (-math.inf, 0.0), (90.001, 0.0), (0.0, 180.001), (0.0, -181.0)],
    )
    def test_bad_coordinates_are_named_by_row(self, latitude, longitude):
        made = S2Partition(S2Settings(max_photos=10, min_photos=1))
        with pytest.raises(PartitionError, match=r"fit got 1 of 3 coordinates .* in row 1, is latitude"):
            made.fit([1.0, latitude, 2.0], [1.0, longitude, 2.0])
        made.fit([1.0], [1.0])
        with pytest.raises(PartitionError, match=r"assign got 1 of 2 coordinates .* in row 0, is latitude"):
            made.assign([latitude, 2.0], [longitude, 2.0])

    def test_no_photos(self):
        with pytest.raises(PartitionError, match="at least one photo to fit, got none"):
            S2Partition().fit([], [])

    def test_unequal_lengths(self):
        with pytest.raises(PartitionError, match=r"got shapes \(2,\) and \(1,\)"):
            S2Partition().fit([1.0, 2.0], [1.0])

    def test_not_fitted(self):
        made = S2Partition()
        for use in (
            lambda: made.assign([0.0], [0.0]), made.tokens, made.centres, made.centroids, made.photo_counts,
            lambda: made.cell_count, lambda: made.polygon(0), made.to_geojson, made.areas_km2, made.levels,
            lambda: made.parent_cells(made), lambda: made.fitted_photos, lambda: made.save("never"),
        ):  # fmt: skip
            with pytest.raises(PartitionError, match="not fitted yet"):
                use()
        assert repr(made) == "S2Partition(max_photos=10000, min_photos=50, max_level=15), not fitted"

    def test_assigning_no_points_gives_no_cells(self):
        cells = S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([1.0], [1.0]).assign([], [])
        assert cells.shape == (0,)
        assert cells.dtype == np.int32

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"max_photos": 0}, "partition.s2.max_photos must be at least 1, got 0"),
            ({"min_photos": 0}, "partition.s2.min_photos must be at least 1, got 0"),
            ({"max_level": 31}, "partition.s2.max_level must be at most 30, got 31"),
            ({"max_level": -1}, "partition.s2.max_level must be at least 0, got -1"),
            (
                {"max_photos": 5, "min_photos": 6},
                r"partition.s2.min_photos must be at most max_photos \(5\), got 6",
            ),
        ],
    )
    def test_settings_out_of_range(self, values, message):
        with pytest.raises(SettingsError, match=message):
            parse(PartitionSettings, {"s2": values}, "partition")

    def test_unknown_kind(self):
        with pytest.raises(
            SettingsError,
            match=r"partition\.kind must be one of s2, latlon, delaunay, cities, kmeans; got 'h3'",
        ):
            parse(PartitionSettings, {"kind": "h3"}, "partition")

    def test_partition_of_uses_the_settings(self):
        made = partition_of(
            S2PartitionSettings(s2=S2Settings(max_photos=7, min_photos=3, max_level=4)).chosen
        )
        assert isinstance(made, S2Partition)
        assert made.settings == S2Settings(max_photos=7, min_photos=3, max_level=4)
