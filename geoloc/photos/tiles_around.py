"""Overhead tiles for street photos: cut from a raster around each photo's position, and paired with it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from geoloc.photos.pairs import REFERENCES
from geoloc.photos.rasters import Raster, cut_tile
from geoloc.photos.sources.candidates import SCHEMA, Candidates

_BATCH = 256
OUTSIDE, EDGE, NO_NORTH = (
    "outside of the raster",
    "on the edge of the raster",
    "heading from an unknown north",
)


class TilesAround:
    """Tiles of `metres` and `pixels` around photos (photo_id, latitude, longitude, heading, heading_reference).

    A tile needs imagery on at least `least` of it. Iterate over `candidates` to have the tiles ingested; then `pairs`
    has a row for each that was cut (as geoloc.photos.pairs.add_pairs takes them), and `left_out` counts the photos
    without one, and the headings that are left out, by reason. `reference`: the north of headings that name none; None:
    they are left out. `prefix`: begins the ids of the tiles.
    """

    def __init__(
        self,
        raster: Raster,
        photos: pd.DataFrame,
        *,
        metres: float,
        pixels: int,
        least: float = 1.0,
        prefix: str = "",
        city: str | None = None,
        reference: str | None = None,
    ) -> None:
        self._raster, self._metres, self._pixels, self._least = raster, metres, pixels, least
        self._prefix, self._city, self._reference = prefix, city, reference
        columns, rows = raster.to_pixels(photos["latitude"].to_numpy(), photos["longitude"].to_numpy())
        within = (columns >= 0) & (columns < raster.width) & (rows >= 0) & (rows < raster.height)
        self._photos = photos[within]
        self._rows: list[dict[str, object]] = []
        self.left_out: Counter[str] = Counter({OUTSIDE: int((~within).sum())})

    def __len__(self) -> int:
        return len(self._photos)

    @property
    def pairs(self) -> pd.DataFrame:
        """The pairs of the tiles that were cut so far."""
        names = ("photo_id", "overhead_id", "heading", "heading_reference", "city", "tile_metres")
        return pd.DataFrame(self._rows, columns=list(names), dtype=object)

    def candidates(self) -> Iterator[Candidates]:
        """The tiles, in batches for geoloc.photos.ingest.ingest."""
        for start in range(0, len(self._photos), _BATCH):
            rows, pictures = [], []
            for photo in self._photos.iloc[start : start + _BATCH].itertuples():
                cut = cut_tile(self._raster, photo.latitude, photo.longitude, self._metres, self._pixels)
                if cut.covered < self._least or cut.covered == 0:
                    self.left_out[EDGE if cut.covered else OUTSIDE] += 1
                    continue
                tile = f"{self._prefix}{photo.photo_id}"
                place = {"latitude": photo.latitude, "longitude": photo.longitude}
                rows.append({"reference": f"tile of {photo.photo_id}", "photo_id": tile, **place})
                pictures.append(_png(cut.pixels))
                heading, reference = self._heading(photo.heading, photo.heading_reference)
                told = {"heading": heading, "heading_reference": reference, "city": self._city}
                self._rows.append(
                    {"photo_id": photo.photo_id, "overhead_id": tile, **told, "tile_metres": self._metres}
                )
            # `pictures` is of this batch: a later one has a list of its own
            yield Candidates(
                pa.Table.from_pylist(rows, schema=SCHEMA),
                lambda row, most, kept=pictures: kept[row],  # type: ignore[misc]
            )

    def _heading(self, heading: float, reference: object) -> tuple[float | None, str | None]:
        if pd.isna(heading):
            return None, None
        north = reference if reference in REFERENCES else self._reference
        if north is None:
            self.left_out[NO_NORTH] += 1
            return None, None
        return float(heading) % 360.0, str(north)


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
