"""The plan of a city of the sample planet: streets, houses, trees and squares at real positions, in metres.

A plan is never stored. Streets, blocks and lots are each drawn from a hash of the city's id and their number. So two
photos of one corner, and its overhead tile, show the same houses, whoever takes them and in whatever order they are
drawn.

Coordinates are p and q, metres from the city's centre along the axes of its street grid: q points to the bearing
`turn`, p to 90 degrees clockwise of it. All arithmetic here is + - * / and square roots of float64, which IEEE 754
rounds alike on every processor. Sines are taken once per city and rounded.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sample.geography import all_cities, city_rows
from geoloc.sample.hashing import choice, uniform

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# What the ground is
GRASS, ROAD, LINE, PAVEMENT, SQUARE, WATER, SHORE, CROP, FLOOR, YARD = range(10)
GROUNDS = 10
# What a block is
BUILT, PARK, PLAZA, FIELD, FOREST, LANDMARK = range(6)

SHORE_M = 40.0
"""The strip along the water, beach or quay, where nothing is built."""
AVENUE = 4
"""Every fourth line is an avenue: wider, lined with trees, and a road also out in the country."""


@dataclass(frozen=True, eq=False)
class Cities:
    """The plans of N cities; each field is an array (N,)."""

    city: IntArray
    cos: FloatArray
    sin: FloatArray
    turn: FloatArray  # degrees
    block_p: FloatArray
    block_q: FloatArray
    reach: FloatArray  # metres to where building thins out to a half
    shore_m: FloatArray
    shore_east: FloatArray  # unit vector to the sea
    shore_north: FloatArray
    landmark_i: IntArray  # block of the landmark
    landmark_j: IntArray
    storeys: FloatArray  # of the highest houses in the middle

    def to_grid(self, east_m: ArrayLike, north_m: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """p and q of points given in metres east and north."""
        east, north = np.asarray(east_m, np.float64), np.asarray(north_m, np.float64)
        return east * self.cos - north * self.sin, east * self.sin + north * self.cos

    def from_grid(self, p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Metres east and north of points given by p and q."""
        return p * self.cos + q * self.sin, q * self.cos - p * self.sin

    def line(self, axis: int, k: IntArray) -> FloatArray:
        """Position of line k of an axis. Axis 0: lines of constant p; 1: of constant q."""
        block = self.block_p if axis == 0 else self.block_q
        return block * (k + 0.3 * (uniform(self.city, 21 + axis, k) - 0.5))

    def half_width(self, axis: int, k: IntArray) -> FloatArray:
        """Half the width of the carriageway of line k."""
        return np.where(k % AVENUE == 0, 6.0, 2.6 + 1.4 * uniform(self.city, 23 + axis, k))

    def block_of(self, axis: int, x: FloatArray) -> IntArray:
        """Number of the block that holds coordinate x: between line k and line k + 1."""
        block = self.block_p if axis == 0 else self.block_q
        k = np.floor(x / block).astype(np.int64)
        return k - (x < self.line(axis, k)) + (x >= self.line(axis, k + 1))

    def density(self, p: FloatArray, q: FloatArray) -> FloatArray:
        """How built-up it is: from 1 in the middle of the city to 0 far out."""
        return 1 / (1 + (p * p + q * q) / (self.reach * self.reach))

    def is_street(self, axis: int, k: IntArray, density: FloatArray) -> NDArray[np.bool_]:
        """Whether line k is a street beside a block of this density; an avenue always is."""
        return (k % AVENUE == 0) | (density > 0.12 + 0.3 * uniform(self.city, 25 + axis, k))

    def to_sea(self, p: FloatArray, q: FloatArray) -> FloatArray:
        """Metres beyond the shore line: positive in the water, minus infinity inland."""
        east, north = self.from_grid(p, q)
        return east * self.shore_east + north * self.shore_north - self.shore_m

    def block_kind(self, i: IntArray, j: IntArray, density: FloatArray) -> IntArray:
        """Kind of block (i, j)."""
        u = uniform(self.city, 31, i, j)
        town = np.select([u < 0.72, u < 0.84, u < 0.93], [BUILT, PARK, PLAZA], FIELD)
        country = np.select([u < 0.05, u < 0.35], [BUILT, FOREST], FIELD)
        kind = np.where(density > 0.05 + 0.25 * uniform(self.city, 32, i, j), town, country)
        return np.where((i == self.landmark_i) & (j == self.landmark_j), LANDMARK, kind)


def plans(city: ArrayLike) -> Cities:
    """Returns the plans of N cities by their ids. Raises KeyError for an unknown id."""
    ids = np.asarray(city, np.int64)
    if ids.ndim == 0:
        return _plan(int(ids))
    different, which = np.unique(ids, return_inverse=True)
    made = _plans(different)
    return Cities(**{name: getattr(made, name)[which] for name in Cities.__dataclass_fields__})


@functools.lru_cache(maxsize=4096)
def _plan(city: int) -> Cities:
    """Returns the plan of one city; its fields are scalars."""
    made = _plans(np.array([city]))
    return Cities(**{name: getattr(made, name)[0] for name in Cities.__dataclass_fields__})


def _plans(city: IntArray) -> Cities:
    table = all_cities().iloc[city_rows(city)]
    turn = np.floor(900 * uniform(city, 11)) / 10
    seaward = np.radians(table["seaward"].fillna(0.0).to_numpy())
    population = table["population"].to_numpy(np.float64)
    return Cities(
        city=city,
        turn=turn,
        cos=_rounded(np.cos(np.radians(turn))),
        sin=_rounded(np.sin(np.radians(turn))),
        block_p=np.floor(58 + 50 * uniform(city, 12)),
        block_q=np.floor(48 + 46 * uniform(city, 13)),
        reach=np.rint(800 * (population / 50_000) ** 0.3),
        shore_m=table["shore_m"].to_numpy(np.float64),
        shore_east=_rounded(np.sin(seaward)),
        shore_north=_rounded(np.cos(seaward)),
        landmark_i=choice(4, city, 14) - 2,
        landmark_j=choice(4, city, 15) - 2,
        storeys=np.rint(3 + 9 * uniform(city, 16) * (population / 2e7) ** 0.25 * 2),
    )


def landmark(city: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns the positions of the landmarks of N cities: metres east and north of the centre, float64 (N,) each."""
    plan = plans(city)
    return plan.from_grid(*landmark_in_grid(plan))


def to_street(
    city: ArrayLike, east_m: ArrayLike, north_m: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Moves N points to where a photographer can be. Returns metres east and north, and the bearing of the street.

    A point in the water or on the shore moves to the water's edge; any other to the nearest street, on the side that
    it came from. float64 (N,) each, the bearing in [0, 180) degrees.
    """
    plan = plans(city)
    p, q = plan.to_grid(east_m, north_m)
    density = plan.density(p, q)
    moved = []
    for axis, x in ((0, p), (1, q)):
        block = plan.block_of(axis, x)
        lower, upper = (
            _street_below(plan, axis, block, density),
            _street_above(plan, axis, block + 1, density),
        )
        below, above = plan.line(axis, lower), plan.line(axis, upper)
        nearer = np.where(x - below < above - x, lower, upper)
        line = plan.line(axis, nearer)
        side = np.where(x >= line, 0.7, -0.7) * plan.half_width(axis, nearer)
        moved.append((line + side, np.abs(x - line)))
    (new_p, far_p), (new_q, far_q) = moved
    to_p = far_p < far_q
    p, q = np.where(to_p, new_p, p), np.where(to_p, q, new_q)
    along = np.where(to_p, plan.turn, plan.turn + 90) % 180
    east, north = plan.from_grid(p, q)
    # At the water: to the edge, and along it.
    beyond = plan.to_sea(p, q)
    wet = beyond > -SHORE_M
    back = np.where(wet, beyond + 12, 0.0)
    east, north = east - back * plan.shore_east, north - back * plan.shore_north
    shore = np.degrees(np.arctan2(plan.shore_east, plan.shore_north)) + 90
    return east, north, np.where(wet, shore, along) % 180


def _street_below(plan: Cities, axis: int, k: IntArray, density: FloatArray) -> IntArray:
    """The highest line at or below k that is a street. At most three steps, as every fourth line is an avenue."""
    for _ in range(AVENUE - 1):
        k = k - ~plan.is_street(axis, k, density)
    return k


def _street_above(plan: Cities, axis: int, k: IntArray, density: FloatArray) -> IntArray:
    for _ in range(AVENUE - 1):
        k = k + ~plan.is_street(axis, k, density)
    return k


def landmark_in_grid(plan: Cities) -> tuple[FloatArray, FloatArray]:
    """p and q of the middle of the landmark's block."""
    i, j = plan.landmark_i, plan.landmark_j
    return (
        (plan.line(0, i) + plan.line(0, i + 1)) / 2,
        (plan.line(1, j) + plan.line(1, j + 1)) / 2,
    )


def _rounded(values: FloatArray) -> FloatArray:
    return np.rint(values * 2.0**36) / 2.0**36
