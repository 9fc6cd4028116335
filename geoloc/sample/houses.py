"""The houses of a ground photo: walls, roofs, windows and shops."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.camera import NORMALS, Face, roof_rise, visible_faces
from geoloc.sample.canvas import HOUSE
from geoloc.sample.hashing import choice
from geoloc.sample.scene import Scene

FloatArray = NDArray[np.float64]

_FLOOR_M = 3.0


@dataclass(frozen=True)
class _Paint:
    """Palette entries shared by all houses."""

    glass: int
    lamp: int
    awning: int


def draw_houses(scene: Scene) -> None:
    """Draw the walls and roofs in view, nearest first."""
    houses, size = scene.around.houses, scene.camera.size
    palette: dict[int, tuple[int, int]] = {}
    paint = _Paint(
        scene.canvas.add([52, 58, 70]),
        scene.canvas.add([250, 214, 130], shining=True),
        scene.canvas.add(scene.look.accent),
    )
    # `cover` has, for each column, the row up to which a wall hides it, and the depth of that wall. Whatever is behind
    # it and ends lower cannot be seen and is not drawn.
    cover, cover_z = np.full(size, float(size)), np.zeros(size)
    for face in visible_faces(houses, scene.camera):
        at = slice(face.first, face.last)
        t, horizon = scene.camera.across[at], scene.camera.horizon[at]
        z, along = face.met_by(t)
        height, number = (
            float(houses.height[face.house]),
            int(houses.number[face.house] & np.uint64(2**31 - 1)),
        )
        peak = height + roof_rise(scene.look.roof_kind, along / face.length, face.end, height, number)
        scale = scene.camera.focal / z
        top = horizon - (peak - scene.view.eye_m) * scale
        if not np.any((top < cover[at]) | (z < cover_z[at])):
            continue
        if face.house not in palette:
            palette[face.house] = _house_colours(scene, number)
        _draw_face(scene, face, top, z, along, height, number, palette[face.house], paint)
        wall = horizon - (height - scene.view.eye_m) * scale
        better = wall < cover[at]
        cover[at], cover_z[at] = np.where(better, wall, cover[at]), np.where(better, z, cover_z[at])


def _house_colours(scene: Scene, number: int) -> tuple[int, int]:
    look = scene.look
    vary = 226 + int(choice(60, number, 1))
    wall = look.walls[int(choice(3, number, 2))] * vary >> 8
    roof = look.roof * (226 + int(choice(60, number, 3))) >> 8
    if scene.season[1] > 110:
        roof = (roof + 2 * np.array([232, 236, 242])) // 3
    return scene.canvas.add(wall), scene.canvas.add(roof)


def _draw_face(
    scene: Scene,
    face: Face,
    top: FloatArray,
    z: FloatArray,
    along: FloatArray,
    height: float,
    number: int,
    colours: tuple[int, int],
    paint: _Paint,
) -> None:
    camera, look = scene.camera, scene.look
    horizon = camera.horizon[face.first : face.last]
    base = horizon + scene.view.eye_m * camera.focal / z
    first, last = max(int(top.min()), 0), min(int(np.ceil(base.max())), camera.size)
    if last <= first:
        return
    rows = np.arange(first, last)[:, None] + 0.5
    inside = (rows > top) & (rows <= base)
    y = scene.view.eye_m + (horizon - rows) * (z / camera.focal)
    index = np.where(y > height, np.int16(colours[1]), np.int16(colours[0]))
    storey = y / _FLOOR_M
    storey_part = storey - np.floor(storey)
    bay = along / (look.window_pitch / 100)
    bay_part = bay - np.floor(bay)
    glass = (storey_part > 0.3) & (storey_part < 0.77) & (y > _FLOOR_M) & (y < height - 0.4)
    glass &= (bay_part > 0.25) & (bay_part < 0.25 + look.window_width / look.window_pitch)
    if scene.view.sun_elevation < -3:
        room = np.floor(bay) + 31 * np.floor(storey) + number % 97
        index = np.where(glass & (room * 7919 % 10 < 4), np.int16(paint.lamp), index)
        glass &= room * 7919 % 10 >= 4
    index[glass] = paint.glass
    if scene.around.density > 0.35 and number % 3 == 0:  # a shop
        index[(y > 2.3) & (y < 2.9)] = paint.awning
        index[(y > 0.3) & (y <= 2.3) & (bay_part < 0.8)] = paint.glass
    scene.canvas.draw(
        first, face.first, inside, index, _wall_shade(scene, NORMALS[face.side]),
        np.broadcast_to(z, inside.shape), 100_000 * HOUSE + face.house + 1,
    )  # fmt: skip


def _wall_shade(scene: Scene, normal: tuple[float, float]) -> int:
    """Shade of a wall: brighter where the sun falls on it. `normal` is p, q of the wall's outward direction."""
    view = scene.view
    if view.sun_elevation <= 0:
        return 236
    angle = np.radians(view.sun_azimuth - scene.around.plan.turn)
    facing = float(np.rint((np.sin(angle) * normal[0] + np.cos(angle) * normal[1]) * 256) / 256)
    strength = 70 * (255 - view.cloud) // 255 + 14
    return 236 + int(np.floor(strength * max(facing, -0.5)))
