"""Draws upright things that face the camera: trees, monuments, the city's tower, signs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.canvas import MONUMENT, SIGN, TOWER, TREE
from geoloc.sample.hashing import choice, uniform
from geoloc.sample.looks import TREES
from geoloc.sample.noise import SIDE, window
from geoloc.sample.scene import Scene
from geoloc.sample.towers import Tower, tower_of

FloatArray = NDArray[np.float64]

_TOWER_REACH_M = 2500.0


def draw_trees(scene: Scene) -> None:
    """Draw the trees in view, in the shape of the climate."""
    trees = scene.around.trees
    right, ahead = scene.camera.seen_from(trees.p, trees.q)
    trunk, leaf = scene.canvas.add([84, 62, 44]), scene.canvas.add(scene.season[0])
    shape = TREES[scene.look.tree_kind]
    for k in _in_view(scene, right, ahead, trees.radius * 1.4, nearest=1.6):
        # In every climate some trees are of another kind, chosen by their number.
        kind = shape if int(trees.number[k] % np.uint64(5)) else "round"
        low = kind == "scrub"
        height, radius = float(trees.height[k]) * (0.35 if low else 1), float(trees.radius[k])
        _draw_tree(scene, k, kind, float(right[k]), float(ahead[k]), radius, height, trunk, leaf)


def _draw_tree(
    scene: Scene, k: int, kind: str, x: float, z: float, radius: float, height: float, trunk: int, leaf: int
) -> None:
    patch = _patch(scene, x, z, radius, height)
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
    top, side = (int(choice(SIDE, int(scene.around.trees.number[k] % np.uint64(2**31)), n)) for n in (1, 2))
    speckle = window(crown.shape[0], crown.shape[1], top, side, 3)
    crown &= speckle > 40
    shade = (196 + speckle // 2 + np.floor(40 * np.clip(v, 0, 1)).astype(np.int32)).astype(np.int16)
    scene.canvas.draw(
        first, left, crown | stem, np.where(crown, leaf, trunk).astype(np.int16), shade, z,
        100_000 * TREE + k + 1,
    )  # fmt: skip


def draw_monuments(scene: Scene) -> None:
    """Draw the monuments in view, each a small tower."""
    posts = scene.around.monuments
    right, ahead = scene.camera.seen_from(posts.p, posts.q)
    for k in _in_view(scene, right, ahead, posts.radius, nearest=2.0):
        made = tower_of(int(posts.number[k] % np.uint64(2**31 - 1)))
        _draw_tower(scene, made, float(right[k]), float(ahead[k]), float(posts.radius[k]), float(posts.height[k]),
                    100_000 * MONUMENT + k + 1)  # fmt: skip


def draw_tower(scene: Scene, tower: Tower) -> None:
    """Draw the city's landmark, if it is ahead."""
    p, q = scene.around.landmark
    right, ahead = scene.camera.seen_from(np.array([p]), np.array([q]))
    if 4 < ahead[0] < _TOWER_REACH_M:
        _draw_tower(
            scene,
            tower,
            float(right[0]),
            float(ahead[0]),
            tower.radius_m,
            tower.height_m,
            100_000 * TOWER + 1,
        )


def _draw_tower(
    scene: Scene, tower: Tower, x: float, z: float, radius: float, height: float, label: int
) -> None:
    patch = _patch(scene, x, z, radius, height)
    if patch is None:
        return
    first, left, off, y = patch
    inside, which = tower.at(off / radius, y / height)
    colours = np.array([scene.canvas.add(colour) for colour in tower.colours], np.int16)
    shade = (262 - np.floor(60 * np.abs(off / radius))).astype(np.int16)
    scene.canvas.draw(first, left, inside, colours[which], np.broadcast_to(shade, inside.shape), z, label)


def draw_signs(scene: Scene) -> None:
    """Draw boards with words in the country's script, on the city's accent colour."""
    posts = scene.around.signs
    right, ahead = scene.camera.seen_from(posts.p, posts.q)
    pole, ink = scene.canvas.add([120, 122, 126]), scene.canvas.add([248, 248, 244])
    board = scene.canvas.add(scene.look.accent * 3 // 4)
    for k in _in_view(scene, right, ahead, posts.radius, nearest=1.2):
        radius, height = float(posts.radius[k]), float(posts.height[k])
        patch = _patch(scene, float(right[k]), float(ahead[k]), radius, height)
        if patch is None:
            continue
        first, left, off, y = patch
        on_board = (y > height - 1.0) & (np.abs(off) < radius)
        stem = np.abs(off) < 0.06 + 0 * y
        letter = np.clip(np.floor((off + radius) / (2 * radius) * 16), 0, 15).astype(np.int64)
        row = np.clip(np.floor((height - 0.15 - y) / 0.7 * 6), -1, 6).astype(np.int64)
        number = int(posts.number[k] % np.uint64(2**31))
        written = on_board & _glyphs(scene.look.script, number, letter, row)
        index = np.where(written, ink, np.where(on_board, board, pole)).astype(np.int16)
        scene.canvas.draw(
            first, left, on_board | (stem & (y > 0)), index, 256, float(ahead[k]), 100_000 * SIGN + k + 1
        )


def _in_view(
    scene: Scene, right: FloatArray, ahead: FloatArray, radius: FloatArray, nearest: float
) -> list[int]:
    """Numbers of the things that can be seen, nearest first."""
    edge = float(scene.camera.across[-1]) * 1.02
    seen = (ahead > nearest) & (np.abs(right) - radius < edge * ahead)
    kept = np.flatnonzero(seen)
    return [int(k) for k in kept[np.argsort(ahead[kept], kind="stable")][:28]]


def _patch(
    scene: Scene, x: float, z: float, radius: float, height: float
) -> tuple[int, int, FloatArray, FloatArray] | None:
    """The pixels of an upright thing of half width `radius` at (x, z): first row and column, metres from its
    axis [1, w] and above its foot [h, w]. None if it is outside the photo or smaller than a pixel.
    """
    camera = scene.camera
    middle = camera.focal * x / z + camera.size / 2
    half = camera.focal * radius / z
    left, right = max(int(np.floor(middle - half)), 0), min(int(np.ceil(middle + half)), camera.size)
    if right <= left or half < 0.4:
        return None
    horizon = camera.horizon[left:right]
    up = camera.focal / z
    first = max(int(np.floor(float(horizon.min()) - (height - scene.view.eye_m) * up)), 0)
    last = min(int(np.ceil(float(horizon.max()) + scene.view.eye_m * up)), camera.size)
    if last <= first:
        return None
    rows = np.arange(first, last)[:, None] + 0.5
    off = np.asarray((np.arange(left, right) + 0.5 - middle)[None, :] / up, np.float64)
    return first, left, off, scene.view.eye_m + (horizon - rows) / up


def _glyphs(script: int, number: int, letter: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a word has ink: four letters of 3 x 6 dots with gaps. Each script has its own letters."""
    which = choice(9, number, 1, letter // 4)
    dot = uniform(7, script, which, letter % 4, row)
    # Scripts differ in density, and some have a bar along the top (as Devanagari does).
    dense = 0.35 + 0.3 * float(uniform(8, script))
    bar = (row == 0) & (script % 5 == 0) & (script > 0)
    return np.asarray((row >= 0) & (row < 6) & (letter % 4 < 3) & ((dot < dense) | bar))
