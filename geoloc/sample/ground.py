"""Draws a ground photo: a place's surroundings in perspective, under its sky, in its light.

The camera is a pinhole at `eye_m` above the plane. With f the focal length in pixels and t = (column - middle) / f, a
point z metres ahead and t z to the right stands in that column; its height above the eye is (horizon - row) z / f.
Pitch moves the horizon, roll tilts it. Everything that stands is drawn column by column against a depth buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sample import plan as planning
from geoloc.sample.air import in_the_air, season
from geoloc.sample.camera import NORMALS, Camera, Face, View, roof_rise, visible_faces
from geoloc.sample.canvas import GROUND, HOUSE, MONUMENT, RIDGE, SIGN, TOWER, TREE, Canvas
from geoloc.sample.hashing import choice, uniform
from geoloc.sample.looks import TREES, Look
from geoloc.sample.noise import SIDE, texture, window
from geoloc.sample.surroundings import Surroundings
from geoloc.sample.towers import Tower, tower_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]

REACH_M = 170.0
"""How far houses and trees are drawn."""
_TOWER_REACH_M = 2500.0
_FLOOR_M = 3.0


@dataclass(frozen=True, eq=False)
class Photo:
    """A drawn photo: colours int32 [size, size, 3] before exposure, and label and depth of each pixel (see canvas)."""

    colours: IntArray
    label: IntArray
    depth: FloatArray


def ground_photo(around: Surroundings, look: Look, view: View, size: int) -> Photo:
    """Draw what `view` sees from the middle of `around`. Pure: the same arguments give the same bytes."""
    camera = Camera.of(view, float(around.plan.turn), size)
    canvas = Canvas(size, size)
    scene = _Scene(around, look, view, camera, canvas, season(look, view.day_of_year, view.southern))
    scene.draw_ground()
    scene.draw_ridge()
    scene.draw_far_houses()
    scene.draw_houses()
    scene.draw_trees()
    scene.draw_monuments()
    scene.draw_signs()
    scene.draw_tower(tower_of(int(around.plan.city)))
    return Photo(in_the_air(canvas, camera, view, look), canvas.label, canvas.depth)


@dataclass(frozen=True)
class _Paint:
    """Palette entries that houses share."""

    glass: int
    lamp: int
    awning: int


@dataclass(frozen=True, eq=False)
class _Scene:
    """One photo being drawn."""

    around: Surroundings
    look: Look
    view: View
    camera: Camera
    canvas: Canvas
    season: tuple[IntArray, int]  # colour of leaves, and snow on the ground 0 to 255

    # The ground

    def draw_ground(self) -> None:
        canvas, camera, look = self.canvas, self.camera, self.look
        first = max(int(np.floor(camera.horizon.min())), 0)
        if first >= camera.size:
            return
        below = np.arange(first, camera.size)[:, None] + 0.5 - camera.horizon[None, :]
        inside = below > 0.02
        z = camera.focal * self.view.eye_m / np.where(inside, below, 1.0)
        p = z * (camera.ahead[0] + camera.across * camera.right[0])
        q = z * (camera.ahead[1] + camera.across * camera.right[1])
        kind = self.around.ground(p, q)
        colours, snow = self._ground_colours(), self.season[1]
        x, y = (
            np.floor((p + self.around.p) * 2).astype(np.int64),
            np.floor((q + self.around.q) * 2).astype(np.int64),
        )
        grain = texture()[y % SIDE, x % SIDE]
        near = z < 26
        second = (
            near & _pattern(look.paving, x, y) & ((kind == planning.SQUARE) | (kind == planning.PAVEMENT))
        )
        rows = (np.floor(p / 3).astype(np.int64) & 1).astype(bool) & (kind == planning.CROP) & (z < 90)
        index = colours[kind + planning.GROUNDS * (second | rows)]
        if snow > 60:
            covered = (kind != planning.WATER) & (kind != planning.LINE) & (grain + snow > 255)
            index = np.where(covered & ((kind != planning.ROAD) | (grain > 150)), colours[-1], index)
        depth = np.where(kind == planning.WATER, 44, 22)
        shade = 256 + ((grain - 128) * depth >> 7) * np.where(near, 2, 1)
        canvas.draw(first, 0, inside, index, shade.astype(np.int16), z, 100_000 * GROUND)

    def _ground_colours(self) -> NDArray[np.int16]:
        """Palette entries of the kinds of ground, of their second colours, and of snow."""
        look, add = self.look, self.canvas.add
        first: dict[int, ArrayLike] = {
            planning.GRASS: look.grass,
            planning.ROAD: look.road,
            planning.LINE: look.line,
            planning.PAVEMENT: look.paving_a,
            planning.SQUARE: look.paving_a,
            planning.WATER: look.sky_top * 3 // 5 + look.sky_low // 5,
            planning.SHORE: [214, 196, 150] if look.motif != "fjord" else [124, 122, 120],
            planning.CROP: look.crop,
            planning.FLOOR: look.leaf * 3 // 4,
            planning.YARD: (look.grass + np.array([168, 160, 148])) // 2,
        }
        second = first | {
            planning.PAVEMENT: look.paving_b, planning.SQUARE: look.paving_b, planning.CROP: look.grass,
        }  # fmt: skip
        snow = [226, 231, 238]
        made = [add(of[kind]) for of in (first, second) for kind in range(planning.GROUNDS)] + [add(snow)]
        return np.array(made, np.int16)

    # What is far

    def draw_ridge(self) -> None:
        """Mountains: their outline is a function of the bearing and the neighbourhood, so the heading can be seen."""
        look, camera = self.look, self.camera
        city = int(self.around.plan.city)
        at = camera.azimuth * (SIDE / 360)
        height = np.zeros(camera.size)
        for layer, weight in ((1, 0.65), (4, 0.35)):
            height += weight * _between_rows(int(choice(SIDE, city, 101, layer)), at * layer)
        steep = (0.015 + 0.24 * (look.relief / 255) ** 2) * height / 255
        if np.isfinite(look.seaward) and look.motif != "fjord" and np.isfinite(self.around.plan.shore_m):
            off = np.abs((camera.azimuth - look.seaward + 180) % 360 - 180)
            steep = np.where(off < 75, 0.0, steep)
        top = camera.horizon - steep * camera.focal
        colour = self.canvas.add((look.rock * 2 + look.leaf) // 3)
        snow = self.canvas.add([224, 230, 238])
        first, last = max(int(top.min()), 0), min(int(np.ceil(camera.horizon.max())), camera.size)
        if last <= first:
            return
        rows = np.arange(first, last)[:, None] + 0.5
        inside = (rows > top) & (rows <= camera.horizon)
        high = (camera.horizon - rows) / camera.focal * 255 > 34 - look.cold // 10
        index = np.where(high & (look.relief + look.cold > 230), snow, colour).astype(np.int16)
        slant = (256 + (window(last - first, camera.size, 0, int(at[0]) * 3 % SIDE, 2) - 128) // 3).astype(
            np.int16
        )
        self.canvas.draw(first, 0, inside, index, slant, 1800.0, 100_000 * RIDGE)

    def draw_far_houses(self) -> None:
        """The city beyond what is laid out: blocks on the horizon, as dense and high as the city is here."""
        camera, around = self.camera, self.around
        if around.density < 0.15:
            return
        city = int(around.plan.city)
        step = np.floor(camera.azimuth / 1.5).astype(np.int64)
        high = uniform(city, 111, step) * uniform(city, 112, step // 3)
        metres = high * float(around.plan.storeys) * 4.5 * around.density
        far = 420.0
        top = camera.horizon - (metres - self.view.eye_m) * camera.focal / far
        if np.isfinite(around.plan.shore_m):
            beyond = around.plan.to_sea(
                around.p + far * (camera.ahead[0] + camera.across * camera.right[0]),
                around.q + far * (camera.ahead[1] + camera.across * camera.right[1]),
            )
            top = np.where(beyond > -60, camera.horizon, top)
        base = camera.horizon + self.view.eye_m * camera.focal / far
        first, last = max(int(top.min()), 0), min(int(np.ceil(base.max())), camera.size)
        if last <= first:
            return
        rows = np.arange(first, last)[:, None] + 0.5
        inside = (rows > top) & (rows <= base) & (top < camera.horizon)
        colours = np.array([self.canvas.add(wall * 3 // 4) for wall in self.look.walls], np.int16)
        index = np.broadcast_to(colours[step % 3], inside.shape)
        self.canvas.draw(first, 0, inside, index, 236, far, 100_000 * HOUSE + 99_999)

    # What is near

    def draw_houses(self) -> None:
        houses, size = self.around.houses, self.camera.size
        palette: dict[int, tuple[int, int]] = {}
        paint = _Paint(
            self.canvas.add([52, 58, 70]),
            self.canvas.add([250, 214, 130], shining=True),
            self.canvas.add(self.look.accent),
        )
        # Walls come nearest first. `cover` is the row up to which each column is walled off, and how near that wall is:
        # what ends lower behind it cannot be seen and is not drawn.
        cover, cover_z = np.full(size, float(size)), np.zeros(size)
        for face in visible_faces(houses, self.camera):
            at = slice(face.first, face.last)
            t, horizon = self.camera.across[at], self.camera.horizon[at]
            z, along = face.met_by(t)
            height, number = (
                float(houses.height[face.house]),
                int(houses.number[face.house] & np.uint64(2**31 - 1)),
            )
            peak = height + roof_rise(self.look.roof_kind, along / face.length, face.end, height, number)
            scale = self.camera.focal / z
            top = horizon - (peak - self.view.eye_m) * scale
            if not np.any((top < cover[at]) | (z < cover_z[at])):
                continue
            if face.house not in palette:
                palette[face.house] = self._house_colours(number)
            self._draw_face(face, top, z, along, height, number, palette[face.house], paint)
            wall = horizon - (height - self.view.eye_m) * scale
            better = wall < cover[at]
            cover[at], cover_z[at] = np.where(better, wall, cover[at]), np.where(better, z, cover_z[at])

    def _house_colours(self, number: int) -> tuple[int, int]:
        look = self.look
        vary = 226 + int(choice(60, number, 1))
        wall = look.walls[int(choice(3, number, 2))] * vary >> 8
        roof = look.roof * (226 + int(choice(60, number, 3))) >> 8
        if self.season[1] > 110:
            roof = (roof + 2 * np.array([232, 236, 242])) // 3
        return self.canvas.add(wall), self.canvas.add(roof)

    def _draw_face(
        self,
        face: Face,
        top: FloatArray,
        z: FloatArray,
        along: FloatArray,
        height: float,
        number: int,
        colours: tuple[int, int],
        paint: _Paint,
    ) -> None:
        camera, look = self.camera, self.look
        horizon = camera.horizon[face.first : face.last]
        base = horizon + self.view.eye_m * camera.focal / z
        first, last = max(int(top.min()), 0), min(int(np.ceil(base.max())), camera.size)
        if last <= first:
            return
        rows = np.arange(first, last)[:, None] + 0.5
        inside = (rows > top) & (rows <= base)
        y = self.view.eye_m + (horizon - rows) * (z / camera.focal)
        index = np.where(y > height, np.int16(colours[1]), np.int16(colours[0]))
        storey = y / _FLOOR_M
        storey_part = storey - np.floor(storey)
        bay = along / (look.window_pitch / 100)
        bay_part = bay - np.floor(bay)
        glass = (storey_part > 0.3) & (storey_part < 0.77) & (y > _FLOOR_M) & (y < height - 0.4)
        glass &= (bay_part > 0.25) & (bay_part < 0.25 + look.window_width / look.window_pitch)
        if self.view.sun_elevation < -3:
            room = np.floor(bay) + 31 * np.floor(storey) + number % 97
            index = np.where(glass & (room * 7919 % 10 < 4), np.int16(paint.lamp), index)
            glass &= room * 7919 % 10 >= 4
        index[glass] = paint.glass
        if self.around.density > 0.35 and number % 3 == 0:  # a shop
            index[(y > 2.3) & (y < 2.9)] = paint.awning
            index[(y > 0.3) & (y <= 2.3) & (bay_part < 0.8)] = paint.glass
        self.canvas.draw(
            first, face.first, inside, index, self._wall_shade(NORMALS[face.side]),
            np.broadcast_to(z, inside.shape), 100_000 * HOUSE + face.house + 1,
        )  # fmt: skip

    def _wall_shade(self, normal: tuple[float, float]) -> int:
        """Brighter where the sun falls on it. `normal` is p, q of the wall's outward direction."""
        view = self.view
        if view.sun_elevation <= 0:
            return 236
        angle = np.radians(view.sun_azimuth - self.around.plan.turn)
        facing = float(np.rint((np.sin(angle) * normal[0] + np.cos(angle) * normal[1]) * 256) / 256)
        strength = 70 * (255 - view.cloud) // 255 + 14
        return 236 + int(np.floor(strength * max(facing, -0.5)))

    def draw_trees(self) -> None:
        trees = self.around.trees
        right, ahead = self.camera.seen_from(trees.p, trees.q)
        trunk, leaf = self.canvas.add([84, 62, 44]), self.canvas.add(self.season[0])
        shape = TREES[self.look.tree_kind]
        for k in self._in_view(right, ahead, trees.radius * 1.4, nearest=1.6):
            # In every climate some trees are of another kind, by their number.
            kind = shape if int(trees.number[k] % np.uint64(5)) else "round"
            low = kind == "scrub"
            height, radius = float(trees.height[k]) * (0.35 if low else 1), float(trees.radius[k])
            self._draw_tree(k, kind, float(right[k]), float(ahead[k]), radius, height, trunk, leaf)

    def _draw_tree(
        self, k: int, kind: str, x: float, z: float, radius: float, height: float, trunk: int, leaf: int
    ) -> None:
        patch = self._patch(x, z, radius, height)
        if patch is None:
            return
        first, left, off, y = patch
        u, v = off / radius, y / height  # -1 to 1 across, 0 to 1 up
        if kind == "conifer":
            crown = (v > 0.12) & (np.abs(u) < (1 - v) * 0.9 + 0.08)
        elif kind == "round":
            crown = u * u + ((v - 0.64) / 0.36) ** 2 < 1
        elif kind == "palm":
            droop = v - 0.9 + 0.35 * u * u
            crown = (np.abs(droop) < 0.045) | (np.abs(v - 0.78 - 0.2 * np.abs(u)) < 0.04)
        else:
            crown = u * u + v * v < 1
        stem = (np.abs(off) < 0.05 * height * 0.6) & (v < 0.75)
        top, side = (
            int(choice(SIDE, int(self.around.trees.number[k] % np.uint64(2**31)), n)) for n in (1, 2)
        )
        speckle = window(crown.shape[0], crown.shape[1], top, side, 3)
        crown &= speckle > 40
        shade = (196 + speckle // 2 + np.floor(40 * np.clip(v, 0, 1)).astype(np.int32)).astype(np.int16)
        self.canvas.draw(
            first, left, crown | stem, np.where(crown, leaf, trunk).astype(np.int16), shade, z,
            100_000 * TREE + k + 1,
        )  # fmt: skip

    def draw_monuments(self) -> None:
        posts = self.around.monuments
        right, ahead = self.camera.seen_from(posts.p, posts.q)
        for k in self._in_view(right, ahead, posts.radius, nearest=2.0):
            made = tower_of(int(posts.number[k] % np.uint64(2**31 - 1)))
            self._draw_tower(made, float(right[k]), float(ahead[k]), float(posts.radius[k]), float(posts.height[k]),
                             100_000 * MONUMENT + k + 1)  # fmt: skip

    def draw_tower(self, tower: Tower) -> None:
        """The city's landmark, if it is ahead."""
        p, q = self.around.landmark
        right, ahead = self.camera.seen_from(np.array([p]), np.array([q]))
        if 4 < ahead[0] < _TOWER_REACH_M:
            self._draw_tower(
                tower, float(right[0]), float(ahead[0]), tower.radius_m, tower.height_m, 100_000 * TOWER + 1
            )

    def _draw_tower(self, tower: Tower, x: float, z: float, radius: float, height: float, label: int) -> None:
        patch = self._patch(x, z, radius, height)
        if patch is None:
            return
        first, left, off, y = patch
        inside, which = tower.at(off / radius, y / height)
        colours = np.array([self.canvas.add(colour) for colour in tower.colours], np.int16)
        shade = (262 - np.floor(60 * np.abs(off / radius))).astype(np.int16)
        self.canvas.draw(first, left, inside, colours[which], np.broadcast_to(shade, inside.shape), z, label)

    def draw_signs(self) -> None:
        """Boards with words in the country's script, on the city's accent colour."""
        posts = self.around.signs
        right, ahead = self.camera.seen_from(posts.p, posts.q)
        pole, ink = self.canvas.add([120, 122, 126]), self.canvas.add([248, 248, 244])
        board = self.canvas.add(self.look.accent * 3 // 4)
        for k in self._in_view(right, ahead, posts.radius, nearest=1.2):
            radius, height = float(posts.radius[k]), float(posts.height[k])
            patch = self._patch(float(right[k]), float(ahead[k]), radius, height)
            if patch is None:
                continue
            first, left, off, y = patch
            on_board = (y > height - 1.0) & (np.abs(off) < radius)
            stem = np.abs(off) < 0.06 + 0 * y
            letter = np.clip(np.floor((off + radius) / (2 * radius) * 16), 0, 15).astype(np.int64)
            row = np.clip(np.floor((height - 0.15 - y) / 0.7 * 6), -1, 6).astype(np.int64)
            number = int(posts.number[k] % np.uint64(2**31))
            written = on_board & _glyphs(self.look.script, number, letter, row)
            index = np.where(written, ink, np.where(on_board, board, pole)).astype(np.int16)
            self.canvas.draw(
                first, left, on_board | (stem & (y > 0)), index, 256, float(ahead[k]), 100_000 * SIGN + k + 1
            )

    def _in_view(self, right: FloatArray, ahead: FloatArray, radius: FloatArray, nearest: float) -> list[int]:
        """Numbers of the things that can be seen, nearest first."""
        edge = float(self.camera.across[-1]) * 1.02
        seen = (ahead > nearest) & (np.abs(right) - radius < edge * ahead)
        kept = np.flatnonzero(seen)
        return [int(k) for k in kept[np.argsort(ahead[kept], kind="stable")][:28]]

    def _patch(
        self, x: float, z: float, radius: float, height: float
    ) -> tuple[int, int, FloatArray, FloatArray] | None:
        """The pixels of an upright thing of half width `radius` at (x, z): first row and column, metres from its
        axis [1, w] and above its foot [h, w]. None where it is outside the photo or below a pixel.
        """
        camera = self.camera
        middle = camera.focal * x / z + camera.size / 2
        half = camera.focal * radius / z
        left, right = max(int(np.floor(middle - half)), 0), min(int(np.ceil(middle + half)), camera.size)
        if right <= left or half < 0.4:
            return None
        horizon = camera.horizon[left:right]
        up = camera.focal / z
        first = max(int(np.floor(float(horizon.min()) - (height - self.view.eye_m) * up)), 0)
        last = min(int(np.ceil(float(horizon.max()) + self.view.eye_m * up)), camera.size)
        if last <= first:
            return None
        rows = np.arange(first, last)[:, None] + 0.5
        off = np.asarray((np.arange(left, right) + 0.5 - middle)[None, :] / up, np.float64)
        return first, left, off, self.view.eye_m + (horizon - rows) / up


def _pattern(kind: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a pavement shows its second colour; x and y count half metres."""
    if kind == 0:
        return np.asarray((x // 2 + y // 2) % 2 == 0)
    if kind == 1:
        return np.asarray((x + 2 * y) % 6 < 2)
    if kind == 2:
        return np.asarray((y + np.abs(x % 8 - 4)) % 4 < 2)
    return np.asarray((x % 5 == 0) | (y % 5 == 0))


def _glyphs(script: int, number: int, letter: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a word has ink: four letters of 3 x 6 dots with a gap, each script with letters of its own."""
    which = choice(9, number, 1, letter // 4)
    dot = uniform(7, script, which, letter % 4, row)
    # Scripts differ in how dense they are, and in a bar along the top (as Devanagari has).
    dense = 0.35 + 0.3 * float(uniform(8, script))
    bar = (row == 0) & (script % 5 == 0) & (script > 0)
    return np.asarray((row >= 0) & (row < 6) & (letter % 4 < 3) & ((dot < dense) | bar))


def _between_rows(row: int, at: FloatArray) -> FloatArray:
    """A row of the texture at places between its columns."""
    line = texture()[row]
    k = np.floor(at).astype(np.int64)
    share = at - k
    return line[k % SIDE] * (1 - share) + line[(k + 1) % SIDE] * share
