"""Boxes of latitude and longitude against a recursive splitter in plain Python, and their rules and errors."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.files import read_json, sha256_bytes, write_json, write_parquet
from geoloc.partitions import LatLonSettings, PartitionSettings, S2Settings, load_partition, partition_of
from geoloc.partitions.base import PartitionError
from geoloc.partitions.latlon import LatLonPartition
from geoloc.partitions.s2 import S2Partition
from geoloc.settings import SettingsError, parse
from tests.unit.partition_points import (
    agree,
    anticlockwise,
    edge_points,
    points,
    round_trip,
    skewed_points,
    sphere_points,
    tiles_the_map,
)

RADIUS = 6371.0088


def naive_cells(latitude, longitude, chosen, box=(-90.0, 90.0, -180.0, 180.0), name=""):
    """Revisiting IM2GPS section 3.1 word by word, for even splits, one box and one photo at a time."""
    inside = [
        (a, -180.0 if b == 180.0 or abs(a) == 90.0 else b) for a, b in zip(latitude, longitude, strict=True)
    ]

    def cut(photos, south, north, west, east, name):
        area = (
            RADIUS**2
            * math.radians(east - west)
            * (math.sin(math.radians(north)) - math.sin(math.radians(south)))
        )
        if len(photos) < chosen.max_photos or area < chosen.min_area_km2:
            return [(name or "earth", len(photos))] if len(photos) >= chosen.min_photos else []
        middle_latitude, middle_longitude = (south + north) / 2, (west + east) / 2
        if (east - west) * math.cos(math.radians(middle_latitude)) > north - south:
            lower = [p for p in photos if p[1] < middle_longitude]
            upper = [p for p in photos if p[1] >= middle_longitude]
            return cut(lower, south, north, west, middle_longitude, name + "w") + cut(
                upper, south, north, middle_longitude, east, name + "e"
            )
        lower = [p for p in photos if p[0] < middle_latitude]
        upper = [p for p in photos if p[0] >= middle_latitude]
        return cut(lower, south, middle_latitude, west, east, name + "s") + cut(
            upper, middle_latitude, north, west, east, name + "n"
        )

    return cut(inside, *box, name)


limits = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.001, 0.5, 100.0, 1e6])).map(
    lambda t: LatLonSettings(max_photos=max(t[0], t[1]), min_photos=min(t[0], t[1]), min_area_km2=t[2])
)


class TestFit:
    @given(points, limits)
    @settings(deadline=None)
    @pytest.mark.slow
    def test_a_naive_splitter_finds_the_same_cells(self, at, chosen):
        expected = naive_cells(*at, chosen)
        if not expected:
            with pytest.raises(PartitionError, match="no cell is left"):
                LatLonPartition(chosen).fit(*at)
            return
        fitted = LatLonPartition(chosen).fit(*at)
        assert list(zip(fitted.tokens(), fitted.photo_counts().tolist(), strict=True)) == expected
        agree(fitted, *at)

    @pytest.mark.parametrize(
        "chosen",
        [
            LatLonSettings(max_photos=300),
            LatLonSettings(max_photos=60, min_photos=20),
            LatLonSettings(max_photos=30, min_area_km2=500),
        ],
    )
    def test_many_skewed_photos(self, chosen):
        at = skewed_points(20_000, 3)
        fitted = LatLonPartition(chosen).fit(*at)
        assert list(zip(fitted.tokens(), fitted.photo_counts().tolist(), strict=True)) == naive_cells(
            *at, chosen
        )
        agree(fitted, *at)

    @given(points, limits, st.integers(0, 2**63 - 1))
    @settings(deadline=None)
    def test_random_cuts_keep_the_rules(self, at, chosen, seed):
        chosen = LatLonSettings(
            max_photos=chosen.max_photos,
            min_area_km2=max(chosen.min_area_km2, 0.5),
            min_photos=1,
            split="random",
            seed=seed,
        )
        fitted = LatLonPartition(chosen).fit(*at)
        cells = agree(fitted, *at)
        assert (cells >= 0).all()
        small = fitted.areas_km2() < chosen.min_area_km2
        assert ((fitted.photo_counts() < chosen.max_photos) | small).all()
        bounds = fitted.bounds()[cells]
        longitude = np.where((at[1] == 180) | (np.abs(at[0]) == 90), -180.0, at[1])
        assert ((bounds[:, 0] <= at[0]) & (at[0] <= bounds[:, 1])).all()
        assert ((bounds[:, 2] <= longitude) & (longitude <= bounds[:, 3])).all()

    @pytest.mark.slow
    def test_random_cuts_lie_in_the_middle_third_and_depend_on_the_seed_only(self):
        at = sphere_points(4000, 1)
        one, again, other = (
            LatLonPartition(LatLonSettings(max_photos=100, split="random", seed=s)).fit(*at)
            for s in (1, 1, 2)
        )
        assert one.tokens() == again.tokens()
        assert np.array_equal(one.centres(), again.centres())
        assert not np.array_equal(one.centres()[:5], other.centres()[:5])
        shares = []
        for seed in range(300):
            west = LatLonPartition(LatLonSettings(max_photos=2, split="random", seed=seed)).fit(
                [0.0, 0.0], [-170.0, 170.0]
            )
            assert west.tokens() == ["w", "e"]
            shares.append((west.bounds()[0, 3] + 180) / 360)
        assert 1 / 3 <= min(shares) < 0.36
        assert 0.64 < max(shares) <= 2 / 3
        assert np.std(shares) == pytest.approx(1 / 3 / math.sqrt(12), rel=0.15)

    def test_limits_are_the_papers(self):
        """Until the number is smaller than t_img: exactly t_img is divided."""
        assert LatLonPartition(LatLonSettings(max_photos=6)).fit([1.0] * 5, [1.0] * 5).tokens() == ["earth"]
        fitted = LatLonPartition(LatLonSettings(max_photos=5, min_area_km2=2e8)).fit([1.0] * 5, [1.0] * 5)
        assert fitted.tokens() == [
            "en"
        ]  # a half has 2.55e8 km2 and is divided, a quarter is smaller than the limit
        assert fitted.areas_km2()[0] == pytest.approx(math.pi * RADIUS**2)

    def test_cells_make_the_earth_where_none_is_empty(self):
        fitted = LatLonPartition(LatLonSettings(max_photos=200)).fit(*sphere_points(60_000, 2))
        assert fitted.areas_km2().sum() == pytest.approx(4 * math.pi * RADIUS**2, rel=1e-12)

    def test_one_place_has_one_cell_under_all_its_names(self):
        latitude, longitude = edge_points()
        fitted = LatLonPartition(LatLonSettings(max_photos=2, min_area_km2=1e4)).fit(
            np.concatenate([latitude, latitude]), np.concatenate([longitude, longitude])
        )
        cells = fitted.assign(latitude, longitude)
        assert (
            len({*cells[[4, 5, 8]]})
            == len({*cells[[6, 7]]})
            == len({*cells[:2]})
            == len({*cells[[10, 13]]})
            == 1
        )
        assert (cells >= 0).all()

    def test_order_of_photos_does_not_matter(self):
        at = skewed_points(5000, 4)
        order = np.random.default_rng(0).permutation(5000)
        one, other = (
            LatLonPartition(LatLonSettings(max_photos=50)).fit(a[0], a[1])
            for a in (at, (at[0][order], at[1][order]))
        )
        assert one.tokens() == other.tokens()
        assert one.photo_counts().tolist() == other.photo_counts().tolist()


class TestCells:
    @pytest.fixture(scope="class")
    def fitted(self):
        return LatLonPartition(LatLonSettings(max_photos=100, min_photos=3)).fit(*skewed_points(5000, 5))

    def test_files(self, fitted, tmp_path):
        round_trip(fitted, tmp_path)

    def test_files_of_random_cuts(self, tmp_path):
        round_trip(
            LatLonPartition(LatLonSettings(max_photos=100, split="random", seed=9)).fit(
                *skewed_points(5000, 5)
            ),
            tmp_path,
        )

    def test_map(self, fitted):
        tiles_the_map(fitted, *sphere_points(1500, 6), allowed=0)

    def test_outlines(self, fitted):
        assert fitted.polygon(0).shape == (4, 2)
        assert fitted.polygon(0, 3).shape == (12, 2)
        assert all(anticlockwise(fitted, cell) > 0 for cell in range(fitted.cell_count))
        feature = fitted.to_geojson()["features"][0]
        south, north, west, east = fitted.bounds()[0]
        assert feature["geometry"]["coordinates"][0][0] == [west, south]
        assert feature["geometry"]["coordinates"][0][2] == [east, north]

    def test_the_whole_earth_is_a_cell(self):
        fitted = LatLonPartition(LatLonSettings(max_photos=10)).fit([1.0], [2.0])
        assert fitted.tokens() == ["earth"]
        assert fitted.rings(0)[0].tolist() == [[-90, -180], [-90, 180], [90, 180], [90, -180]]
        assert (fitted.parent(0), fitted.children(0)) == (None, ["w", "e"])

    def test_cells_nest(self, fitted):
        at = skewed_points(5000, 5)
        coarse = LatLonPartition(LatLonSettings(max_photos=1000, min_photos=300)).fit(*at)
        outer = fitted.parent_cells(coarse)
        names = coarse.tokens()
        for token, found in zip(fitted.tokens(), outer, strict=True):
            assert [k for k, name in enumerate(names) if token.startswith(name)] == (
                [found] if found >= 0 else []
            )
        assert {-1} < set(outer.tolist())
        cell = int(np.argmax(outer))
        token = fitted.tokens()[cell]
        assert fitted.parent(cell) == token[:-1]
        assert fitted.children(cell) in ([token + "w", token + "e"], [token + "s", token + "n"])

    def test_cells_that_are_cut_elsewhere_do_not_nest(self, fitted):
        at = skewed_points(500, 5)
        random = LatLonPartition(LatLonSettings(max_photos=100, split="random", seed=1)).fit(*at)
        with pytest.raises(PartitionError, match="settings split and seed are even, 0 and random, 1"):
            fitted.parent_cells(random)
        with pytest.raises(PartitionError, match="nests in latlon partitions only, got kind 's2'"):
            fitted.parent_cells(S2Partition(S2Settings(max_photos=100, min_photos=1)).fit(*at))

    def test_tokens_are_no_numbers(self, fitted):
        assert all(set(token) <= set("wesn") for token in fitted.tokens())


class TestErrors:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"max_photos": 0}, "partition.latlon.max_photos must be at least 1, got 0"),
            ({"max_photos": 3, "min_photos": 4}, r"min_photos must be at most max_photos \(3\), got 4"),
            ({"min_area_km2": 0}, "partition.latlon.min_area_km2 must be at least 0.001, got 0"),
            ({"split": "evenly"}, "partition.latlon.split must be one of even, random; got 'evenly'"),
            ({"seed": -1}, "partition.latlon.seed must be at least 0, got -1"),
        ],
    )
    def test_settings(self, values, message):
        with pytest.raises(SettingsError, match=message):
            parse(PartitionSettings, {"kind": "latlon", "latlon": values}, "partition")

    def test_made_by_name(self):
        made = partition_of(parse(PartitionSettings, {"kind": "latlon", "latlon": {"max_photos": 7}}).chosen)
        assert isinstance(made, LatLonPartition)
        assert made.settings.max_photos == 7

    @pytest.mark.parametrize("name", ["wx", "ee", "w" * 61])
    def test_damaged_names(self, name, tmp_path):
        LatLonPartition(LatLonSettings(max_photos=2)).fit([0.0, 0.0], [-170.0, 170.0]).save(tmp_path)
        cells = pd.read_parquet(tmp_path / "cells.parquet")
        write_parquet(tmp_path / "cells.parquet", cells.assign(token=["w", name]))
        digest = sha256_bytes((tmp_path / "cells.parquet").read_bytes())
        write_json(
            tmp_path / "partition.json", read_json(tmp_path / "partition.json") | {"cells_sha256": digest}
        )
        with pytest.raises(PartitionError, match="is damaged"):
            load_partition(tmp_path)
