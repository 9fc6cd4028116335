"""Season, light, sky and haze of a photo of the sample planet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.camera import Camera, View, rounded_tan
from geoloc.sample.canvas import Canvas
from geoloc.sample.hashing import choice
from geoloc.sample.looks import TREES, Look
from geoloc.sample.noise import SIDE, window

IntArray = NDArray[np.int32]

_CLEAR_M = 2600.0  # distance at which half is haze in clear air
_GREY = np.array([198, 202, 207], np.int32)  # an overcast sky


def season(look: Look, day_of_year: int, southern: bool) -> tuple[IntArray, int]:
    """Returns the colour of the leaves and the snow on the ground (0 to 255) at a place on a day.

    Winter is a triangle over the year, deepest on 15 January in the north and on 16 July in the south.
    """
    day = (day_of_year + (182 if southern else 0) - 15) % 365
    winter = abs(day - 182) * 255 // 182  # 255 in deepest winter, 0 in the middle of summer
    autumn = max(0, 60 - abs(day - 280)) * 255 // 60
    leaf = look.leaf
    if TREES[look.tree_kind] == "round":
        leaf = (leaf * (510 - autumn) + np.array([186, 112, 40]) * autumn) // 510
        bare = max(0, winter - 150) * look.cold // 255
        leaf = (leaf * (255 - bare) + np.array([112, 98, 84]) * bare) // 255
    snow = max(0, winter + look.cold - 300) * 255 // 210
    return leaf.astype(np.int32), min(snow, 255)


def in_the_air(canvas: Canvas, camera: Camera, view: View, look: Look) -> IntArray:
    """Returns the canvas with light, haze and sky: colours int32 [size, size, 3], not clipped."""
    light = daylight(view.sun_elevation, view.cloud)
    sky_top, sky_low = look.sky_top * light >> 8, look.sky_low * light >> 8
    if -4 < view.sun_elevation < 8:  # a low sun colours the lower sky
        sky_low = (sky_low * 2 + np.array([250, 170, 110])) // 3
    air = (sky_low * (255 - view.cloud) + (_GREY * light >> 8) * view.cloud) // 255
    colours = canvas.lit(light)
    visibility = _CLEAR_M / (1 + view.fog * view.fog / 1500)
    solid = np.isfinite(canvas.depth)
    depth = np.where(solid, canvas.depth, 0.0)
    haze = np.floor(256 * depth / (depth + visibility)).astype(np.int32)[:, :, None]
    colours += (air.astype(np.int32) - colours) * haze >> 8
    last = int(np.ceil(camera.horizon.max())) + 1  # no sky below the horizon
    sky = _sky(camera, view, sky_top, air, light, min(max(last, 1), camera.size))
    np.copyto(colours[: len(sky)], sky, where=~solid[: len(sky), :, None])
    return colours


def daylight(sun_elevation: float, cloud: int) -> IntArray:
    """Returns three factors (256 is 1.0) by which the light of the hour multiplies colours."""
    heights = [-90, -12, -4, 0, 5, 15, 90]
    table = np.array(
        [
            [62, 70, 118],
            [70, 80, 130],
            [130, 124, 160],
            [226, 180, 150],
            [264, 226, 186],
            [260, 252, 240],
            [262, 260, 256],
        ]
    )
    upper = int(np.searchsorted(heights, sun_elevation, side="right").clip(1, len(heights) - 1))
    low, high = heights[upper - 1], heights[upper]
    into = int(np.rint(256 * (min(max(sun_elevation, low), high) - low) / (high - low)))
    light = (table[upper - 1] * (256 - into) + table[upper] * into) >> 8
    grey = int(light.sum()) // 3
    return np.asarray((light * (510 - cloud) + grey * 226 // 256 * cloud) // 510, np.int32)


def _sky(
    camera: Camera, view: View, sky_top: IntArray, sky_low: IntArray, light: IntArray, height: int
) -> IntArray:
    """The upper `height` rows of the sky: a gradient, clouds, and the glow around the sun."""
    size = camera.size
    rows = np.arange(height)[:, None] + 0.5
    up = np.clip(np.floor((camera.horizon - rows) / camera.focal * 400), 0, 256).astype(np.int32)[:, :, None]
    sky = (sky_low * (256 - up) + sky_top * up) >> 8
    top, left = int(choice(SIDE, view.scene, 121)), int(choice(SIDE, view.scene, 122))
    cloud = ((window(height, size, top, left) - (236 - view.cloud * 3 // 4)) * 4).clip(0, 225)[:, :, None]
    white = (np.array([248, 248, 246]) if view.cloud < 170 else _GREY) * light >> 8
    sky = sky + ((white - sky) * cloud >> 8)
    off = (view.sun_azimuth - view.heading + 180) % 360 - 180
    if view.sun_elevation > -1 and abs(off) < 60 and view.cloud < 200:
        x = size / 2 + camera.focal * rounded_tan(off)
        y = float(camera.horizon[size // 2]) - camera.focal * rounded_tan(view.sun_elevation)
        far = ((np.arange(size)[None, :] + 0.5 - x) ** 2 + (rows - y) ** 2) / (camera.focal * camera.focal)
        glow = np.floor(200 * 0.006 / (0.006 + far)).astype(np.int32)[:, :, None]
        sky = sky + ((np.array([255, 246, 214]) - sky).clip(0) * glow >> 8)
    return np.asarray(sky, np.int32)
