"""Draws an overhead tile: the same surroundings from above, north up, on another day and by another sensor.

A tile shares only its layout with a ground photo; season, light and colours differ. So only geometry can match the
two, and the heading matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample import plan as planning
from geoloc.sample.air import season
from geoloc.sample.canvas import GROUND, HOUSE, MONUMENT, TOWER, TREE
from geoloc.sample.hashing import choice, uniform
from geoloc.sample.looks import TREES, Look
from geoloc.sample.noise import SIDE, texture
from geoloc.sample.surroundings import Surroundings
from geoloc.sample.towers import tower_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Tile:
    """A drawn tile: picture uint8 [size, size, 3], and the label of each pixel (see canvas)."""

    picture: NDArray[np.uint8]
    label: IntArray


def overhead_tile(
    around: Surroundings, look: Look, southern: bool, number: int, size: int, metres_per_pixel: float
) -> Tile:
    """Returns the middle of `around` from above, north up. `number` chooses the day, the sun and the sensor.

    The pixel of row r and column c shows the point (c + 0.5 - size / 2) * metres_per_pixel east of the place and
    (r + 0.5 - size / 2) * metres_per_pixel south of it. Pure: the same arguments give the same bytes.
    """
    drawing = _Drawing.of(around, look, southern, number, size, metres_per_pixel)
    drawing.draw_ground()
    drawing.draw_houses()
    drawing.draw_trees()
    drawing.draw_posts()
    return Tile(drawing.sensed(), drawing.label)


@dataclass(frozen=True, eq=False)
class _Drawing:
    around: Surroundings
    look: Look
    number: int
    size: int
    scale: float
    p: FloatArray  # of each pixel, from the place
    q: FloatArray
    leaf: IntArray
    snow: int
    shadow: tuple[float, float]  # p, q metres of shadow for each metre of height
    picture: IntArray
    label: IntArray

    @staticmethod
    def of(
        around: Surroundings, look: Look, southern: bool, number: int, size: int, scale: float
    ) -> _Drawing:
        off = (np.arange(size) + 0.5 - size / 2) * scale
        east, north = off[None, :], -off[:, None]
        plan = around.plan
        p, q = east * plan.cos - north * plan.sin, east * plan.sin + north * plan.cos
        leaf, snow = season(look, int(choice(365, number, 301)), southern)
        azimuth = np.radians(
            90 + 180 * float(uniform(number, 302)) + (180 if southern else 0) - float(plan.turn)
        )
        length = 0.4 + 0.9 * float(uniform(number, 303))
        shadow = tuple(float(np.rint(-length * f(azimuth) * 4096) / 4096) for f in (np.sin, np.cos))
        return _Drawing(
            around, look, number, size, scale, p, q, leaf, snow, (shadow[0], shadow[1]),
            np.zeros((size, size, 3), np.int32), np.zeros((size, size), np.int32),
        )  # fmt: skip

    def draw_ground(self) -> None:
        look = self.look
        kind = self.around.ground(self.p, self.q)
        colours = np.zeros((planning.GROUNDS, 3), np.int32)
        colours[planning.GRASS] = look.grass
        colours[planning.ROAD] = 92 + look.dry // 12
        colours[planning.LINE] = 150
        colours[planning.PAVEMENT] = 158
        colours[planning.SQUARE] = 186
        colours[planning.WATER] = (38, 66, 92)
        colours[planning.SHORE] = (206, 192, 152)
        colours[planning.CROP] = look.crop
        colours[planning.FLOOR] = look.leaf * 3 // 4
        colours[planning.YARD] = (look.grass + 150) // 2
        x = np.floor(self.p + self.around.p).astype(np.int64)
        y = np.floor(self.q + self.around.q).astype(np.int64)
        grain = texture()[y % SIDE, x % SIDE]
        made = colours[kind]
        rows = (kind == planning.CROP) & (x // 4 % 2 == 0)
        made[rows] = (look.crop * 7 + look.grass * 2) // 9
        if self.snow > 60:
            covered = (grain + self.snow > 255) & (kind != planning.WATER) & (kind != planning.ROAD)
            made[covered] = (232, 236, 242)
        self.picture[:] = made * (220 + (grain >> 2))[:, :, None] >> 8
        self.label[:] = 100_000 * GROUND

    def draw_houses(self) -> None:
        houses = self.around.houses
        order = np.argsort(houses.height, kind="stable").tolist()
        for k in order:
            self._shade(k)
        for k in order:
            number = int(houses.number[k] & np.uint64(2**31 - 1))
            p0, p1, q0, q1 = (float(side[k]) for side in (houses.p0, houses.p1, houses.q0, houses.q1))
            found = self._window(p0, p1, q0, q1)
            if found is None:
                continue
            at, p, q = found
            inside = (p >= p0) & (p < p1) & (q >= q0) & (q < q1)
            base = (
                110 + int(choice(100, number, 304)) + np.array([8, 0, -8]) * (int(choice(5, number, 305)) - 2)
            )
            if self.snow > 110:
                base = (base + 2 * np.array([226, 230, 238])) // 3
            ridge = (p - p0 < (p1 - p0) / 2) if p1 - p0 < q1 - q0 else (q - q0 < (q1 - q0) / 2)
            shade = np.where(ridge & (number % 4 > 0), 282, 240)
            self.picture[at][inside] = (base * shade[:, :, None] >> 8)[inside]
            self.label[at][inside] = 100_000 * HOUSE + k + 1

    def _shade(self, k: int) -> None:
        """Draw the shadow of a house: its outline swept along the shadow's direction, in steps of half its width."""
        houses = self.around.houses
        p0, p1, q0, q1 = (float(side[k]) for side in (houses.p0, houses.p1, houses.q0, houses.q1))
        dp, dq = (float(houses.height[k]) * part for part in self.shadow)
        found = self._window(min(p0, p0 + dp), max(p1, p1 + dp), min(q0, q0 + dq), max(q1, q1 + dq))
        if found is None:
            return
        at, p, q = found
        dark = np.zeros(p.shape, bool)
        for step in (0.25, 0.5, 0.75, 1.0):
            dark |= (
                (p >= p0 + step * dp) & (p < p1 + step * dp) & (q >= q0 + step * dq) & (q < q1 + step * dq)
            )
        self.picture[at][dark] = self.picture[at][dark] * 150 >> 8

    def draw_trees(self) -> None:
        trees = self.around.trees
        for k in range(len(trees.p)):
            number = int(trees.number[k] % np.uint64(2**31))
            colour = self.leaf * (200 + int(choice(70, number, 306))) >> 8
            kind = TREES[self.look.tree_kind] if number % 5 else "round"
            radius = float(trees.radius[k]) * (0.8 if kind in ("palm", "scrub") else 1.3)
            self._disc(float(trees.p[k]), float(trees.q[k]), radius, colour, 100_000 * TREE + k + 1)

    def draw_posts(self) -> None:
        posts = self.around.monuments
        for k in range(len(posts.p)):
            self._disc(
                float(posts.p[k]), float(posts.q[k]), float(posts.radius[k]), np.array([206, 204, 196]),
                100_000 * MONUMENT + k + 1,
            )  # fmt: skip
        tower = tower_of(int(self.around.plan.city))
        p, q = self.around.landmark
        for share, colour in ((1.0, 150), (0.6, 214), (0.25, 120)):
            self._disc(p, q, share * tower.radius_m, np.full(3, colour), 100_000 * TOWER + 1)

    def sensed(self) -> NDArray[np.uint8]:
        """The picture with the sensor's gain, tint, blur and grain."""
        number = self.number
        gain = 200 + choice(90, number, 307) + choice(36, number, 308, [0, 1, 2]) - 18
        made = self.picture * gain >> 8
        if uniform(number, 309) < 0.5:
            around = np.pad(made, ((1, 1), (1, 1), (0, 0)), mode="edge")
            made = (2 * made + around[:-2, 1:-1] + around[2:, 1:-1]) // 4
        rng = np.random.default_rng([number, 310])
        grain = rng.integers(-4, 5, (self.size, self.size, 1), dtype=np.int32)
        return np.asarray((made + grain).clip(0, 255).astype(np.uint8))

    def _disc(
        self, p: float, q: float, radius: float, colour: NDArray[np.int64] | IntArray, label: int
    ) -> None:
        found = self._window(p - radius, p + radius, q - radius, q + radius)
        if found is None:
            return
        at, pp, qq = found
        inside = (pp - p) ** 2 + (qq - q) ** 2 <= radius * radius
        self.picture[at][inside] = colour
        self.label[at][inside] = label

    def _window(
        self, p0: float, p1: float, q0: float, q1: float
    ) -> tuple[tuple[slice, slice], FloatArray, FloatArray] | None:
        """The part of the tile that shows a rectangle of the grid, with its p and q; None if it is outside the tile."""
        plan = self.around.plan
        corners_p, corners_q = np.array([p0, p0, p1, p1]), np.array([q0, q1, q0, q1])
        east, north = plan.from_grid(corners_p, corners_q)
        half = self.size / 2
        left = max(int(np.floor(east.min() / self.scale + half)), 0)
        right = min(int(np.ceil(east.max() / self.scale + half)) + 1, self.size)
        top = max(int(np.floor(half - north.max() / self.scale)), 0)
        bottom = min(int(np.ceil(half - north.min() / self.scale)) + 1, self.size)
        if right <= left or bottom <= top:
            return None
        at = (slice(top, bottom), slice(left, right))
        return at, self.p[at], self.q[at]
