"""Who photographs what, where, when and with which camera: the table of shots of the sample planet.

Photographer k depends on the seed and k alone. Home, skill, camera and habits are the same for any number of photos
and in every version of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.sample.copies import with_copies
from geoloc.sample.daylight import (
    ANY_LIGHT,
    DAYLIGHT,
    DUSK,
    NIGHT,
    local_times,
    to_utc,
    utc_offset_hours,
)
from geoloc.sample.geography import cities as draw_cities
from geoloc.sample.geography import to_degrees
from geoloc.sample.hashing import choice, mixed, uniform
from geoloc.sample.normal import normal
from geoloc.sample.positions import stand
from geoloc.sample.posting import HABIT_SHARES, posting_times
from geoloc.sample.settings import SampleSettings
from geoloc.sample.trips import Scenes, Trips, make_trips, pick
from geoloc.sun import sun_position

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

SUBJECTS = ("outdoor", "indoor", "food", "pet", "portrait")
NO_CUE_SHARES = (0.4, 0.25, 0.15, 0.2)
"""Shares among pictures without a cue to their place: indoor, food, pet, portrait."""

OLD_HANDS_SHARE = 0.6
"""Share of the photos of a later version by photographers of earlier ones."""

RANKS_PER_VERSION = 1_000_000
"""Photographers new in version v have numbers from (v - 1) times this on, by activity."""

_ZIPF_SHIFT = 4.0
_LIGHTS = (0.91, 0.06)  # daylight and dusk; the rest by night


@dataclass(frozen=True)
class People:
    """P photographers; arrays (P,) or (P, 3).

    number: k. key: an integer seed. home: row of the cities. skill: 0 to 1. no_cue: share of pictures without a cue.
    habit: of posting. field_of_view: degrees, of the camera's usual lens. grain: amplitude of noise by day. cast: of
    the camera, -8 to 8 in R, G and B. quality: of its JPEGs. eye_m: height of the eye.
    """

    number: IntArray
    key: IntArray
    home: IntArray
    skill: FloatArray
    no_cue: FloatArray
    habit: IntArray
    field_of_view: FloatArray
    grain: FloatArray
    cast: IntArray
    quality: IntArray
    eye_m: FloatArray

    @property
    def names(self) -> NDArray[np.object_]:
        """As photos.csv names them."""
        return np.array([f"user{k:06d}" for k in self.number.tolist()], object)


def make_shots(photos: int, seed: int, settings: SampleSettings, version: int = 1) -> pd.DataFrame:
    """Returns the table of `photos` photos of a version, before dirt, by photographer and time; RangeIndex.

    Columns:
    - photo_id (unique over versions), photographer, album ("" for a copy);
    - latitude, longitude (true, degrees), city (GeoNames id), city_name ("Lyon, FR"), east_m, north_m (metres from
      the city's centre), heading (true bearing of the camera, degrees);
    - subject (one of SUBJECTS), taken_at (local clock), utc_offset_h, posted_at (UTC), sun_elevation, sun_azimuth
      (degrees), day_of_year, cloud, fog (0 to 255);
    - field_of_view (across, degrees), roll, pitch (degrees), eye_m, exposure (1: correct), grain (noise, 0 to 12),
      cast_r, cast_g, cast_b (-8 to 8), quality (of the JPEG), shake_x, shake_y (pixels);
    - scene (equal in all photos of a burst and in copies), shot_key (unique: the photo's own seed);
    - copy_of (row of the original, -1 for none), copy_kind ("exact", "near" or ""), overhead (a tile is made for it).

    Raises ValueError for fewer than 2 photos, a version below 1, or too many photographers.
    """
    if photos < 2:
        raise ValueError(f"photos must be at least 2, got {photos}")
    if version < 1:
        raise ValueError(f"version must be at least 1, got {version}")
    cities = draw_cities(settings.cities, seed)
    number, count = roster(photos, settings, version)
    people = photographers(number, seed, cities, settings)
    trips, scenes = make_trips(people.key, count, people.home, cities, settings.burst_share, version)
    pictures = _pictures(trips, scenes, people, cities, settings)
    shots = _photos(pictures, trips, people, cities, version)
    shots = with_copies(shots, settings, seed, version)
    shots["overhead"] = _with_tile(shots, settings.overhead_share)
    return shots.drop(columns=["trip"])


def roster(photos: int, settings: SampleSettings, version: int) -> tuple[IntArray, IntArray]:
    """Returns the numbers of the photographers of a version, and how many of its photos each takes; int64.

    Activity follows the Zipf-Mandelbrot law: (rank + 4) to the power of -zipf_exponent. A later version has the most
    active photographers of the earlier versions, taken in turn, and new ones.
    """
    old_photos = round(photos * OLD_HANDS_SHARE) if version > 1 else 0
    each = settings.photos_per_photographer
    old = np.arange(max(old_photos // each, 1) if old_photos else 0)
    earlier = max(version - 1, 1)
    old_numbers = old % earlier * RANKS_PER_VERSION + old // earlier
    new = np.arange(max((photos - old_photos) // each, 2 if version == 1 else 1))
    if max(len(old), len(new)) >= RANKS_PER_VERSION:
        raise ValueError(
            f"{photos} photos need {len(new)} photographers; at most {RANKS_PER_VERSION} a version"
        )
    numbers = np.concatenate([old_numbers, (version - 1) * RANKS_PER_VERSION + new])
    counts = [
        apportioned(total, activity(ranks, settings.zipf_exponent))
        for total, ranks in ((old_photos, old // earlier), (photos - old_photos, new))
    ]
    kept = np.concatenate(counts) > 0
    return numbers[kept], np.concatenate(counts)[kept]


def activity(rank: ArrayLike, exponent: float) -> FloatArray:
    """Activity of photographers by rank from 0, before normalisation."""
    return (np.asarray(rank, np.float64) + _ZIPF_SHIFT) ** -exponent


def apportioned(total: int, weights: ArrayLike) -> IntArray:
    """`total` divided by weights (N,) into integers, by largest remainders; at least 1 each if `total` suffices."""
    w = np.asarray(weights, np.float64)
    if total <= len(w):
        return (np.arange(len(w)) < total).astype(np.int64)
    wish = np.maximum(total * w / w.sum() - 1.0, 0.0)  # beyond the first of each
    wish *= (total - len(w)) / wish.sum()
    parts = np.floor(wish).astype(np.int64)
    largest = np.argsort(parts - wish, kind="stable")
    parts[largest[: total - len(w) - int(parts.sum())]] += 1
    return parts + 1


def photographers(numbers: IntArray, seed: int, cities: pd.DataFrame, settings: SampleSettings) -> People:
    """The photographers with these numbers. Each depends on (seed, number), `cities` and settings only."""
    key = mixed(seed, 20, numbers).astype(np.int64)
    skill = (uniform(key, 21) + uniform(key, 22)) / 2
    return People(
        number=numbers,
        key=key,
        home=pick(cities["weight"].to_numpy(np.float64), uniform(key, 23)),
        skill=skill,
        no_cue=np.clip(settings.no_cue_share * (0.4 + 1.2 * uniform(key, 24)), 0, 1),
        habit=pick(np.array(HABIT_SHARES), uniform(key, 25)),
        field_of_view=46.0 + 22.0 * uniform(key, 26),
        grain=0.5 + 5.0 * uniform(key, 27) ** 2,
        cast=np.rint(5.0 * np.stack([uniform(key, 28, c) * 2 - 1 for c in range(3)], -1)).astype(np.int64),
        quality=70 + choice(21, key, 29),
        eye_m=1.5 + 0.3 * uniform(key, 30),
    )


def _pictures(
    trips: Trips, scenes: Scenes, people: People, cities: pd.DataFrame, settings: SampleSettings
) -> pd.DataFrame:
    """One row per scene, in their order: what is in front of the camera."""
    key, who = scenes.key, scenes.person
    city = cities.iloc[trips.place[scenes.trip]].reset_index(drop=True)
    where = stand(city, key, people.skill[who], settings.rural_share)
    latitude, longitude = to_degrees(city["latitude"], city["longitude"], where.east_m, where.north_m)
    latitude, longitude = latitude.round(6), longitude.round(6)
    subject = _subjects(people.no_cue[who], key)
    day = trips.day[scenes.trip] + np.floor(trips.days[scenes.trip] * uniform(key, 31)).astype(
        "timedelta64[D]"
    )
    taken = local_times(day, latitude, longitude, _lights(subject, key), key)
    offset = utc_offset_hours(longitude)
    elevation, azimuth = sun_position(to_utc(taken, offset), latitude, longitude)
    return pd.DataFrame(
        {
            "person": who,
            "trip": scenes.trip,
            "photos": scenes.photos,
            "scene_key": key,
            "latitude": latitude,
            "longitude": longitude,
            "city": city["city"].to_numpy(np.int64),
            "city_name": city["name"] + ", " + city["country_code"],
            "east_m": where.east_m,
            "north_m": where.north_m,
            "heading": where.heading,
            "subject": np.array(SUBJECTS, object)[subject],
            "taken_at": taken,
            "utc_offset_h": offset,
            "sun_elevation": elevation.round(2),
            "sun_azimuth": azimuth.round(2),
            "day_of_year": pd.DatetimeIndex(taken).dayofyear.to_numpy(np.int64),
            **_weather(city["city"].to_numpy(np.int64), taken, key),
            **_camera(people, who, key, elevation, where.east_m, where.north_m),
        }
    )


def _subjects(no_cue: FloatArray, key: IntArray) -> IntArray:
    """Indices into SUBJECTS."""
    without = 1 + pick(np.array(NO_CUE_SHARES), uniform(key, 32))
    return np.where(uniform(key, 33) < no_cue, without, 0)


def _lights(subject: IntArray, key: IntArray) -> IntArray:
    u = uniform(key, 34)
    outdoors = np.select([u < _LIGHTS[0], u < _LIGHTS[0] + _LIGHTS[1]], [DAYLIGHT, DUSK], NIGHT)
    indoors = np.isin(subject, [SUBJECTS.index("indoor"), SUBJECTS.index("food"), SUBJECTS.index("pet")])
    return np.where(indoors, ANY_LIGHT, outdoors)


def _weather(city: IntArray, taken: NDArray[np.datetime64], key: IntArray) -> dict[str, IntArray]:
    """Clouds and fog, 0 to 255: those of the city that day, plus a small random change per scene."""
    day = taken.astype("datetime64[D]").astype(np.int64)
    sky = uniform(35, city, day)
    cloud = 255.0 * np.select(
        [sky < 0.35, sky < 0.75], [0.4 * sky, 0.14 + 1.2 * (sky - 0.35)], 0.4 + 0.6 * sky
    )
    misty = uniform(36, city, day) < 0.08
    early = (taken - taken.astype("datetime64[D]")) < np.timedelta64(10 * 3600, "s")
    fog = np.where(
        misty, 60.0 + np.where(early, 150.0, 70.0) * uniform(37, city, day), 18.0 * uniform(key, 37)
    )
    cloud += 24.0 * (uniform(key, 38) - 0.5)
    return {"cloud": np.clip(np.rint(cloud), 0, 255).astype(np.int64), "fog": np.rint(fog).astype(np.int64)}


def _camera(
    people: People,
    who: IntArray,
    key: IntArray,
    elevation: FloatArray,
    east_m: FloatArray,
    north_m: FloatArray,
) -> dict[str, NDArray[np.generic]]:
    """How the camera is held and set. Low skill tilts it more and exposes worse; pictures in the dark are grainy."""
    skill = people.skill[who]
    clumsy = 1.0 - skill
    dark = np.clip(-elevation / 6.0, 0, 1)
    balcony = uniform(key, 39) < 0.03
    height = np.where(balcony, 6.0 + 6.0 * uniform(key, 40), people.eye_m[who])
    zoom = np.exp(0.10 * normal(key, 52))
    return {
        "field_of_view": np.clip(people.field_of_view[who] * zoom, 40, 75).round(1),
        "roll": np.clip((0.4 + 4.0 * clumsy) * normal(key, 53), -12, 12).round(2) + 0.0,
        "pitch": np.clip(1.0 + (0.6 + 4.0 * clumsy) * normal(key, 54), -12, 12).round(2) + 0.0,
        "eye_m": height.round(2),
        "exposure": np.clip(1.0 + (0.03 + 0.16 * clumsy) * normal(key, 55), 0.8, 1.25).round(3),
        "grain": np.clip(np.rint(people.grain[who] + 6.0 * dark), 0, 12).astype(np.int64),
        **{f"cast_{c}": people.cast[who, n] for n, c in enumerate("rgb")},
        "quality": people.quality[who],
    }


def _photos(
    pictures: pd.DataFrame, trips: Trips, people: People, cities: pd.DataFrame, version: int
) -> pd.DataFrame:
    """One row per photo, by photographer and time. Scenes of a burst are repeated, seconds apart."""
    pictures = pictures.sort_values(["person", "trip", "taken_at", "scene_key"], ignore_index=True)
    shots = pictures.loc[pictures.index.repeat(pictures["photos"])].reset_index(drop=True)
    key, who, trip = (shots.pop(name).to_numpy() for name in ("scene_key", "person", "trip"))
    first = np.cumsum(pictures["photos"]) - pictures["photos"]
    again = np.arange(len(shots)) - np.repeat(
        first.to_numpy(), pictures["photos"]
    )  # 0 for the first of a burst
    shot_key = mixed(key, 56, again).astype(np.int64)
    seconds = (again * (1 + choice(3, key, 57))).astype("timedelta64[s]")
    shots["taken_at"] = shots["taken_at"].to_numpy() + seconds
    utc = to_utc(shots["taken_at"].to_numpy(), shots["utc_offset_h"])
    home_offset = utc_offset_hours(cities["longitude"])[people.home]
    trip_key = mixed(people.key[trips.person], 58, version, trips.number).astype(np.int64)
    shots["posted_at"] = posting_times(
        utc, people.habit[who], home_offset[who], trip, shot_key, trip_key[trip]
    )
    shots["photo_id"] = [f"p{version}-{n:06d}" for n in range(len(shots))]
    shots["photographer"] = people.names[who]
    albums = zip(people.number[trips.person].tolist(), trips.number.tolist(), strict=True)
    shots["album"] = np.array([f"album{k:06d}-{version}-{n:03d}" for k, n in albums], object)[trip]
    shots["scene"] = key & np.iinfo(np.int64).max  # not negative: it seeds generators
    shots["shot_key"] = shot_key & np.iinfo(np.int64).max
    for name, stream in (("shake_x", 59), ("shake_y", 60)):
        shots[name] = np.where(again > 0, choice(5, shot_key, stream) - 2, 0)
    shots["trip"] = trip
    return shots.drop(columns="photos")


def _with_tile(shots: pd.DataFrame, share: float) -> NDArray[np.bool_]:
    """Outdoor photos that get a tile: no copies, and only the first of a burst."""
    eligible = (shots["subject"] == "outdoor") & (shots["copy_of"] < 0) & ~shots["scene"].duplicated()
    return eligible.to_numpy() & (uniform(shots["scene"], 61) < share)
