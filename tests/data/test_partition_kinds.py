"""Every kind of partition through the partition suite, the map and the settings file, as a build uses them."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from geoloc.partitions import KINDS, PartitionSettings, load_partition, partition_of
from geoloc.reports.maps import partition_map
from geoloc.settings import SettingsError, parse
from orchestration.quality.frames import partition_frame, run_suite
from tests.unit.s2_oracle import sphere_points

SUITE = Path(__file__).parents[2] / "expectations" / "partition.json"
SECTION = """
kind: s2
s2: {max_photos: 200, min_photos: 10}
latlon: {max_photos: 200, min_photos: 10}
delaunay: {max_photos: 200, min_photos: 10}
cities: {min_photos: 10, radius_km: 100}
kmeans: {cells: 50, min_photos: 10}
"""


def photos():
    """Around a few large cities, and a few anywhere."""
    rng = np.random.default_rng(0)
    cities = np.array([[48.85, 2.35], [35.69, 139.69], [-33.87, 151.21], [40.71, -74.01]])
    latitude, longitude = (cities[rng.integers(0, 4, 3000)] + 0.3 * rng.normal(size=(3000, 2))).T
    far = sphere_points(500, 1)
    return np.concatenate([latitude, far[0]]), np.concatenate([longitude, far[1]])


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_passes_the_suite_and_has_a_map(kind, tmp_path):
    settings = parse(PartitionSettings, {**yaml.safe_load(SECTION), "kind": kind}, "partition")
    partition_of(settings.chosen).fit(*photos()).save(tmp_path)
    loaded = load_partition(tmp_path)
    assert loaded.kind == kind
    result = run_suite(SUITE, partition_frame(loaded), {"minimum_photos": settings.chosen.min_photos})
    assert result.passed, result
    assert result.warnings == 0
    assert partition_map(loaded).startswith(b"\x89PNG")
    assert len(loaded.to_geojson()["features"]) == loaded.cell_count


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "s2"])
def test_a_spreadsheet_does_not_take_tokens_for_numbers_or_dates(kind):
    settings = parse(PartitionSettings, {**yaml.safe_load(SECTION), "kind": kind})
    for token in partition_of(settings.chosen).fit(*photos()).tokens():
        assert token[0].isalpha()
        assert not token.lower().startswith(("e+", "inf", "nan", "true", "false", "null", "none"))


def test_one_cell_too_few_photos_is_a_critical_failure(tmp_path):
    settings = parse(PartitionSettings, {**yaml.safe_load(SECTION), "kind": "kmeans"})
    frame = partition_frame(partition_of(settings.chosen).fit(*photos()))
    assert not run_suite(SUITE, frame, {"minimum_photos": int(frame["photo_count"].min()) + 1}).passed


def test_an_unknown_kind_is_named_with_what_is_allowed():
    with pytest.raises(
        SettingsError, match="must be one of s2, latlon, delaunay, cities, kmeans; got 'voronoi'"
    ):
        parse(PartitionSettings, {"kind": "voronoi"}, "partition")
