"""GeoTIFF files, and what else GDAL reads, as rasters."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.files import one_line
from geoloc.photos.addresses import Address, Place, as_place, fetched
from geoloc.photos.rasters import Floats, Raster, RasterError, Window


@contextlib.contextmanager
def open_raster(place: Place | str) -> Iterator[Raster]:
    """A GeoTIFF, or another georeferenced file that GDAL reads, for the block; an address is fetched first.

    Raises RasterError for a file that is no raster, is not placed on the Earth, or has bands of more than 8 bits.
    """
    place = as_place(place)
    if isinstance(place, Path) and not place.is_file():
        raise RasterError(f"{place} is not a file")
    # Imported here: GDAL takes long to load, and only this needs it.
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(fetched(place))
        try:
            stack.enter_context(rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", CPL_DEBUG=False))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)  # _GeoTiff says it in an error
                dataset = stack.enter_context(rasterio.open(file))
        except RasterioError as error:
            raise RasterError(f"{place} is no raster that can be read: {one_line(error)}") from None
        yield _GeoTiff(dataset, place)


class _GeoTiff:
    """A dataset of rasterio as a Raster."""

    def __init__(self, dataset: Any, place: Place) -> None:
        from rasterio.crs import CRS

        self.name = str(place)
        self._dataset = dataset
        self._earth = CRS.from_epsg(4326)
        if dataset.crs is None or dataset.transform.is_identity:
            raise RasterError(
                f"{place} has no coordinate system: give it one, as with gdal_translate -a_srs and -a_ullr"
            )
        if not dataset.transform.determinant:
            raise RasterError(
                f"{place} has a transform that makes a line of its pixels: {tuple(dataset.transform)[:6]}"
            )
        self._affine, self._inverse = dataset.transform, ~dataset.transform
        wide = [kind for kind in dataset.dtypes[:3] if kind != "uint8"]
        if wide:
            raise RasterError(
                f"{place} has bands of {wide[0]}, and only 8-bit bands can be tiled: convert it, for example with "
                "gdal_translate -ot Byte -scale"
            )
        self.width, self.height = int(dataset.width), int(dataset.height)
        file = Path(dataset.name).stat()
        stamp = place if isinstance(place, Address) else file.st_mtime_ns
        self.identity = f"{place} {file.st_size} {stamp} {self.width}x{self.height} {tuple(self._affine)[:6]}"
        left, right = sorted((dataset.bounds.left, dataset.bounds.right))
        # Of a raster in degrees that lies over the antimeridian, both sides of it count on.
        self._middle = (
            (left + right) / 2 if dataset.crs.is_geographic and (left < -180 or right > 180) else None
        )
        if not np.isfinite(self.from_pixels([self.width / 2], [self.height / 2])).all():
            raise RasterError(
                f"{place} has a coordinate system with no way to latitude and longitude, or lies outside of it"
            )

    def to_pixels(self, latitude: ArrayLike, longitude: ArrayLike) -> tuple[Floats, Floats]:
        lat, lon = (np.atleast_1d(np.asarray(one, np.float64)) for one in (latitude, longitude))
        if self._middle is not None:
            lon = self._middle + (lon - self._middle + 180) % 360 - 180
        x, y = _transformed(self._earth, self._dataset.crs, lon, lat)
        a = self._inverse
        return a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f

    def from_pixels(self, column: ArrayLike, row: ArrayLike) -> tuple[Floats, Floats]:
        c, r = (np.atleast_1d(np.asarray(one, np.float64)) for one in (column, row))
        a = self._affine
        x, y = a.a * c + a.b * r + a.c, a.d * c + a.e * r + a.f
        longitude, latitude = _transformed(self._dataset.crs, self._earth, x, y)
        return latitude, longitude

    def read(self, left: int, top: int, right: int, bottom: int, shrink: int) -> Window:
        from rasterio.enums import Resampling
        from rasterio.errors import RasterioError
        from rasterio.windows import Window as Part

        wide, high = right - left, bottom - top
        shape = (math.ceil(high / shrink), math.ceil(wide / shrink))
        part, bands = Part(left, top, wide, high), self._dataset.count
        try:
            mask = self._dataset.dataset_mask(window=part, out_shape=shape)
            if bands < 3:
                grey = self._dataset.read(1, window=part, out_shape=shape)
                pixels = self._coloured(grey)
            else:
                found = self._dataset.read(
                    [1, 2, 3], window=part, out_shape=(3, *shape), resampling=Resampling.average
                )
                pixels = np.ascontiguousarray(np.moveaxis(found, 0, -1))
        except RasterioError as error:
            raise RasterError(
                f"{self.name} cannot be read near column {left}, row {top}: {one_line(error)}"
            ) from None
        return Window(pixels, mask > 0, left, top, wide / shape[1], high / shape[0])

    def _coloured(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One band as colours, by its palette where it has one."""
        try:
            palette = self._dataset.colormap(1)
        except ValueError:
            return np.repeat(values[:, :, None], 3, axis=2)
        table = np.zeros((256, 3), np.uint8)
        for value, colour in palette.items():
            table[value] = colour[:3]
        return table[values]


def _transformed(source: Any, target: Any, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates in another system; NaN or infinite where that has none. GDAL gives an error for all of them if it
    is far from one: then for each half by itself."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform

    try:
        found = transform(source, target, x, y)
    except (CPLE_BaseError, CRSError, RasterioError):
        if len(x) <= 1:
            return np.full(len(x), np.nan), np.full(len(x), np.nan)
        half = len(x) // 2
        parts = [_transformed(source, target, x[part], y[part]) for part in (slice(half), slice(half, None))]
        return np.concatenate([one[0] for one in parts]), np.concatenate([one[1] for one in parts])
    return np.asarray(found[0], np.float64), np.asarray(found[1], np.float64)
