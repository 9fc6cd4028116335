"""The local hours at which people photograph.

Clocks follow the nautical time zones, which need no table of borders: UTC + round(longitude / 15) hours. So the sun is
highest within 50 minutes of noon.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sample.hashing import uniform
from geoloc.sun import DAY_SECONDS, sun_coordinates, sun_position

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DAYLIGHT, DUSK, NIGHT, ANY_LIGHT = 0, 1, 2, 3
"""The light that a photographer waits for: daylight, the blue hour of the evening, darkness, or any."""

_DUSK = (-8.0, 2.0)  # elevations of the sun in degrees
_TRIES = 10
_STREAM = 310


def utc_offset_hours(longitude: ArrayLike) -> IntArray:
    """Returns the nautical time zone of longitudes (degrees): hours to add to UTC, int64, -12 to 12."""
    return np.round(np.asarray(longitude, np.float64) / 15.0).astype(np.int64)


def local_times(
    day: ArrayLike, latitude: ArrayLike, longitude: ArrayLike, light: ArrayLike, key: ArrayLike
) -> NDArray[np.datetime64]:
    """Returns a local time on each of N days at which there is the wanted light, datetime64[s] (N,).

    `day` datetime64[D] of the local clock, coordinates in degrees, `light` one of DAYLIGHT, DUSK, NIGHT, ANY_LIGHT,
    `key` an integer seed. Where a place has no such light that day (polar night, midnight sun), the hour is drawn
    without regard to the light.
    """
    start = np.asarray(day).astype("datetime64[D]").astype("datetime64[s]")
    lat, lon, light, key = (np.asarray(x) for x in (latitude, longitude, light, key))
    chosen = start.copy()
    dusk = light == DUSK
    chosen[dusk] = _dusk_times(start[dusk], lat[dusk], lon[dusk], key[dusk])
    # The others draw hours until one has the right light.
    looking = np.flatnonzero(~dusk)
    for attempt in range(_TRIES):
        hours = _hours(light[looking], key[looking], attempt)
        chosen[looking] = start[looking] + np.floor(hours * 3600).astype("timedelta64[s]")
        good = _has_light(chosen[looking], lat[looking], lon[looking], light[looking])
        looking = looking[~good]
        if len(looking) == 0:
            break
    return chosen


def to_utc(local: ArrayLike, offset_hours: ArrayLike) -> NDArray[np.datetime64]:
    """Returns the UTC of local times, datetime64[s]."""
    offset = np.asarray(offset_hours, np.int64).astype("timedelta64[h]").astype("timedelta64[s]")
    utc: NDArray[np.datetime64] = np.asarray(local).astype("datetime64[s]") - offset
    return utc


def _hours(light: IntArray, key: IntArray, attempt: int) -> FloatArray:
    """Local hours, 0 to 24, drawn from the distribution for each light."""
    a, b, c = (uniform(_STREAM, key, attempt, number) for number in range(3))
    hump = a + b - 1.0  # -1 to 1, mostly near 0
    by_day = np.where(c < 0.45, 10.9 + 4.8 * hump, 15.8 + 5.0 * hump)  # before lunch, and the afternoon
    night = (19.5 + 6.5 * a) % 24.0
    any_time = np.where(c < 0.45, 19.3 + 2.4 * hump, 8.0 + 14.5 * a)  # dinner, and evenings at home
    return np.select([light == DAYLIGHT, light == NIGHT], [by_day, night], any_time)


def _has_light(
    local: NDArray[np.datetime64], latitude: FloatArray, longitude: FloatArray, light: IntArray
) -> NDArray[np.bool_]:
    elevation, _ = sun_position(to_utc(local, utc_offset_hours(longitude)), latitude, longitude)
    return np.select([light == DAYLIGHT, light == NIGHT], [elevation > 0.5, elevation < -6.0], True)


def _dusk_times(
    start: NDArray[np.datetime64], latitude: FloatArray, longitude: FloatArray, key: IntArray
) -> NDArray[np.datetime64]:
    """The time in the evening at which the sun is at the elevation drawn; noon or midnight where it never is.

    Solves sin(elevation) = sin(lat) sin(dec) + cos(lat) cos(dec) cos(hour angle) for the hour angle.
    """
    offset = utc_offset_hours(longitude)
    declination, equation_minutes = sun_coordinates(to_utc(start + np.timedelta64(18, "h"), offset))
    elevation = np.radians(_DUSK[0] + (_DUSK[1] - _DUSK[0]) * uniform(_STREAM, key, _TRIES))
    lat, dec = np.radians(latitude), np.radians(declination)
    cosine = (np.sin(elevation) - np.sin(lat) * np.sin(dec)) / (np.cos(lat) * np.cos(dec))
    past_noon = np.degrees(np.arccos(np.clip(cosine, -1, 1))) / 15.0
    clock = 12.0 + past_noon - equation_minutes / 60.0 + offset - longitude / 15.0
    seconds = np.clip(np.floor(clock * 3600), 0, DAY_SECONDS - 1)
    return start + seconds.astype("timedelta64[s]")
