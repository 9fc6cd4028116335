"""Voronoi cells of placed sites: against brute-force distances, convexity and areas; rules and errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.partitions import KMeansSettings, PartitionSettings, S2Settings, partition_of
from geoloc.partitions.base import PartitionError
from geoloc.partitions.kmeans import KMeansPartition, count_places, place_sites, voronoi_outlines
from geoloc.partitions.s2 import S2Partition
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km, unit_vectors
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
from tests.unit.s2_oracle import oracle_leaf


class TestPlaces:
    def test_are_s2spheres_cells_and_parts_add_up(self):
        latitude, longitude = skewed_points(3000, 1)
        places, photos = count_places(latitude, longitude, 12)
        counts = {}
        for a, b in zip(latitude, longitude, strict=True):
            cell = oracle_leaf(a, b).parent(12)
            counts[cell.id()] = counts.get(cell.id(), 0) + 1
        assert photos.tolist() == [counts[key] for key in sorted(counts)]
        parts = [count_places(latitude[k::3], longitude[k::3], 12) for k in range(3)]
        rows, inverse = np.unique(np.concatenate([p for p, _ in parts]), axis=0, return_inverse=True)
        summed = np.bincount(inverse, np.concatenate([n for _, n in parts]))
        whole = dict(zip(map(tuple, places.tolist()), photos.tolist(), strict=True))
        assert whole == dict(zip(map(tuple, rows.tolist()), summed.astype(int).tolist(), strict=True))

    def test_division_finds_the_clusters_of_plain_cases(self):
        """Far-apart blobs of equal size: each gets its site, whatever the direction in which they lie."""
        blobs = [(10.0, 20.0), (10.0, 60.0), (-40.0, 179.99), (80.0, -100.0)]
        rng = np.random.default_rng(0)
        latitude, longitude = (np.repeat(blobs, 100, axis=0) + 0.1 * rng.normal(size=(400, 2))).T
        longitude = (longitude + 180) % 360 - 180
        sites = place_sites(*count_places(latitude, longitude, 17), KMeansSettings(cells=4, min_photos=10))
        nearest = (unit_vectors(*np.array(blobs).T) @ sites.T).max(axis=1)
        assert (nearest > math.cos(math.radians(0.1))).all()


class TestFit:
    @given(points, st.integers(1, 20), st.integers(1, 5))
    @settings(deadline=None)
    def test_the_rules_hold_and_brute_force_agrees(self, at, cells, min_photos):
        chosen = KMeansSettings(cells=cells, min_photos=min_photos, smallest_km=0.0)
        if len(at[0]) < min_photos:
            with pytest.raises(PartitionError, match="are fewer than the"):
                KMeansPartition(chosen).fit(*at)
            return
        fitted = KMeansPartition(chosen).fit(*at)
        found = agree(fitted, *at)
        assert 1 <= fitted.cell_count <= cells
        assert fitted.photo_counts().min() >= min_photos
        assert fitted.photo_counts().sum() == len(at[0])  # none is in no cell
        km = distance_km(at[0][:, None], at[1][:, None], *fitted.centres().T[:, None])
        assert km[np.arange(len(found)), found] == pytest.approx(km.min(axis=1), abs=1e-4)

    def test_brute_force_nearest_site(self):
        fitted = KMeansPartition(KMeansSettings(cells=200, min_photos=5)).fit(*skewed_points(20_000, 2))
        latitude, longitude = sphere_points(3000, 3)
        centres = fitted.centres()
        km = distance_km(latitude[:, None], longitude[:, None], centres[None, :, 0], centres[None, :, 1])
        assert fitted.assign(latitude, longitude).tolist() == km.argmin(axis=1).tolist()

    def test_beats_s2_at_equal_cell_counts(self):
        at, other = skewed_points(20_000, 4), skewed_points(20_000, 4)
        s2 = S2Partition(S2Settings(max_photos=400, min_photos=20)).fit(*at)
        fitted = KMeansPartition(KMeansSettings(cells=s2.cell_count, min_photos=20)).fit(*at)
        ours, theirs = fitted.ceiling(*other), s2.ceiling(*other)
        assert fitted.cell_count <= s2.cell_count
        assert all(ours[level] > theirs[level] for level in ("city", "region", "country"))

    def test_wants_are_met_where_photos_allow(self):
        at = skewed_points(20_000, 5)
        assert KMeansPartition(KMeansSettings(cells=100, min_photos=1)).fit(*at).cell_count == 100
        assert KMeansPartition(KMeansSettings(cells=100, min_photos=10_001)).fit(*at).cell_count == 1
        assert (
            KMeansPartition(KMeansSettings(cells=100, min_photos=1)).fit([1.0] * 9, [2.0] * 9).cell_count == 1
        )
        counts = KMeansPartition(KMeansSettings(cells=100, min_photos=1, rounds=0)).fit(*at).photo_counts()
        assert counts.max() < 20 * np.median(counts)

    def test_equal_photos_in_any_order_give_equal_bytes(self, tmp_path):
        at = skewed_points(5000, 6)
        order = np.random.default_rng(0).permutation(5000)
        for k, (latitude, longitude) in enumerate((at, at, (at[0][order], at[1][order]))):
            KMeansPartition(KMeansSettings(cells=60, min_photos=5)).fit(latitude, longitude)._sites.tofile(
                tmp_path / str(k)
            )
        assert len({(tmp_path / str(k)).read_bytes() for k in range(3)}) == 1

    def test_poles_and_antimeridian(self):
        latitude, longitude = (np.tile(x, 10) for x in edge_points())
        fitted = KMeansPartition(KMeansSettings(cells=8, min_photos=1)).fit(latitude, longitude)
        cells = fitted.assign(*edge_points())
        # Both names of one place may lie on the border of two cells, to the last bit; either cell is as near.
        km = distance_km(*edge_points(), *fitted.centres()[cells].T)
        assert km[0] == pytest.approx(km[1], abs=1e-6)
        assert km[[4, 5, 8]] == pytest.approx(np.full(3, km[4]), abs=1e-6)
        assert km[[6, 7]] == pytest.approx(np.full(2, km[6]), abs=1e-6)


class TestCells:
    @pytest.fixture(scope="class")
    def fitted(self):
        return KMeansPartition(KMeansSettings(cells=60, min_photos=5)).fit(*skewed_points(5000, 7))

    def test_files(self, fitted, tmp_path):
        round_trip(fitted, tmp_path)

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 25])
    def test_outlines_for_few_and_many_cells(self, count):
        rng = np.random.default_rng(count)
        latitude, longitude = sphere_points(count, 40 + count)
        each = np.repeat(np.arange(count), 30)
        at = latitude[each] + 0.01 * rng.normal(size=len(each)), longitude[each]
        fitted = KMeansPartition(KMeansSettings(cells=count, min_photos=5)).fit(*at)
        assert fitted.cell_count == count
        tiles_the_map(fitted, *sphere_points(1500, 8), allowed=25)
        if count > 1:
            assert all(anticlockwise(fitted, cell) > 0 for cell in range(count))
            outlines = voronoi_outlines(unit_vectors(*fitted.centres().T))
            assert sum(area(outline) for outline in outlines) == pytest.approx(4 * math.pi, rel=1e-7)

    @pytest.mark.parametrize("circle", ["equator", "parallel", "meridian", "two meridians"])
    def test_photos_on_one_circle(self, circle):
        """A road, a border, a flight: cells are slices between two poles, exactly so or nearly."""
        at = np.sort(np.random.default_rng(4).uniform(-80, 80, 7))
        latitude, longitude = {
            "equator": (0 * at, 2 * at), "parallel": (48 + 0 * at, 2 * at), "meridian": (at, 10 + 0 * at),
            "two meridians": (at, np.where(np.arange(7) % 2, 10.0, -170.0)),
        }[circle]  # fmt: skip
        each = np.repeat(np.arange(7), 20)
        fitted = KMeansPartition(KMeansSettings(cells=7, min_photos=5)).fit(latitude[each], longitude[each])
        for outlines, sites in (
            (voronoi_outlines(unit_vectors(*fitted.centres().T)), fitted.centres().T),
            (voronoi_outlines(unit_vectors(latitude, longitude)), (latitude, longitude)),
        ):
            assert sum(area(outline) for outline in outlines) == pytest.approx(4 * math.pi, rel=1e-7)
            assert len(outlines) == len(sites[0]) == 7
        assert all(np.isfinite(fitted.polygon(cell, 5)).all() for cell in range(7))
        tiles_the_map(fitted, *sphere_points(500, 8), allowed=25)

    def test_sites_on_one_side_of_the_earth(self):
        latitude, longitude = sphere_points(400, 9)
        at = 45 + latitude / 20, 10 + longitude / 40
        fitted = KMeansPartition(KMeansSettings(cells=20, min_photos=5)).fit(*at)
        tiles_the_map(fitted, *sphere_points(1500, 10), allowed=25)

    def test_tokens_are_no_numbers(self, fitted):
        assert all(token[0] == "k" and len(token) == 17 for token in fitted.tokens())
        assert (fitted.parent(0), fitted.children(0), fitted.parent_cells(fitted)) == (None, None, None)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"cells": 0}, "partition.kmeans.cells must be at least 1, got 0"),
            ({"balance": 0.6}, "partition.kmeans.balance must be at most 0.5, got 0.6"),
            ({"grid_level": 31}, "partition.kmeans.grid_level must be at most 30, got 31"),
            ({"seed": 1}, "partition.kmeans.seed is unknown"),
        ],
    )
    def test_settings(self, values, message):
        with pytest.raises(SettingsError, match=message):
            parse(PartitionSettings, {"kind": "kmeans", "kmeans": values}, "partition")

    def test_made_by_name(self):
        made = partition_of(parse(PartitionSettings, {"kind": "kmeans", "kmeans": {"cells": 5}}).chosen)
        assert isinstance(made, KMeansPartition)
        assert made.settings.cells == 5
        with pytest.raises(PartitionError, match="not fitted yet"):
            made.assign([0.0], [0.0])


def area(outline):
    """Area of a spherical polygon on the unit sphere by Girard: the sum of its angles."""
    before, after = np.roll(outline, 1, axis=0), np.roll(outline, -1, axis=0)
    a, b = np.cross(outline, before), np.cross(outline, after)
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.arccos(np.clip(cosine, -1, 1)).sum() - (len(outline) - 2) * math.pi
