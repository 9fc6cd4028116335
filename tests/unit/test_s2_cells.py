"""S2 cell arithmetic in numpy against s2sphere, cell by cell."""

import numpy as np
import pytest
import s2sphere
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.partitions import s2_cells
from geoloc.sphere import distance_km
from tests.unit.s2_oracle import CORNER, latitudes, longitudes, oracle_leaf, oracle_leaves, sphere_points

NOT_A_TOKEN = (
    "",
    "0",
    "10",
    "X",
    "47E7",
    "4.7E+064",
    " 47e7",
    "47e7\n",
    "47e70",
    "1" * 17,
    47e7,
    0x47E7,
    None,
)
NO_SUCH_CELL = ("d1", "e1", "f", "2", "8")  # a seventh face; a final 1 in an odd place


class TestLeaves:
    def test_random_points_over_the_sphere_agree_with_s2sphere(self):
        latitude, longitude = sphere_points(20_000, 1)
        assert np.array_equal(s2_cells.leaf_ids(latitude, longitude), oracle_leaves(latitude, longitude))

    def test_every_pair_of_edge_coordinates_agrees(self):
        line = np.concatenate([np.arange(-90, 91, 7.5), [CORNER, -CORNER, 1e-12, -1e-12]])
        ring = np.concatenate([np.arange(-180, 181, 7.5), [1e-12, -1e-12, 179.99999999999997]])
        latitude, longitude = (grid.ravel() for grid in np.meshgrid(line, ring))
        assert np.array_equal(s2_cells.leaf_ids(latitude, longitude), oracle_leaves(latitude, longitude))

    def test_exact_corners_of_cells_agree(self):
        rng = np.random.default_rng(2)
        corners = []
        for latitude, longitude in zip(*sphere_points(300, 3), strict=True):
            cell = s2sphere.Cell(oracle_leaf(latitude, longitude).parent(int(rng.integers(0, 31))))
            at = [s2sphere.LatLng.from_point(cell.get_vertex(k)) for k in range(4)]
            corners += [(x.lat().degrees, x.lng().degrees) for x in at]
        latitude, longitude = np.array(corners).T
        assert np.array_equal(s2_cells.leaf_ids(latitude, longitude), oracle_leaves(latitude, longitude))

    @given(latitudes, longitudes)
    @settings(deadline=None)
    def test_any_point_agrees(self, latitude, longitude):
        assert s2_cells.leaf_ids([latitude], [longitude])[0] == oracle_leaf(latitude, longitude).id()

    def test_points_beyond_one_chunk_are_the_same_points(self, monkeypatch):
        latitude, longitude = sphere_points(1000, 4)
        whole = s2_cells.leaf_ids(latitude, longitude)
        monkeypatch.setattr(s2_cells, "_CHUNK", 64)
        assert np.array_equal(s2_cells.leaf_ids(latitude, longitude), whole)


class TestHierarchy:
    @pytest.fixture(scope="class")
    def cells(self):
        """Cells of every level, as s2sphere's and as ids."""
        rng = np.random.default_rng(5)
        oracle = [
            oracle_leaf(a, b).parent(int(rng.integers(0, 31)))
            for a, b in zip(*sphere_points(800, 6), strict=True)
        ]
        oracle += [s2sphere.CellId.from_face_pos_level(face, 0, 0) for face in range(6)]
        return oracle, np.array([cell.id() for cell in oracle], dtype=np.uint64)

    def test_levels_and_ranges(self, cells):
        oracle, ids = cells
        assert s2_cells.levels(ids).tolist() == [cell.level() for cell in oracle]
        assert set(s2_cells.levels(ids)) == set(range(31))
        assert s2_cells.first_leaves(ids).tolist() == [cell.range_min().id() for cell in oracle]
        assert s2_cells.last_leaves(ids).tolist() == [cell.range_max().id() for cell in oracle]

    def test_parents_and_children(self, cells):
        oracle, ids = cells
        for level in range(0, 31, 3):
            fine = [k for k, cell in enumerate(oracle) if cell.level() >= level]
            assert s2_cells.parents(ids[fine], level).tolist() == [oracle[k].parent(level).id() for k in fine]
        inner = [k for k, cell in enumerate(oracle) if not cell.is_leaf()]
        expected = [[child.id() for child in oracle[k].children()] for k in inner]
        assert s2_cells.children(ids[inner]).tolist() == expected

    def test_faces(self):
        expected = [s2sphere.CellId.from_face_pos_level(face, 0, 0).id() for face in range(6)]
        assert s2_cells.face_ids().tolist() == expected

    def test_centres(self, cells):
        oracle, ids = cells
        latitude, longitude = s2_cells.centres(ids)
        for k, cell in enumerate(oracle):
            at = cell.to_lat_lng()
            assert distance_km(latitude[k], longitude[k], at.lat().degrees, at.lng().degrees) < 1e-9

    def test_tokens_round_trip(self, cells):
        oracle, ids = cells
        tokens = s2_cells.tokens(ids)
        assert tokens == [cell.to_token() for cell in oracle]
        assert np.array_equal(s2_cells.from_tokens(tokens), ids)

    @pytest.mark.parametrize("bad", [*NOT_A_TOKEN, *NO_SUCH_CELL])
    def test_what_is_not_a_token_is_refused_by_name(self, bad):
        with pytest.raises(ValueError, match="is not an S2 cell token"):
            s2_cells.from_tokens(["47e7", bad])

    def test_a_token_that_looks_like_a_number_stays_text(self):
        assert s2_cells.tokens(s2_cells.from_tokens(["47e7"])) == ["47e7"]
        assert s2_cells.tokens(s2_cells.from_tokens(["1001"])) == ["1001"]

    @given(st.text(alphabet="0123456789abcdef", min_size=1, max_size=16))
    @settings(deadline=None)
    def test_token_validity_is_s2spheres(self, token):
        cell = s2sphere.CellId.from_token(token)
        valid = cell.is_valid() and cell.to_token() == token
        if valid:
            assert s2_cells.from_tokens([token])[0] == cell.id()
        else:
            with pytest.raises(ValueError, match="is not an S2 cell token"):
                s2_cells.from_tokens([token])
