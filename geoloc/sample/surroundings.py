"""The surroundings of a place of the sample planet: houses, trees, squares and streets, from the city's plan.

Coordinates are p and q of the city's grid (see plan), in metres from the place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.hashing import mixed, uniform
from geoloc.sample.plan import (
    AVENUE,
    BUILT,
    CROP,
    FLOOR,
    GRASS,
    LINE,
    PAVEMENT,
    PLAZA,
    ROAD,
    SHORE,
    SHORE_M,
    SQUARE,
    WATER,
    YARD,
    Cities,
    landmark_in_grid,
    plans,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_PAVEMENT_M = 3.0
_SLOTS = 6  # lots along a block, at most
_MIN_LOT = 5.0


@dataclass(frozen=True, eq=False)
class Boxes:
    """M houses, with sides along the grid. `number` identifies a house, wherever it is seen from."""

    p0: FloatArray
    p1: FloatArray
    q0: FloatArray
    q1: FloatArray
    height: FloatArray
    number: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Posts:
    """M things at points: trees, monuments, signs."""

    p: FloatArray
    q: FloatArray
    radius: FloatArray
    height: FloatArray
    number: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Everything within some distance of a place. Coordinates are p, q metres from that place."""

    plan: Cities
    p: float
    q: float
    density: float
    houses: Boxes
    trees: Posts
    monuments: Posts
    signs: Posts
    landmark: tuple[float, float]
    lines_p: FloatArray
    lines_q: FloatArray
    widths_p: FloatArray
    widths_q: FloatArray
    street_p: NDArray[np.bool_]  # [block i, block j]: whether line i is a street beside the block
    street_q: NDArray[np.bool_]
    kinds: NDArray[np.int64]  # [block i, block j]
    town: NDArray[np.bool_]  # [block i, block j]: whether its streets have pavements
    left: bool  # traffic keeps left

    def ground(self, dp: FloatArray, dq: FloatArray) -> NDArray[np.uint8]:
        """Returns the kind of ground (GRASS, ROAD, ...) at points relative to the place, in their broadcast shape.

        Points beyond the known lines count as part of the outermost block.
        """
        p, q = np.broadcast_arrays(dp + self.p, dq + self.q)
        i = np.clip(np.searchsorted(self.lines_p, p, side="right") - 1, 0, len(self.lines_p) - 2)
        j = np.clip(np.searchsorted(self.lines_q, q, side="right") - 1, 0, len(self.lines_q) - 2)
        made = _GROUND_OF_BLOCK[self.kinds[i, j]]
        on_p, paved_p, line_p = self._along(p, q, i, j, self.lines_p, self.widths_p, self.street_p, 0)
        on_q, paved_q, line_q = self._along(q, p, j, i, self.lines_q, self.widths_q, self.street_q.T, 1)
        made = np.where((paved_p | paved_q) & self.town[i, j], PAVEMENT, made)
        made = np.where(on_p | on_q, ROAD, made)
        made = np.where((line_p & ~on_q) | (line_q & ~on_p), LINE, made)
        if np.isfinite(self.plan.shore_m):
            beyond = self.plan.to_sea(p, q)
            made = np.where(beyond > -SHORE_M, SHORE, made)
            made = np.where(beyond > 0, WATER, made)
        return made.astype(np.uint8)

    def _along(
        self,
        x: FloatArray,
        y: FloatArray,
        block: IntArray,
        across: IntArray,
        lines: FloatArray,
        widths: FloatArray,
        street: NDArray[np.bool_],
        axis: int,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether points are on the carriageway, the pavement or a painted line of the streets of one axis."""
        upper = x - lines[block] > lines[block + 1] - x
        nearer = block + upper
        exists = street[nearer, across]
        off = x - lines[nearer]
        half = widths[nearer]
        away = np.abs(off)
        on = exists & (away < half)
        paved = exists & (away < half + _PAVEMENT_M)
        dashed = (y - 8 * np.floor(y / 8)) < 4.5
        middle = on & (away < 0.22) & dashed
        # A stop line before each crossing, across the lane that leads up to it: it shows the side of the traffic.
        other, other_widths = (self.lines_q, self.widths_q) if axis == 0 else (self.lines_p, self.widths_p)
        ahead = other[across + 1] - other_widths[across + 1] - y
        behind = y - other[across] - other_widths[across]
        # Axis 0 drives along q and has p on its right hand; axis 1 drives along p and has q on its left.
        right = (off > 0) != (self.left != (axis == 1))
        stop = on & (((ahead > 1) & (ahead < 1.7) & right) | ((behind > 1) & (behind < 1.7) & ~right))
        return on, paved, middle | stop


_GROUND_OF_BLOCK = np.array([YARD, GRASS, SQUARE, CROP, FLOOR, SQUARE], np.uint8)


def surroundings(city: int, east_m: float, north_m: float, radius: float, left: bool = False) -> Surroundings:
    """Returns everything within `radius` metres of a place in a city's frame. `left`: traffic keeps left."""
    plan = plans(city)
    p, q = (float(x) for x in plan.to_grid(east_m, north_m))
    i0, i1 = _span(plan, 0, p, radius)
    j0, j1 = _span(plan, 1, q, radius)
    i, j = np.arange(i0, i1 + 2), np.arange(j0, j1 + 2)
    lines_p, lines_q = plan.line(0, i), plan.line(1, j)
    widths_p, widths_q = plan.half_width(0, i), plan.half_width(1, j)
    middle_p, middle_q = (lines_p[:-1] + lines_p[1:]) / 2, (lines_q[:-1] + lines_q[1:]) / 2
    block_i, block_j = i[:-1, None], j[None, :-1]
    density = plan.density(middle_p[:, None], middle_q[None, :])
    kinds = plan.block_kind(block_i, block_j, density)
    # The denser of the two blocks beside a line decides whether it is a street there, so that both sides agree.
    street_p = np.empty((len(i), len(j) - 1), bool)
    padded = np.pad(density, 1, mode="edge")
    street_p[:] = plan.is_street(0, i[:, None], np.maximum(padded[:-1, 1:-1], padded[1:, 1:-1]))
    street_q = np.empty((len(i) - 1, len(j)), bool)
    street_q[:] = plan.is_street(1, j[None, :], np.maximum(padded[1:-1, :-1], padded[1:-1, 1:]))
    made = _Blocks(
        plan, p, q, block_i + 0 * block_j, block_j + 0 * block_i, kinds, density,
        (lines_p[:-1] + widths_p[:-1] + _PAVEMENT_M)[:, None] + 0 * density,
        (lines_p[1:] - widths_p[1:] - _PAVEMENT_M)[:, None] + 0 * density,
        (lines_q[:-1] + widths_q[:-1] + _PAVEMENT_M)[None, :] + 0 * density,
        (lines_q[1:] - widths_q[1:] - _PAVEMENT_M)[None, :] + 0 * density,
    )  # fmt: skip
    mark = landmark_in_grid(plan)
    return Surroundings(
        plan, p, q, float(plan.density(np.array(p), np.array(q))),
        made.houses(radius), made.trees(radius), made.monuments(radius), made.signs(radius),
        (float(mark[0]) - p, float(mark[1]) - q),
        lines_p, lines_q, widths_p, widths_q, street_p, street_q, kinds, density > 0.12, left,
    )  # fmt: skip


def _span(plan: Cities, axis: int, x: float, radius: float) -> tuple[int, int]:
    """First and last block of an axis within a radius of x."""
    ends = np.array([x - radius, x + radius])
    first, last = plan.block_of(axis, ends).tolist()
    return first, last


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The blocks around a place [I, J], with the ground that may be built on."""

    plan: Cities
    p: float
    q: float
    i: IntArray
    j: IntArray
    kind: IntArray
    density: FloatArray
    p0: FloatArray
    p1: FloatArray
    q0: FloatArray
    q1: FloatArray

    def houses(self, radius: float) -> Boxes:
        """Two rows of lots per block, back to back."""
        city, built = self.plan.city, self.kind == BUILT
        i, j, density, p0, p1, q0, q1 = (
            x[built][:, None] for x in (self.i, self.j, self.density, self.p0, self.p1, self.q0, self.q1)
        )
        slot = np.arange(2 * _SLOTS)[None, :]
        row, column = slot // _SLOTS, slot % _SLOTS
        number = mixed(city, 41, i, j, slot)
        chance = [uniform(number.astype(np.int64), n) for n in range(5)]
        lots = np.clip(np.floor((p1 - p0) / (11 + 12 * uniform(city, 42, i, j))), 1, _SLOTS)
        width = (p1 - p0) / lots
        exists = (column < lots) & (chance[0] < 0.35 + 0.6 * density) & (p1 - p0 > _MIN_LOT)
        gap = np.where(density > 0.6, 0.0, 1.5 + 1.5 * chance[1])
        left, right = p0 + column * width + gap, p0 + (column + 1) * width - gap
        depth = np.minimum(8 + 6 * chance[2], (q1 - q0) / 2 - 1)
        setback = np.where(density > 0.5, 0.0, 4 * chance[1])
        near = np.where(row == 0, q0 + setback, q1 - setback - depth)
        storeys = 1 + np.floor(chance[3] * chance[3] * self.plan.storeys * density * 1.6 + chance[4] * 1.5)
        height = 3.0 * storeys + 0.8
        exists &= depth > _MIN_LOT
        exists &= self._dry((left + right) / 2, near + depth / 2)
        exists &= self._near((left + right) / 2, near + depth / 2, radius)
        return Boxes(
            (left - self.p)[exists], (right - self.p)[exists],
            (near - self.q)[exists], (near + depth - self.q)[exists], height[exists], number[exists],
        )  # fmt: skip

    def trees(self, radius: float) -> Posts:
        """Trees: many in parks and forests, few in fields and squares, and rows along avenues."""
        many = np.array([3, 11, 3, 1, 12, 0])[self.kind]
        inside = self._scattered(many, 12, 51, self.p0, self.p1, self.q0, self.q1, radius)
        lined = np.where(self.i % AVENUE == 0, np.where(self.density > 0.1, 5, 2), 0)
        along = self._scattered(lined, 5, 52, self.p0 - 1.6, self.p0 - 1.2, self.q0, self.q1, radius)
        both = (np.concatenate(pair) for pair in zip(inside, along, strict=True))
        p, q, number = both
        size = uniform(number.astype(np.int64), 1)
        return Posts(p, q, 1.2 + 1.8 * size, 3.5 + 7 * size, number)

    def monuments(self, radius: float) -> Posts:
        """A monument on each square."""
        at = self.kind == PLAZA
        p, q = ((self.p0 + self.p1) / 2)[at], ((self.q0 + self.q1) / 2)[at]
        number = mixed(self.plan.city, 61, self.i, self.j)[at]
        kept = self._dry(p, q) & self._near(p, q, radius)
        size = uniform(number.astype(np.int64), 1)
        made = Posts(p - self.p, q - self.q, 1 + 1.5 * size, 5 + 7 * size, number)
        return Posts(*(getattr(made, name)[kept] for name in ("p", "q", "radius", "height", "number")))

    def signs(self, radius: float) -> Posts:
        """Signs on some corners of blocks in town."""
        number = mixed(self.plan.city, 71, self.i, self.j)
        p, q = self.p0 - 1.5, self.q0 - 1.5
        kept = uniform(number.astype(np.int64), 1) < 0.6 * self.density
        kept &= self._dry(p, q) & self._near(p, q, radius)
        count = int(kept.sum())
        return Posts(
            (p - self.p)[kept], (q - self.q)[kept], np.full(count, 0.8), np.full(count, 3.4), number[kept]
        )

    def _scattered(
        self,
        many: IntArray,
        most: int,
        stream: int,
        p0: FloatArray,
        p1: FloatArray,
        q0: FloatArray,
        q1: FloatArray,
        radius: float,
    ) -> tuple[FloatArray, FloatArray, NDArray[np.uint64]]:
        """Points in the blocks' rectangles, `many` per block: p, q from the place, and their numbers."""
        slot = np.arange(most)
        at = (many > 0) & (p1 > p0) & (q1 > q0)
        i, j, most_here = (x[at][:, None] for x in (self.i, self.j, many))
        p0, p1, q0, q1 = (x[at][:, None] for x in (p0, p1, q0, q1))
        number = mixed(self.plan.city, stream, i, j, slot)
        p = p0 + (p1 - p0) * uniform(number.astype(np.int64), 2)
        q = q0 + (q1 - q0) * uniform(number.astype(np.int64), 3)
        kept = (slot < most_here) & self._dry(p, q) & self._near(p, q, radius)
        return (p - self.p)[kept], (q - self.q)[kept], number[kept]

    def _dry(self, p: FloatArray, q: FloatArray) -> NDArray[np.bool_]:
        return self.plan.to_sea(p, q) < -SHORE_M - 8

    def _near(self, p: FloatArray, q: FloatArray, radius: float) -> NDArray[np.bool_]:
        return (p - self.p) ** 2 + (q - self.q) ** 2 < radius * radius
