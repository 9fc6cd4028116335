"""Landmarks and monuments: towers of tiers, each drawn from its number and unlike all others."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.hashing import choice, uniform

FloatArray = NDArray[np.float64]

_TOPS = ("flat", "dome", "spire", "disc", "cross", "onion")
_PATTERNS = ("plain", "bands", "ribs", "checks", "arches")


@dataclass(frozen=True, eq=False)
class Tower:
    """A round tower: half width by height, patterns and colours. Heights and widths are shares of the whole."""

    height_m: float
    radius_m: float
    ends: FloatArray  # upper end of each tier, 0 to 1
    widths: FloatArray  # half width of each tier, 0 to 1
    taper: FloatArray  # how much narrower a tier is at its top
    patterns: tuple[int, ...]
    fineness: tuple[int, ...]
    top: int
    colours: NDArray[np.int32]  # (6, 3)

    def at(self, off: FloatArray, up: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns whether points are on the tower, and the number of their colour; both [h, w].

        `off`: from the axis, -1 to 1, [1, w]; `up`: from the foot, 0 to 1, [h, w].
        """
        off = np.broadcast_to(off, up.shape)
        tier = np.searchsorted(self.ends, up).clip(0, len(self.ends) - 1)
        lower = np.concatenate([[0.0], self.ends[:-1]])[tier]
        into = np.clip((up - lower) / (self.ends[tier] - lower), 0, 1)
        width = self.widths[tier] * (1 - self.taper[tier] * into)
        last = tier == len(self.ends) - 1
        width = np.where(last, self._top_width(into), width)
        inside = (up >= 0) & (up <= 1) & (np.abs(off) <= width)
        return inside, tier % 3 * 2 + self._second(tier, off, into)

    def _top_width(self, into: FloatArray) -> FloatArray:
        wide = float(self.widths[-1])
        name = _TOPS[self.top]
        if name == "dome":
            return wide * np.sqrt(np.maximum(1 - into * into, 0))
        if name == "spire":
            return wide * (1 - into)
        if name == "disc":
            return np.where((into > 0.3) & (into < 0.6), min(1.8 * wide, 1.0), 0.12)
        if name == "cross":
            return np.where((into > 0.45) & (into < 0.65), 0.7 * wide, 0.14)
        if name == "onion":
            return wide * np.where(into < 0.45, 0.7 + into, np.maximum(1.15 * (1 - (into - 0.45) / 0.55), 0))
        return np.full_like(into, wide)

    def _second(self, tier: NDArray[np.int64], off: FloatArray, into: FloatArray) -> NDArray[np.int64]:
        """Returns 1 where a tier's pattern shows its second colour."""
        made = np.zeros(tier.shape, np.int64)
        for number, (pattern, fine) in enumerate(zip(self.patterns, self.fineness, strict=True)):
            across, up = (
                np.floor((off + 1) * fine * 2).astype(np.int64),
                np.floor(into * fine).astype(np.int64),
            )
            name = _PATTERNS[pattern]
            if name == "bands":
                second = up % 2
            elif name == "ribs":
                second = across % 2
            elif name == "checks":
                second = (across + up) % 2
            elif name == "arches":
                second = ((across % 3 == 1) & (into * fine % 1 < 0.7)).astype(np.int64)
            else:
                second = np.zeros_like(up)
            made = np.where(tier == number, second, made)
        return made


@functools.lru_cache(maxsize=4096)
def tower_of(number: int) -> Tower:
    """Returns the tower of a number: a city's id, or a monument's number."""
    tiers = 2 + int(choice(4, number, 201))
    cuts = np.sort(np.array([float(uniform(number, 202, k)) for k in range(tiers - 1)]))
    ends = np.concatenate([0.12 + 0.76 * cuts, [1.0]])
    widths = np.array([0.3 + 0.7 * float(uniform(number, 203, k)) for k in range(tiers)])
    widths[0] = 1.0
    colours = [[40 + int(choice(205, number, 204, k, channel)) for channel in range(3)] for k in range(6)]
    return Tower(
        height_m=float(45 + choice(80, number, 205)),
        radius_m=float(9 + choice(12, number, 206)),
        ends=ends + 1e-3 * np.arange(tiers) / tiers,
        widths=widths,
        taper=np.array([0.6 * float(uniform(number, 207, k)) ** 2 for k in range(tiers)]),
        patterns=tuple(int(choice(len(_PATTERNS), number, 208, k)) for k in range(tiers)),
        fineness=tuple(int(2 + choice(6, number, 209, k)) for k in range(tiers)),
        top=int(choice(len(_TOPS), number, 210)),
        colours=np.array(colours, np.int32),
    )
