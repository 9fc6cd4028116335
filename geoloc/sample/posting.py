"""When photos are posted: always after they were taken, at hours when people who live there are awake.

So the UTC hour of posting is a cue to the longitude, as it is for real photos.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.hashing import uniform
from geoloc.sample.normal import normal
from geoloc.sun import DAY_SECONDS

IntArray = NDArray[np.int64]
Times = NDArray[np.datetime64]

FROM_THE_PHONE, IN_THE_EVENING, WEEKS_LATER = 0, 1, 2
"""Habits. A phone posts minutes after each photo; others post all photos of a trip from home."""

HABIT_SHARES = (0.3, 0.5, 0.2)

_MINUTES = 7.0  # median of a phone's delay
_SAME_EVENING = 0.55
_UPLOAD_SECONDS = 7  # between two photos of an album
_EVENING = (18.0, 23.0)


def posting_times(
    taken_utc: Times,
    habit: IntArray,
    home_offset_h: IntArray,
    trip: IntArray,
    key: IntArray,
    trip_key: IntArray,
) -> Times:
    """Returns the UTC at which each of N photos is posted, datetime64[s] (N,), at least a minute after it was taken.

    `habit` of the photographer; `home_offset_h`: hours of the clock at home ahead of UTC; `trip`: number of the trip
    from 0, the photos of a trip being consecutive; `key` and `trip_key`: integer seeds of each photo and of its trip.
    """
    phone = taken_utc + _phone_delay(key)
    return np.where(habit == FROM_THE_PHONE, phone, _at_home(taken_utc, habit, home_offset_h, trip, trip_key))


def reposting_times(posted: Times, key: IntArray) -> Times:
    """Returns the UTC at which copies of photos posted at `posted` are posted: hours to weeks later."""
    hours = np.clip(np.exp(np.log(60.0) + 1.3 * normal(key, 96)), 1.0, 5000.0)
    return posted + np.round(hours * 3600).astype("timedelta64[s]")


def _phone_delay(key: IntArray) -> NDArray[np.timedelta64]:
    minutes = np.clip(_MINUTES * np.exp(1.0 * normal(key, 91)), 1.0, 240.0)
    return np.round(minutes * 60).astype("timedelta64[s]")


def _at_home(
    taken_utc: Times, habit: IntArray, home_offset_h: IntArray, trip: IntArray, trip_key: IntArray
) -> Times:
    """The first evening at home at least an hour after the trip's last photo, or an evening days or weeks later."""
    clock = taken_utc.astype("datetime64[s]").astype(np.int64) + home_offset_h * 3600
    last = np.full(int(trip.max(initial=-1)) + 1, np.iinfo(np.int64).min)
    np.maximum.at(last, trip, clock)
    ready = last[trip] + 3600
    evening = 3600 * (_EVENING[0] + (_EVENING[1] - _EVENING[0]) * uniform(trip_key, 92))
    moment = ready // DAY_SECONDS * DAY_SECONDS + np.floor(evening).astype(np.int64)
    moment += np.where(moment < ready, DAY_SECONDS, 0)
    moment += DAY_SECONDS * _days_later(habit, trip_key)
    return (moment + _place_in_upload(trip) * _UPLOAD_SECONDS - home_offset_h * 3600).astype("datetime64[s]")


def _days_later(habit: IntArray, trip_key: IntArray) -> IntArray:
    soon = np.where(
        uniform(trip_key, 93) < _SAME_EVENING, 0, 1 + np.floor(6 * uniform(trip_key, 94)).astype(np.int64)
    )
    late = 10 + np.floor(60 * uniform(trip_key, 95)).astype(np.int64)
    return np.where(habit == WEEKS_LATER, late, soon)


def _place_in_upload(trip: IntArray) -> IntArray:
    """0, 1, 2, ... within each trip."""
    if len(trip) == 0:
        return np.zeros(0, np.int64)
    first = np.flatnonzero(np.append(True, trip[1:] != trip[:-1]))
    return np.arange(len(trip)) - np.repeat(first, np.diff(np.append(first, len(trip))))
