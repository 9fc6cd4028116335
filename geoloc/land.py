"""Where there is land: a coarse raster of the Earth, and its coastlines as rings that a flat map can draw.

The raster has cells of a quarter of a degree; a cell is land if at least half of it is. Lakes count as land, the
Caspian Sea included. It is made from the mask of the package global-land-mask (NOAA's GLOBE model, 1 km). Loading that
takes seconds and 930 MB, so the small raster is kept in land.zlib beside this module; `python -m geoloc.land` writes it
again.
"""

from __future__ import annotations

import functools
import importlib.util
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.files import sha256_bytes
from geoloc.sphere import is_valid

CELLS_PER_DEGREE = 4
ROWS, COLUMNS = 180 * CELLS_PER_DEGREE, 360 * CELLS_PER_DEGREE
_FINE = 120 // CELLS_PER_DEGREE  # cells of the package's mask along a cell of ours
_DATA = Path(__file__).with_name("land.zlib")  # the raster as bits, row by row, compressed by zlib
# Here, so that another raster is other code: what was made with the old one is out of date then.
_DATA_SHA256 = "f4988290f6acc901ec0c88bcb7effce86654ea23a30fc400b25af79bbb66a739"


@functools.cache
def land_raster() -> NDArray[np.bool_]:
    """bool (720, 1440), true on land; row 0 is the northernmost, column 0 begins at longitude -180. Read only.

    Raises ValueError if the raster's file is not the one that this code was written with.
    """
    data = _DATA.read_bytes()
    if sha256_bytes(data) != _DATA_SHA256:
        raise ValueError(f"{_DATA} is damaged or another raster: its SHA-256 is not {_DATA_SHA256}")
    bits = np.frombuffer(zlib.decompress(data), dtype=np.uint8)
    raster = np.unpackbits(bits, count=ROWS * COLUMNS).astype(bool).reshape(ROWS, COLUMNS)
    raster.flags.writeable = False
    return raster


def is_land(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.bool_]:
    """Whether points lie in a land cell, bool of the broadcast shape. Accurate to about a quarter of a degree (28 km).

    Degrees; raises ValueError for coordinates that are not finite or out of range.
    """
    if not np.all(is_valid(latitude, longitude)):
        raise ValueError("is_land needs finite latitudes in [-90, 90] and longitudes in [-180, 180]")
    row = np.floor((90.0 - np.asarray(latitude, dtype=np.float64)) * CELLS_PER_DEGREE).astype(np.int64)
    column = np.floor((np.asarray(longitude, dtype=np.float64) + 180.0) * CELLS_PER_DEGREE).astype(np.int64)
    return land_raster()[np.minimum(row, ROWS - 1), column % COLUMNS]


def land_rings() -> list[NDArray[np.float64]]:
    """Outlines of the land: latitude, longitude in degrees, float64 (V, 2) each; the first vertex is not repeated.

    Outer outlines only, anticlockwise, the largest (in square degrees) first. Fill each one separately, then fill
    `water_rings` over them. Land that crosses the antimeridian is cut there.
    """
    return [ring.copy() for ring in _rings()[0]]


def water_rings() -> list[NDArray[np.float64]]:
    """Outlines of water surrounded by land, as `land_rings` but clockwise."""
    return [ring.copy() for ring in _rings()[1]]


@functools.cache
def _rings() -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Outer and inner outlines of the raster, computed once."""
    rings = [_smoothed(ring) for ring in _trace(land_raster())]
    areas = [_signed_area(ring) for ring in rings]
    order = np.argsort(-np.abs(areas), kind="stable")
    return [rings[k] for k in order if areas[k] > 0], [rings[k] for k in order if areas[k] < 0]


def _trace(raster: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Boundaries of the true cells as closed paths of unit steps between grid corners, land on the left.

    Each is int64 (V, 2) of row, column. Cells that touch only at a corner are kept apart.
    """
    padded = np.pad(raster, 1)
    here = padded[1:-1, 1:-1]
    starts: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # For each side of a land cell that faces water: where the step begins, from the cell, and its direction.
    # Anticlockwise on a map with north (row 0) up: west along the north side, south along the west side, ...
    for neighbour, begin, step in (
        (padded[:-2, 1:-1], (0, 1), (0, -1)),
        (padded[1:-1, :-2], (0, 0), (1, 0)),
        (padded[2:, 1:-1], (1, 0), (0, 1)),
        (padded[1:-1, 2:], (1, 1), (-1, 0)),
    ):
        for row, column in np.argwhere(here & ~neighbour).tolist():
            starts.setdefault((row + begin[0], column + begin[1]), []).append(step)
    rings = []
    for first in sorted(starts):
        while starts.get(first):
            corner, step = first, starts[first].pop()
            path = []
            while True:
                path.append(corner)
                corner = (corner[0] + step[0], corner[1] + step[1])
                ahead = starts[corner]
                if not ahead:  # back at the start, whose step is taken
                    break
                # Where two cells touch at a corner, turn left, which stays with this cell.
                left = (-step[1], step[0])
                step = ahead.pop(ahead.index(left) if len(ahead) > 1 and left in ahead else 0)
            rings.append(np.array(path))
    return rings


def _smoothed(path: NDArray[np.int64]) -> NDArray[np.float64]:
    """A path of unit steps as latitude and longitude, through the middles of its steps: slanted coasts, not stairs."""
    middles = (path + np.roll(path, -1, axis=0)) / 2
    before, after = middles - np.roll(middles, 1, axis=0), np.roll(middles, -1, axis=0) - middles
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    kept = middles[turns]
    return np.column_stack([90.0 - kept[:, 0] / CELLS_PER_DEGREE, kept[:, 1] / CELLS_PER_DEGREE - 180.0])


def _signed_area(ring: NDArray[np.float64]) -> float:
    """Square degrees, positive where the ring runs anticlockwise."""
    latitude, longitude = ring[:, 0], ring[:, 1]
    return 0.5 * float((longitude * np.roll(latitude, -1) - np.roll(longitude, -1) * latitude).sum())


def raster_from_package() -> NDArray[np.bool_]:
    """The raster, made from the mask in the wheel of global-land-mask. Takes some seconds and little memory.

    The package itself is not imported, because its import loads the whole mask into memory.
    """
    found = importlib.util.find_spec("global_land_mask")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("global-land-mask is not installed")
    raster = np.empty((ROWS, COLUMNS), dtype=bool)
    archive = Path(found.origin).parent / "globe_combined_mask_compressed.npz"
    with zipfile.ZipFile(archive) as members, members.open("mask.npy") as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        if shape != (ROWS * _FINE, COLUMNS * _FINE) or dtype != np.bool_:
            raise ValueError(f"the mask of global-land-mask has changed: {shape} {dtype}")
        for row in range(ROWS):
            ocean = np.frombuffer(stream.read(_FINE * _FINE * COLUMNS), dtype=np.uint8)
            sea = ocean.reshape(_FINE, COLUMNS, _FINE).sum(axis=(0, 2))
            raster[row] = 2 * sea <= _FINE * _FINE
    return raster


def write_raster(path: Path, raster: NDArray[np.bool_]) -> None:
    """Write a raster in the format that `land_raster` reads."""
    path.write_bytes(zlib.compress(np.packbits(raster).tobytes(), 9))


if __name__ == "__main__":
    write_raster(_DATA, raster_from_package())
