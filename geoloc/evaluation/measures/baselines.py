"""Baselines that do not look at the photo: the densest cell, the best constant point, a random reference.

Every baseline is a table of hits, float64 (N, L) in [0, 1], as a method's is, so that intervals and paired
comparisons treat baselines and methods alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.measures.accuracy import error_km, within
from geoloc.partitions.base import Partition
from geoloc.sphere import EARTH_RADIUS_KM, LEVELS_KM, unit_vectors

FloatArray = NDArray[np.float64]

BEST_CONSTANT, RANDOM_REFERENCE = "best constant point", "random reference"

_CHUNK = 1 << 22
"""Pairs of points compared at once: 32 MB of float64."""


@dataclass(frozen=True)
class Baseline:
    """One baseline's hits on the queries.

    `hits` float64 (N, L) in [0, 1]; `latitude` and `longitude` (L,) are the point answered at each level, NaN
    where the baseline has no one point. `error_km` (N,) where the same point is answered at all levels.
    """

    name: str
    hits: FloatArray
    latitude: FloatArray
    longitude: FloatArray
    error_km: FloatArray | None = None


def densest_cell(
    partition: Partition,
    latitude: ArrayLike,
    longitude: ArrayLike,
    levels_km: Mapping[str, float] = LEVELS_KM,
) -> Baseline:
    """Always answers the photo centroid of the cell with most photos (the first on ties).

    A classifier that has learned only how common each cell is answers so.
    """
    lat, lon = partition.centroids()[int(np.argmax(partition.photo_counts()))]
    error = error_km(latitude, longitude, np.full(np.shape(latitude), lat), np.full(np.shape(latitude), lon))
    points = (np.full(len(levels_km), lat), np.full(len(levels_km), lon))
    return Baseline("densest cell", within(error, levels_km).astype(np.float64), *points, error_km=error)


def best_constant(
    reference_latitude: ArrayLike,
    reference_longitude: ArrayLike,
    latitude: ArrayLike,
    longitude: ArrayLike,
    levels_km: Mapping[str, float] = LEVELS_KM,
    *,
    seed: int,
    max_candidates: int = 5000,
    max_references: int = 50_000,
) -> Baseline:
    """Answers one point for each level: the one with most references within the level.

    The point is chosen on the references, never on the queries, among the references' own locations, exactly.
    Of more than `max_candidates` locations, or more than `max_references` references, a sample by the seed is
    taken. Ties go to the southernmost, then westernmost point. If queries are references to each other, the
    query is among the photos that choose the point, which can only make the baseline stronger.
    """
    rng = np.random.default_rng(seed)
    places = np.stack([np.asarray(reference_latitude), np.asarray(reference_longitude)], axis=1)
    places = _sample(places.astype(np.float64), max_references, rng)
    candidates = np.unique(_sample(places, max_candidates, rng), axis=0)
    counts = share_within(candidates[:, 0], candidates[:, 1], places[:, 0], places[:, 1], levels_km)
    chosen = candidates[np.argmax(counts, axis=0)]
    hits = [
        within(error_km(latitude, longitude, *(np.full(np.shape(latitude), x) for x in point)), {level: km})
        for point, (level, km) in zip(chosen, levels_km.items(), strict=True)
    ]
    return Baseline(
        BEST_CONSTANT, np.concatenate(hits, axis=1).astype(np.float64), chosen[:, 0], chosen[:, 1]
    )


def random_reference(
    reference_latitude: ArrayLike,
    reference_longitude: ArrayLike,
    latitude: ArrayLike,
    longitude: ArrayLike,
    levels_km: Mapping[str, float] = LEVELS_KM,
    *,
    seed: int,
    reference_cluster: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    max_references: int = 50_000,
) -> Baseline:
    """Answers the place of a random reference; returns its expected accuracy, computed exactly.

    A query's hit is the share of references within the level. With `cluster` (N,) or (N, G) and `reference_cluster`
    (M,) or (M, G), references of the query's own cluster in any column (its photographer, its near-duplicates) are left
    out, as the protocol "each photo against all photos by other photographers" does; a query with no reference left
    scores 0. Of more than
    `max_references` references a sample by the seed is taken.
    """
    references = np.stack([np.asarray(reference_latitude), np.asarray(reference_longitude)], axis=1)
    rows = _sample(np.arange(len(references)), max_references, np.random.default_rng(seed))
    own = None
    if cluster is not None and reference_cluster is not None:
        own = (np.asarray(cluster), np.asarray(reference_cluster)[rows])
    drawn = references[rows]
    hits = share_within(latitude, longitude, drawn[:, 0], drawn[:, 1], levels_km, own=own)
    nowhere = np.full(len(levels_km), np.nan)
    return Baseline(RANDOM_REFERENCE, hits, nowhere, nowhere)


def share_within(
    latitude: ArrayLike,
    longitude: ArrayLike,
    reference_latitude: ArrayLike,
    reference_longitude: ArrayLike,
    levels_km: Mapping[str, float] = LEVELS_KM,
    own: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> FloatArray:
    """Returns the share of the references within each level of each point, float64 (N, L).

    `own` gives the clusters of points, (N,) or (N, G), and references; pairs of one cluster in any column are left
    out of both sides of the share. Distances are compared as chords of the unit sphere, by one matrix product: right
    to about 0.01 mm.
    """
    points = unit_vectors(latitude, longitude)
    references = unit_vectors(reference_latitude, reference_longitude)
    angles = np.minimum(np.array(list(levels_km.values())) / EARTH_RADIUS_KM, np.pi)
    # 1 - cos written as 2 sin² (a / 2), which does not cancel at small angles.
    limits = 2 * np.sin(angles / 2) ** 2 + 4e-16
    shares = np.zeros((len(points), len(limits)))
    for part in _chunks(len(points), len(references)):
        apart = 1 - points[part] @ references.T
        allowed = np.full(apart.shape[0], apart.shape[1])
        if own is not None:
            same = np.zeros(apart.shape, dtype=bool)
            for mine, its in zip(_columns(own[0])[part].T, _columns(own[1]).T, strict=True):
                same |= mine[:, None] == its[None, :]
            apart[same] = np.inf
            allowed = (~same).sum(axis=1)
        for column, limit in enumerate(limits):
            shares[part, column] = (apart <= limit).sum(axis=1) / np.maximum(allowed, 1)
    return shares


def _columns(clusters: ArrayLike) -> NDArray[np.int64]:
    found = np.asarray(clusters, dtype=np.int64)
    return found if found.ndim == 2 else found[:, None]


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def _sample(items: NDArray, limit: int, rng: np.random.Generator) -> NDArray:
    if len(items) <= limit:
        return items
    return items[np.sort(rng.choice(len(items), size=limit, replace=False))]
