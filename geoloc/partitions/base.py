"""The interface of every partition of the Earth, and what all kinds share: counts, centroids, ceiling, files.

A kind (for example s2.py) implements only its geometry: cutting, finding the cell of a point, centres and outlines.
Fitting needs only the geotags of training photos, so any split or recipe can fit its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.files import sha256_bytes, write_json, write_parquet
from geoloc.partitions.areas import polygon_area_km2
from geoloc.partitions.balance import effective_classes
from geoloc.partitions.outlines import geojson_geometry, map_rings
from geoloc.sphere import LEVELS_KM, distance_km, group_means, is_valid

FORMAT = 1
METADATA_FILE = "partition.json"
CELLS_FILE = "cells.parquet"
GEOMETRY_FILE = "geometry.parquet"
CHUNK = 1 << 18
"""Photos processed at a time: temporaries of a few MB each, whatever the number of photos."""
CELLS_COLUMNS = (
    "token",
    "photos",
    "centre_latitude",
    "centre_longitude",
    "centroid_latitude",
    "centroid_longitude",
)

Coordinates = NDArray[np.float64]
Answer = Literal["centroid", "centre"]


class PartitionError(ValueError):
    """A partition cannot be fitted, used or loaded. The message gives the reason and the remedy."""


def chunks(count: int) -> Iterator[slice]:
    """Slices that cover 0 to `count`, each of at most CHUNK."""
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))


class Partition(ABC):
    """A way of cutting the Earth into C cells, numbered 0 to C - 1; the numbers are a classifier's classes.

    A kind implements `_cut` (choose cells from geotags), `_find` (cell of each point), `_geometry` (names and
    centres), `polygon`, and `_settings`, `_restore` for its files; the rest is here. Cells need not cover the
    Earth: a point may be in none (-1).

    Hierarchy: `parent` and `children` name areas one step up and down from a cell by token. These areas need not
    be cells of this partition. `parent_cells(coarser)` links the cells of two fitted partitions of the same kind,
    which is what nested partitions (coarse, middle, fine) need. Kinds without a hierarchy return None from all.
    """

    kind: ClassVar[str]

    def __init__(self) -> None:
        self._tokens: list[str] | None = None
        self._counts = np.empty(0, dtype=np.int64)
        self._centres = np.empty((0, 2))
        self._centroids = np.empty((0, 2))
        self._fitted_photos = 0

    # What a kind brings

    @abstractmethod
    def _cut(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        """Choose the cells from valid geotags, float64 (N,), N at least 1; return the cell of each, as `_find` does.

        Raise PartitionError if no cell is left.
        """

    @abstractmethod
    def _find(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        """The cell of each valid point, int32 (N,), -1 where none."""

    @abstractmethod
    def _geometry(self) -> tuple[list[str], Coordinates]:
        """Tokens (C unique names that stay the same for the same cell) and centres (C, 2) after `_cut`."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """The settings as plain values, for the metadata."""

    @classmethod
    @abstractmethod
    def _restore(cls, settings: Mapping[str, Any], cells: pd.DataFrame) -> Self:
        """A partition with its geometry as after `_cut`, from what was saved. Raise ValueError for bad cells.

        A kind that overrides `_geometry_table` has that table in `cells.attrs["geometry"]`.
        """

    def _geometry_table(self) -> pd.DataFrame | None:
        """Returns further geometry that tokens and centres do not determine, saved as geometry.parquet; None for most
        kinds."""
        return None

    @abstractmethod
    def polygon(self, cell: int, points_per_edge: int = 1) -> Coordinates:
        """Outline of a cell: latitude, longitude in degrees, float64 (V, 2), anticlockwise, first vertex not
        repeated. `points_per_edge` above 1 adds vertices along each edge, for maps where edges look curved.
        Longitudes are in [-180, 180] and may jump between neighbours; `rings` gives what a flat map can draw.
        """

    def _edge_points(self, cell: int) -> int:
        """How many points an edge of this cell needs to look right on a world map."""
        return 1

    def parent(self, cell: int) -> str | None:
        """Token of the area that encloses the cell one step up, None at the top or for a kind without hierarchy."""
        return None

    def children(self, cell: int) -> list[str] | None:
        """Tokens of the areas that a cell divides into, None at the bottom or for a kind without hierarchy."""
        return None

    def parent_cells(self, coarser: Partition) -> NDArray[np.int32] | None:
        """For each cell, the cell of `coarser` that wholly encloses it (int32 (C,), -1 where none does).

        None for a kind without hierarchy. Raises PartitionError if `coarser` is of another kind.
        """
        return None

    # What all kinds share

    def fit(self, latitude: ArrayLike, longitude: ArrayLike) -> Self:
        """Cut the Earth by the geotags of N photos, degrees, (N,) each. Returns itself; replaces an earlier fit.

        Raises PartitionError for no photos, for coordinates that are not finite or out of range, and if the settings
        leave no cell.
        """
        lat, lon = self._checked(latitude, longitude, "fit")
        if len(lat) == 0:
            raise PartitionError(f"a {self.kind} partition needs at least one photo to fit, got none")
        self._tokens = None
        cells = self._cut(lat, lon)
        tokens, centres = self._geometry()
        counts = _counts(cells, len(tokens))
        centroids = np.stack(group_means(lat, lon, cells, len(tokens)), axis=-1)
        # A cell without photos, or whose photos cancel out on the sphere, has no mean: use its centre.
        self._take(tokens, counts, centres, np.where(np.isnan(centroids), centres, centroids), len(lat))
        return self

    def assign(self, latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.int32]:
        """Returns the cell of each point, int32 (N,), -1 if it is in no cell.

        Raises PartitionError for coordinates that are not finite or out of range: an unknown place is not the same as a
        place outside all cells.
        """
        self._need_fit()
        return self._find(*self._checked(latitude, longitude, "assign"))

    @property
    def cell_count(self) -> int:
        """C, the number of cells."""
        return len(self._need_fit())

    @property
    def fitted_photos(self) -> int:
        """The number of photos passed to `fit`, those in discarded cells included."""
        self._need_fit()
        return self._fitted_photos

    def tokens(self) -> list[str]:
        """Returns the name of each cell: text that is the same for the same cell in every fit."""
        return list(self._need_fit())

    def photo_counts(self) -> NDArray[np.int64]:
        """Returns the number of fitted photos per cell, int64 (C,)."""
        self._need_fit()
        return self._counts.copy()

    def centres(self) -> Coordinates:
        """Latitude, longitude of the middle of each cell, degrees, float64 (C, 2)."""
        self._need_fit()
        return self._centres.copy()

    def centroids(self) -> Coordinates:
        """Latitude, longitude of the spherical mean of each cell's fitted photos, degrees, float64 (C, 2)."""
        self._need_fit()
        return self._centroids.copy()

    def answers(self, answer: Answer = "centroid") -> Coordinates:
        """Returns the point that each cell answers with: `centroids()` or `centres()`."""
        if answer not in ("centroid", "centre"):
            raise PartitionError(f"answer must be one of centroid, centre; got {answer!r}")
        return self.centroids() if answer == "centroid" else self.centres()

    def ceiling(
        self,
        latitude: ArrayLike,
        longitude: ArrayLike,
        levels_km: Mapping[str, float] = LEVELS_KM,
        answer: Answer = "centroid",
    ) -> dict[str, float]:
        """Returns the accuracy of a perfect classifier: the share of photos within each level of their cell's answer.

        A photo in no cell counts as wrong at every level. Raises PartitionError for no photos.
        """
        lat, lon = self._checked(latitude, longitude, "ceiling")
        if len(lat) == 0:
            raise PartitionError("a ceiling needs at least one photo, got none")
        cells = self.assign(lat, lon)
        inside = cells >= 0
        answers = self.answers(answer)[cells[inside]]
        distance = distance_km(lat[inside], lon[inside], answers[:, 0], answers[:, 1])
        return {level: float((distance <= km).sum() / len(lat)) for level, km in levels_km.items()}

    def effective_classes(self) -> float:
        """Returns exp(entropy) of the cells' shares of fitted photos: C if all have equally many, 1 if one has all.

        It is the number of classes of equal size that would be as hard to guess.
        """
        return effective_classes(self.photo_counts())

    def areas_km2(self) -> NDArray[np.float64]:
        """Area of each cell in km², float64 (C,), its outline's edges taken as parts of great circles.

        A kind that knows its areas otherwise overrides this.
        """
        return np.array([polygon_area_km2(self.polygon(cell)) for cell in range(self.cell_count)])

    def rings(self, cell: int) -> list[Coordinates]:
        """Returns the outline of a cell as rings for a flat map: cut at the antimeridian, led along the poles.

        Each is float64 (V, 2) of latitude, longitude in [-90, 90] and [-180, 180], first vertex not repeated.
        """
        return map_rings(self.polygon(cell, self._edge_points(cell)))

    def to_geojson(self) -> dict[str, Any]:
        """Returns a GeoJSON FeatureCollection of all cells (RFC 7946: longitude before latitude, and cells that cross
        the antimeridian cut in two), with token, photos and centroid as properties.
        """
        features = [
            {
                "type": "Feature",
                "id": token,
                "properties": {
                    "cell": cell,
                    "token": token,
                    "photos": int(self._counts[cell]),
                    "latitude": float(self._centroids[cell, 0]),
                    "longitude": float(self._centroids[cell, 1]),
                },
                "geometry": geojson_geometry(self.rings(cell)),
            }
            for cell, token in enumerate(self._need_fit())
        ]
        return {"type": "FeatureCollection", "features": features}

    # Files

    def save(self, path: Path | str) -> None:
        """Write the folder `path`: cells.parquet (one row per cell) and partition.json (kind, settings, hash of the
        cells). Equal partitions give equal bytes. Other files in the folder are kept.
        """
        folder = Path(path)
        frame = pd.DataFrame(
            {
                "token": pd.Series(self._need_fit(), dtype="str"),
                "photos": self._counts,
                "centre_latitude": self._centres[:, 0],
                "centre_longitude": self._centres[:, 1],
                "centroid_latitude": self._centroids[:, 0],
                "centroid_longitude": self._centroids[:, 1],
            }
        )
        write_parquet(folder / CELLS_FILE, frame)
        metadata = {
            "format": FORMAT,
            "kind": self.kind,
            "settings": self._settings(),
            "cell_count": self.cell_count,
            "fitted_photos": self._fitted_photos,
            "cells_sha256": sha256_bytes((folder / CELLS_FILE).read_bytes()),
        }
        geometry = self._geometry_table()
        if geometry is not None:
            write_parquet(folder / GEOMETRY_FILE, geometry)
            metadata["geometry_sha256"] = sha256_bytes((folder / GEOMETRY_FILE).read_bytes())
        # Written last: its hash of the cells shows whether a folder was saved completely.
        write_json(folder / METADATA_FILE, metadata)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings().items())
        if self._tokens is None:
            return f"{type(self).__name__}({settings}), not fitted"
        inside = int(self._counts.sum())
        return (
            f"{type(self).__name__}({settings}): {len(self._tokens):,} cells "
            f"with {inside:,} of {self._fitted_photos:,} photos"
        )

    def _take(
        self,
        tokens: list[str],
        counts: NDArray[np.int64],
        centres: Coordinates,
        centroids: Coordinates,
        n: int,
    ) -> None:
        self._tokens, self._counts, self._fitted_photos = tokens, counts, n
        self._centres, self._centroids = centres, centroids

    def _need_fit(self) -> list[str]:
        if self._tokens is None:
            raise PartitionError(f"this {self.kind} partition is not fitted yet: call fit first")
        return self._tokens

    def _cell(self, cell: int) -> int:
        """Returns a checked cell number: -1 (no cell) must not silently index the last cell."""
        if not 0 <= cell < self.cell_count:
            raise PartitionError(f"cell must be between 0 and {self.cell_count - 1}, got {cell}")
        return int(cell)

    def _checked(
        self, latitude: ArrayLike, longitude: ArrayLike, what: str
    ) -> tuple[Coordinates, Coordinates]:
        lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
        if lat.ndim != 1 or lat.shape != lon.shape:
            raise PartitionError(
                f"{what} needs latitude and longitude of one equal length, got shapes {lat.shape} and {lon.shape}"
            )
        bad = np.flatnonzero(~is_valid(lat, lon))
        if len(bad):
            raise PartitionError(
                f"{what} got {len(bad)} of {len(lat)} coordinates that are not finite or out of range; the first, "
                f"in row {bad[0]}, is latitude {lat[bad[0]]}, longitude {lon[bad[0]]}"
            )
        return lat, lon


def _counts(cells: NDArray[np.int32], cell_count: int) -> NDArray[np.int64]:
    """Photos in each cell, int64 (cell_count,); -1 is in none."""
    total = np.zeros(cell_count, dtype=np.int64)
    for part in chunks(len(cells)):  # bincount would widen all numbers of cells to int64 at once
        some = cells[part]
        total += np.bincount(some[some >= 0], minlength=cell_count)
    return total
