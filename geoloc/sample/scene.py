"""A ground photo while it is drawn: what the drawing functions read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.camera import Camera, View
from geoloc.sample.canvas import Canvas
from geoloc.sample.looks import Look
from geoloc.sample.surroundings import Surroundings


@dataclass(frozen=True, eq=False)
class Scene:
    """One photo being drawn: the place, its look, the view, the camera and the canvas."""

    around: Surroundings
    look: Look
    view: View
    camera: Camera
    canvas: Canvas
    season: tuple[NDArray[np.int32], int]  # colour of leaves, and snow on the ground 0 to 255
