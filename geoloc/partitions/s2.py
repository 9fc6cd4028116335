"""PlaNet's adaptive partition into S2 cells: small cells where there are many photos, large ones where few.

Weyand, Kostrikov, Philbin: PlaNet, section 3. Starting at the six faces of the cube, every cell that holds more
than t1 photos (`max_photos`) is divided into its four children, down to a level cap; then cells with fewer than
t2 photos (`min_photos`) are discarded. The paper's "discard all cells containing less than a minimum of t2" is
read as written: a cell with exactly t2 photos is kept. (Some later code drops cells with "at most" t2, which
gives other counts.) The level cap makes t1 soft: identical geotags cannot be separated, so a cell of `max_level`
may hold more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
import s2sphere
from numpy.typing import ArrayLike, NDArray

from geoloc.partitions import s2_cells
from geoloc.partitions.base import Coordinates, Partition, PartitionError, chunks
from geoloc.partitions.settings import S2Settings
from geoloc.settings import parse, to_dict
from geoloc.sphere import from_vectors

__all__ = ["S2Partition", "S2Settings"]


class S2Partition(Partition):
    """Adaptive S2 cells in the order of their ids, which is along the Hilbert curve; tokens are S2's own."""

    kind = "s2"

    def __init__(self, settings: S2Settings = S2Settings()) -> None:  # noqa: B008 (frozen, so safe to share)
        super().__init__()
        self.settings = settings
        self._use(np.empty(0, dtype=np.uint64))

    def _use(self, ids: s2_cells.IdArray) -> None:
        """Take cells, sorted by id and disjoint, with the ranges of leaves that `_find` searches."""
        self._ids = ids
        self._first, self._last = s2_cells.first_leaves(ids), s2_cells.last_leaves(ids)

    def _cut(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        """All leaves are sorted once; then each cell is a range of them, and each level splits ranges at once."""
        leaves = s2_cells.leaf_ids(latitude, longitude)
        order = np.argsort(leaves)
        leaves = leaves[order]
        ids = self._choose(leaves, self.settings.max_photos)
        if len(ids) == 0:
            raise PartitionError(
                f"no cell is left: none of the cells that {len(leaves):,} photos were cut into holds "
                f"{self.settings.min_photos:,} of them; lower s2.min_photos or raise s2.max_photos"
            )
        self._use(ids)
        cells = np.empty(len(leaves), dtype=np.int32)
        for part in chunks(len(leaves)):
            cells[order[part]] = self._cells_of(leaves[part])
        return cells

    def _choose(self, leaves: s2_cells.IdArray, max_photos: int) -> s2_cells.IdArray:
        """Cells for the sorted leaves of photos, sorted by id, none with fewer than min_photos."""
        open_cells = s2_cells.face_ids()
        kept = []
        for level in range(self.settings.max_level + 1):
            start = np.searchsorted(leaves, s2_cells.first_leaves(open_cells), side="left")
            end = np.searchsorted(leaves, s2_cells.last_leaves(open_cells), side="right")
            photos = end - start
            split = (photos > max_photos) & (level < self.settings.max_level)
            kept.append(open_cells[~split & (photos >= self.settings.min_photos)])
            open_cells = s2_cells.children(open_cells[split]).ravel()
            if len(open_cells) == 0:
                break
        return np.sort(np.concatenate(kept))

    def cell_counter(self, latitude: ArrayLike, longitude: ArrayLike) -> Callable[[int], int]:
        """Returns a function from `max_photos` to the number of cells; photos are sorted once, so each call is fast."""
        leaves = np.sort(s2_cells.leaf_ids(*self._checked(latitude, longitude, "cell_counter")))
        return lambda max_photos: len(self._choose(leaves, max_photos))

    def _find(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        cells = np.empty(len(latitude), dtype=np.int32)
        for part in chunks(len(latitude)):
            cells[part] = self._cells_of(s2_cells.leaf_ids(latitude[part], longitude[part]))
        return cells

    def _cells_of(self, leaves: s2_cells.IdArray) -> NDArray[np.int32]:
        """Binary search over the sorted ranges of leaves."""
        cell = (
            np.searchsorted(self._first, leaves, side="right") - 1
        )  # -1 before the first cell, and stays so
        return np.where(leaves <= self._last[cell], cell, -1).astype(np.int32)

    def _geometry(self) -> tuple[list[str], Coordinates]:
        return s2_cells.tokens(self._ids), np.stack(s2_cells.centres(self._ids), axis=-1)

    def _settings(self) -> dict[str, Any]:
        return dict(to_dict(self.settings))

    @classmethod
    def _restore(cls, settings: Mapping[str, Any], cells: pd.DataFrame) -> Self:
        made = cls(parse(S2Settings, settings, "settings"))
        ids = s2_cells.from_tokens(cells["token"].tolist())
        made._use(ids)
        if (made._first[1:] <= made._last[:-1]).any():
            raise ValueError("its cells overlap or are out of order")
        return made

    def levels(self) -> NDArray[np.int64]:
        """The S2 level of each cell, int64 (C,): 0 is a face of the cube, each level halves the width."""
        self._need_fit()
        return s2_cells.levels(self._ids)

    def polygon(self, cell: int, points_per_edge: int = 1) -> Coordinates:
        """Outline of a cell, float64 (4 * points_per_edge, 2); its edges are parts of great circles."""
        if points_per_edge < 1:
            raise PartitionError(f"points_per_edge must be at least 1, got {points_per_edge}")
        shape = s2sphere.Cell(s2sphere.CellId(int(self._ids[self._cell(cell)])))
        corners = np.array([[shape.get_vertex(k)[axis] for axis in range(3)] for k in range(4)])
        share = (np.arange(points_per_edge) / points_per_edge)[None, :, None]
        # A chord between two corners lies in the plane of their great circle, so its points project onto it.
        chords = corners[:, None] * (1 - share) + np.roll(corners, -1, axis=0)[:, None] * share
        return np.stack(from_vectors(chords.reshape(-1, 3)), axis=-1)

    def _edge_points(self, cell: int) -> int:
        level = int(s2_cells.levels(self._ids[self._cell(cell) :][:1])[0])
        return max(1, 32 >> level)  # about three degrees a step

    def parent(self, cell: int) -> str | None:
        """Token of the S2 cell one level up, None for a face."""
        ids = self._ids[self._cell(cell) :][:1]
        level = int(s2_cells.levels(ids)[0])
        return s2_cells.tokens(s2_cells.parents(ids, level - 1))[0] if level > 0 else None

    def children(self, cell: int) -> list[str] | None:
        """Tokens of the four S2 cells one level down, None for a leaf (level 30)."""
        ids = self._ids[self._cell(cell) :][:1]
        leaf = int(s2_cells.levels(ids)[0]) == s2_cells.MAX_LEVEL
        return None if leaf else s2_cells.tokens(s2_cells.children(ids)[0])

    def parent_cells(self, coarser: Partition) -> NDArray[np.int32]:
        """For each cell, the cell of `coarser` that encloses it or is the same, int32 (C,); -1 where none does."""
        if not isinstance(coarser, S2Partition):
            raise PartitionError(f"an s2 partition nests in s2 partitions only, got kind {coarser.kind!r}")
        self._need_fit(), coarser._need_fit()
        outer = np.searchsorted(coarser._first, self._first, side="right") - 1
        return np.where(self._last <= coarser._last[outer], outer, -1).astype(np.int32)
