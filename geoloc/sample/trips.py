"""When photographers travel and how their photos fall into trips, scenes and bursts.

A trip is an album: one city, a few days, some scenes. A scene is one view, taken once or, in a burst, two to five
times. Every number is drawn from a hash of the photographer and the number of the trip or scene. So a photographer's
trips depend neither on other photographers nor on how many photos there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.sample.hashing import choice, mixed, uniform
from geoloc.sphere import distance_km

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FIRST_YEAR, FIRST_YEARS = 2008, 7
"""Photos of version 1 are taken in these seven years, those of each later version in the next year."""

HOME, NEAR, FAR = 0, 1, 2
_MOODS = (0.45, 0.30)  # shares of trips at home and to near cities; the rest goes anywhere
_NEAR_KM = 500.0
_LONGEST_DAYS = (1, 3, 6)  # of a trip, by mood
_SCENES = (2, 9)  # of a trip
_BURST = (2, 5)  # photos
_BURST_MEAN_MORE = 2.5  # photos of a burst beyond the first, on average


@dataclass(frozen=True)
class Trips:
    """T trips in order of person and time; arrays (T,).

    person: row of the roster. number: of the person's trips, from 0. place: row of the cities. day: datetime64[D],
    the first. days: how many.
    """

    person: IntArray
    number: IntArray
    place: IntArray
    day: NDArray[np.datetime64]
    days: IntArray


@dataclass(frozen=True)
class Scenes:
    """S scenes in order of person and trip; arrays (S,).

    person: row of the roster. trip: row of the trips. key: an integer seed, unique. photos: how many times it is
    taken.
    """

    person: IntArray
    trip: IntArray
    key: IntArray
    photos: IntArray


def period(version: int) -> tuple[np.datetime64, int]:
    """Returns the first day of a version's photos (datetime64[D]), and the number of days from it on."""
    first = FIRST_YEAR if version == 1 else FIRST_YEAR + FIRST_YEARS + version - 2
    last = first + (FIRST_YEARS if version == 1 else 1)
    start, end = (np.datetime64(f"{year:04d}-01-01", "D") for year in (first, last))
    return start, int((end - start).astype(np.int64))


def make_trips(
    key: IntArray, photos: IntArray, home: IntArray, cities: pd.DataFrame, burst_share: float, version: int
) -> tuple[Trips, Scenes]:
    """Returns the trips and scenes of P people, who take `photos` (P,) photos each.

    `key` int64 (P,): an integer seed each. `home`: rows of `cities`, which needs latitude, longitude (degrees) and
    weight.
    """
    person, scene_key, taken = _scenes(key, photos, burst_share, version)
    scenes = np.bincount(person, minlength=len(key))
    owner, number, size = _cut(scenes, lambda who, n: _scenes_of_trip(key[who], n, version), _SCENES[0])
    trip_key = mixed(key[owner], 41, version, number).astype(np.int64)
    mood = _moods(trip_key)
    day, days = _days(key, owner, number, trip_key, mood, version)
    trips = Trips(owner, number, _places(trip_key, mood, home[owner], cities), day, days)
    return trips, Scenes(person, np.repeat(np.arange(len(owner)), size), scene_key, taken)


def _scenes(
    key: IntArray, photos: IntArray, burst_share: float, version: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Person, key and number of photos of each scene."""
    chance = burst_share / (_BURST_MEAN_MORE * (1.0 - burst_share))  # that a scene is a burst

    def size(who: IntArray, number: IntArray) -> IntArray:
        burst = uniform(key[who], 42, version, number) < chance
        many = _BURST[0] + choice(_BURST[1] - _BURST[0] + 1, key[who], 43, version, number)
        return np.where(burst, many, 1)

    person, number, taken = _cut(photos, size, 1)
    return person, mixed(key[person], 44, version, number).astype(np.int64), taken


def _scenes_of_trip(key: IntArray, number: IntArray, version: int) -> IntArray:
    return _SCENES[0] + choice(_SCENES[1] - _SCENES[0] + 1, key, 45, version, number)


def _cut(
    totals: IntArray, size_of: Callable[[IntArray, IntArray], IntArray], smallest: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Cut the total of each owner into pieces. Returns owner, number within the owner, and size of each piece.

    `size_of(owner, number)` is the size to aim for, at least `smallest`; the last piece of an owner takes the rest.
    """
    enough = -(-totals // smallest)
    owner = np.repeat(np.arange(len(totals)), enough)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(enough) - enough, enough)
    size = size_of(owner, number)
    before = np.cumsum(size) - size
    first = np.cumsum(enough) - enough  # row at which each owner begins
    before -= np.repeat(before[np.minimum(first, len(size) - 1)], enough)
    kept = before < totals[owner]
    owner, number, before = owner[kept], number[kept], before[kept]
    return owner, number, np.minimum(size[kept], totals[owner] - before)


def _moods(trip_key: IntArray) -> IntArray:
    u = uniform(trip_key, 46)
    return np.select([u < _MOODS[0], u < _MOODS[0] + _MOODS[1]], [HOME, NEAR], FAR)


def _places(trip_key: IntArray, mood: IntArray, home: IntArray, cities: pd.DataFrame) -> IntArray:
    """The city of each trip: home, a city near home, or any city, drawn by weight."""
    weight = cities["weight"].to_numpy(np.float64)
    u = uniform(trip_key, 47)
    place = np.where(mood == FAR, pick(weight, u), home)
    latitude, longitude = cities["latitude"].to_numpy(), cities["longitude"].to_numpy()
    near = np.flatnonzero(mood == NEAR)
    near = near[np.argsort(home[near], kind="stable")]
    homes, starts = np.unique(home[near], return_index=True)
    ends = np.append(starts, len(near))[1:]
    for city, start, end in zip(homes.tolist(), starts.tolist(), ends.tolist(), strict=True):
        km = distance_km(latitude[city], longitude[city], latitude, longitude)
        close = weight * np.exp(-km / _NEAR_KM)
        close[city] = 0.0
        if close.sum() > 0:
            rows = near[start:end]
            place[rows] = pick(close, u[rows])
    return place


def pick(weight: FloatArray, u: FloatArray) -> IntArray:
    """Rows drawn by weight (N,) from uniform numbers u in [0, 1), int64 in the shape of u."""
    up_to = np.cumsum(weight)
    return np.minimum(np.searchsorted(up_to, u * up_to[-1], side="right"), len(weight) - 1).astype(np.int64)


def _days(
    key: IntArray, owner: IntArray, number: IntArray, trip_key: IntArray, mood: IntArray, version: int
) -> tuple[NDArray[np.datetime64], IntArray]:
    """First day and length of each trip. A person's trips follow one another within their active time.

    That time is cut into one slot per trip. If slots are long enough, two days between trips stay free, for the way
    home and for other time zones.
    """
    start, span = period(version)
    trips = np.bincount(owner, minlength=len(key))
    wanted = span * (0.3 + 0.7 * uniform(key, 48, version))
    active = np.minimum(np.maximum(wanted, 12.0 * trips), span)
    begin = (span - active) * uniform(key, 49, version)
    slot = active[owner] / trips[owner]
    longest = np.array(_LONGEST_DAYS)[mood]
    days = 1 + np.floor(longest * uniform(trip_key, 50)).astype(np.int64)
    days = np.clip(np.floor(slot).astype(np.int64) - 2, 1, days)
    play = np.maximum(slot - days - 2, 0.0)  # days by which the trip may begin later in its slot
    first = np.floor(begin[owner] + slot * number + play * uniform(trip_key, 51)).astype(np.int64)
    return start + first.astype("timedelta64[D]"), days
