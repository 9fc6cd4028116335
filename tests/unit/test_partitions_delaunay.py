"""Delaunay meshes: the mesh against signed volumes, planes and circumcircles; the partition's rules and errors."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from geoloc.files import read_json, sha256_bytes, write_json, write_parquet
from geoloc.partitions import (
    DELAUNAY_MESHES,
    DelaunaySettings,
    PartitionSettings,
    load_partition,
    partition_of,
)
from geoloc.partitions.base import Partition, PartitionError
from geoloc.partitions.delaunay import DelaunayPartition
from geoloc.partitions.triangles import Mesh, refined, start_mesh, triangulate
from geoloc.settings import SettingsError, parse
from geoloc.sphere import unit_vectors
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

EARTH_KM2 = 4 * math.pi * 6371.0088**2


def holders(mesh, latitude, longitude, slack=1e-15):
    """For each point the triangles that hold it, by the determinants of point and corners, on the edge included."""
    vectors = unit_vectors(latitude, longitude)
    a, b, c = (mesh.corners[:, k] for k in range(3))
    found = []
    for point in vectors:
        p = np.broadcast_to(point, a.shape)
        sides = [np.linalg.det(np.stack(rows, axis=1)) for rows in ((p, b, c), (a, p, c), (a, b, p))]
        found.append(set(np.flatnonzero(np.min(sides, axis=0) >= -slack).tolist()))
    return found


def gnomonic(origin, vectors):
    """Vectors on the plane that touches the sphere at the origin; great circles become straight lines."""
    east = np.cross([0.12, 0.34, 0.93], origin)
    east /= np.linalg.norm(east)
    north = np.cross(origin, east)
    return np.stack([vectors @ east, vectors @ north], axis=-1) / (vectors @ origin)[..., None]


class TestStartMesh:
    def test_is_what_the_paper_says(self):
        mesh = start_mesh(31, 31)
        areas = mesh.areas_km2()
        assert len(mesh) == 2 * 29 * 30
        assert areas.sum() == pytest.approx(EARTH_KM2, rel=1e-12)
        # Triangles at the poles, and boxes of two triangles, have equal areas; a diagonal cuts at 1 : 1.7 at most.
        polar = np.concatenate([areas[:30], areas[-30:]])
        boxes = areas[30:-30].reshape(28, 2, 30).sum(axis=1)
        assert polar == pytest.approx(np.full(60, EARTH_KM2 / 1740), rel=1e-9)
        assert boxes == pytest.approx(np.full((28, 30), EARTH_KM2 / 870), rel=1e-9)
        assert 0.74 < areas.min() / areas.mean() < areas.max() / areas.mean() < 1.26

    @pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 5), (31, 31), (12, 41)])
    def test_every_point_is_in_exactly_one_triangle(self, rows, columns):
        mesh = start_mesh(rows, columns)
        latitude, longitude = (
            np.concatenate(pair) for pair in zip(sphere_points(300, 1), edge_points(), strict=True)
        )
        found = mesh.locate(unit_vectors(latitude, longitude))
        by_volume = holders(mesh, latitude, longitude)
        assert all(triangle in held for triangle, held in zip(found, by_volume, strict=True))
        assert [len(held) for held in by_volume[:300]] == [1] * 300

    def test_its_triangles_are_delaunay(self):
        """No vertex is inside a circumcircle; the corners of a box lie on one circle, so either diagonal is right."""
        mesh = start_mesh(31, 31)
        assert len(triangulate(mesh.vertices)) == len(mesh)
        assert_delaunay(mesh)


def assert_delaunay(mesh):
    vectors = unit_vectors(mesh.vertices[:, 0], mesh.vertices[:, 1])
    a, b, c = (mesh.corners[:, k] for k in range(3))
    middle = np.cross(b - a, c - a)
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    assert ((vectors @ middle.T) <= (a * middle).sum(axis=1)[None, :] + 1e-12).all()


class TestMesh:
    @pytest.fixture(scope="class")
    def mesh(self):
        return triangulate(
            np.column_stack(
                [
                    np.array([*sphere_points(300, 2)[0], 90.0, -90.0]),
                    np.array([*sphere_points(300, 2)[1], 0.0, 0.0]),
                ]
            )
        )

    def test_is_delaunay_and_covers_the_sphere(self, mesh):
        assert_delaunay(mesh)
        assert mesh.areas_km2().sum() == pytest.approx(EARTH_KM2, rel=1e-12)

    def test_refining_keeps_that(self, mesh):
        chosen = np.zeros(len(mesh), dtype=bool)
        chosen[::7] = True
        finer = refined(mesh, chosen)
        assert_delaunay(finer)
        assert finer.areas_km2().sum() == pytest.approx(EARTH_KM2, rel=1e-12)
        # Three middles a triangle, but one for an edge that two of them share.
        assert (
            len(mesh.vertices) + 2 * chosen.sum()
            < len(finer.vertices)
            <= len(mesh.vertices) + 3 * chosen.sum()
        )

    def test_location_on_the_gnomonic_plane(self, mesh):
        """Another way to tell: matplotlib's point in polygon, on a plane where great circles are straight."""
        latitude, longitude = sphere_points(20_000, 3)
        vectors = unit_vectors(latitude, longitude)
        found = mesh.locate(vectors)
        for triangle in range(0, len(mesh), 40):
            origin = mesh.corners[triangle].sum(axis=0)
            origin /= np.linalg.norm(origin)
            ahead = vectors @ origin > 0.05
            outline = Outline(gnomonic(origin, mesh.corners[triangle]))
            inside = np.zeros(len(vectors), dtype=bool)
            inside[ahead] = outline.contains_points(gnomonic(origin, vectors[ahead]))
            assert np.array_equal(inside, found == triangle)

    def test_where_the_walk_starts_does_not_matter(self, mesh):
        vectors = unit_vectors(*sphere_points(2000, 4))
        start = np.random.default_rng(0).integers(0, len(mesh), 2000)
        assert np.array_equal(mesh.locate(vectors, start), mesh.locate(vectors))

    def test_points_on_edges_and_vertices(self, mesh):
        """A vertex is in a triangle around it, the middle of an edge in one beside it, whatever the start."""
        for k in range(3):
            corner, after = mesh.corners[:, k], mesh.corners[:, (k + 1) % 3]
            middle = corner + after
            middle /= np.linalg.norm(middle, axis=1, keepdims=True)
            for point, ends in ((corner, (k,)), (middle, (k, (k + 1) % 3))):
                found = mesh.locate(point)
                around = [set(mesh.triangles[t]) for t in found]
                assert all(mesh.triangles[t, end] in around[t] for t in range(len(mesh)) for end in ends)

    def test_a_grid_of_exact_ties(self):
        """The octahedron has edges through exact zeros: each point is in one triangle, from any start."""
        mesh = start_mesh(3, 5)
        latitude, longitude = (
            g.ravel() for g in np.meshgrid([-90.0, -45.0, 0.0, 45.0, 90.0], np.arange(-180.0, 181, 45))
        )
        vectors = unit_vectors(latitude, longitude)
        answers = [mesh.locate(vectors, np.full(len(vectors), t)) for t in range(len(mesh))]
        by_volume = holders(mesh, latitude, longitude)
        for answer in answers:
            assert all(t in held for t, held in zip(answer, by_volume, strict=True))
        assert np.array_equal(mesh.locate(vectors), mesh.locate(vectors))

    def test_what_is_no_mesh(self):
        mesh = start_mesh(4, 5)
        with pytest.raises(ValueError, match="do not fit together"):
            Mesh(mesh.vertices, mesh.triangles[1:])
        with pytest.raises(ValueError, match="not anticlockwise"):
            Mesh(mesh.vertices, mesh.triangles[:, ::-1])
        with pytest.raises(ValueError, match="too close together"):
            triangulate(np.vstack([mesh.vertices, mesh.vertices[3:4]]))


limits = st.tuples(st.integers(1, 12), st.integers(1, 12)).map(
    lambda t: DelaunaySettings(max_photos=max(t), min_photos=min(t), min_area_km2=100.0, rows=5, columns=7)
)


class TestFit:
    @given(points, limits)
    @settings(deadline=None)
    def test_the_rules_hold(self, at, chosen):
        made = DelaunayPartition(chosen)
        if len(at[0]) < chosen.min_photos:
            with pytest.raises(PartitionError, match="no cell is left"):
                made.fit(*at)
            return
        try:
            fitted = made.fit(*at)
        except PartitionError:
            assume(chosen.min_photos == 1)  # otherwise every triangle may have too few; with 1 none can
            raise
        agree(fitted, *at)
        counts = fitted.photo_counts()
        assert (counts >= chosen.min_photos).all()
        assert ((counts <= chosen.max_photos) | (fitted.areas_km2() < chosen.min_area_km2)).all()

    def test_the_rules_hold_where_a_photo_is_on_an_edge(self):
        """It is in the one triangle while they are refined, and in the other one in the end."""
        latitude = np.array([-90.0, -0.5, -0.5, -0.5, -0.5, -8.00667663e-131])
        longitude = np.array([-180.0, 45.5, 45.5, 45.5, 45.5, 45.0])
        chosen = DelaunaySettings(max_photos=4, min_photos=1, min_area_km2=100.0, rows=5, columns=7)
        fitted = DelaunayPartition(chosen).fit(latitude, longitude)
        agree(fitted, latitude, longitude)
        assert fitted.photo_counts().max() <= 4

    def test_photos_are_in_the_triangle_that_holds_them(self):
        at = skewed_points(6000, 3)
        fitted = DelaunayPartition(DelaunaySettings(max_photos=100, min_photos=5)).fit(*at)
        cells = agree(fitted, *at)
        np.testing.assert_allclose(
            fitted.areas_km2(), Partition.areas_km2(fitted), rtol=1e-6
        )  # of its outlines
        mesh = fitted._need_mesh()
        some = np.random.default_rng(0).choice(6000, 300, replace=False)
        for row, held in zip(some, holders(mesh, at[0][some], at[1][some]), strict=True):
            assert cells[row] in {fitted._cell_of[t] for t in held}
        assert_delaunay(mesh)

    def test_a_triangle_with_the_limit_is_not_refined_and_one_with_the_minimum_is_kept(self):
        one = [10.0] * 5, [20.0] * 5
        assert DelaunayPartition(DelaunaySettings(max_photos=5, min_photos=5)).fit(*one).areas_km2()[0] > 1e5
        assert (
            DelaunayPartition(DelaunaySettings(max_photos=4, min_photos=4, min_area_km2=1.0))
            .fit(*one)
            .areas_km2()[0]
            < 1.0
        )
        with pytest.raises(
            PartitionError, match=r"no cell is left.*holds 6 of them; lower delaunay.min_photos"
        ):
            DelaunayPartition(DelaunaySettings(max_photos=6, min_photos=6)).fit(*one)

    def test_order_of_photos_does_not_matter_and_a_fit_repeats(self, tmp_path):
        at = skewed_points(5000, 4)
        order = np.random.default_rng(0).permutation(5000)
        for k, (latitude, longitude) in enumerate((at, at, (at[0][order], at[1][order]))):
            fitted = DelaunayPartition(DelaunaySettings(max_photos=80, min_photos=5)).fit(latitude, longitude)
            fitted._geometry_table().to_parquet(tmp_path / f"{k}.parquet")
        assert len({(tmp_path / f"{k}.parquet").read_bytes() for k in range(3)}) == 1

    def test_one_place_has_one_cell_under_all_its_names(self):
        latitude, longitude = edge_points()
        both = np.concatenate([latitude] * 3), np.concatenate([longitude] * 3)
        fitted = DelaunayPartition(DelaunaySettings(max_photos=3, min_photos=1, min_area_km2=1e4)).fit(*both)
        cells = fitted.assign(latitude, longitude)
        # cos(90°) is 6e-17, not 0, so a pole under two longitudes is two points half a nanometre apart.
        assert len({*cells[:2]}) == len({*cells[[10, 13]]}) == 1
        assert (cells >= 0).all()
        poles = [fitted.centres()[cells[k], 0] for k in (4, 5, 8)]
        assert min(poles) > 60


class TestCells:
    @pytest.fixture(scope="class")
    def fitted(self):
        return DelaunayPartition(DelaunaySettings(max_photos=100, min_photos=10)).fit(*skewed_points(5000, 5))

    def test_files(self, fitted, tmp_path):
        round_trip(fitted, tmp_path)

    def test_damaged_geometry(self, fitted, tmp_path):
        fitted.save(tmp_path)
        table = pd.read_parquet(tmp_path / "geometry.parquet")
        metadata = read_json(tmp_path / "partition.json")
        moved = table.assign(latitude_1=table["latitude_1"] * 0.999)
        for bad, message in (
            (table[1:], "do not fit together"), (moved, "is damaged"), (table.assign(cell=-1), "not numbered|names"),
            (table.drop(columns="cell"), "other columns"), (table[::-1], "not numbered"),
        ):  # fmt: skip
            write_parquet(tmp_path / "geometry.parquet", bad)
            digest = sha256_bytes((tmp_path / "geometry.parquet").read_bytes())
            write_json(tmp_path / "partition.json", metadata | {"geometry_sha256": digest})
            with pytest.raises(PartitionError, match=message):
                load_partition(tmp_path)
        write_json(tmp_path / "partition.json", metadata)
        with pytest.raises(PartitionError, match=r"its bytes are not those that partition\.json names"):
            load_partition(tmp_path)
        write_json(tmp_path / "partition.json", {k: v for k, v in metadata.items() if k != "geometry_sha256"})
        with pytest.raises(PartitionError, match="table of its triangles is missing"):
            load_partition(tmp_path)
        (tmp_path / "geometry.parquet").unlink()
        write_json(tmp_path / "partition.json", metadata)
        with pytest.raises(PartitionError, match=r"geometry\.parquet is missing"):
            load_partition(tmp_path)

    def test_map(self):
        fitted = DelaunayPartition(DelaunaySettings(max_photos=60, min_photos=1, rows=9, columns=13)).fit(
            *sphere_points(5000, 6)
        )
        tiles_the_map(fitted, *sphere_points(3000, 7), allowed=40)

    def test_outlines_and_names(self, fitted):
        assert fitted.polygon(0).shape == (3, 2)
        assert fitted.polygon(0, 5).shape == (15, 2)
        assert all(anticlockwise(fitted, cell) > 0 for cell in range(fitted.cell_count))
        assert all(token.startswith("t") and len(token) == 16 for token in fitted.tokens())
        assert (fitted.parent(0), fitted.children(0), fitted.parent_cells(fitted)) == (None, None, None)

    def test_a_cell_keeps_its_name_among_other_cells(self, fitted):
        other = DelaunayPartition(DelaunaySettings(max_photos=101, min_photos=30)).fit(
            *skewed_points(5000, 5)
        )
        names = {
            token: tuple(centre) for token, centre in zip(fitted.tokens(), fitted.centres(), strict=True)
        }
        shared = [(names[t], c) for t, c in zip(other.tokens(), other.centres(), strict=True) if t in names]
        assert len(shared) > 5
        assert all(np.allclose(a, b) for a, b in shared)


class TestSettings:
    def test_the_papers_meshes(self):
        limits = {name: (mesh.max_photos, mesh.min_photos) for name, mesh in DELAUNAY_MESHES.items()}
        assert limits == {"coarse": (8000, 1000), "fine": (5000, 500), "fineP": (10_000, 50)}
        assert all((mesh.rows, mesh.columns) == (31, 31) for mesh in DELAUNAY_MESHES.values())

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"max_photos": 3}, r"partition.delaunay.min_photos must be at most max_photos \(3\), got 500"),
            ({"rows": 2}, "partition.delaunay.rows must be at least 3, got 2"),
            ({"columns": 3}, "partition.delaunay.columns must be at least 4, got 3"),
            ({"t1": 3}, "partition.delaunay.t1 is unknown; allowed here: columns, max_photos"),
        ],
    )
    def test_wrong(self, values, message):
        with pytest.raises(SettingsError, match=message):
            parse(PartitionSettings, {"kind": "delaunay", "delaunay": values}, "partition")

    def test_made_by_name(self):
        made = partition_of(parse(PartitionSettings, {"kind": "delaunay", "delaunay": {"rows": 9}}).chosen)
        assert isinstance(made, DelaunayPartition)
        assert made.settings.rows == 9
        with pytest.raises(PartitionError, match="not fitted yet"):
            made.assign([0.0], [0.0])
        with pytest.raises(PartitionError, match="not fitted yet"):
            made.polygon(0)
