"""Triangles on the sphere, refined where there are many photos: the mesh of Multi-modal Geolocation.

Multi-modal Geolocation Estimation Using Deep Neural Networks (2018), section 3.1.1 and table 1. From a structured
grid of triangles of equal areas, a triangle with more photos than the refinement limit (`max_photos`) is refined, and
one with fewer than the minimum (`min_photos`) is dropped. The paper does not say how a triangle is refined, only
that the mesh is a Delaunay triangulation, unstructured, and that cells lose their level and nesting by it. Here the
middles of the triangle's three edges become vertices, and all vertices are triangulated anew. A triangle smaller than
`min_area_km2` is not refined, so where geotags are identical the limit is soft.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.partitions.base import Coordinates, Partition, PartitionError, chunks
from geoloc.partitions.settings import DELAUNAY_MESHES, DelaunaySettings
from geoloc.partitions.triangles import Mesh, refined, start_mesh
from geoloc.settings import parse, replace, to_dict
from geoloc.sphere import from_vectors, unit_vectors

__all__ = ["DELAUNAY_MESHES", "DelaunayPartition", "DelaunaySettings"]

_MAX_ROUNDS = 64  # each halves the edges: far more than min_area_km2 allows; a stop if something is wrong
_CORNERS = [f"{axis}_{corner}" for corner in (1, 2, 3) for axis in ("latitude", "longitude")]


class DelaunayPartition(Partition):
    """Triangles from north to south by their centres; tokens are "t" and a hash of the corners."""

    kind = "delaunay"

    def __init__(self, settings: DelaunaySettings = DelaunaySettings()) -> None:  # noqa: B008 (frozen, safe to share)
        super().__init__()
        self.settings = settings
        self._mesh: Mesh | None = None
        self._cell_of = np.empty(0, dtype=np.int32)  # the cell of each triangle, -1 where it was dropped

    def _cut(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        mesh = start_mesh(self.settings.rows, self.settings.columns)
        found = _locate(mesh, latitude, longitude)
        for _ in range(_MAX_ROUNDS):
            wanted = self._too_full(mesh, found)
            if not wanted.any():
                # Once more from the beginning, as `assign` will do it: points on an edge may be in the other triangle.
                mesh = _sorted(mesh)
                found = _locate(mesh, latitude, longitude)
                wanted = self._too_full(mesh, found)
                if not wanted.any():
                    break
            finer = refined(mesh, wanted)
            _follow(found, mesh, finer, latitude, longitude)
            mesh = finer
        else:
            mesh = _sorted(mesh)
            found = _locate(mesh, latitude, longitude)
        photos = np.bincount(found, minlength=len(mesh))
        kept = photos >= self.settings.min_photos
        if not kept.any():
            raise PartitionError(
                f"no cell is left: none of the triangles that {len(latitude):,} photos were cut into holds "
                f"{self.settings.min_photos:,} of them; lower delaunay.min_photos or raise delaunay.max_photos"
            )
        self._use(mesh, kept)
        for part in chunks(len(found)):
            found[part] = self._cell_of[found[part]]
        return found

    def _too_full(self, mesh: Mesh, found: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Whether each triangle is to be refined, bool (T,); `found` are the triangles of the photos."""
        photos = np.bincount(found, minlength=len(mesh))
        return np.asarray(
            (photos > self.settings.max_photos) & (mesh.areas_km2() >= self.settings.min_area_km2)
        )

    def cell_counter(self, latitude: ArrayLike, longitude: ArrayLike) -> Callable[[int], int]:
        """Returns a function from `max_photos` to the number of cells; each call is a fit."""
        checked = self._checked(latitude, longitude, "cell_counter")

        def count(max_photos: int) -> int:
            try:
                return (
                    DelaunayPartition(replace(self.settings, max_photos=max_photos)).fit(*checked).cell_count
                )
            except PartitionError:
                return 0

        return count

    def _use(self, mesh: Mesh, kept: NDArray[np.bool_]) -> None:
        self._mesh = mesh
        self._triangle_of = np.flatnonzero(kept)
        self._cell_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)

    def _need_mesh(self) -> Mesh:
        if self._mesh is None:
            raise PartitionError("this delaunay partition is not fitted yet: call fit first")
        return self._mesh

    def _find(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        found = _locate(self._need_mesh(), latitude, longitude)
        return self._cell_of[found]

    def _geometry(self) -> tuple[list[str], Coordinates]:
        mesh = self._need_mesh()
        return _names(mesh.corners[self._triangle_of]), mesh.centres()[self._triangle_of]

    def _geometry_table(self) -> pd.DataFrame:
        """All triangles, the dropped ones too: a point finds its triangle by walking over them."""
        mesh = self._need_mesh()
        table = pd.DataFrame(mesh.vertices[mesh.triangles].reshape(-1, 6), columns=_CORNERS)
        return table.assign(cell=self._cell_of)

    def _settings(self) -> dict[str, Any]:
        return dict(to_dict(self.settings))

    @classmethod
    def _restore(cls, settings: Mapping[str, Any], cells: pd.DataFrame) -> Self:
        made = cls(parse(DelaunaySettings, settings, "settings"))
        table = cells.attrs.get("geometry")
        if table is None or list(table.columns) != [*_CORNERS, "cell"]:
            raise ValueError("the table of its triangles is missing or has other columns")
        corners = table[_CORNERS].to_numpy(dtype=np.float64).reshape(-1, 2)
        vertices, row = np.unique(corners, axis=0, return_inverse=True)
        made._use(Mesh(vertices, row.reshape(-1, 3)), table["cell"].to_numpy() >= 0)
        if not np.array_equal(made._cell_of, table["cell"]):
            raise ValueError("its triangles are not numbered as its cells are")
        return made

    def areas_km2(self) -> Coordinates:
        """Area of each cell on the sphere, float64 (C,)."""
        self._need_fit()
        return self._need_mesh().areas_km2()[self._triangle_of]

    def polygon(self, cell: int, points_per_edge: int = 1) -> Coordinates:
        """Outline of a cell, float64 (3 * points_per_edge, 2); its edges are parts of great circles."""
        if points_per_edge < 1:
            raise PartitionError(f"points_per_edge must be at least 1, got {points_per_edge}")
        mesh = self._need_mesh()
        triangle = self._triangle_of[self._cell(cell)]
        if points_per_edge == 1:
            return mesh.vertices[mesh.triangles[triangle]].copy()
        corners = mesh.corners[triangle]
        share = (np.arange(points_per_edge) / points_per_edge)[None, :, None]
        chords = corners[:, None] * (1 - share) + np.roll(corners, -1, axis=0)[:, None] * share
        return np.stack(from_vectors(chords.reshape(-1, 3)), axis=-1)

    def _edge_points(self, cell: int) -> int:
        corners = self._need_mesh().corners[self._triangle_of[self._cell(cell)]]
        longest = np.degrees(np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1).max())
        return max(1, int(np.ceil(longest / 3)))  # about three degrees a step


def _locate(mesh: Mesh, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
    """The triangle of each point, int32 (N,), a chunk at a time."""
    found = np.empty(len(latitude), dtype=np.int32)
    for part in chunks(len(latitude)):
        found[part] = mesh.locate(unit_vectors(latitude[part], longitude[part]))
    return found


def _follow(
    found: NDArray[np.int32], old: Mesh, new: Mesh, latitude: Coordinates, longitude: Coordinates
) -> None:
    """Turn `found`, the triangles of points in the old mesh, into those in the new one, in place.

    A triangle with the same corners keeps its points; the others' points are looked for from the new triangle that
    holds the old one's middle. Vertices of the old mesh are the first ones of the new.
    """
    keys = [np.sort(mesh.triangles, axis=1) for mesh in (old, new)]
    both = np.concatenate(keys)
    _, number = np.unique(both, axis=0, return_inverse=True)
    in_new = np.full(int(number.max()) + 1, -1, dtype=np.int64)
    in_new[number[len(old) :]] = np.arange(len(new))
    same = in_new[number[: len(old)]]
    middles = old.corners.sum(axis=1)
    start = new.locate(middles / np.linalg.norm(middles, axis=1, keepdims=True))
    for part in chunks(len(found)):
        here = found[part].astype(np.int64)
        gone = np.flatnonzero(same[here] < 0)
        moved = same[here]
        points = unit_vectors(latitude[part][gone], longitude[part][gone])
        moved[gone] = new.locate(points, start[here[gone]])
        found[part] = moved


def _sorted(mesh: Mesh) -> Mesh:
    """The same mesh in an order that depends only on where its triangles are."""
    vertices, row = np.unique(mesh.vertices, axis=0, return_inverse=True)
    triangles = row[mesh.triangles]
    first = np.argmin(triangles, axis=1)
    triangles = np.take_along_axis(triangles, (first[:, None] + np.arange(3)) % 3, axis=1)
    centres = Mesh(vertices, triangles).centres()
    return Mesh(vertices, triangles[np.lexsort((centres[:, 1], -centres[:, 0]))])


def _names(corners: NDArray[np.float64]) -> list[str]:
    """A name for each triangle (C, 3, 3) from its corners to a nanosphere (6 mm), in any order of them."""
    whole = np.round(corners * 1e9).astype("<i8")
    order = np.lexsort((whole[..., 2], whole[..., 1], whole[..., 0]), axis=-1)
    whole = np.take_along_axis(whole, order[..., None], axis=1)
    return ["t" + hashlib.sha256(triangle.tobytes()).hexdigest()[:15] for triangle in whole]
