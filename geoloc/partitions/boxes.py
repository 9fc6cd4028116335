"""A fixed binary tree of latitude/longitude boxes: points to the leaf that holds them, and leaves to boxes.

The root is the whole Earth, from longitude -180 to 180. Every box is divided across its longer side, measured on the
ground: its height against its width along its middle parallel. Where it is cut does not depend on any photo, so
the tree is the same for all, and a box is named by the way that leads to it: 60 bits at most, 0 for south or west,
1 for north or east. A key is such a way from the top bit down, so the keys of all points in a box are one range of
integers, and everything that S2 cells can do by sorting, these boxes can too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sphere import EARTH_RADIUS_KM

MAX_DEPTH = 60
KeyArray = NDArray[np.uint64]
FloatArray = NDArray[np.float64]

_CHUNK = 1 << 15  # points walked down the tree at a time: the temporaries stay in the processor's cache
_SEED_STEP = (
    0x9E3779B97F4A7C15  # the increment of splitmix64: seeds that are near each other give unlike cuts
)


@dataclass
class Boxes:
    """N boxes in degrees, float64 (N,) each, and the way to each as a heap number: 1 is the root, 2 w and 2 w + 1
    are the halves of w."""

    south: FloatArray
    north: FloatArray
    west: FloatArray
    east: FloatArray
    way: KeyArray

    def area_km2(self) -> FloatArray:
        """Area of each box on the sphere, float64 (N,)."""
        height = np.sin(np.radians(self.north)) - np.sin(np.radians(self.south))
        return EARTH_RADIUS_KM**2 * np.radians(self.east - self.west) * height

    def middles(self) -> FloatArray:
        """Latitude and longitude halfway, float64 (N, 2)."""
        return np.column_stack([(self.south + self.north) / 2, (self.west + self.east) / 2])

    def next_cuts(self, seed: int | None) -> tuple[NDArray[np.bool_], FloatArray]:
        """Whether each box is cut by a meridian, and at which degree; see `whole_earth` for the seed."""
        wide = self.east - self.west
        high = self.north - self.south
        by_meridian = wide * np.cos(np.radians((self.south + self.north) / 2)) > high
        low, side = np.where(by_meridian, self.west, self.south), np.where(by_meridian, wide, high)
        share: FloatArray | float = 0.5 if seed is None else (1 + _uniform(self.way, seed)) / 3
        return by_meridian, low + side * share

    def halves(self, upper: NDArray[np.bool_], by_meridian: NDArray[np.bool_], at: FloatArray) -> Boxes:
        """For each box its northern or eastern part, where `upper`, or its southern or western one."""
        return Boxes(
            np.where(~by_meridian & upper, at, self.south),
            np.where(~by_meridian & ~upper, at, self.north),
            np.where(by_meridian & upper, at, self.west),
            np.where(by_meridian & ~upper, at, self.east),
            2 * self.way + upper.astype(np.uint64),
        )


def whole_earth(count: int) -> Boxes:
    """`count` times the root. Its descendants are cut in the middle where the seed is None; else a side's cut is
    drawn evenly from the middle third of it, by the seed and the way to the box, so it is the same in every fit.
    """
    low, high = np.full(count, -90.0), np.full(count, 90.0)
    return Boxes(low, high, 2 * low, 2 * high, np.ones(count, dtype=np.uint64))


def _uniform(way: KeyArray, seed: int) -> FloatArray:
    """A number in [0, 1) for each way: the splitmix64 generator as a hash."""
    x = way * np.uint64(_SEED_STEP) + np.uint64((seed * 0xD1B54A32D192ED03 + 1) % (1 << 64))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def keys_of(latitude: FloatArray, longitude: FloatArray, depth: int, seed: int | None) -> KeyArray:
    """The key of each point, uint64 (N,): its way down `depth` divisions, then zeros. Valid degrees, not checked.

    A point on a cut is north or east of it. The two names of the antimeridian, and the many of a pole, are one
    place and get one key: that of longitude -180.
    """
    keys = np.empty(len(latitude), dtype=np.uint64)
    for start in range(0, len(keys), _CHUNK):
        part = slice(start, start + _CHUNK)
        lat = latitude[part]
        lon = np.where((longitude[part] == 180.0) | (np.abs(lat) == 90.0), -180.0, longitude[part])
        boxes = whole_earth(len(lat))
        for _ in range(depth):
            by_meridian, at = boxes.next_cuts(seed)
            boxes = boxes.halves(np.where(by_meridian, lon, lat) >= at, by_meridian, at)
        keys[part] = (boxes.way - np.uint64(1 << depth)) << np.uint64(MAX_DEPTH - depth)
    return keys


def boxes_of(keys: KeyArray, depths: NDArray[np.int64], seed: int | None) -> Boxes:
    """The boxes whose ways are the first `depths` (N,) bits of the keys (N,)."""
    made = whole_earth(len(keys))
    for level in range(int(depths.max(initial=0))):
        below = np.flatnonzero(depths > level)
        boxes = Boxes(*(getattr(made, name)[below] for name in ("south", "north", "west", "east", "way")))
        upper = (keys[below] >> np.uint64(MAX_DEPTH - 1 - level)) & np.uint64(1) == 1
        halves = boxes.halves(upper, *boxes.next_cuts(seed))
        for name in ("south", "north", "west", "east", "way"):
            getattr(made, name)[below] = getattr(halves, name)
    return made


def directions(keys: KeyArray, depths: NDArray[np.int64], seed: int | None) -> list[str]:
    """The way to each box in letters: w, e, s or n at each division; empty for the root."""
    words = np.zeros(len(keys), dtype=f"U{max(int(depths.max(initial=0)), 1)}")
    boxes = whole_earth(len(keys))
    for level in range(int(depths.max(initial=0))):
        by_meridian, at = boxes.next_cuts(seed)
        upper = (keys >> np.uint64(MAX_DEPTH - 1 - level)) & np.uint64(1) == 1
        letter = np.where(by_meridian, np.where(upper, "e", "w"), np.where(upper, "n", "s"))
        words = np.where(depths > level, np.char.add(words, letter), words)
        boxes = boxes.halves(upper, by_meridian, at)
    return [str(word) for word in words]


def from_directions(words: list[str]) -> tuple[KeyArray, NDArray[np.int64]]:
    """Keys and depths of ways in letters. Raises ValueError for other letters and for ways of more than 60."""
    for word in words:
        if len(word) > MAX_DEPTH or set(word) - set("wesn"):
            raise ValueError(f"{word!r} is not the name of a box")
    bits = str.maketrans("wesn", "0101")
    keys = [int(word.translate(bits).ljust(MAX_DEPTH, "0"), 2) for word in words]
    return np.array(keys, dtype=np.uint64), np.array([len(word) for word in words], dtype=np.int64)
