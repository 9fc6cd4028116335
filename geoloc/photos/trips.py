"""Trips: the photos of one person cut by time and place, for collections with too few people to hold one out.

Two photos of one person that were taken within some hours and some km of each other are of one trip, and so are all
that such pairs connect. A photo without a time goes with the nearest timed photo of its album. Other photos without a
time are grouped by their album, and without album, by place.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from geoloc.sphere import EARTH_RADIUS_KM, unit_vectors

PREFIX = "trip:"
"""What the key of every trip begins with."""
_GRID_DEGREES = 0.1  # places of photos without a time are rounded, so that many at one spot are one point


def trip_keys(photos: pd.DataFrame, person: pd.Series, hours: float, km: float) -> pd.Series:
    """Returns the trip of each of N photos, text with the index of `photos`, as PREFIX, person, first photo id.

    `photos` has photo_id, source, album, latitude, longitude and, where times are known, taken_at; `person` (N,) says
    whose each photo is.
    """
    table = photos.reset_index(drop=True)
    taken = pd.to_datetime(table.get("taken_at", pd.Series(pd.NaT, table.index)), utc=True)
    table["hour"] = (taken - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(hours=1)
    table["person"] = person.to_numpy(dtype=object)
    keys = np.empty(len(table), dtype=object)
    for owner, rows in table.groupby("person", sort=False).indices.items():
        of_owner = table.iloc[rows]
        trip = _trips(of_owner.reset_index(drop=True), hours, km)
        first = of_owner["photo_id"].groupby(trip).transform("min")
        keys[rows] = [f"{PREFIX}{owner}\0{photo_id}" for photo_id in first]
    return pd.Series(keys, index=photos.index, dtype="str")


def are_trips(keys: pd.Series) -> bool:
    """Whether keys that photos count for are trips, not photographers."""
    return bool(keys.str.startswith(PREFIX).fillna(False).any())


def linked_trips(
    hour: NDArray[np.float64], points: NDArray[np.float64], hours: float, km: float
) -> NDArray[np.int64]:
    """Returns the trip of each photo, int64 (N,), from times in hours (N,), ascending, and unit vectors (N, 3)."""
    parent, reach = list(range(len(hour))), _chord(km) ** 2

    def root(photo: int) -> int:
        while parent[photo] != photo:
            parent[photo] = photo = parent[parent[photo]]
        return photo

    label, start = np.arange(len(hour)), 0
    for photo in range(1, len(hour)):
        while hour[photo] - hour[start] > hours:
            start += 1
        near = ((points[start:photo] - points[photo]) ** 2).sum(axis=1) <= reach
        for other in np.unique(label[start:photo][near]):
            parent[root(int(other))] = root(photo)
        label[photo] = root(photo)
    return np.array([root(photo) for photo in range(len(hour))], dtype=np.int64)


def _trips(photos: pd.DataFrame, hours: float, km: float) -> NDArray[np.int64]:
    """The trip of each photo of one person, int64 (N,)."""
    hour, points = photos["hour"].to_numpy(np.float64), unit_vectors(photos["latitude"], photos["longitude"])
    trip = np.full(len(photos), -1, dtype=np.int64)
    order = np.argsort(hour, kind="stable")  # unknown times come last
    timed = order[: int(np.isfinite(hour).sum())]
    trip[timed] = linked_trips(hour[timed], points[timed], hours, km)
    if len(timed) == len(photos):
        return trip
    album = (photos["source"].astype("str").fillna("") + "\0" + photos["album"].astype("str")).dropna()
    for found in album.groupby(album).indices.values():
        rows = album.index.to_numpy()[found]
        known, unknown = rows[trip[rows] >= 0], rows[trip[rows] < 0]
        if len(known) and len(unknown):
            trip[unknown] = trip[known[cKDTree(points[known]).query(points[unknown])[1]]]
        elif len(unknown):
            trip[unknown] = len(photos) + unknown[0]
    alone = np.flatnonzero(trip < 0)
    if len(alone):
        trip[alone] = 2 * len(photos) + _places(photos.iloc[alone], km)
    return trip


def _places(photos: pd.DataFrame, km: float) -> NDArray[np.int64]:
    """The group of each photo by place, int64 (N,): groups are more than about `km` apart."""
    grid = photos[["latitude", "longitude"]].to_numpy(np.float64) / _GRID_DEGREES
    spots, spot = np.unique(np.round(grid), axis=0, return_inverse=True)
    tree = cKDTree(unit_vectors(*(spots * _GRID_DEGREES).T))
    pairs = tree.query_pairs(_chord(km), output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(spots), len(spots)))
    return np.asarray(connected_components(graph, directed=False)[1][spot.ravel()], dtype=np.int64)


def _chord(km: float) -> float:
    return float(2 * np.sin(min(km / EARTH_RADIUS_KM, np.pi) / 2))
