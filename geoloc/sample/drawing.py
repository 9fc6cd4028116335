"""Draws a shot of the sample planet: the photo, and the tile from above."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.camera import View
from geoloc.sample.ground import REACH_M, Photo, ground_photo
from geoloc.sample.hashing import mixed
from geoloc.sample.looks import look_at
from geoloc.sample.overhead import Tile, overhead_tile
from geoloc.sample.subjects import subject_picture
from geoloc.sample.surroundings import surroundings

MARGIN = 2
"""Extra pixels drawn on each side, so that the photos of a burst can be shifted as by a shaking hand."""


def draw_photo(shot: Any, size: int) -> NDArray[np.uint8]:
    """Returns the photo of a shot, uint8 [size, size, 3].

    `shot` is a row of the table of people.make_shots, with its columns as attributes. The same shot gives the same
    bytes in any process.
    """
    side = size + 2 * MARGIN
    if shot.subject == "outdoor":
        drawn = outdoor(shot, side).colours
    else:
        drawn = subject_picture(str(shot.subject), int(shot.scene), side)
    top, left = MARGIN + int(shot.shake_y), MARGIN + int(shot.shake_x)
    return _exposed(drawn[top : top + size, left : left + size], shot)


def draw_tile(shot: Any, seed: int, size: int, metres_per_pixel: float) -> NDArray[np.uint8]:
    """Returns the tile around a shot's place, uint8 [size, size, 3], north up. `seed` chooses day and sensor."""
    return tile(shot, seed, size, metres_per_pixel).picture


def outdoor(shot: Any, size: int) -> Photo:
    """Returns the scene in front of the camera, with the labels and depths of its pixels."""
    look = look_at(shot.latitude, shot.longitude, int(shot.city), shot.east_m, shot.north_m)
    around = surroundings(int(shot.city), shot.east_m, shot.north_m, REACH_M, look.left)
    view = View(
        heading=float(shot.heading),
        field_of_view=float(shot.field_of_view),
        pitch=float(shot.pitch),
        roll=float(shot.roll),
        eye_m=float(shot.eye_m),
        sun_elevation=float(shot.sun_elevation),
        sun_azimuth=float(shot.sun_azimuth),
        day_of_year=int(shot.day_of_year),
        southern=shot.latitude < 0,
        cloud=int(shot.cloud),
        fog=int(shot.fog),
        scene=int(shot.scene),
    )
    return ground_photo(around, look, view, size)


def tile(shot: Any, seed: int, size: int, metres_per_pixel: float) -> Tile:
    """Like `draw_tile`, with the labels of its pixels."""
    look = look_at(shot.latitude, shot.longitude, int(shot.city), shot.east_m, shot.north_m)
    radius = 0.75 * size * metres_per_pixel + 20  # holds the corners, and what casts a shadow into the tile
    around = surroundings(int(shot.city), shot.east_m, shot.north_m, radius, look.left)
    number = int(mixed(seed, int(shot.scene), 401) >> 33)
    return overhead_tile(around, look, shot.latitude < 0, number, size, metres_per_pixel)


def _exposed(colours: NDArray[np.int32], shot: Any) -> NDArray[np.uint8]:
    """The scene as the camera records it: exposure, colour cast, grain."""
    exposure = round(256 * float(shot.exposure))
    cast = np.array([shot.cast_r, shot.cast_g, shot.cast_b], np.int32)
    made = (colours * exposure >> 8) + cast
    amplitude = int(shot.grain)
    if amplitude:
        rng = np.random.default_rng([int(shot.scene), int(shot.shot_key), 402])
        made = made + rng.integers(-amplitude, amplitude + 1, (*made.shape[:2], 1), dtype=np.int32)
    return np.asarray(made.clip(0, 255).astype(np.uint8))
