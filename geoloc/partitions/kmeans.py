"""Voronoi cells around sites that are placed where the photos are: the partition with the best ceiling here.

Adaptive trees (S2, boxes) cut where their grid lies, through the middle of cities too. This kind asks instead where
C points must lie so that photos are near one of them, and near is meant as the five levels do: from 2 km to 1 km is
worth as much as from 200 km to 100 km. So it lowers the sum over photos of log(1 + (d / s)²) / 2, d the distance to
the nearest site and s `softness_km`, below which errors count as much alike. Ordinary k-means lowers the sum of d²,
which spends the sites on the few photos in the wilderness.

How: photos are counted in the cells of a fine S2 grid, whose centres are the places to cluster. All places begin in
one cluster; the cluster whose division in two lowers the sum most is divided, until there are enough (k-means with
two centres, begun along the direction in which places spread most, and never with fewer than `min_photos` on a
side). Then all sites move together for some rounds: each to the weighted mean of the places nearest to it, with the
weights 1 / (s² + d²) that the logarithm asks for. Nothing is random: equal photos give equal cells, in any order.

The cells cover the whole Earth: no photo is in none. They are convex, and a point's cell is that of the nearest site.
They do not nest: moving the sites is worth more (benchmarks/partitions.py).
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import SphericalVoronoi, cKDTree

from geoloc.partitions import s2_cells
from geoloc.partitions.base import Coordinates, Partition, PartitionError, chunks
from geoloc.partitions.settings import KMeansSettings
from geoloc.settings import parse, to_dict
from geoloc.sphere import EARTH_RADIUS_KM, from_vectors, unit_vectors

__all__ = ["KMeansPartition", "KMeansSettings"]

FloatArray = NDArray[np.float64]
_SPLIT_ROUNDS = 8


class KMeansPartition(Partition):
    """Voronoi cells in the order of their sites along S2's curve; tokens are "k" and the S2 leaf of the site.

    The centre of a cell is its site.
    """

    kind = "kmeans"

    def __init__(self, settings: KMeansSettings = KMeansSettings()) -> None:  # noqa: B008 (frozen, so safe to share)
        super().__init__()
        self.settings = settings
        self._sites = np.empty((0, 2))

    def _use(self, sites: Coordinates) -> None:
        """Take sites: latitude, longitude in degrees, (C, 2)."""
        self._sites = sites
        self._tree = cKDTree(unit_vectors(sites[:, 0], sites[:, 1]))
        self.__dict__.pop("_outlines", None)

    def _cut(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        places, photos = count_places(latitude, longitude, self.settings.grid_level)
        softness = self.settings.softness_km / EARTH_RADIUS_KM
        # With fewer photos in all than a cell needs, there is one cell and it has them.
        least = min(self.settings.min_photos, len(latitude))
        sites = place_sites(places, photos, self.settings.cells, least, softness)
        sites = move_sites(places, photos, sites, softness, self.settings.rounds)
        self._use(_along_curve(sites))
        cells = self._find(latitude, longitude)
        # Moved sites may have lost photos: those with too few go, and their photos to the nearest that stay.
        while True:
            counts = np.bincount(cells, minlength=len(self._sites))
            if counts.min() >= least or len(counts) == 1:
                return cells
            # All at once could empty a whole region, so only those that have the fewest of all near them.
            gone = _few_among_neighbours(counts, least, self._tree)
            number = np.cumsum(~gone) - 1
            orphans = np.flatnonzero(gone[cells])
            self._use(self._sites[~gone])
            cells = number[cells].astype(np.int32)
            cells[orphans] = self._find(latitude[orphans], longitude[orphans])

    def _find(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        cells = np.empty(len(latitude), dtype=np.int32)
        for part in chunks(len(latitude)):
            cells[part] = self._tree.query(unit_vectors(latitude[part], longitude[part]))[1]
        return cells

    def _geometry(self) -> tuple[list[str], Coordinates]:
        leaves = s2_cells.leaf_ids(self._sites[:, 0], self._sites[:, 1])
        return [f"k{leaf:016x}" for leaf in leaves.tolist()], self._sites

    def _settings(self) -> dict[str, Any]:
        return dict(to_dict(self.settings))

    @classmethod
    def _restore(cls, settings: Mapping[str, Any], cells: pd.DataFrame) -> Self:
        made = cls(parse(KMeansSettings, settings, "settings"))
        made._use(cells[["centre_latitude", "centre_longitude"]].to_numpy())
        if len(np.unique(made._sites, axis=0)) < len(made._sites):
            raise ValueError("two of its cells have one site")
        return made

    @functools.cached_property
    def _outlines(self) -> list[FloatArray]:
        """Corners of each cell as unit vectors, anticlockwise."""
        return voronoi_outlines(unit_vectors(self._sites[:, 0], self._sites[:, 1]))

    def polygon(self, cell: int, points_per_edge: int = 1) -> Coordinates:
        """Outline of a cell, float64 (V * points_per_edge, 2); its edges are parts of great circles.

        A single cell is the whole Earth and has the flat map's edge for its outline.
        """
        if points_per_edge < 1:
            raise PartitionError(f"points_per_edge must be at least 1, got {points_per_edge}")
        index = self._cell(cell)
        if self.cell_count == 1:
            return np.array([[-90.0, -180.0], [-90.0, 180.0], [90.0, 180.0], [90.0, -180.0]])
        corners = self._outlines[index]
        after = np.roll(corners, -1, axis=0)
        angle = np.arctan2(np.linalg.norm(np.cross(corners, after), axis=1), (corners * after).sum(axis=1))
        share = (np.arange(points_per_edge) / points_per_edge)[None, :, None] * angle[:, None, None]
        # Along the great circle by angle: edges here may be nearly half a turn, whose chord is no guide.
        ahead = np.cross(np.cross(corners, after), corners)
        ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
        points = np.cos(share) * corners[:, None] + np.sin(share) * ahead[:, None]
        return np.stack(from_vectors(points.reshape(-1, 3)), axis=-1)

    def rings(self, cell: int) -> list[Coordinates]:
        """See `Partition.rings`; a single cell is the whole map."""
        return [self.polygon(cell)] if self.cell_count == 1 else super().rings(cell)

    def _edge_points(self, cell: int) -> int:
        corners = self._outlines[self._cell(cell)]
        longest = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1).max()
        return max(1, int(np.ceil(2 * np.arcsin(min(longest / 2, 1.0)) / np.radians(3))))  # three degrees a step


def count_places(
    latitude: Coordinates, longitude: Coordinates, level: int
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Photos counted on the S2 grid of a level: centres of the M cells with photos as unit vectors, float64 (M, 3),
    and how many are in each, int64 (M,). Counts of parts of the photos add up to the counts of all.
    """
    ids = np.empty(len(latitude), dtype=np.uint64)
    for part in chunks(len(latitude)):
        ids[part] = s2_cells.parents(s2_cells.leaf_ids(latitude[part], longitude[part]), level)
    ids.sort()
    first = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    photos = np.diff(np.append(first, len(ids)))
    return np.ascontiguousarray(unit_vectors(*s2_cells.centres(ids[first]))), photos


@dataclass(frozen=True, order=True)
class _Division:
    """What dividing a cluster, places start to end, would bring: beyond `normal` times x = `at`, most first."""

    minus_gain: float
    start: int
    end: int
    normal: tuple[float, float, float]
    at: float


def place_sites(
    places: FloatArray, photos: NDArray[np.int64], cells: int, min_photos: int, softness: float
) -> FloatArray:
    """Sites by dividing clusters in two, best first: unit vectors, float64 (C, 3), C at most `cells`.

    `places` (M, 3) unit vectors, `photos` (M,) how many are there; softness in radians.
    """
    points, weights = places.copy(), photos.astype(np.float64)  # reordered, so that a cluster is one range
    divisions: list[_Division] = []
    clusters = {(0, len(points))}

    def consider(start: int, end: int) -> None:
        found = _divide(points[start:end], weights[start:end], min_photos, softness)
        if found is not None:
            gain, normal, at = found
            x, y, z = normal.tolist()
            heapq.heappush(divisions, _Division(-gain, start, end, (x, y, z), at))

    consider(0, len(points))
    while divisions and len(clusters) < cells:
        best = heapq.heappop(divisions)
        inside = slice(best.start, best.end)
        beyond = points[inside] @ np.array(best.normal) > best.at
        order = np.argsort(beyond, kind="stable")
        points[inside], weights[inside] = points[inside][order], weights[inside][order]
        middle = best.end - int(beyond.sum())
        clusters.remove((best.start, best.end))
        for start, end in ((best.start, middle), (middle, best.end)):
            clusters.add((start, end))
            consider(start, end)
    return np.array([_mean(points[a:b], weights[a:b]) for a, b in sorted(clusters)])


def _divide(
    points: FloatArray, weights: FloatArray, min_photos: int, softness: float
) -> tuple[float, FloatArray, float] | None:
    """The best division found of one cluster: gain, normal and offset of the plane; None where there is none."""
    total = float(weights.sum())
    if len(points) < 2 or total < 2 * min_photos:
        return None
    mean = _mean(points, weights)
    apart = points - mean
    _, directions = np.linalg.eigh((apart * weights[:, None]).T @ apart)
    normal = directions[:, -1]
    normal = normal * (1.0 if normal[np.argmax(np.abs(normal))] > 0 else -1.0)  # eigh's sign is arbitrary
    cost = _cost(points, weights, mean, softness)
    best = None
    at = float(normal @ mean)
    for _ in range(_SPLIT_ROUNDS):
        height = points @ normal
        beyond = height > at
        above = float(weights[beyond].sum())
        if min(above, total - above) < min_photos:
            moved = _balanced_cut(height, weights, min_photos, at)
            if moved is None:
                break
            at = moved
            beyond = height > at
        sides = [(points[side], weights[side]) for side in (~beyond, beyond)]
        means = [_mean(*side) for side in sides]
        gain = cost - sum(_cost(*side, mean, softness) for side, mean in zip(sides, means, strict=True))
        if best is None or gain > best[0]:
            best = (gain, normal, at)
        elif gain <= best[0]:
            break
        # The plane halfway between the two means, which lies through the centre of the Earth.
        normal, at = means[1] - means[0], 0.0
    return best


def _balanced_cut(height: FloatArray, weights: FloatArray, min_photos: int, at: float) -> float | None:
    """The cut nearest to `at` in number of places that leaves min_photos on both sides, or None."""
    order = np.argsort(height, kind="stable")
    ordered = height[order]
    below = np.cumsum(weights[order])
    possible = np.flatnonzero(
        (below[:-1] >= min_photos) & (below[-1] - below[:-1] >= min_photos) & (ordered[1:] > ordered[:-1])
    )
    if len(possible) == 0:
        return None
    wanted = np.searchsorted(ordered, at)
    return float(ordered[possible[np.argmin(np.abs(possible - wanted))]])


def _mean(points: FloatArray, weights: FloatArray) -> FloatArray:
    total = weights @ points
    length = np.linalg.norm(total)
    # Points that cancel out have no mean; any of them will do, since this cluster will be divided.
    return total / length if length > 1e-9 * weights.sum() else points[0]


def _cost(points: FloatArray, weights: FloatArray, site: FloatArray, softness: float) -> float:
    squares = ((points - site) ** 2).sum(axis=1)
    return float(weights @ np.log1p(squares / softness**2)) / 2


def move_sites(
    places: FloatArray, photos: NDArray[np.int64], sites: FloatArray, softness: float, rounds: int
) -> FloatArray:
    """Sites (C, 3) after `rounds` of: each place to its nearest site, each site to the middle of its places."""
    for _ in range(rounds):
        tree = cKDTree(sites)
        sums = np.zeros_like(sites)
        for part in chunks(len(places)):
            away, nearest = tree.query(places[part])
            pull = photos[part] / (softness**2 + away**2)
            for axis in range(3):
                sums[:, axis] += np.bincount(nearest, pull * places[part, axis], len(sites))
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        sites = np.where(length > 0, sums / np.where(length > 0, length, 1), sites)
    return sites


def _along_curve(sites: FloatArray) -> Coordinates:
    """Latitude and longitude of the sites along S2's curve, one of those in the same leaf."""
    latitude, longitude = from_vectors(sites)
    _, row = np.unique(s2_cells.leaf_ids(latitude, longitude), return_index=True)
    return np.column_stack([latitude[row], longitude[row]])


def _few_among_neighbours(counts: NDArray[np.int64], least: int, tree: cKDTree) -> NDArray[np.bool_]:
    """Cells with fewer photos than `least` of which the nearest other site has not fewer; the first of equals."""
    _, near = tree.query(tree.data, k=2)
    itself = np.arange(len(counts))
    other = np.where(near[:, 0] == itself, near[:, 1], near[:, 0])
    return (counts < least) & ((counts < counts[other]) | ((counts == counts[other]) & (itself < other)))


def voronoi_outlines(sites: FloatArray) -> list[FloatArray]:
    """The corners of the Voronoi cell of each site (C, 3), C at least 2: float64 (V, 3), anticlockwise from outside."""
    if len(sites) == 2:
        outlines = [_circle(site - other) for site, other in (sites, sites[::-1])]
    elif len(sites) == 3:
        outlines = [_lune(sites, cell) for cell in range(3)]
    else:
        voronoi = SphericalVoronoi(sites, threshold=1e-10)
        voronoi.sort_vertices_of_regions()
        outlines = [voronoi.vertices[region] for region in voronoi.regions]
    return [_anticlockwise(outline, site) for outline, site in zip(outlines, sites, strict=True)]


def _circle(pole: FloatArray) -> FloatArray:
    """Eight points of the great circle around a pole: all of the border between two sites."""
    pole = pole / np.linalg.norm(pole)
    one = np.cross(pole, np.eye(3)[np.argmin(np.abs(pole))])
    one /= np.linalg.norm(one)
    angle = np.arange(8)[:, None] * np.pi / 4
    return np.cos(angle) * one + np.sin(angle) * np.cross(pole, one)


def _lune(sites: FloatArray, cell: int) -> FloatArray:
    """The cell of one of three sites: two corners at antipodes, and the middles of the two edges between them."""
    mine, *others = np.roll(sites, -cell, axis=0)
    corner = np.cross(sites[1] - sites[0], sites[2] - sites[0])
    corner /= np.linalg.norm(corner)
    middles = []
    for other, third in (others, others[::-1]):
        middle = np.cross(corner, mine - other)  # on the border with `other`, halfway between the corners
        middle /= np.linalg.norm(middle)
        middles.append(middle if middle @ mine >= middle @ third else -middle)
    return np.array([corner, middles[0], -corner, middles[1]])


def _anticlockwise(outline: FloatArray, site: FloatArray) -> FloatArray:
    area = np.cross(outline, np.roll(outline, -1, axis=0)).sum(axis=0)
    return outline if area @ site > 0 else outline[::-1]
