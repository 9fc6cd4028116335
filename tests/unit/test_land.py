"""The land raster and its outlines: against the full mask of global-land-mask, and against each other."""

import os
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import numpy as np
import pytest

from geoloc.land import (
    _DATA,
    _trace,
    is_land,
    land_raster,
    land_rings,
    raster_from_package,
    water_rings,
    write_raster,
)


@pytest.fixture(scope="module")
def fine():
    return raster_from_package()


@pytest.mark.slow
def test_the_kept_raster_is_the_one_the_package_gives(fine, tmp_path):
    assert fine.shape == (720, 1440)
    assert np.array_equal(land_raster(), fine)
    write_raster(tmp_path / "land.zlib", fine)
    assert zlib.decompress((tmp_path / "land.zlib").read_bytes()) == zlib.decompress(_DATA.read_bytes())
    with pytest.raises(ValueError, match="read-only"):
        land_raster()[0, 0] = True


def test_known_points():
    land = {
        "Paris": (48.86, 2.35),
        "Denver": (39.7, -105),
        "Alice Springs": (-23.7, 133.9),
        "South Pole": (-90, 0),
    }
    land |= {"Chukotka": (67.0, -179.99), "Chukotka again": (67.0, 180.0), "-180 is 180": (67.0, -180.0)}
    sea = {
        "Atlantic": (30, -45),
        "Pacific": (0, -140),
        "North Pole": (90, 0),
        "Black Sea": (43, 34),
        "Null": (0, 0),
    }
    assert is_land(*np.array(list(land.values())).T).tolist() == [True] * len(land)
    assert is_land(*np.array(list(sea.values())).T).tolist() == [False] * len(sea)
    assert is_land([[40.0], [0.0]], [-105.0, -140.0]).shape == (2, 2)
    with pytest.raises(ValueError, match="finite"):
        is_land([np.nan], [0.0])


def test_share_of_land_is_that_of_the_earth():
    weight = np.cos(np.radians(90 - (np.arange(720) + 0.5) / 4))
    share = np.average(land_raster().mean(axis=1), weights=weight)
    assert share == pytest.approx(0.292, abs=0.01)


def even_odd(rings, latitude, longitude):
    inside = np.zeros(len(latitude), dtype=bool)
    for ring in rings:
        after = np.roll(ring, -1, axis=0)
        for (y1, x1), (y2, x2) in zip(ring, after, strict=True):
            if y1 != y2:
                crosses = (y1 > latitude) != (y2 > latitude)
                inside ^= crosses & (longitude < (x2 - x1) * (latitude - y1) / (y2 - y1) + x1)
    return inside


def test_rings_hold_the_land_and_nothing_else():
    """A point is on land exactly where an odd number of outlines goes around it, at the middle of every cell.

    The corners of the outlines are cut through the middles of steps, which leaves middles of cells where they are.
    """
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, 720, 400), rng.integers(0, 1440, 400)
    latitude, longitude = 90 - (rows + 0.5) / 4, (columns + 0.5) / 4 - 180
    inside = even_odd(land_rings() + water_rings(), latitude, longitude)
    assert inside.tolist() == land_raster()[rows, columns].tolist()
    assert 50 < inside.sum() < 350


def signed_area(ring):
    y, x = ring.T
    return 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def test_outlines_are_anticlockwise_and_the_largest_comes_first_and_waters_run_the_other_way():
    areas = [signed_area(ring) for ring in land_rings()]
    assert min(areas) > 0
    assert areas == sorted(areas, reverse=True)
    assert max(signed_area(ring) for ring in water_rings()) < 0
    # Cut corners lose an eighth of a cell each at outer corners and gain it at inner ones.
    total = sum(areas) + sum(signed_area(ring) for ring in water_rings())
    assert total == pytest.approx(land_raster().sum() / 16, rel=0.02)
    for ring in land_rings():
        assert ring.dtype == np.float64
        assert (np.abs(ring) <= [90, 180]).all()
    land_rings()[0][:] = 0
    assert np.abs(land_rings()[0]).max() > 0


def test_trace_of_small_shapes():
    def sizes(text):
        raster = np.array([[c == "#" for c in row] for row in text.split()])
        return sorted(len(path) for path in _trace(raster))

    assert sizes("#") == [4]
    assert sizes("##") == [6]
    assert sizes("#. .#") == [4, 4]  # cells that touch at a corner stay apart
    assert sizes(".# #.") == [4, 4]
    assert sizes("### #.# ###") == [4, 12]
    assert sizes(".. ..") == []
    (square,) = _trace(np.array([[True]]))
    assert square.tolist() in [
        [[0, 0], [1, 0], [1, 1], [0, 1]]
    ]  # row down first: anticlockwise with north up


def test_loads_fast_and_without_the_package():
    code = (
        "import sys, time, numpy\n"
        "start = time.process_time()\n"
        "from geoloc.land import land_rings\n"
        "land_rings()\n"
        "print(time.process_time() - start, 'global_land_mask' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ
    )
    seconds, imported = ended.stdout.split()
    assert float(seconds) < 1
    assert imported == "False"


def test_every_data_file_of_the_library_is_in_the_wheel():
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["geoloc"]
    packed = {path for pattern in patterns for path in (root / "geoloc").glob(pattern)}
    kept = {
        path for path in (root / "geoloc").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in kept if path.suffix != ".py"} == packed
    assert _DATA in packed
