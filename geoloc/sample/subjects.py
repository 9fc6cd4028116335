"""Pictures without a cue to their place: rooms, food, pets and portraits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.hashing import choice, mixed, uniform
from geoloc.sample.noise import SIDE, window

SUBJECTS = ("outdoor", "indoor", "food", "pet", "portrait")

IntArray = NDArray[np.int32]


def subject_picture(subject: str, scene: int, size: int) -> IntArray:
    """Returns a picture of a subject, int32 [size, size, 3], before exposure. It depends on the scene number alone."""
    draw = {"indoor": _room, "food": _food, "pet": _pet, "portrait": _portrait}
    return draw[subject](scene, size)


def _room(scene: int, size: int) -> IntArray:
    canvas = _backdrop(scene, size, 120, 225)
    floor = size * int(60 + choice(25, scene, 1)) // 100
    canvas[floor:] = canvas[floor:] * 150 >> 8
    for k in range(2 + int(choice(5, scene, 2))):  # furniture and pictures
        top, left = (int(choice(size - 20, scene, 3, k, axis)) for axis in (0, 1))
        high, wide = (int(10 + choice(42, scene, 4, k, axis)) for axis in (0, 1))
        canvas[top : top + high, left : left + wide] = _colour(scene, 5, k)
    return canvas


def _food(scene: int, size: int) -> IntArray:
    canvas = _backdrop(scene, size, 60, 170)
    middle = [size * (0.5 + 0.4 * (float(uniform(scene, 6, axis)) - 0.5)) for axis in (0, 1)]
    plate = size * (0.22 + 0.22 * float(uniform(scene, 7)))
    _ellipse(canvas, middle, plate, plate * 0.8, np.array([236, 236, 232]))
    _ellipse(canvas, middle, plate * 0.86, plate * 0.68, np.array([220, 220, 216]))
    for k in range(5 + int(choice(12, scene, 8))):
        at = [middle[axis] + plate * 0.9 * (float(uniform(scene, 9, k, axis)) - 0.5) for axis in (0, 1)]
        part = size * (0.03 + 0.09 * float(uniform(scene, 10, k)))
        _ellipse(canvas, at, part, part * 0.8, _colour(scene, 11, k))
    return canvas


def _pet(scene: int, size: int) -> IntArray:
    canvas = _backdrop(scene, size, 90, 210)
    coat = _colour(scene, 12, 0) * 2 // 3 + 30
    x, y = size * (0.35 + 0.3 * float(uniform(scene, 13))), size * (0.5 + 0.15 * float(uniform(scene, 14)))
    head = size * (0.16 + 0.08 * float(uniform(scene, 15)))
    _ellipse(canvas, [x, y + 1.6 * head], 1.3 * head, 1.5 * head, coat * 15 // 16)
    for side in (-1, 1):
        _ellipse(canvas, [x + side * 0.75 * head, y - 0.85 * head], 0.32 * head, 0.5 * head, coat * 3 // 4)
    _ellipse(canvas, [x, y], head, 0.9 * head, coat)
    for side in (-1, 1):
        _ellipse(
            canvas,
            [x + side * 0.38 * head, y - 0.15 * head],
            0.13 * head,
            0.13 * head,
            np.array([24, 22, 20]),
        )
    _ellipse(canvas, [x, y + 0.3 * head], 0.18 * head, 0.12 * head, np.array([60, 40, 40]))
    return canvas


def _portrait(scene: int, size: int) -> IntArray:
    canvas = _backdrop(scene, size, 70, 230)
    skin = np.array([[244, 210, 180], [224, 176, 140], [176, 124, 88], [116, 78, 56]])[
        int(choice(4, scene, 16))
    ]
    x, y = (size * (0.5 + 0.5 * (float(uniform(scene, 17, axis)) - 0.5)) for axis in (0, 1))
    head = size * (0.11 + 0.16 * float(uniform(scene, 18)))
    _ellipse(canvas, [x, y + 2.5 * head], 1.9 * head, 1.5 * head, _colour(scene, 19, 0))
    _ellipse(canvas, [x, y - 0.25 * head], 1.05 * head, 1.2 * head, _colour(scene, 20, 0) // 2)
    _ellipse(canvas, [x, y + 0.1 * head], 0.85 * head, 1.1 * head, skin)
    for side in (-1, 1):
        _ellipse(
            canvas,
            [x + side * 0.35 * head, y - 0.05 * head],
            0.11 * head,
            0.08 * head,
            np.array([30, 26, 24]),
        )
    _ellipse(canvas, [x, y + 0.6 * head], 0.3 * head, 0.09 * head, np.array([168, 84, 84]))
    return canvas


def _backdrop(scene: int, size: int, low: int, high: int) -> IntArray:
    """A wall or a table with soft spots, and a second tone beyond a slanted edge: no two pictures alike."""
    grey = low + int(choice(high - low, scene, 21))
    colour = grey + choice(56, scene, 22, [0, 1, 2]) - 28
    top, left = (int(choice(SIDE, scene, 23, axis)) for axis in (0, 1))
    shade = 150 + (window(size, size, top, left) * 5 >> 3)
    y, x = np.ogrid[:size, :size]
    slope, cross = choice(9, scene, 24, [0, 1]) - 4, int(choice(size, scene, 25)) - size // 2
    beyond = slope[0] * (x - size // 2) + slope[1] * (y - size // 2) > 4 * cross
    shade = np.where(beyond, shade * (60 + choice(80, scene, 26)) // 100, shade)
    return (colour * shade[:, :, None] >> 8).astype(np.int32)


def _colour(*keys: int) -> NDArray[np.int64]:
    number = mixed(*keys)
    return np.array([30 + int(number >> np.uint64(shift)) % 200 for shift in (8, 24, 40)])


def _ellipse(
    canvas: IntArray, middle: list[float], wide: float, high: float, colour: NDArray[np.int64]
) -> None:
    y, x = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    far = ((x - middle[0]) / wide) ** 2 + ((y - middle[1]) / high) ** 2
    inside = far <= 1
    shade = 270 - np.floor(50 * far[inside]).astype(np.int64)
    canvas[inside] = colour * shade[:, None] >> 8
