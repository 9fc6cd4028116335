"""What all partitions share: outlines on maps, files, and the interface seen from another kind."""

import json

import numpy as np
import pandas as pd
import pytest
import s2sphere
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.files import read_json, sha256_bytes, write_json, write_parquet
from geoloc.partitions import load_partition
from geoloc.partitions.base import Partition, PartitionError
from geoloc.partitions.outlines import map_rings
from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.sphere import distance_km
from tests.unit.s2_oracle import latitudes, longitudes, oracle_leaf, skewed_points, sphere_points


def shoelace(ring):
    y, x = ring.T
    return 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def even_odd(ring, latitude, longitude):
    inside = np.zeros(len(latitude), dtype=int)
    for (y1, x1), (y2, x2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > latitude) != (y2 > latitude)
            inside += crosses & (longitude < (x2 - x1) * (latitude - y1) / (y2 - y1) + x1)
    return inside % 2


class TestMaps:
    @given(latitudes, longitudes, st.integers(0, 30), st.sampled_from([1, 2, 5]))
    @settings(deadline=None)
    def test_polygon_is_s2s_and_its_extra_points_lie_on_the_edges(self, latitude, longitude, level, points):
        count = 2 if level else 1
        fitted = S2Partition(S2Settings(max_photos=1, min_photos=1, max_level=level)).fit(
            [latitude] * count, [longitude] * count
        )
        polygon = fitted.polygon(0, points)
        shape = s2sphere.Cell(oracle_leaf(latitude, longitude).parent(level))
        assert polygon.shape == (4 * points, 2)
        width = 10_000 / 2**level
        for k in range(4):
            a, b = shape.get_vertex(k), shape.get_vertex((k + 1) % 4)
            at = s2sphere.LatLng.from_point(a)
            assert distance_km(*polygon[k * points], at.lat().degrees, at.lng().degrees) < 1e-7 + 1e-6 * width
            for between in polygon[k * points : (k + 1) * points]:
                x = s2sphere.LatLng.from_degrees(*between.tolist()).to_point()
                assert a.angle(x) + x.angle(b) == pytest.approx(a.angle(b), abs=1e-7)

    def test_points_per_edge_must_be_positive(self):
        with pytest.raises(PartitionError, match="points_per_edge must be at least 1, got 0"):
            S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([0.0], [0.0]).polygon(0, 0)

    def test_rings_of_all_faces_tile_the_flat_map(self):
        latitude, longitude = sphere_points(4000, 12)
        for level, cells in ((0, 6), (1, 24), (2, 96)):
            fitted = S2Partition(S2Settings(max_photos=1, min_photos=1, max_level=level)).fit(
                latitude, longitude
            )
            assert fitted.cell_count == cells
            rings = [ring for cell in range(cells) for ring in fitted.rings(cell)]
            area = sum(abs(shoelace(ring)) for ring in rings)
            assert area == pytest.approx(360 * 180, rel=2e-3)
            for ring in rings:
                assert np.abs(ring[:, 0]).max() <= 90
                assert np.abs(ring[:, 1]).max() <= 180
                assert np.abs(np.diff(ring[:, 1])).max() <= 360

    def test_rings_hold_the_points_of_their_cell(self):
        """Even-odd test on the flat map against assign, for cells at the poles and the antimeridian too."""
        latitude, longitude = sphere_points(3000, 13)
        fitted = S2Partition(S2Settings(max_photos=60, min_photos=1)).fit(latitude, longitude)
        cells = fitted.assign(latitude, longitude)
        rings = [fitted.rings(cell) for cell in range(fitted.cell_count)]
        assert any(len(parts) == 2 for parts in rings)
        wrong = 0
        for cell, parts in enumerate(rings):
            inside = sum(even_odd(ring, latitude, longitude) for ring in parts) % 2 == 1
            wrong += int((inside != (cells == cell)).sum())
        assert wrong <= 30  # only points beside an edge, which the map draws as straight between its vertices

    @pytest.mark.parametrize("start", range(5))
    @pytest.mark.parametrize("pole", [90, -90])
    def test_an_outline_around_a_pole_is_cut_at_the_maps_edge_only(self, start, pole):
        """Else the cut looks like a border of the cell, wherever the outline happens to begin."""
        longitude = np.roll([-170.0, -95.0, 0.0, 60.0, 150.0], start)[:: 1 if pole > 0 else -1]
        latitude = np.roll([60.0, 55.0, 60.0, 70.0, 65.0], start)[:: 1 if pole > 0 else -1] * np.sign(pole)
        (ring,) = map_rings(np.column_stack([latitude, longitude]))
        assert (ring[:, 1].min(), ring[:, 1].max()) == (-180.0, 180.0)
        upright = (np.diff(np.append(ring[:, 1], ring[0, 1])) == 0).nonzero()[0]
        assert np.abs(ring[upright, 1]).tolist() == [180.0, 180.0]
        (one, other) = (ring[(ring[:, 1] == side) & (np.abs(ring[:, 0]) < 90), 0] for side in (-180.0, 180.0))
        assert one == pytest.approx(other)
        assert one == pytest.approx([np.sign(pole) * 61.25])

    def test_geojson(self):
        fitted = S2Partition(S2Settings(max_photos=10, min_photos=1)).fit(
            [10.0, 10.0, 0.0], [2.35, 2.35, 180.0]
        )
        made = json.loads(json.dumps(fitted.to_geojson(), allow_nan=False))
        assert made["type"] == "FeatureCollection"
        first, second = made["features"]
        assert first["properties"] == {
            "cell": 0, "token": fitted.tokens()[0], "photos": 2,
            "latitude": pytest.approx(10.0), "longitude": pytest.approx(2.35),
        }  # fmt: skip
        assert first["geometry"]["type"] == "Polygon"
        (ring,) = first["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert (min(x for x, _ in ring), max(x for x, _ in ring)) == pytest.approx((-45.0, 45.0))
        assert max(y for _, y in ring) == pytest.approx(45.0, abs=0.1)
        assert second["geometry"]["type"] == "MultiPolygon"  # the face around longitude 180
        parts = [part[0] for part in second["geometry"]["coordinates"]]
        spans = sorted((min(x for x, _ in part), max(x for x, _ in part)) for part in parts)
        assert spans == [pytest.approx((-180.0, -135.0)), pytest.approx((135.0, 180.0))]


class TestFiles:
    @pytest.fixture
    def fitted(self):
        return S2Partition(S2Settings(max_photos=100, min_photos=10, max_level=14)).fit(
            *skewed_points(5000, 14)
        )

    def test_a_saved_partition_comes_back_whole(self, fitted, tmp_path):
        fitted.save(tmp_path / "partition")
        loaded = load_partition(tmp_path / "partition")
        assert isinstance(loaded, S2Partition)
        assert loaded.settings == fitted.settings
        assert loaded.tokens() == fitted.tokens()
        for one, other in (
            (loaded.photo_counts(), fitted.photo_counts()), (loaded.centres(), fitted.centres()),
            (loaded.centroids(), fitted.centroids()), (loaded.polygon(3), fitted.polygon(3)),
        ):  # fmt: skip
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
        latitude, longitude = skewed_points(2000, 15)
        assert np.array_equal(loaded.assign(latitude, longitude), fitted.assign(latitude, longitude))
        assert (loaded.fitted_photos, repr(loaded)) == (5000, repr(fitted))
        assert f"{fitted.cell_count} cells with" in repr(fitted)

    def test_equal_partitions_give_equal_bytes(self, fitted, tmp_path):
        again = S2Partition(S2Settings(max_photos=100, min_photos=10, max_level=14)).fit(
            *skewed_points(5000, 14)
        )
        fitted.save(tmp_path / "one")
        again.save(tmp_path / "two")
        load_partition(tmp_path / "one").save(tmp_path / "three")
        names = sorted(p.name for p in (tmp_path / "one").iterdir())
        assert names == ["cells.parquet", "partition.json"]
        for name in names:
            assert len({(tmp_path / folder / name).read_bytes() for folder in ("one", "two", "three")}) == 1

    def test_saving_leaves_other_files_alone_and_replaces_its_own(self, fitted, tmp_path):
        (tmp_path / "lineage.json").write_text("{}")
        fitted.save(tmp_path)
        S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([1.0], [1.0]).save(tmp_path)
        assert load_partition(tmp_path).cell_count == 1
        assert (tmp_path / "lineage.json").read_text() == "{}"

    def test_tokens_are_text_in_the_file(self, fitted, tmp_path):
        fitted.save(tmp_path)
        assert pd.read_parquet(tmp_path / "cells.parquet")["token"].tolist() == fitted.tokens()

    def test_absent(self, tmp_path):
        with pytest.raises(PartitionError, match=r"holds no partition: partition\.json is missing"):
            load_partition(tmp_path / "nowhere")

    def test_cells_absent_or_changed(self, fitted, tmp_path):
        fitted.save(tmp_path)
        data = bytearray((tmp_path / "cells.parquet").read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "cells.parquet").write_bytes(bytes(data))
        with pytest.raises(PartitionError, match=r"its bytes are not those that partition\.json names"):
            load_partition(tmp_path)
        (tmp_path / "cells.parquet").unlink()
        with pytest.raises(PartitionError, match=r"cells\.parquet is missing"):
            load_partition(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                {"kind": "voronoi"},
                "of kind 'voronoi'; this version knows cities, delaunay, kmeans, latlon, s2",
            ),
            ({"format": 2}, "not a partition of format 1"),
            ({"settings": {"max_photos": 0}}, "settings.max_photos must be at least 1, got 0"),
            ({"settings": {"colour": 1}}, "settings.colour is unknown"),
            ({"settings": None}, "settings must be a dict, got None"),
            ({"cell_count": 3}, "cells, not 3"),
            ({"fitted_photos": 3}, "impossible coordinates or photo counts"),
            ({"cells_sha256": 0}, "cells_sha256 must be a str"),
        ],
    )
    def test_damaged_metadata(self, fitted, tmp_path, change, message):
        fitted.save(tmp_path)
        write_json(tmp_path / "partition.json", read_json(tmp_path / "partition.json") | change)
        with pytest.raises(PartitionError, match=message):
            load_partition(tmp_path)

    def test_no_cells_at_all(self, fitted, tmp_path):
        fitted.save(tmp_path)
        write_parquet(tmp_path / "cells.parquet", pd.read_parquet(tmp_path / "cells.parquet")[:0])
        digest = sha256_bytes((tmp_path / "cells.parquet").read_bytes())
        metadata = read_json(tmp_path / "partition.json") | {"cell_count": 0, "cells_sha256": digest}
        write_json(tmp_path / "partition.json", metadata)
        with pytest.raises(PartitionError, match="it holds no cells"):
            load_partition(tmp_path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null"])
    def test_metadata_that_is_not_a_partition(self, fitted, tmp_path, text):
        fitted.save(tmp_path)
        (tmp_path / "partition.json").write_text(text)
        with pytest.raises(PartitionError, match=r"partition\.json is (damaged|not a partition)"):
            load_partition(tmp_path)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (
                lambda f: f.assign(token=f["token"].where(f.index != 1, "4.7E+064")),
                "'4.7E.064' is not an S2 cell token",
            ),
            (lambda f: f.assign(token=np.arange(len(f))), "columns are not text"),
            (lambda f: f.assign(photos=f["photos"].astype("float64")), "columns are not text, whole numbers"),
            (
                lambda f: f.assign(centre_latitude=f["centre_latitude"].astype("float32")),
                "columns are not text",
            ),
            (lambda f: f.drop(columns="photos"), "its columns are token, centre_latitude"),
            (lambda f: f.assign(photos=-f["photos"]), "impossible"),
            (lambda f: f.assign(centroid_latitude=np.nan), "impossible"),
            (lambda f: f.assign(centre_longitude=200.0), "impossible"),
            (lambda f: f.assign(centre_latitude=f["centre_latitude"] * 0.999), "names or centres"),
            (lambda f: f[::-1], "overlap or are out of order"),
            (lambda f: f.assign(token=["1", "101", *f["token"].tolist()[2:]]), "overlap or are out of order"),
            (
                lambda f: f.assign(token=f["token"].where(f.index != 1, f["token"][0])),
                "overlap or are out of order",
            ),
            (lambda f: f[:0], "columns|it holds 0 cells"),
        ],
    )
    def test_damaged_cells_with_a_matching_hash(self, fitted, tmp_path, damage, message):
        fitted.save(tmp_path)
        write_parquet(tmp_path / "cells.parquet", damage(pd.read_parquet(tmp_path / "cells.parquet")))
        metadata = read_json(tmp_path / "partition.json")
        metadata["cells_sha256"] = sha256_bytes((tmp_path / "cells.parquet").read_bytes())
        write_json(tmp_path / "partition.json", metadata)
        with pytest.raises(PartitionError, match=message):
            load_partition(tmp_path)


class Halves(Partition):
    """The smallest other kind: west and east of Greenwich, but nothing within a degree of it."""

    kind = "halves"

    def _cut(self, latitude, longitude):
        return self._find(latitude, longitude)

    def _find(self, latitude, longitude):
        return np.where(np.abs(longitude) <= 1, -1, longitude > 0).astype(np.int32)

    def _geometry(self):
        return ["west", "east"], np.array([[0.0, -90.0], [0.0, 90.0]])

    def _settings(self):
        return {}

    @classmethod
    def _restore(cls, settings, cells):
        return cls()

    def polygon(self, cell, points_per_edge=1):
        west = -180 + 180 * self._cell(cell)
        return np.array([[-90, west], [-90, west + 179], [90, west + 179], [90, west]], dtype=float)


class TestInterface:
    """What base.py promises to any kind, on one that is not S2 at all."""

    def test_another_kind_needs_only_its_geometry(self):
        made = Halves().fit([10.0, 20.0, 5.0], [-20.0, -20.0, 0.0])
        assert made.assign([0.0, 0.0, 0.0], [-5.0, 5.0, 0.5]).tolist() == [0, 1, -1]
        assert made.photo_counts().tolist() == [2, 0]
        assert made.centroids()[0] == pytest.approx([15.0, -20.0])
        assert made.centroids()[1].tolist() == [0.0, 90.0]  # no photos: its centre stands in
        assert (made.parent(0), made.children(0), made.parent_cells(made)) == (None, None, None)
        assert made.ceiling([15.0, 5.0], [-20.0, 0.0])["street"] == 0.5

    def test_s2_does_not_nest_in_it_nor_loads_it(self, tmp_path):
        made = Halves().fit([10.0], [-20.0])
        with pytest.raises(PartitionError, match="nests in s2 partitions only, got kind 'halves'"):
            S2Partition(S2Settings(max_photos=10, min_photos=1)).fit([1.0], [1.0]).parent_cells(made)
        made.save(tmp_path)
        with pytest.raises(PartitionError, match="of kind 'halves'; this version knows cities"):
            load_partition(tmp_path)
