"""The backdrop of a ground photo: the ground itself, mountains, and the city beyond the houses drawn one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sample import plan as planning
from geoloc.sample.canvas import GROUND, HOUSE, RIDGE
from geoloc.sample.hashing import choice, uniform
from geoloc.sample.noise import SIDE, texture, window
from geoloc.sample.scene import Scene

FloatArray = NDArray[np.float64]


def draw_ground(scene: Scene) -> None:
    """Draw grass, roads, squares, water and the rest of the plane, with grain and snow."""
    canvas, camera, look = scene.canvas, scene.camera, scene.look
    first = max(int(np.floor(camera.horizon.min())), 0)
    if first >= camera.size:
        return
    below = np.arange(first, camera.size)[:, None] + 0.5 - camera.horizon[None, :]
    inside = below > 0.02
    z = camera.focal * scene.view.eye_m / np.where(inside, below, 1.0)
    p = z * (camera.ahead[0] + camera.across * camera.right[0])
    q = z * (camera.ahead[1] + camera.across * camera.right[1])
    kind = scene.around.ground(p, q)
    colours, snow = _ground_colours(scene), scene.season[1]
    x, y = (
        np.floor((p + scene.around.p) * 2).astype(np.int64),
        np.floor((q + scene.around.q) * 2).astype(np.int64),
    )
    grain = texture()[y % SIDE, x % SIDE]
    near = z < 26
    second = near & _pattern(look.paving, x, y) & ((kind == planning.SQUARE) | (kind == planning.PAVEMENT))
    rows = (np.floor(p / 3).astype(np.int64) & 1).astype(bool) & (kind == planning.CROP) & (z < 90)
    index = colours[kind + planning.GROUNDS * (second | rows)]
    if snow > 60:
        covered = (kind != planning.WATER) & (kind != planning.LINE) & (grain + snow > 255)
        index = np.where(covered & ((kind != planning.ROAD) | (grain > 150)), colours[-1], index)
    depth = np.where(kind == planning.WATER, 44, 22)
    shade = 256 + ((grain - 128) * depth >> 7) * np.where(near, 2, 1)
    canvas.draw(first, 0, inside, index, shade.astype(np.int16), z, 100_000 * GROUND)


def _ground_colours(scene: Scene) -> NDArray[np.int16]:
    """Palette entries of the kinds of ground, of their second colours, and of snow."""
    look, add = scene.look, scene.canvas.add
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


def draw_ridge(scene: Scene) -> None:
    """Draw mountains. Their outline depends on bearing and neighbourhood, so it shows the heading."""
    look, camera = scene.look, scene.camera
    city = int(scene.around.plan.city)
    at = camera.azimuth * (SIDE / 360)
    height = np.zeros(camera.size)
    for layer, weight in ((1, 0.65), (4, 0.35)):
        height += weight * _between_rows(int(choice(SIDE, city, 101, layer)), at * layer)
    steep = (0.015 + 0.24 * (look.relief / 255) ** 2) * height / 255
    if np.isfinite(look.seaward) and look.motif != "fjord" and np.isfinite(scene.around.plan.shore_m):
        off = np.abs((camera.azimuth - look.seaward + 180) % 360 - 180)
        steep = np.where(off < 75, 0.0, steep)
    top = camera.horizon - steep * camera.focal
    colour = scene.canvas.add((look.rock * 2 + look.leaf) // 3)
    snow = scene.canvas.add([224, 230, 238])
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
    scene.canvas.draw(first, 0, inside, index, slant, 1800.0, 100_000 * RIDGE)


def draw_far_houses(scene: Scene) -> None:
    """Draw the rest of the city: blocks on the horizon, as dense and high as the city is here."""
    camera, around = scene.camera, scene.around
    if around.density < 0.15:
        return
    city = int(around.plan.city)
    step = np.floor(camera.azimuth / 1.5).astype(np.int64)
    high = uniform(city, 111, step) * uniform(city, 112, step // 3)
    metres = high * float(around.plan.storeys) * 4.5 * around.density
    far = 420.0
    top = camera.horizon - (metres - scene.view.eye_m) * camera.focal / far
    if np.isfinite(around.plan.shore_m):
        beyond = around.plan.to_sea(
            around.p + far * (camera.ahead[0] + camera.across * camera.right[0]),
            around.q + far * (camera.ahead[1] + camera.across * camera.right[1]),
        )
        top = np.where(beyond > -60, camera.horizon, top)
    base = camera.horizon + scene.view.eye_m * camera.focal / far
    first, last = max(int(top.min()), 0), min(int(np.ceil(base.max())), camera.size)
    if last <= first:
        return
    rows = np.arange(first, last)[:, None] + 0.5
    inside = (rows > top) & (rows <= base) & (top < camera.horizon)
    colours = np.array([scene.canvas.add(wall * 3 // 4) for wall in scene.look.walls], np.int16)
    index = np.broadcast_to(colours[step % 3], inside.shape)
    scene.canvas.draw(first, 0, inside, index, 236, far, 100_000 * HOUSE + 99_999)


def _pattern(kind: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a pavement shows its second colour; x and y count half metres."""
    if kind == 0:
        return np.asarray((x // 2 + y // 2) % 2 == 0)
    if kind == 1:
        return np.asarray((x + 2 * y) % 6 < 2)
    if kind == 2:
        return np.asarray((y + np.abs(x % 8 - 4)) % 4 < 2)
    return np.asarray((x % 5 == 0) | (y % 5 == 0))


def _between_rows(row: int, at: FloatArray) -> FloatArray:
    """A row of the texture at places between its columns."""
    line = texture()[row]
    k = np.floor(at).astype(np.int64)
    share = at - k
    return line[k % SIDE] * (1 - share) + line[(k + 1) % SIDE] * share
