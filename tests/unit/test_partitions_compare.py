"""Thresholds for wanted cell counts, and the comparison of kinds."""

import numpy as np
import pytest

from geoloc import sphere
from geoloc.partitions import (
    CitiesSettings,
    DelaunaySettings,
    KMeansSettings,
    LatLonSettings,
    PartitionSettings,
    S2Settings,
    partition_of,
)
from geoloc.partitions.base import CHUNK, PartitionError
from geoloc.partitions.cities import non_overlapping_cities
from geoloc.partitions.compare import compare, held_out
from geoloc.partitions.thresholds import GRANULARITIES, fit_partition, threshold_for
from geoloc.settings import parse
from geoloc.sphere import unit_vectors
from tests.unit.partition_points import skewed_points
from tests.unit.s2_oracle import sphere_points

POINTS = skewed_points(30_000, 1)


@pytest.mark.slow
class TestThresholds:
    @pytest.mark.parametrize(
        "kind",
        [
            S2Settings(max_photos=10**6, min_photos=1),
            LatLonSettings(max_photos=10**6),
            LatLonSettings(max_photos=10**6, split="random"),
        ],
    )
    @pytest.mark.parametrize("cells", [10, 80, 359, 1060])
    def test_no_threshold_comes_nearer(self, kind, cells):
        solved = threshold_for(kind, *POINTS, cells)
        counter = partition_of(kind).cell_counter(*POINTS)
        got = partition_of(solved).fit(*POINTS).cell_count
        assert got == counter(solved.max_photos)
        around = {
            counter(max(1, round(solved.max_photos * f))) for f in (0.5, 0.9, 0.97, 0.99, 1.01, 1.03, 1.1, 2)
        }
        around |= {counter(max(1, solved.max_photos + d)) for d in (-2, -1, 1, 2)}
        assert all(abs(got - cells) <= abs(other - cells) for other in around)

    @pytest.mark.parametrize(
        "kind", [S2Settings(max_photos=10**6, min_photos=1), LatLonSettings(max_photos=10**6)]
    )
    def test_counts_fall_as_the_threshold_grows(self, kind):
        counter = partition_of(kind).cell_counter(*POINTS)
        counts = [counter(t) for t in range(1, 400)]
        assert counts == sorted(counts, reverse=True)

    def test_the_papers_granularities_on_photos_that_allow_them(self):
        at = sphere_points(60_000, 2)
        for cells in GRANULARITIES:
            solved = threshold_for(LatLonSettings(max_photos=10**6), *at, cells, tolerance=0.02)
            assert abs(partition_of(solved).fit(*at).cell_count - cells) <= max(0.1 * cells, 1)

    def test_settings_can_name_the_cells_in_place_of_a_threshold(self):
        start = {"delaunay": {"rows": 7, "columns": 9}}
        for kind in ("s2", "latlon", "delaunay", "kmeans"):
            values = {"kind": kind, kind: {"min_photos": 5, **start.get(kind, {})}, "wanted_cells": 200}
            settings = parse(PartitionSettings, values)
            made = fit_partition(settings, *POINTS)
            assert made.kind == kind
            assert made.settings == threshold_for(
                settings.chosen, *POINTS, 200
            )  # what was found is what is kept
            assert made.cell_count == pytest.approx(200, rel=0.1)

    def test_without_wanted_cells_thresholds_are_as_written(self):
        settings = parse(PartitionSettings, {"s2": {"max_photos": 900, "min_photos": 3}})
        assert fit_partition(settings, *POINTS).settings == settings.s2

    def test_delaunay_and_kmeans(self):
        for kind in (
            DelaunaySettings(max_photos=10**6, min_photos=1, rows=7, columns=9),
            KMeansSettings(cells=1, min_photos=10),
        ):
            solved = threshold_for(kind, *POINTS, 300, tolerance=0.03)
            assert partition_of(solved).fit(*POINTS).cell_count == pytest.approx(300, rel=0.05)

    def test_cities(self):
        places = non_overlapping_cities(100.0, 1_000_000).places
        number = np.minimum(np.random.default_rng(0).geometric(0.02, 5000), len(places)) - 1
        at = places[number].T
        solved = threshold_for(CitiesSettings(radius_km=100.0), *at, 37)
        assert partition_of(solved).fit(*at).cell_count == pytest.approx(37, abs=2)

    def test_a_minimum_makes_counts_come_twice_and_the_coarsest_is_taken(self):
        kind = S2Settings(max_photos=10**6, min_photos=20)
        solved = threshold_for(kind, *POINTS, 100)
        counter = partition_of(kind).cell_counter(*POINTS)
        assert counter(solved.max_photos) == pytest.approx(100, abs=10)
        assert all(counter(t) < 110 for t in range(solved.max_photos, 30_000, 97))

    def test_what_cannot_be_had(self):
        with pytest.raises(
            PartitionError, match=r"no threshold from 1 up gives about 50,000 cells; the nearest .* is"
        ):
            threshold_for(S2Settings(max_photos=10**6, min_photos=1), *POINTS, 50_000)
        with pytest.raises(PartitionError, match="gives about 10 cells"):
            threshold_for(DelaunaySettings(max_photos=10**6, min_photos=1), *POINTS, 10)
        with pytest.raises(PartitionError, match="do not make 5,000 cells of at least 100 photos"):
            threshold_for(KMeansSettings(cells=1, min_photos=100), *POINTS, 5000)
        with pytest.raises(PartitionError, match="cells must be at least 1, got 0"):
            threshold_for(S2Settings(), *POINTS, 0)


class TestCompare:
    def test_held_out_photographers_are_whole(self):
        photographer = np.random.default_rng(0).integers(0, 40, 1000).astype(str)
        out = held_out(photographer, 0.25, 3)
        assert not set(photographer[out]) & set(photographer[~out])
        assert len(set(photographer[out])) == 10
        assert np.array_equal(out, held_out(photographer, 0.25, 3))
        assert not np.array_equal(out, held_out(photographer, 0.25, 4))
        with pytest.raises(ValueError, match="leaves none to fit on"):
            held_out(["a", "a"], 0.5, 0)

    def test_a_row_is_what_the_partition_says(self):
        at, other = skewed_points(5000, 3), skewed_points(2000, 9)
        some = [S2Settings(max_photos=200, min_photos=10), KMeansSettings(cells=50, min_photos=10)]
        table = compare(some, at, other)
        assert table["kind"].tolist() == ["s2", "kmeans"]
        for settings, (_, row) in zip(some, table.iterrows(), strict=True):
            fitted = partition_of(settings).fit(*at)
            assert row["cells"] == fitted.cell_count
            assert row["effective_classes"] == pytest.approx(fitted.effective_classes())
            assert row["fit_no_cell"] == pytest.approx((fitted.assign(*at) < 0).mean())
            assert row["no_cell"] == pytest.approx((fitted.assign(*other) < 0).mean())
            for answer in ("centroid", "centre"):
                for level, share in fitted.ceiling(*other, answer=answer).items():
                    assert row[f"{answer}_{level}"] == share


@pytest.mark.slow
class TestManyPoints:
    """More points than are worked on at a time: base.CHUNK, and fewer for group_means than its own million."""

    @pytest.mark.parametrize(
        "kind",
        [
            S2Settings(max_photos=6000, min_photos=10),
            LatLonSettings(max_photos=6000),
            DelaunaySettings(max_photos=6000, min_photos=10),
            KMeansSettings(cells=80, min_photos=10),
        ],
    )
    def test_parts_make_the_whole(self, kind, monkeypatch):
        monkeypatch.setattr(sphere, "_CHUNK", 1 << 17)
        count = CHUNK + 40_000
        latitude, longitude = skewed_points(count, 5)
        fitted = partition_of(kind).fit(latitude, longitude)
        cells = fitted.assign(latitude, longitude)
        # Odd parts, so that no boundary falls on a chunk's.
        parts = [
            fitted.assign(latitude[k : k + 99_991], longitude[k : k + 99_991])
            for k in range(0, count, 99_991)
        ]
        assert np.array_equal(np.concatenate(parts), cells)
        counts = np.bincount(cells[cells >= 0], minlength=fitted.cell_count)
        assert np.array_equal(counts, fitted.photo_counts())
        cell = int(np.argmax(counts))
        mean = unit_vectors(latitude[cells == cell], longitude[cells == cell]).sum(axis=0)
        centroid = unit_vectors(*fitted.centroids()[cell])
        assert centroid == pytest.approx(mean / np.linalg.norm(mean), abs=1e-12)
