"""Folders of map tiles z/x/y.png as rasters."""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

from geoloc.files import one_line
from geoloc.photos.addresses import Place, as_place, listed, read
from geoloc.photos.rasters import Floats, Raster, RasterError, Window
from geoloc.photos.sources.web_mercator import MOST_LATITUDE, TILE, from_pixels, to_pixels

_MOST_SIDE = 2048  # of a map tile's picture, which is 256 or 512
_MOST_BYTES = 64 * 1024**2
_KEPT = 128  # decoded map tiles that are kept
_TMS = "tilemapresource.xml"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@contextlib.contextmanager
def open_tiles(place: Place | str, zoom: int | None = None) -> Iterator[Raster]:
    """A folder, or an address, of map tiles z/x/y.png (.jpg, .webp) in Web Mercator, y from the north, for the block.

    `zoom`: which level (default: the most detailed). Raises RasterError where there are no such tiles.
    """
    yield _MapTiles(as_place(place), zoom)


class _MapTiles:
    """A folder of map tiles as a Raster: the pixels of its zoom level, from the tile furthest north and west."""

    def __init__(self, place: Place, zoom: int | None) -> None:
        self.name, self._place = str(place), place
        if _TMS in self._names(""):
            raise RasterError(
                f"{place} has {_TMS}, as TMS has, whose y is from the south: make map tiles with y from the north, as "
                "gdal2tiles does with --xyz"
            )
        levels = sorted(int(name) for name in self._folders("") if name.isdigit() and int(name) <= 30)
        if not levels:
            raise RasterError(f"{place} has no map tiles: it needs folders z/x/y.png, z from 0 to 30")
        self._zoom = levels[-1] if zoom is None else zoom
        if self._zoom not in levels:
            raise RasterError(
                f"{place} has no map tiles of zoom {zoom}; it has {', '.join(map(str, levels))}"
            )
        self._files = dict(self._found())
        if not self._files:
            raise RasterError(f"{place}/{self._zoom} has no map tiles x/y.png, .jpg or .webp")
        x, y = np.array(list(self._files)).T
        self._first = int(x.min()), int(y.min())
        self._side = self._decoded_size()
        self.width = (int(x.max()) - self._first[0] + 1) * self._side
        self.height = (int(y.max()) - self._first[1] + 1) * self._side
        self.identity = (
            f"{place} zoom {self._zoom} {len(self._files)} tiles {self._first} {self.width}x{self.height}"
        )
        self._kept: OrderedDict[tuple[int, int], tuple[NDArray[np.uint8], NDArray[np.bool_]]] = OrderedDict()

    def to_pixels(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[Floats, Floats]:
        lat = np.atleast_1d(np.asarray(latitude, np.float64))
        column, row = to_pixels(
            np.where(np.abs(lat) <= MOST_LATITUDE, lat, np.nan), np.atleast_1d(longitude), self._zoom
        )
        scale = self._side / TILE
        return column * scale - self._first[0] * self._side, row * scale - self._first[1] * self._side

    def from_pixels(self, column: ArrayLike, row: ArrayLike) -> tuple[Floats, Floats]:
        scale = TILE / self._side
        across = (np.asarray(column, np.float64) + self._first[0] * self._side) * scale
        return from_pixels(
            across, (np.asarray(row, np.float64) + self._first[1] * self._side) * scale, self._zoom
        )

    def read(self, left: int, top: int, right: int, bottom: int, shrink: int) -> Window:
        side = self._side
        pixels = np.zeros((bottom - top, right - left, 3), np.uint8)
        valid = np.zeros(pixels.shape[:2], np.bool_)
        for x in range(left // side, -(-right // side)):
            for y in range(top // side, -(-bottom // side)):
                found = self._tile(x + self._first[0], y + self._first[1])
                if found is None:
                    continue
                x0, y0 = max(left, x * side), max(top, y * side)
                x1, y1 = min(right, (x + 1) * side), min(bottom, (y + 1) * side)
                here = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
                there = slice(y0 - y * side, y1 - y * side), slice(x0 - x * side, x1 - x * side)
                pixels[here], valid[here] = found[0][there], found[1][there]
        if shrink > 1:
            pixels = np.asarray(Image.fromarray(pixels).reduce(shrink))
            valid = np.asarray(Image.fromarray(valid.astype(np.uint8) * 255).reduce(shrink)) == 255
        return Window(pixels, valid, left, top, shrink, shrink)

    def _tile(self, x: int, y: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        if (x, y) not in self._files:
            return None
        if (x, y) not in self._kept:
            self._kept[x, y] = self._decoded(self._files[x, y])
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end((x, y))
        return self._kept[x, y]

    def _decoded(self, name: str) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        with self._picture(name) as picture:
            if picture.size != (self._side, self._side):
                raise RasterError(
                    f"{self._place}/{name} is {picture.width} x {picture.height} pixels, where the first map tile is "
                    f"{self._side} x {self._side}"
                )
            pixels = np.asarray(picture.convert("RGBA"))
        return np.ascontiguousarray(pixels[:, :, :3]), pixels[:, :, 3] > 0

    def _decoded_size(self) -> int:
        name = self._files[min(self._files)]
        with self._picture(name) as picture:
            if picture.width != picture.height:
                raise RasterError(
                    f"{self._place}/{name} is {picture.width} x {picture.height} pixels; map tiles are square"
                )
            return picture.width

    @contextlib.contextmanager
    def _picture(self, name: str) -> Iterator[Image.Image]:
        """A map tile's picture, open. Raises RasterError for one that is no picture, or too large to be a map tile."""
        where = f"{self._place}/{name}"
        try:
            if isinstance(self._place, Path):
                data = (self._place / name).read_bytes()
            else:
                data = read(self._place / name, _MOST_BYTES)
            with Image.open(io.BytesIO(data)) as picture:
                if max(picture.size) > _MOST_SIDE:
                    raise RasterError(
                        f"{where} is {picture.width} x {picture.height} pixels, too large for a map tile (at most "
                        f"{_MOST_SIDE}): one large georeferenced picture is a raster, not a folder of tiles"
                    )
                picture.load()
                yield picture
        except UnidentifiedImageError:
            raise RasterError(f"{where} is no picture that can be read") from None
        except (Image.DecompressionBombError, OSError, SyntaxError) as error:
            raise RasterError(f"{where} is no picture that can be read: {one_line(error)}") from None

    def _found(self) -> Iterator[tuple[tuple[int, int], str]]:
        most = 2**self._zoom
        for x in self._folders(str(self._zoom)):
            if not x.isdigit() or int(x) >= most:
                continue
            for file in self._names(f"{self._zoom}/{x}"):
                stem, suffix = Path(file).stem, Path(file).suffix.lower()
                if suffix in _SUFFIXES and stem.isdigit() and int(stem) < most:
                    yield (int(x), int(stem)), f"{self._zoom}/{x}/{file}"

    def _folders(self, below: str) -> list[str]:
        return self._listed(below, folders=True)

    def _names(self, below: str) -> list[str]:
        return self._listed(below, folders=False)

    def _listed(self, below: str, *, folders: bool) -> list[str]:
        place = self._place / below if below else self._place
        if isinstance(place, Path):
            if not place.is_dir():
                raise RasterError(f"{place} is not a folder")
            return sorted(one.name for one in place.iterdir() if one.is_dir() == folders)
        return [one.name for one in listed(place) if one.is_folder == folders]
