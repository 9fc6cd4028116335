"""Georeferenced overhead imagery, from which square tiles are cut, north up; GeoTIFF files and folders of map tiles.

Any raster is a picture with a map from places to its pixels. Over a tile, which is small, that map is affine to a
fraction of a pixel; so a tile is cut by one affine resampling, whatever the raster's projection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.photos.addresses import SourceError
from geoloc.sphere import EARTH_RADIUS_KM, distance_km

if TYPE_CHECKING:
    from PIL import Image

METRES_PER_DEGREE = math.radians(1) * EARTH_RADIUS_KM * 1000
MOST_TILES = 1_000_000

Floats = NDArray[np.float64]


class RasterError(SourceError):
    """A raster cannot be used. The message names it, and what is wrong or missing."""


@dataclass(frozen=True)
class Window:
    """Part of a raster: `pixels` uint8 [H, W, 3], and `valid` bool [H, W]: where there is imagery. It begins at
    `column`, `row` of the raster, and its pixels are `across` and `down` raster pixels wide and high."""

    pixels: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    column: float
    row: float
    across: float
    down: float


class Raster(Protocol):
    """A georeferenced picture of `width` x `height` pixels. `identity` changes when the picture does."""

    name: str
    identity: str
    width: int
    height: int

    def to_pixels(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[Floats, Floats]:
        """Column and row of places, from the upper left corner; outside of the picture too."""
        ...

    def from_pixels(self, column: ArrayLike, row: ArrayLike) -> tuple[Floats, Floats]:
        """Latitude and longitude in degrees of columns and rows."""
        ...

    def read(self, left: int, top: int, right: int, bottom: int, shrink: int) -> Window:
        """The pixels from `left`, `top` to before `right`, `bottom`, all within the picture, about `shrink` times
        smaller."""
        ...


@dataclass(frozen=True)
class Cut:
    """A tile: `pixels` uint8 [P, P, 3], black where there is no imagery, and `covered`, the share with imagery."""

    pixels: NDArray[np.uint8]
    covered: float


def cut_tile(raster: Raster, latitude: float, longitude: float, metres: float, pixels: int) -> Cut:
    """The square of `metres` around a place, north up, as `pixels` x `pixels`."""
    from PIL import Image

    half = metres / 2
    north = half / METRES_PER_DEGREE
    east = north / max(math.cos(math.radians(latitude)), 1e-6)
    columns, rows = raster.to_pixels(
        latitude + north * np.array([0.0, 0.0, 0.0, 1.0, -1.0]),
        longitude + east * np.array([0.0, 1.0, -1.0, 0.0, 0.0]),
    )
    points = np.stack([columns, rows], axis=1)
    nothing = Cut(np.zeros((pixels, pixels, 3), np.uint8), 0.0)
    if not np.isfinite(points).all():
        return nothing
    centre = points[0]
    right, down = (
        (points[1] - points[2]) / pixels,
        (points[4] - points[3]) / pixels,
    )  # raster pixels per pixel
    corners = (
        centre
        + np.array([[x, y] for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) @ np.stack([right, down]) * pixels
    )
    left, top = np.floor(corners.min(axis=0)).astype(int) - 1
    end, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
    left, top = max(left, 0), max(top, 0)
    end, bottom = min(end, raster.width), min(bottom, raster.height)
    if left >= end or top >= bottom:
        return nothing
    shrink = max(1, math.floor(min(np.hypot(*right), np.hypot(*down))))
    window = raster.read(int(left), int(top), int(end), int(bottom), shrink)
    origin = (centre - (right + down) * pixels / 2 - (window.column, window.row)) / (
        window.across,
        window.down,
    )
    right, down = right / (window.across, window.down), down / (window.across, window.down)
    affine = (right[0], down[0], origin[0], right[1], down[1], origin[1])

    def resampled(picture: Image.Image, how: Image.Resampling) -> NDArray[np.uint8]:
        size, method = (pixels, pixels), Image.Transform.AFFINE
        return np.asarray(picture.transform(size, method, affine, resample=how), dtype=np.uint8)

    seen = resampled(Image.fromarray(window.valid.astype(np.uint8) * 255), Image.Resampling.NEAREST) > 0
    made = resampled(Image.fromarray(window.pixels), Image.Resampling.BILINEAR) * seen[:, :, None]
    return Cut(made, float(seen.mean()))


@dataclass(frozen=True)
class Grid:
    """Centres of tiles over an area, row by row from the north: every `step` metres in both directions."""

    north: float
    south: float
    west: float
    east: float
    step: float

    @classmethod
    def over(cls, raster: Raster, step: float) -> Grid:
        """The grid over all of a raster. Raises RasterError above MOST_TILES tiles, and for a raster around a pole."""
        along = np.linspace(0.0, 1.0, 33)
        none, all_ = np.zeros(33), np.ones(33)
        # Around it, so that longitudes count on over the antimeridian.
        columns = np.concatenate([along, all_, along[::-1], none]) * raster.width
        rows = np.concatenate([none, along, all_, along[::-1]]) * raster.height
        latitude, longitude = raster.from_pixels(columns, rows)
        on_earth = np.isfinite(longitude) & (np.abs(latitude) <= 90 + 1e-9)  # false for NaN
        if not on_earth.all():
            raise RasterError(f"{raster.name} lies partly outside of its projection's area")
        longitude = np.unwrap(longitude, period=360)
        if abs(longitude[-1] - longitude[0]) > 180:
            raise RasterError(
                f"{raster.name} has a pole in it, where tiles have no north: take a part without it"
            )
        made = cls(
            float(latitude.max()), float(latitude.min()), float(longitude.min()), float(longitude.max()), step
        )
        if len(made) > MOST_TILES:
            raise RasterError(
                f"{raster.name} makes {len(made):,} tiles every {step:g} m, and the most is {MOST_TILES:,}: take a "
                "larger step, or part of the raster"
            )
        return made

    def __len__(self) -> int:
        return int(sum(self._counts().tolist()))

    def centres(self) -> Iterator[tuple[str, float, float]]:
        """The id, latitude and longitude of each tile, in [-180, 180)."""
        for row, (latitude, count) in enumerate(
            zip(self._latitudes().tolist(), self._counts().tolist(), strict=True)
        ):
            width = (self.east - self.west) / count
            for column in range(count):
                longitude = self.west + (column + 0.5) * width
                yield (
                    f"{row:05d}-{column:05d}",
                    latitude,
                    longitude - 360 * math.floor((longitude + 180) / 360),
                )

    def _latitudes(self) -> Floats:
        count = max(1, round((self.north - self.south) * METRES_PER_DEGREE / self.step))
        return self.north - (np.arange(count) + 0.5) * (self.north - self.south) / count

    def _counts(self) -> NDArray[np.int64]:
        """The number of tiles in each row."""
        metres = (self.east - self.west) * METRES_PER_DEGREE * np.cos(np.radians(self._latitudes()))
        return np.maximum(np.rint(metres / self.step), 1).astype(np.int64)


def ground_size(raster: Raster) -> float:
    """Metres on the ground of a pixel in the middle of a raster."""
    column, row = raster.width / 2, raster.height / 2
    latitude, longitude = raster.from_pixels([column, column], [row - 0.5, row + 0.5])
    return float(1000 * distance_km(latitude[0], longitude[0], latitude[1], longitude[1]))
