"""Ceilings of partitions compared on the same photos, with intervals by photographer.

A ceiling is the accuracy of a classifier that always finds the right cell ("best possible" in Multi-modal Geolocation,
table 6). Two partitions are compared on the same held-out photos, so their difference is paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.measures.intervals import differences
from geoloc.partitions.base import Answer, Partition
from geoloc.sphere import distance_km

__all__ = ["CeilingDifference", "ceiling_differences", "ceiling_errors_km"]


@dataclass(frozen=True)
class CeilingDifference:
    """The difference of a ceiling from the base's, as a share of the photos, at L levels: float64 (L,) each.

    `low` and `high` bound the 95 % interval by test photographer. Both partitions are fixed: the interval
    does not include fitting them on other photos.
    """

    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def ceiling_errors_km(
    partition: Partition, latitude: ArrayLike, longitude: ArrayLike, answer: Answer = "centroid"
) -> NDArray[np.float64]:
    """Returns the distance in km from each photo (degrees, (N,)) to its cell's answer, infinite if in no cell.

    float64 (N,). Raises PartitionError as `Partition.assign` does.
    """
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    cells = partition.assign(lat, lon)
    inside = cells >= 0
    answers = partition.answers(answer)[cells[inside]]
    errors = np.full(len(lat), np.inf)
    errors[inside] = distance_km(lat[inside], lon[inside], answers[:, 0], answers[:, 1])
    return errors


def ceiling_differences(
    hits: Mapping[str, NDArray[np.bool_]], base: str, clusters: ArrayLike
) -> dict[str, CeilingDifference]:
    """Compare each of `hits` with the one named `base`.

    `hits` are by name, bool (N, L) as accuracy.within returns them, of the same photos in one order. `clusters` are
    those of photographer_clusters. Raises ValueError for an unknown `base`, or different numbers of photos.
    """
    if base not in hits:
        raise ValueError(f"base must be one of {', '.join(hits)}; got {base!r}")
    sizes = {len(some) for some in hits.values()} | {len(np.asarray(clusters))}
    if len(sizes) > 1:
        raise ValueError(f"ceilings must be of the same photos, got {', '.join(map(str, sorted(sizes)))}")
    others = [name for name in hits if name != base]
    if not others:
        return {}
    before = hits[base].astype(np.float64)
    found = differences(np.concatenate([hits[name] - before for name in others], axis=1), clusters)
    parts = [np.split(of_all, len(others)) for of_all in (found.estimate, *found.interval())]
    return {name: CeilingDifference(*(part[k] for part in parts)) for k, name in enumerate(others)}
