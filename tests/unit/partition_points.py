"""Points and checks that the tests of all kinds of partitions share."""

import numpy as np
import pytest
from hypothesis import strategies as st

from geoloc.partitions import load_partition
from geoloc.sphere import distance_km
from tests.unit.s2_oracle import latitudes, longitudes, skewed_points, sphere_points

__all__ = ["agree", "edge_points", "points", "round_trip", "skewed_points", "sphere_points", "tiles_the_map"]

# A few places, each with some photos at it or a little beside it: splits go deep and repeated geotags occur.
_place = st.tuples(st.tuples(latitudes, longitudes), st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=8))
points = st.lists(_place, min_size=1, max_size=12).map(
    lambda places: (
        np.array([np.clip(at[0] + d, -90, 90) for at, offsets in places for d in offsets]),
        np.array([(at[1] - d + 180) % 360 - 180 for at, offsets in places for d in offsets]),
    )
)


def edge_points():
    """Both names of the antimeridian, both poles under several longitudes, the equator."""
    latitude = [0.0, 0.0, 10.0, 10.0, 90.0, 90.0, -90.0, -90.0, 90.0, 45.0, -0.0, 89.999999, -89.999999, 0.0]
    longitude = [
        180.0,
        -180.0,
        179.9999,
        -179.9999,
        0.0,
        123.0,
        0.0,
        77.0,
        180.0,
        180.0,
        0.0,
        50.0,
        -50.0,
        -0.0,
    ]
    return np.array(latitude), np.array(longitude)


def agree(fitted, latitude, longitude):
    """Fit counted photos where assign puts them, and centroids are their mean directions."""
    cells = fitted.assign(latitude, longitude)
    assert cells.dtype == np.int32
    assert (
        np.bincount(cells[cells >= 0], minlength=fitted.cell_count).tolist() == fitted.photo_counts().tolist()
    )
    assert len(set(fitted.tokens())) == fitted.cell_count
    assert fitted.fitted_photos == len(latitude)
    return cells


def round_trip(fitted, folder):
    """Saved and loaded: all is equal, and saving again gives the same bytes."""
    fitted.save(folder / "one")
    loaded = load_partition(folder / "one")
    assert type(loaded) is type(fitted)
    assert loaded.settings == fitted.settings
    assert repr(loaded) == repr(fitted)
    assert loaded.tokens() == fitted.tokens()
    for name in ("photo_counts", "centres", "centroids"):
        one, other = getattr(loaded, name)(), getattr(fitted, name)()
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    for latitude, longitude in (sphere_points(3000, 5), skewed_points(3000, 6), edge_points()):
        assert np.array_equal(loaded.assign(latitude, longitude), fitted.assign(latitude, longitude))
    for cell in range(0, fitted.cell_count, max(1, fitted.cell_count // 7)):
        assert np.array_equal(loaded.polygon(cell), fitted.polygon(cell))
    loaded.save(folder / "two")
    for file in (folder / "one").iterdir():
        assert file.read_bytes() == (folder / "two" / file.name).read_bytes()


def tiles_the_map(fitted, latitude, longitude, allowed):
    """Even-odd test of the rings on the flat map against assign. `allowed` points may lie beside an edge."""
    cells = fitted.assign(latitude, longitude)
    wrong = 0
    for cell in range(fitted.cell_count):
        inside = sum(even_odd(ring, latitude, longitude) for ring in fitted.rings(cell)) % 2 == 1
        wrong += int((inside != (cells == cell)).sum())
    assert wrong <= allowed


def even_odd(ring, latitude, longitude):
    assert np.abs(ring[:, 0]).max() <= 90 + 1e-9
    assert np.abs(ring[:, 1]).max() <= 180 + 1e-9
    inside = np.zeros(len(latitude), dtype=int)
    for (y1, x1), (y2, x2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 != y2:
            inside += ((y1 > latitude) != (y2 > latitude)) & (
                longitude < (x2 - x1) * (latitude - y1) / (y2 - y1) + x1
            )
    return inside % 2


def anticlockwise(fitted, cell):
    """The outline turns left around a point inside it, seen from outside the Earth."""
    polygon = np.radians(fitted.polygon(cell, 4))
    vectors = np.stack(
        [
            np.cos(polygon[:, 0]) * np.cos(polygon[:, 1]),
            np.cos(polygon[:, 0]) * np.sin(polygon[:, 1]),
            np.sin(polygon[:, 0]),
        ],
        axis=-1,
    )
    area = np.cross(vectors, np.roll(vectors, -1, axis=0)).sum(axis=0)
    centre = np.radians(fitted.centres()[cell])
    return float(
        area
        @ [np.cos(centre[0]) * np.cos(centre[1]), np.cos(centre[0]) * np.sin(centre[1]), np.sin(centre[0])]
    )


def near(a, b, km):
    assert distance_km(a[0], a[1], b[0], b[1]) == pytest.approx(0.0, abs=km)
