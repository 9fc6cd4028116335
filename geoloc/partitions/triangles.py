"""Triangles that cover the sphere: a start mesh, Delaunay triangulation, point location.

The convex hull of points on a sphere is their Delaunay triangulation (its facets are the triangles whose
circumcircles are empty), so scipy's ConvexHull does it, with nothing special at poles and antimeridian.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree

from geoloc.sphere import EARTH_RADIUS_KM, from_vectors, unit_vectors

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_MAX_STEPS = 2000
# Points exactly on an edge belong to the triangle on this side of it. Any direction does that no edge is parallel to.
_NUDGE = np.array([0.3420201433256687, 0.5773502691896258, 0.7413847203185412])


class Mesh:
    """T triangles that cover the sphere without overlap, located by walking.

    `vertices`: latitude, longitude in degrees, float64 (V, 2). `triangles`: rows of `vertices`, int64 (T, 3),
    anticlockwise seen from outside. Edges are parts of great circles. A point on an edge is in exactly one triangle.
    Raises ValueError where the triangles are not anticlockwise or do not fit together edge to edge.
    """

    def __init__(self, vertices: FloatArray, triangles: IndexArray) -> None:
        self.vertices, self.triangles = vertices, triangles
        self.corners = unit_vectors(vertices[:, 0], vertices[:, 1])[triangles]  # (T, 3, 3)
        after = np.roll(self.corners, -1, axis=1)
        # Normal of the great circle of each edge. That of the neighbour is its exact negative, so the two agree
        # bit for bit on which side a point is.
        self._normals = np.cross(self.corners, after)
        self._neighbours = _neighbours(triangles)
        if (self._volumes() <= 0).any():
            raise ValueError("a triangle has no area or is not anticlockwise")

    def _volumes(self) -> FloatArray:
        return np.einsum("ti,ti->t", self._normals[:, 0], self.corners[:, 2])

    def __len__(self) -> int:
        return len(self.triangles)

    def areas_km2(self) -> FloatArray:
        """Area of each triangle on the sphere, float64 (T,): its spherical excess (Van Oosterom and Strackee)."""
        a, b, c = self.corners[:, 0], self.corners[:, 1], self.corners[:, 2]
        below = 1 + (a * b).sum(axis=1) + (b * c).sum(axis=1) + (c * a).sum(axis=1)
        return EARTH_RADIUS_KM**2 * 2 * np.arctan2(self._volumes(), below)

    def centres(self) -> FloatArray:
        """The point above the mean of the corners, latitude and longitude, float64 (T, 2)."""
        return np.stack(from_vectors(self.corners.sum(axis=1)), axis=-1)

    @functools.cached_property
    def _tree(self) -> cKDTree:
        middles = self.corners.sum(axis=1)
        return cKDTree(middles / np.linalg.norm(middles, axis=1, keepdims=True))

    def locate(self, points: FloatArray, start: IndexArray | None = None) -> IndexArray:
        """The triangle that holds each unit vector (N, 3), int64 (N,).

        Each point walks from triangle to triangle, over the edge that it is farthest beyond, until it is beyond
        none; in a Delaunay triangulation such a walk ends. `start` (N,) are triangles to begin with, by default
        those with the nearest middles; it does not change the answer, except for points within rounding (some
        nanometres) of a vertex.
        """
        found = self._tree.query(points)[1] if start is None else start.astype(np.int64)
        walking = np.arange(len(points))
        for _ in range(_MAX_STEPS):
            normals = self._normals[found[walking]]
            # einsum without optimisation adds axis by axis: the same order for both triangles of an edge.
            beyond = np.einsum("nei,ni->ne", normals, points[walking])
            on_edge = beyond == 0
            if on_edge.any():
                beyond = np.where(on_edge, np.copysign(1e-300, normals @ _NUDGE), beyond)
            edge = np.argmin(beyond, axis=1)
            away = beyond[np.arange(len(edge)), edge] < 0
            if not away.any():
                return found
            walking, edge = walking[away], edge[away]
            found[walking] = self._neighbours[found[walking], edge]
        # Points beside a vertex can walk around it for ever: there, rounding hides which side is which.
        stuck, same = np.unique(points[walking], axis=0, return_inverse=True)
        held = [int(np.argmax((self._normals @ point).min(axis=1))) for point in stuck]
        found[walking] = np.array(held, dtype=np.int64)[same.ravel()]
        return found


def _neighbours(triangles: IndexArray) -> IndexArray:
    """The triangle across each edge, int64 (T, 3): edge k goes from corner k to corner k + 1."""
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    forward, backward = np.lexsort((end, start)), np.lexsort((start, end))
    whole = (start[forward] == end[backward]).all() and (end[forward] == start[backward]).all()
    doubled = (np.diff(start[forward]) == 0) & (np.diff(end[forward]) == 0)
    if not whole or doubled.any():
        raise ValueError("the triangles do not fit together edge to edge")
    across = np.empty(len(start), dtype=np.int64)
    across[forward] = backward // 3
    return across.reshape(-1, 3)


def triangulate(vertices: FloatArray) -> Mesh:
    """The Delaunay triangulation of points on the sphere: latitude, longitude, float64 (V, 2), V at least 4.

    Raises ValueError where two are one place or all are on one half of the sphere.
    """
    points = unit_vectors(vertices[:, 0], vertices[:, 1])
    triangles = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    clockwise = np.einsum("ti,ti->t", np.cross(a, b), c) < 0
    triangles[clockwise] = triangles[clockwise][:, ::-1]
    if len(triangles) != 2 * len(vertices) - 4:  # Euler: every vertex is used
        raise ValueError(
            f"{len(vertices)} points make {len(triangles)} triangles: some are too close together"
        )
    return Mesh(vertices, triangles)


def start_mesh(rows: int, columns: int) -> Mesh:
    """A grid of parallels and meridians, each of its boxes cut in two by a diagonal: triangles of equal areas.

    Multi-modal Geolocation, section 3.1.1, starts with "31 x 31" and "equal surface area in each triangle", and says
    no more. Here `rows` parallels include both poles, and `columns` meridians count -180 and 180 as two. The parallels
    lie so that every two triangles of a box have the area of two triangles at a pole, of which there are half as
    many: 1,740 triangles for 31 x 31. A diagonal, being a great circle, does not halve a box exactly.
    """
    around = columns - 1
    turn = 2 * np.pi / around
    # Area of the triangle from the north pole to an edge on each parallel down to the middle one, whose edges are
    # great circles too: 1, 3, 5 ... times the area of a triangle. Then the colatitude that gives this area: for two
    # sides c and the angle `turn` between them, tan(area / 2) = t sin(turn) / (1 + t cos(turn)), t = tan(c / 2)^2.
    inner_rows = rows - 2
    half = np.tan((2 * np.arange((inner_rows + 1) // 2) + 1) * turn / inner_rows / 2)
    north = 90 - np.degrees(2 * np.arctan(np.sqrt(half / (np.sin(turn) - half * np.cos(turn)))))
    latitudes = np.concatenate([north, -north[: inner_rows // 2][::-1]])
    longitudes = -180 + 360 / around * np.arange(around)
    inner = np.stack(np.meshgrid(latitudes, longitudes, indexing="ij"), axis=-1).reshape(-1, 2)
    vertices = np.vstack([[[90.0, 0.0]], inner, [[-90.0, 0.0]]])
    ring = 1 + np.arange((rows - 2) * around).reshape(rows - 2, around)
    east = np.roll(ring, -1, axis=1)
    south_pole = len(vertices) - 1
    parts = [np.stack([np.full(around, 0), ring[0], east[0]], axis=-1)]
    for north, south in zip(range(rows - 3), range(1, rows - 2), strict=True):
        parts.append(np.stack([ring[north], ring[south], east[north]], axis=-1))
        parts.append(np.stack([east[north], ring[south], east[south]], axis=-1))
    parts.append(np.stack([np.full(around, south_pole), east[-1], ring[-1]], axis=-1))
    return Mesh(vertices, np.concatenate(parts))


def refined(mesh: Mesh, chosen: NDArray[np.bool_]) -> Mesh:
    """The Delaunay triangulation of the mesh's vertices and the middles of all edges of the chosen triangles."""
    edges = np.stack([mesh.triangles, np.roll(mesh.triangles, -1, axis=1)], axis=-1)[chosen].reshape(-1, 2)
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    ends = unit_vectors(mesh.vertices[:, 0], mesh.vertices[:, 1])[edges]
    middles = np.stack(from_vectors(ends.sum(axis=1)), axis=-1)
    return triangulate(np.vstack([mesh.vertices, middles]))
