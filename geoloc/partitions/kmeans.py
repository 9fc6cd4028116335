"""Voronoi cells around sites that are placed where the photos are: the partition with the best ceiling here.

Adaptive trees (S2, boxes) cut where their grid lies, through the middle of cities too, and leave out what has too few
photos. This kind asks instead where C points must lie so that photos are near one of them. It is recursive, balanced
k-means on the sphere:

1. Photos are counted in the cells of a fine S2 grid; the centres of these are the places to cluster.
2. All places begin in one cluster. The cluster with the most photos is divided in two, until there are enough: k-means
   with two centres, begun along the direction in which its places spread most, with at least a share of `balance` of
   its photos, and `min_photos`, on each side. So clusters come out nearly equal, as classes should be, and follow
   density as PlaNet's cells do. (Dividing where the error falls most instead peels off single photographers: on real
   geotags it had a third of the effective classes and lower ceilings for other photographers at every level.) A cluster
   whose places lie within `smallest_km` is never divided: it is smaller than the street level already.
3. All sites move together for some rounds: each to the weighted mean of the places nearest to it, the weights being
   1 / (s² + d²), d the distance and s `softness_km`. This lowers the sum of log(1 + (d / s)²) over photos, which means
   near as the five levels do: from 2 km to 1 km is worth as much as from 200 km to 100 km. The plain mean lowers the
   sum of d², which serves the few photos in the wilderness and no street.
4. Sites left with fewer than `min_photos` go, and their photos to the nearest that stay.

Nothing is random: equal photos give equal cells, in any order. The cells cover the whole Earth: no photo is in none.
They are convex, and a point's cell is that of the nearest site. They do not nest, since the sites move.
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
_FLAT = 1e-10
"""Sites nearer than this to one plane, in radii of the Earth, are on one circle."""


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
        if len(latitude) < self.settings.min_photos:
            raise PartitionError(
                f"no cell is left: {len(latitude):,} photos are fewer than the {self.settings.min_photos:,} that a "
                "cell must have; lower kmeans.min_photos"
            )
        sites = move_sites(places, photos, place_sites(places, photos, self.settings), self.settings)
        self._use(_along_curve(sites))
        cells = self._find(latitude, longitude)
        # Moved sites may have lost photos: those with too few go, and their photos to the nearest that stay.
        while True:
            counts = np.bincount(cells, minlength=len(self._sites))
            if counts.min() >= self.settings.min_photos or len(counts) == 1:
                return cells
            # All at once could empty a whole region, so only those that have the fewest of all near them.
            gone = _few_among_neighbours(counts, self.settings.min_photos, self._tree)
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
        return max(
            1, int(np.ceil(2 * np.arcsin(min(longest / 2, 1.0)) / np.radians(3)))
        )  # three degrees a step


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
    """How a cluster, places start to end, can be divided: beyond is where `normal` times x is more than `at`.

    The order is that in which clusters are divided: most photos first, equals from the first place on.
    """

    minus_photos: float
    start: int
    end: int
    normal: tuple[float, float, float]
    at: float


def place_sites(places: FloatArray, photos: NDArray[np.int64], settings: KMeansSettings) -> FloatArray:
    """Sites by dividing clusters in two: unit vectors, float64 (C, 3), C at most `settings.cells`.

    `places` (M, 3) unit vectors, `photos` (M,) how many are there.
    """
    points, weights = places.copy(), photos.astype(np.float64)  # reordered, so that a cluster is one range
    divisions: list[_Division] = []
    clusters = {(0, len(points))}

    def consider(start: int, end: int) -> None:
        found = _divide(points[start:end], weights[start:end], settings)
        if found is not None:
            x, y, z = found[0].tolist()
            heapq.heappush(divisions, _Division(-weights[start:end].sum(), start, end, (x, y, z), found[1]))

    consider(0, len(points))
    while divisions and len(clusters) < settings.cells:
        largest = heapq.heappop(divisions)
        inside = slice(largest.start, largest.end)
        beyond = points[inside] @ np.array(largest.normal) > largest.at
        order = np.argsort(beyond, kind="stable")
        points[inside], weights[inside] = points[inside][order], weights[inside][order]
        middle = largest.end - int(beyond.sum())
        clusters.remove((largest.start, largest.end))
        for start, end in ((largest.start, middle), (middle, largest.end)):
            clusters.add((start, end))
            consider(start, end)
    return np.array([_mean(points[a:b], weights[a:b]) for a, b in sorted(clusters)])


def _divide(
    points: FloatArray, weights: FloatArray, settings: KMeansSettings
) -> tuple[FloatArray, float] | None:
    """The best division found of one cluster: normal and offset of the plane; None where there is none."""
    total = float(weights.sum())
    if len(points) < 2 or total < 2 * settings.min_photos:
        return None
    mean = _mean(points, weights)
    apart = points - mean
    spread = np.sqrt(weights @ (apart**2).sum(axis=1) / total) * EARTH_RADIUS_KM
    if spread < settings.smallest_km:
        return None
    _, directions = np.linalg.eigh((apart * weights[:, None]).T @ apart)
    normal = directions[:, -1]
    normal = normal * (1.0 if normal[np.argmax(np.abs(normal))] > 0 else -1.0)  # eigh's sign is arbitrary
    at = float(normal @ mean)
    best: tuple[float, FloatArray, float] | None = None
    for _ in range(_SPLIT_ROUNDS):
        cut = _allowed_cut(points @ normal, weights, at, settings)
        if cut is None:
            break
        beyond = points @ normal > cut
        sides = [(points[side], weights[side]) for side in (~beyond, beyond)]
        means = [_mean(*side) for side in sides]
        cost = sum(_cost(*side, mean, settings) for side, mean in zip(sides, means, strict=True))
        if best is not None and cost >= best[0]:
            break
        best = (cost, normal, cut)
        # The plane halfway between the two means, which lies through the centre of the Earth.
        normal, at = means[1] - means[0], 0.0
    return None if best is None else best[1:]


def _allowed_cut(
    height: FloatArray, weights: FloatArray, at: float, settings: KMeansSettings
) -> float | None:
    """The cut nearest to `at` that leaves enough photos on both sides, or None where there is none."""
    total = float(weights.sum())
    above = float(weights[height > at].sum())
    wanted = max(settings.min_photos, settings.balance * total)
    if min(above, total - above) >= wanted:
        return at
    cut = _balanced_cut(height, weights, wanted, at)
    # One place may have nearly all photos.
    return cut if cut is not None else _balanced_cut(height, weights, settings.min_photos, at)


def _balanced_cut(height: FloatArray, weights: FloatArray, least: float, at: float) -> float | None:
    """The cut nearest to `at` in number of places that leaves `least` photos on both sides, or None."""
    order = np.argsort(height, kind="stable")
    ordered = height[order]
    below = np.cumsum(weights[order])
    possible = np.flatnonzero(
        (below[:-1] >= least) & (below[-1] - below[:-1] >= least) & (ordered[1:] > ordered[:-1])
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


def _cost(points: FloatArray, weights: FloatArray, site: FloatArray, settings: KMeansSettings) -> float:
    squares = ((points - site) ** 2).sum(axis=1) * (EARTH_RADIUS_KM / settings.softness_km) ** 2
    return float(weights @ np.log1p(squares)) / 2


def move_sites(
    places: FloatArray, photos: NDArray[np.int64], sites: FloatArray, settings: KMeansSettings
) -> FloatArray:
    """Sites (C, 3) after some rounds of: each place to its nearest site, each site to the middle of its places."""
    softness = settings.softness_km / EARTH_RADIUS_KM
    for _ in range(settings.rounds):
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
    elif np.linalg.matrix_rank(sites - sites[0], tol=_FLAT) < 3:
        outlines = _lunes(sites)
    else:
        voronoi = SphericalVoronoi(sites, threshold=_FLAT)
        voronoi.sort_vertices_of_regions()
        outlines = [_without_twins(voronoi.vertices[region]) for region in voronoi.regions]
    return [_anticlockwise(outline, site) for outline, site in zip(outlines, sites, strict=True)]


def _without_twins(outline: FloatArray) -> FloatArray:
    """Returns an outline (V, 3) without corners that repeat the one before: of sites nearly on one circle, many fall
    together at its poles."""
    apart = np.linalg.norm(outline - np.roll(outline, 1, axis=0), axis=1) > _FLAT
    return outline[apart]


def _circle(pole: FloatArray) -> FloatArray:
    """Eight points of the great circle around a pole: all of the border between two sites."""
    pole = pole / np.linalg.norm(pole)
    one = np.cross(pole, np.eye(3)[np.argmin(np.abs(pole))])
    one /= np.linalg.norm(one)
    angle = np.arange(8)[:, None] * np.pi / 4
    return np.cos(angle) * one + np.sin(angle) * np.cross(pole, one)


def _lunes(sites: FloatArray) -> list[FloatArray]:
    """The cells of three or more sites on one circle: between two half circles from pole to pole of that circle.

    Each is the two poles, and the middles of the two edges between them.
    """
    pole = np.linalg.svd(sites - sites.mean(axis=0))[2][-1]
    one = _circle(pole)[0]
    other = np.cross(pole, one)
    angle = np.arctan2(sites @ other, sites @ one)
    order = np.argsort(angle)
    # The border between two neighbours is halfway between them around the circle.
    ahead = (np.roll(angle[order], -1) - angle[order]) % (2 * np.pi)
    border = angle[order] + ahead / 2
    edges = np.cos(border)[:, None] * one + np.sin(border)[:, None] * other
    outlines: list[FloatArray] = [np.empty((0, 3))] * len(sites)
    for place, site in enumerate(order):
        outlines[site] = np.array([pole, edges[place - 1], -pole, edges[place]])
    return outlines


def _anticlockwise(outline: FloatArray, site: FloatArray) -> FloatArray:
    area = np.cross(outline, np.roll(outline, -1, axis=0)).sum(axis=0)
    return outline if area @ site > 0 else outline[::-1]
