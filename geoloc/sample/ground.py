"""Draws a ground photo: the surroundings of a place in perspective, with sky and light.

The camera is a pinhole at `eye_m` above the plane. With f the focal length in pixels and t = (column - middle) / f, a
point z metres ahead and t z to the right is in that column; its height above the eye is (horizon - row) z / f. Pitch
moves the horizon, roll tilts it. Upright things are drawn column by column against a depth buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.air import in_the_air, season
from geoloc.sample.backdrop import draw_far_houses, draw_ground, draw_ridge
from geoloc.sample.camera import Camera, View
from geoloc.sample.canvas import Canvas
from geoloc.sample.houses import draw_houses
from geoloc.sample.looks import Look
from geoloc.sample.scene import Scene
from geoloc.sample.surroundings import Surroundings
from geoloc.sample.towers import tower_of
from geoloc.sample.upright import draw_monuments, draw_signs, draw_tower, draw_trees

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]

REACH_M = 170.0
"""Distance up to which houses and trees are drawn."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A drawn photo: colours int32 [size, size, 3] before exposure; label and depth of each pixel (see canvas)."""

    colours: IntArray
    label: IntArray
    depth: FloatArray


def ground_photo(around: Surroundings, look: Look, view: View, size: int) -> Photo:
    """Returns what `view` sees from the middle of `around`. Pure: the same arguments give the same bytes."""
    camera = Camera.of(view, float(around.plan.turn), size)
    canvas = Canvas(size, size)
    scene = Scene(around, look, view, camera, canvas, season(look, view.day_of_year, view.southern))
    draw_ground(scene)
    draw_ridge(scene)
    draw_far_houses(scene)
    draw_houses(scene)
    draw_trees(scene)
    draw_monuments(scene)
    draw_signs(scene)
    draw_tower(scene, tower_of(int(around.plan.city)))
    return Photo(in_the_air(canvas, camera, view, look), canvas.label, canvas.depth)
