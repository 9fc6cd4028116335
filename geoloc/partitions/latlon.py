"""Boxes of latitude and longitude, small where there are many photos: the partition of Revisiting IM2GPS.

Vo, Jacobs, Hays: Revisiting IM2GPS in the Deep Learning Era, section 3.1. From one cell, the whole Earth, each cell
is divided along latitude or longitude, whichever side is longer, evenly or at random, until it holds fewer than
t_img photos (`max_photos`) or is smaller than t_area (`min_area_km2`). Both are read as written: a cell with exactly
t_img photos is divided, one of exactly t_area too. The paper does not say how a side is measured; here it is in km
on the ground, the width along the middle parallel, since degrees of longitude are no measure near a pole. The
paper's six partitions have 10, 80, 359, 1060, 1693 and 7011 cells (figure 2); it does not name the thresholds, and
`geoloc.partitions.thresholds.threshold_for` finds them for any photos. Empty cells are dropped, and those with fewer
than `min_photos` where that is more than 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.partitions import boxes
from geoloc.partitions.base import Coordinates, Partition, PartitionError, chunks
from geoloc.partitions.settings import LatLonSettings
from geoloc.settings import parse, used
from geoloc.sphere import EARTH_RADIUS_KM

__all__ = ["LatLonPartition", "LatLonSettings"]

ROOT = "earth"
_EARTH_KM2 = 4 * np.pi * EARTH_RADIUS_KM**2


class LatLonPartition(Partition):
    """Boxes in the order of their keys; tokens are the way to a box in letters (w, e, s, n), "earth" for the root."""

    kind = "latlon"

    def __init__(self, settings: LatLonSettings = LatLonSettings()) -> None:  # noqa: B008 (frozen, so safe to share)
        super().__init__()
        self.settings = settings
        self._seed = settings.seed if settings.split == "random" else None
        self._use(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))

    def _use(self, keys: boxes.KeyArray, depths: NDArray[np.int64]) -> None:
        """Take disjoint cells sorted by key, with the ranges of keys that `_find` searches."""
        self._keys, self._depths = keys, depths
        self._last = _last_keys(keys, depths)

    def _depth(self) -> int:
        """Returns the depth at which every box is too small to be divided again."""
        smallest_share = 1 / 2 if self._seed is None else 1 / 3
        # A cut by a parallel does not divide the area as it divides the side. Beside a pole a side's share s has at
        # least s² of the area, and that is rare; a few divisions more make up for it, and the cap makes it safe.
        levels = np.log(_EARTH_KM2 / self.settings.min_area_km2) / -np.log(1 - smallest_share)
        return int(min(np.ceil(levels) + 4, boxes.MAX_DEPTH))

    def _cut(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        keys = boxes.keys_of(latitude, longitude, self._depth(), self._seed)
        order = np.argsort(keys)
        keys = keys[order]
        chosen = self._choose(keys, self.settings.max_photos)
        if len(chosen[0]) == 0:
            raise PartitionError(
                f"no cell is left: none of the cells that {len(keys):,} photos were cut into holds "
                f"{self.settings.min_photos:,} of them; lower latlon.min_photos or raise latlon.max_photos"
            )
        self._use(*chosen)
        cells = np.empty(len(keys), dtype=np.int32)
        for part in chunks(len(keys)):
            cells[order[part]] = self._cells_of(keys[part])
        return cells

    def _choose(self, keys: boxes.KeyArray, max_photos: int) -> tuple[boxes.KeyArray, NDArray[np.int64]]:
        """Cells for the sorted keys of photos: first keys and depths, sorted, none with fewer than min_photos."""
        open_cells = boxes.whole_earth(1)
        kept_keys, kept_depths = [], []
        # Never below the depth of the keys: nothing is known of the points there.
        for depth in range(self._depth() + 1):
            shift = np.uint64(boxes.MAX_DEPTH - depth)
            first = (open_cells.way - np.uint64(1 << depth)) << shift
            depths = np.full(len(first), depth, dtype=np.int64)
            start = np.searchsorted(keys, first, side="left")
            photos = np.searchsorted(keys, _last_keys(first, depths), side="right") - start
            split = (photos >= max_photos) & (open_cells.area_km2() >= self.settings.min_area_km2)
            split &= depth < self._depth()
            kept = ~split & (photos >= self.settings.min_photos)
            kept_keys.append(first[kept])
            kept_depths.append(depths[kept])
            if not split.any():
                break
            names = ("south", "north", "west", "east", "way")
            parents = boxes.Boxes(*(np.repeat(getattr(open_cells, name)[split], 2) for name in names))
            upper = np.tile([False, True], int(split.sum()))
            open_cells = parents.halves(upper, *parents.next_cuts(self._seed))
        found, depths = np.concatenate(kept_keys), np.concatenate(kept_depths)
        order = np.argsort(found)
        return found[order], depths[order]

    def cell_counter(self, latitude: ArrayLike, longitude: ArrayLike) -> Callable[[int], int]:
        """Returns a function from `max_photos` to the number of cells; photos are sorted once, so each call is fast."""
        checked = self._checked(latitude, longitude, "cell_counter")
        keys = np.sort(boxes.keys_of(*checked, self._depth(), self._seed))
        return lambda max_photos: len(self._choose(keys, max_photos)[0])

    def _find(self, latitude: Coordinates, longitude: Coordinates) -> NDArray[np.int32]:
        cells = np.empty(len(latitude), dtype=np.int32)
        depth = int(self._depths.max(initial=0))
        for part in chunks(len(latitude)):
            cells[part] = self._cells_of(boxes.keys_of(latitude[part], longitude[part], depth, self._seed))
        return cells

    def _cells_of(self, keys: boxes.KeyArray) -> NDArray[np.int32]:
        """Binary search over the sorted ranges of keys."""
        cell = np.searchsorted(self._keys, keys, side="right") - 1  # -1 before the first cell, and stays so
        return np.where((cell >= 0) & (keys <= self._last[cell]), cell, -1).astype(np.int32)

    def _boxes(self) -> boxes.Boxes:
        return boxes.boxes_of(self._keys, self._depths, self._seed)

    def _geometry(self) -> tuple[list[str], Coordinates]:
        words = boxes.directions(self._keys, self._depths, self._seed)
        return [word or ROOT for word in words], self._boxes().middles()

    def _settings(self) -> dict[str, Any]:
        return dict(used(self.settings))

    @classmethod
    def _restore(cls, settings: Mapping[str, Any], cells: pd.DataFrame) -> Self:
        made = cls(parse(LatLonSettings, settings, "settings"))
        words = [token if token != ROOT else "" for token in cells["token"].tolist()]
        made._use(*boxes.from_directions(words))
        if (made._keys[1:] <= made._last[:-1]).any():
            raise ValueError("its cells overlap or are out of order")
        return made

    def bounds(self) -> Coordinates:
        """South, north, west, east of each cell, degrees, float64 (C, 4)."""
        self._need_fit()
        box = self._boxes()
        return np.column_stack([box.south, box.north, box.west, box.east])

    def areas_km2(self) -> Coordinates:
        """Area of each cell on the sphere, float64 (C,)."""
        self._need_fit()
        return self._boxes().area_km2()

    def polygon(self, cell: int, points_per_edge: int = 1) -> Coordinates:
        """Outline of a cell, float64 (4 * points_per_edge, 2); its edges are parts of parallels and meridians.

        Wherever a cell reaches a pole or is wider than half a turn, two corners or edges may be the same place.
        """
        if points_per_edge < 1:
            raise PartitionError(f"points_per_edge must be at least 1, got {points_per_edge}")
        south, north, west, east = self.bounds()[self._cell(cell)]
        corners = np.array([[south, west], [south, east], [north, east], [north, west]])
        share = (np.arange(points_per_edge) / points_per_edge)[None, :, None]
        edges = corners[:, None] * (1 - share) + np.roll(corners, -1, axis=0)[:, None] * share
        return edges.reshape(-1, 2)

    def rings(self, cell: int) -> list[Coordinates]:
        """The box itself: straight on a flat map, and never across the antimeridian, where the root begins."""
        return [self.polygon(cell)]

    def parent(self, cell: int) -> str | None:
        """The box that was divided into this one and another, None for the whole Earth."""
        token = self.tokens()[self._cell(cell)]
        return None if token == ROOT else token[:-1] or ROOT

    def children(self, cell: int) -> list[str] | None:
        """The two boxes that a cell divides into, None where it is too small to be divided."""
        index = self._cell(cell)
        token = self.tokens()[index]
        if self.areas_km2()[index] < self.settings.min_area_km2 or self._depths[index] >= self._depth():
            return None
        box = boxes.boxes_of(self._keys[index : index + 1], self._depths[index : index + 1], self._seed)
        by_meridian, _ = box.next_cuts(self._seed)
        stem = "" if token == ROOT else token
        return [stem + letter for letter in ("we" if by_meridian[0] else "sn")]

    def parent_cells(self, coarser: Partition) -> NDArray[np.int32]:
        """For each cell, the cell of `coarser` that encloses it or is the same, int32 (C,); -1 where none does.

        Raises PartitionError where `coarser` is of another kind, or is cut in other places by its split or seed.
        """
        if not isinstance(coarser, LatLonPartition):
            raise PartitionError(
                f"a latlon partition nests in latlon partitions only, got kind {coarser.kind!r}"
            )
        self._need_fit(), coarser._need_fit()
        if self._seed != coarser._seed:
            raise PartitionError(
                "a latlon partition nests in one that is cut in the same places; the settings split and seed are "
                f"{self.settings.split}, {self.settings.seed} and {coarser.settings.split}, {coarser.settings.seed}"
            )
        outer = np.searchsorted(coarser._keys, self._keys, side="right") - 1
        inside = (outer >= 0) & (self._last <= coarser._last[outer])
        return np.where(inside, outer, -1).astype(np.int32)


def _last_keys(keys: boxes.KeyArray, depths: NDArray[np.int64]) -> boxes.KeyArray:
    """The largest key in each box."""
    width = np.uint64(1) << (np.uint64(boxes.MAX_DEPTH) - depths.astype(np.uint64))
    return keys + (width - np.uint64(1))
