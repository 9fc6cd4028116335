"""Draws one photo of a made-up place, in whole-number arithmetic: sky, hills, houses, trees, road, pavement."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.looks import ROOFS, TREES, IntArray, Looks

MARGIN = 4  # a scene is drawn this much larger on each side, so that a burst can shake
_FULL = 256  # fixed point: 256 is one


@dataclass(frozen=True)
class Shot:
    """What a single photo adds to its place."""

    scene: tuple[int, ...]  # seed of the scene: two photos of a burst share it
    grain: tuple[int, ...]  # seed of this exposure
    hour: int  # 0 to 23, local
    urban: int  # 0 to 255
    indoor: bool
    shake: tuple[int, int] = (0, 0)  # pixels, within MARGIN


def draw(look: Looks, row: int, shot: Shot, size: int) -> NDArray[np.uint8]:
    """The photo as uint8 [size, size, 3], for place `row` of `look`. The same arguments give the same bytes."""
    rng = np.random.default_rng(shot.scene)
    side = size + 2 * MARGIN
    canvas = _indoor(look, row, side, rng) if shot.indoor else _outdoor(look, row, shot, side, rng)
    top, left = MARGIN + shot.shake[0], MARGIN + shot.shake[1]
    picture = canvas[top : top + size, left : left + size]

    grain = np.random.default_rng(shot.grain)
    exposure = int(grain.integers(244, 268))
    noise = grain.integers(-5, 6, (size, size, 1), dtype=np.int32)
    return ((picture * exposure >> 8) + noise).clip(0, 255).astype(np.uint8)


def _outdoor(look: Looks, row: int, shot: Shot, side: int, rng: np.random.Generator) -> IntArray:
    """A street or a landscape, int32 [side, side, 3]."""
    horizon = int(rng.integers(side * 42 // 100, side * 64 // 100))
    y, x = np.arange(side, dtype=np.int32)[:, None], np.arange(side, dtype=np.int32)[None, :]
    canvas = np.empty((side, side, 3), np.int32)
    _sky(canvas, look, row, horizon, rng)
    _hills(canvas, look, row, horizon, y, rng)
    _ground(canvas, look, row, horizon, rng)
    night = shot.hour < 6 or shot.hour > 20
    if shot.urban > 70:
        if rng.integers(0, 4) > 0:
            _road(canvas, look, row, horizon, y, x, rng)
        for _ in range(int(rng.integers(2, 4 + shot.urban // 40))):
            _house(canvas, look, row, horizon, shot.urban, night, rng)
        if rng.integers(0, 3) > 0:
            _pavement(canvas, look, row, y, x, rng)
    elif rng.integers(0, 2):
        _house(canvas, look, row, horizon, 0, night, rng)  # a farm
    many = (int(look.green[row]) * int(rng.integers(1, 9)) + 128) // 255
    for _ in range(many + (shot.urban <= 70)):
        _tree(canvas, look, row, horizon, rng)
    return canvas * _light(shot.hour, rng) >> 8


def _sky(canvas: IntArray, look: Looks, row: int, horizon: int, rng: np.random.Generator) -> None:
    t = (np.arange(horizon, dtype=np.int32) * _FULL // horizon)[:, None]
    column = (look.sky_top[row] * (_FULL - t) + look.sky_low[row] * t) >> 8
    overcast = int(rng.integers(0, 256)) < int(look.cloud[row]) // 2
    cover = int(rng.integers(0, 90)) + int(look.cloud[row]) // 2 + (90 if overcast else 0)
    texture = _texture(horizon, canvas.shape[1], rng)
    alpha = ((texture - (232 - cover)) * 4).clip(0, 225)[:, :, None]
    cloud = np.array([196, 200, 206] if overcast else [246, 246, 244], np.int32)
    canvas[:horizon] = column[:, None, :] + ((cloud - column[:, None, :]) * alpha >> 8)


def _hills(
    canvas: IntArray, look: Looks, row: int, horizon: int, y: IntArray, rng: np.random.Generator
) -> None:
    side = canvas.shape[1]
    for layer in range(2):
        height = int(look.relief[row]) * (70 - 25 * layer) // 100 * side // 320 + 3
        ridge = _texture(1, side, rng, stretch=3 + layer)[0]
        top = horizon - (ridge * height >> 7).astype(np.int32)
        inside = (y >= top[None, :]) & (y < horizon)
        haze = 130 - 60 * layer
        colour = (look.rock[row] * (_FULL - haze) + look.sky_low[row] * haze) >> 8
        if layer:
            colour = (colour + look.leaf[row] * 2) // 3
        canvas[inside] = colour
        if not layer and look.snow[row] > 40:
            caps = inside & (y < top[None, :] + int(look.snow[row]) * height // 400)
            canvas[caps] = (236, 240, 246)


def _ground(canvas: IntArray, look: Looks, row: int, horizon: int, rng: np.random.Generator) -> None:
    rows, side = canvas.shape[0] - horizon, canvas.shape[1]
    t = (np.arange(rows, dtype=np.int32) * 90 // rows)[:, None, None]
    texture = (_texture(rows, side, rng) - 128)[:, :, None]
    shade = 236 - t + (texture * int(rng.integers(20, 60)) >> 7)
    canvas[horizon:] = look.ground[row] * shade >> 8
    if rng.integers(0, 6) == 0:  # water before the hills
        depth = int(rng.integers(rows // 8 + 1, rows // 2 + 2))
        ripple = (_texture(depth, side, rng, stretch=4) >> 3)[:, :, None]
        canvas[horizon : horizon + depth] = (look.sky_top[row] * 3 + look.sky_low[row]) // 5 + ripple


def _road(
    canvas: IntArray, look: Looks, row: int, horizon: int, y: IntArray, x: IntArray, rng: np.random.Generator
) -> None:
    side = canvas.shape[1]
    down = y - horizon
    half = down * int(rng.integers(50, 110)) >> 7
    middle = side // 2 + int(rng.integers(-side // 4, side // 4)) + (down * int(rng.integers(-60, 60)) >> 7)
    across = np.abs(x - middle)
    on = (down > 0) & (across < half)
    grey = int(rng.integers(76, 112))
    canvas[on] = (grey, grey, grey + 4)
    dash = (down > 0) & ((4096 // (down.clip(0) + 6) + int(rng.integers(0, 64))) % 48 < 30)
    canvas[on & dash & (across * 12 < half)] = look.line[row]


def _house(
    canvas: IntArray,
    look: Looks,
    row: int,
    horizon: int,
    urban: int,
    night: bool,
    rng: np.random.Generator,
) -> None:
    side = canvas.shape[1]
    near = int(rng.integers(2, 18))
    width = int(rng.integers(13, 26)) + near
    tall = int(rng.integers(12, 22 + urban * side // 450)) + near
    left = int(rng.integers(-8, side - 8))
    base = horizon + near
    top = max(base - tall, 3)
    colour = (look.wall[row] * int(rng.integers(205, 285)) >> 8) + rng.integers(-14, 15, 3, dtype=np.int32)
    _roof(canvas, look, row, left, left + width, top, rng)
    wall = canvas[top:base, max(left, 0) : max(left + width, 0)]
    wall[:] = colour
    shadow = max(width // 5, 1)
    wall[:, -shadow:] = colour * 190 >> 8
    pitch = int(look.window_pitch[row])
    high, wide = ((pitch // 2, pitch // 2), (pitch * 3 // 4, pitch // 3 + 1), (pitch // 3, pitch - 1))[
        int(look.window_shape[row])
    ]
    v, u = np.arange(wall.shape[0])[:, None] - 2, np.arange(wall.shape[1])[None, :] - 2
    window = (v >= 0) & (v % pitch < high) & (u >= 0) & (u % pitch < wide)
    if night:
        lit = ((v // pitch * 7 + u // pitch * 13 + near) % 3) > 0
        wall[window & lit] = (480, 430, 260)
        window = window & ~lit
    wall[window] = (58, 66, 82)


def _roof(
    canvas: IntArray, look: Looks, row: int, left: int, right: int, top: int, rng: np.random.Generator
) -> None:
    """The roof over a wall from `left` to `right` whose upper edge is `top`; outside the canvas it is cut."""
    kind = ROOFS[int(look.roof_kind[row])]
    colour = (look.roof[row] * int(rng.integers(220, 276)) >> 8).astype(np.int32)
    width, side = right - left, canvas.shape[1]
    high = {"flat": 2, "gable": width // 2, "dome": width // 2, "tiered": width * 2 // 3, "spire": width}[
        kind
    ]
    upper, begin, end = max(top - high, 0), max(left - 4, 0), min(right + 4, side)
    if upper >= top or begin >= end:
        return
    up = top - np.arange(upper, top, dtype=np.int32)[:, None]  # rows above the wall, 1 at its edge
    off = np.abs(
        2 * np.arange(begin, end, dtype=np.int32)[None, :] - (left + right - 1)
    )  # twice from the middle
    if kind == "flat":
        inside = off <= width + 2
    elif kind == "gable":
        inside = off <= (width + 4) * (high - up + 1) // high
    elif kind == "dome":
        inside = off * off + 4 * up * up <= width * width
    elif kind == "tiered":
        step = max(high // 3, 1)
        tier, within = (up - 1) // step, (up - 1) % step
        inside = off <= (width + 7) * (4 - tier) // 4 - 3 * within
    else:
        inside = off <= np.maximum(width * (high - 2 * up) // high, width * (high - up) // (high * 4))
    canvas[upper:top, begin:end][np.broadcast_to(inside, (top - upper, end - begin))] = colour


def _tree(canvas: IntArray, look: Looks, row: int, horizon: int, rng: np.random.Generator) -> None:
    side = canvas.shape[0]
    near = int(rng.integers(2, 34))
    tall = 9 + near * int(rng.integers(60, 110)) // 80
    middle, base = int(rng.integers(0, side)), min(horizon + near, side - 1)
    kind = TREES[int(look.tree_kind[row])]
    if kind == "scrub":
        tall = tall // 3 + 2
    upper, begin, end = max(base - tall, 0), max(middle - tall, 0), min(middle + tall, side)
    v = base - np.arange(upper, base, dtype=np.int32)[:, None]  # above the foot
    u = np.arange(begin, end, dtype=np.int32)[None, :] - middle
    patch = canvas[upper:base, begin:end]
    if kind == "conifer":
        crown = (v > tall // 6) & (np.abs(u) * 3 <= (tall - v) + (tall - v) % 5)
    elif kind == "round":
        crown = (3 * u) ** 2 + (2 * v - tall * 13 // 10) ** 2 <= (tall * 7 // 10) ** 2
    elif kind == "palm":
        leaf_row = tall * 8 // 10
        drop = np.abs(v - leaf_row + np.abs(u) // 2)
        crown = (np.abs(u) <= tall // 3) & ((drop <= 1) | (np.abs(v - leaf_row - np.abs(u) // 3) <= 1))
    else:
        crown = (u * u + (2 * v) ** 2) <= tall * tall
    trunk = (np.abs(u) <= tall // 22) & (v <= tall * 3 // 4)
    patch[np.broadcast_to(trunk, crown.shape)] = (84, 62, 44)
    colour = look.leaf[row] * int(rng.integers(190, 290)) >> 8
    speckle = (_texture(crown.shape[0], crown.shape[1], rng) >> 2)[:, :, None] - 32
    patch[crown] = (colour + speckle)[crown]


def _pavement(
    canvas: IntArray, look: Looks, row: int, y: IntArray, x: IntArray, rng: np.random.Generator
) -> None:
    """The city's own pavement along the lower edge."""
    side = canvas.shape[0]
    rows = int(rng.integers(side // 12, side // 5))
    v, u = y[:rows], x + int(rng.integers(0, 16))
    pattern = int(look.pavement[row])
    if pattern == 0:
        first = ((u // 6) + (v // 4)) % 2 == 0
    elif pattern == 1:
        first = ((u + v * 2) // 5) % 3 > 0
    elif pattern == 2:
        first = (v + np.abs(u % 16 - 8) // 2) // 3 % 2 == 0
    else:
        first = (u % 9 > 1) & ((v + u // 9 * 3) % 6 > 0)
    canvas[side - rows :] = np.where(first[:, :, None], look.pavement_a[row], look.pavement_b[row])


def _indoor(look: Looks, row: int, side: int, rng: np.random.Generator) -> IntArray:
    """A room: it tells little of its place, like most photos taken indoors."""
    wall = int(rng.integers(120, 225)) + rng.integers(-28, 29, 3, dtype=np.int32)
    canvas = np.empty((side, side, 3), np.int32)
    canvas[:] = wall
    floor = int(rng.integers(side * 60 // 100, side * 85 // 100))
    canvas[floor:] = int(rng.integers(60, 140)) + rng.integers(-10, 11, 3) + (22, 6, -14)
    canvas[:] = canvas * (216 + (_texture(side, side, rng) >> 2))[:, :, None] >> 8
    for _ in range(int(rng.integers(2, 7))):  # furniture and pictures
        top, left = int(rng.integers(0, side - 24)), int(rng.integers(0, side - 16))
        high, wide = rng.integers(10, 52, 2).tolist()
        thing = int(rng.integers(30, 220)) + rng.integers(-40, 41, 3, dtype=np.int32)
        canvas[top : top + high, left : left + wide] = thing
    if rng.integers(0, 2):  # a window
        top, left = int(rng.integers(6, side // 3)), int(rng.integers(6, side * 2 // 3))
        canvas[top : top + 36, left : left + 28] = look.sky_low[row]
        canvas[top + 24 : top + 36, left : left + 28] = look.wall[row]
        canvas[top : top + 36, left + 13 : left + 15] = 240
    return canvas


def _light(hour: int, rng: np.random.Generator) -> IntArray:
    """Colour of the light at an hour, fixed point [3], with some weather in it."""
    hours = np.array([0, 5, 7, 9, 12, 16, 18, 19, 21, 23])
    colours = np.array(
        [[84, 92, 140], [96, 100, 146], [262, 222, 184], [256, 250, 240], [260, 260, 256], [258, 254, 244],
         [272, 226, 176], [220, 170, 160], [110, 108, 152], [84, 92, 140]]
    )  # fmt: skip
    later = int(np.searchsorted(hours, hour, side="right").clip(1, len(hours) - 1))
    span, into = int(hours[later] - hours[later - 1]), hour - int(hours[later - 1])
    colour: IntArray = ((colours[later - 1] * (span - into) + colours[later] * into) // span).astype(np.int32)
    return (colour * int(rng.integers(226, 276)) >> 8).astype(np.int32)


@cache
def _noise() -> IntArray:
    """A 512 x 512 texture of values 0 to 255 that wraps: four octaves of value noise, in whole numbers."""
    rng = np.random.default_rng(7)
    total = np.zeros((512, 512), np.int32)
    for cells, weight in ((8, 8), (16, 4), (32, 2), (64, 1)):
        step = 512 // cells
        corner = rng.integers(0, 256, (cells, cells), dtype=np.int32)
        at, t = np.arange(512) // step, (np.arange(512, dtype=np.int32) % step) * _FULL // step
        t = (t * t * (3 * _FULL - 2 * t) // (_FULL * _FULL)).astype(np.int32)  # smooth step
        rows: IntArray = corner[at] * (_FULL - t)[:, None] + corner[(at + 1) % cells] * t[:, None]
        both: IntArray = rows[:, at] * (_FULL - t)[None, :] + rows[:, (at + 1) % cells] * t[None, :]
        total += weight * (both >> 16)
    return (total // 15).astype(np.int32)


def _texture(height: int, width: int, rng: np.random.Generator, stretch: int = 1) -> IntArray:
    """A random window [height, width] of the noise, values 0 to 255; `stretch` makes it rougher along x."""
    top, left = rng.integers(0, 512, 2).tolist()
    rows = (np.arange(height) + top) % 512
    columns = (np.arange(width) * stretch + left) % 512
    return _noise()[rows[:, None], columns[None, :]]
