"""Where photos are taken, and which way the camera looks.

Photos of a real city crowd at a few dozen corners. So half of a city's photos are at its popular spots, which are the
same for all photographers. Others are along the shore, all over the city, or out in the country.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.land import is_land
from geoloc.sample.geography import to_degrees
from geoloc.sample.hashing import uniform
from geoloc.sample.plan import landmark, plans, to_street
from geoloc.sample.trips import pick

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Pair = tuple[FloatArray, FloatArray]

SPOTS = 36
"""Popular spots of a city; the n-th has a share of photos proportional to 1 / n (Zipf)."""

SHORE_SPOTS = 6
RURAL_M = (10_000.0, 60_000.0)
JITTER_M = (1.0, 10.0)
"""How far from the middle of a popular spot photos are taken."""

_AT_SPOTS, _AT_SHORE = 0.55, 0.10  # shares of the photos that are not rural
_MOTIF_AT_SPOTS, _MOTIF_AT_SHORE = 0.45, 0.40  # where the city is known for its beach or its fjord
_ROUND_THE_LANDMARK = 8  # spots with a view of it
_LANDMARK_VIEW_M = 260.0
_POINTS_AT_IT, _SAME_WAY, _ALONG, _SEAWARD = 0.65, 0.6, 0.85, 0.6  # shares of cameras
_RURAL_TRIES = 6
_SPOT_STREAM = 60


@dataclass(frozen=True)
class Positions:
    """Where N photos are taken in the frames of their cities, float64 (N,) each.

    east_m, north_m: metres, to 0.1. heading: the bearing of the camera, degrees in [0, 360), to 0.1.
    """

    east_m: FloatArray
    north_m: FloatArray
    heading: FloatArray


def stand(city: pd.DataFrame, key: ArrayLike, skill: ArrayLike, rural_share: float) -> Positions:
    """Returns places and headings of N photos.

    `city`: the row of `geography.cities` of each; `key`: an integer seed each; `skill`: 0 to 1, how well the
    photographer aims.
    """
    key, skill = np.asarray(key, np.int64), np.asarray(skill, np.float64)
    ids = city["city"].to_numpy(np.int64)
    sea = _Sea.of(city)
    rural, shore, spot = _kinds(city, sea, key, rural_share)
    east, north = _round_about(city, key)
    _put(rural, (east, north), lambda at: _rural(city[at], sea.rows(at), key[at]))
    _put(spot, (east, north), lambda at: _jittered(*_spots(city[at], key[at]), key[at]))
    east, north = sea.kept_dry(east, north)
    _put(shore, (east, north), lambda at: _shore(ids[at], sea.rows(at), key[at]))
    east, north, along = to_street(ids, east, north)
    east, north = east.round(1), north.round(1)
    heading = _headings(ids, east, north, along, (shore, spot), sea, key, skill)
    return Positions(east + 0.0, north + 0.0, heading)  # + 0.0: no minus zero


@dataclass(frozen=True)
class _Sea:
    """The shore lines of N cities: a unit vector to the sea, and metres to the shore along it (infinite: no sea)."""

    east: FloatArray
    north: FloatArray
    shore_m: FloatArray

    @classmethod
    def of(cls, city: pd.DataFrame) -> _Sea:
        bearing = np.radians(city["seaward"].fillna(0.0).to_numpy(np.float64))
        return cls(np.sin(bearing), np.cos(bearing), city["shore_m"].to_numpy(np.float64))

    def rows(self, at: NDArray[np.bool_]) -> _Sea:
        return _Sea(self.east[at], self.north[at], self.shore_m[at])

    def beyond(self, east: FloatArray, north: FloatArray) -> FloatArray:
        """Metres from the shore into the sea; negative on land."""
        return east * self.east + north * self.north - self.shore_m

    def kept_dry(self, east: FloatArray, north: FloatArray) -> Pair:
        """Points, those in the sea mirrored at the shore line."""
        back = 2 * np.maximum(self.beyond(east, north), 0.0)
        return east - back * self.east, north - back * self.north


def _put(at: NDArray[np.bool_], into: Pair, make: Callable[[NDArray[np.bool_]], Pair]) -> None:
    """Write the two arrays that make(at) returns into the rows `at` of two others."""
    for target, values in zip(into, make(at), strict=True):
        target[at] = values


def _kinds(
    city: pd.DataFrame, sea: _Sea, key: IntArray, rural_share: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which photos are rural, at the shore, and at popular spots. The others are anywhere in the city."""
    motif = (city["motif"] != "").to_numpy() & np.isfinite(sea.shore_m)
    at_shore = np.where(motif, _MOTIF_AT_SHORE, np.where(np.isfinite(sea.shore_m), _AT_SHORE, 0.0))
    at_spots = np.where(motif, _MOTIF_AT_SPOTS, _AT_SPOTS)
    rural = uniform(key, 61) < rural_share
    u = uniform(key, 62)
    return rural, ~rural & (u < at_shore), ~rural & (u >= at_shore) & (u < at_shore + at_spots)


def _reach(city: pd.DataFrame) -> FloatArray:
    """Metres within which most of a city's photos are: as far as it is built up."""
    return plans(city["city"].to_numpy(np.int64)).reach


def _round_about(city: pd.DataFrame, key: IntArray) -> Pair:
    """Places anywhere in the city, ever fewer with distance from its centre."""
    distance = np.minimum(-np.log1p(-uniform(key, 63)) * _reach(city), 20_000.0)
    return _polar(distance, uniform(key, 64))


def _rural(city: pd.DataFrame, sea: _Sea, key: IntArray) -> Pair:
    """Places 10 to 60 km from the city, on land: the first of several attempts that is on land."""
    east, north = np.zeros(len(key)), np.zeros(len(key))
    looking = np.arange(len(key))
    latitude, longitude = city["latitude"].to_numpy(np.float64), city["longitude"].to_numpy(np.float64)
    for attempt in range(_RURAL_TRIES):
        # Each attempt is nearer to the city, because an island may be small.
        distance = RURAL_M[0] + (RURAL_M[1] - RURAL_M[0]) * uniform(key[looking], 65, attempt) / (1 + attempt)
        here = _polar(distance, uniform(key[looking], 66, attempt))
        east[looking], north[looking] = here
        dry = is_land(*to_degrees(latitude[looking], longitude[looking], *here))
        dry &= sea.beyond(east, north)[looking] < 0
        looking = looking[~dry]
        if len(looking) == 0:
            break
    return east, north


def _spots(city: pd.DataFrame, key: IntArray) -> Pair:
    """The middle of a popular spot, from the city and the number of the spot."""
    ids = city["city"].to_numpy(np.int64)
    spot = _spot(key)
    u = uniform(_SPOT_STREAM, ids, spot)
    near = spot < _ROUND_THE_LANDMARK
    distance = np.where(near, 45.0 + 130.0 * u, (0.05 + 0.9 * u) * _reach(city))
    east, north = _polar(distance, uniform(_SPOT_STREAM + 1, ids, spot))
    mark_east, mark_north = landmark(ids)
    return east + np.where(near, mark_east, 0.0), north + np.where(near, mark_north, 0.0)


def _spot(key: IntArray) -> IntArray:
    """Numbers of popular spots."""
    return pick(1.0 / np.arange(1, SPOTS + 1), uniform(key, 67))


def _shore(ids: IntArray, sea: _Sea, key: IntArray) -> Pair:
    """Places on the shore, most of them at a few spots."""
    spot = pick(1.0 / np.arange(1, SHORE_SPOTS + 1), uniform(key, 68))
    at_spot = 3000.0 * (uniform(_SPOT_STREAM + 2, ids, spot) - 0.5) + 60.0 * (uniform(key, 69) - 0.5)
    aside = np.where(uniform(key, 70) < 0.6, at_spot, 6000.0 * (uniform(key, 71) - 0.5))
    out = sea.shore_m - 20.0 * uniform(key, 72)
    return out * sea.east + aside * sea.north, out * sea.north - aside * sea.east


def _jittered(east: FloatArray, north: FloatArray, key: IntArray) -> Pair:
    far = JITTER_M[0] + (JITTER_M[1] - JITTER_M[0]) * uniform(key, 73)
    by_east, by_north = _polar(far, uniform(key, 74))
    return east + by_east, north + by_north


def _headings(
    ids: IntArray,
    east: FloatArray,
    north: FloatArray,
    along: FloatArray,
    at: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    sea: _Sea,
    key: IntArray,
    skill: FloatArray,
) -> FloatArray:
    """Headings in degrees: to the landmark if it is near, out to sea on the shore, else mostly along the street.

    `at`: which photos are at the shore, and which at a popular spot. A spot has one good view, which most photos show.
    """
    shore, at_spot = at
    mark_east, mark_north = landmark(ids)
    to_mark = np.degrees(np.arctan2(mark_east - east, mark_north - north))
    in_view = np.hypot(mark_east - east, mark_north - north) < _LANDMARK_VIEW_M
    a, b, spread = uniform(key, 75), uniform(key, 76), uniform(key, 77) + uniform(key, 78) - 1.0
    street = along + 180.0 * (uniform(key, 79) < 0.5) + 25.0 * spread
    heading = np.where(a < _ALONG, street, 360.0 * b)
    view = along + 180.0 * (uniform(_SPOT_STREAM + 3, ids, _spot(key)) < 0.5) + 14.0 * spread
    heading = np.where(at_spot & (a < _SAME_WAY), view, heading)
    out = np.degrees(np.arctan2(sea.east, sea.north)) + 45.0 * spread
    heading = np.where(shore & (a < _SEAWARD), out, heading)
    aimed = to_mark + (8.0 + 32.0 * (1.0 - skill)) * spread
    heading = np.where(in_view & ~shore & (a < _POINTS_AT_IT), aimed, heading)
    return whole_circle(heading)


def whole_circle(degrees: FloatArray) -> FloatArray:
    """Bearings in [0, 360), to 0.1; NaN stays."""
    return (np.round(np.asarray(degrees) * 10) % 3600) / 10


def _polar(distance: FloatArray, turn: FloatArray) -> Pair:
    """East and north of points at a distance and a bearing, given as a share of the full circle."""
    angle = 2 * np.pi * turn
    return distance * np.sin(angle), distance * np.cos(angle)
