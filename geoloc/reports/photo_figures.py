"""Figures that a page can hold many of: photos as JPEG, maps in few colours, the land drawn once for all small maps.

Bytes are equal for equal figures. As PNG a photo is several times as large; and small maps would spend their time on
drawing coasts.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from PIL import Image

from geoloc.reports.maps import world_axes
from geoloc.reports.style import bare, drawing, pixels

_WIDTH = 1440  # pixels: four a degree
_SOUTH, _NORTH = -90.0, 86.0


def jpeg(figure: Figure) -> bytes:
    """The figure as JPEG bytes, without dates or versions; colours at full resolution, so that text stays sharp."""
    stream = io.BytesIO()
    Image.fromarray(pixels(figure, 110)[..., :3]).save(stream, format="jpeg", quality=88, subsampling=0)
    return stream.getvalue()


def fewer_colours(data: bytes) -> bytes:
    """A PNG in the 256 colours that suit it best, a third of its size: for maps and lines, where none is missed."""
    with Image.open(io.BytesIO(data)) as image:
        few = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        stream = io.BytesIO()
        few.save(stream, format="png", dpi=image.info["dpi"])
    return stream.getvalue()


def land_axes(figure: Figure | SubFigure, lowest: float) -> Axes:
    """Axes as `maps.world_axes` makes them, down to Antarctica where `lowest` (a latitude) needs it, their land a
    picture."""
    axes = figure.add_subplot()
    bare(axes)
    axes.imshow(_land(), extent=(-180, 180, _SOUTH, _NORTH), interpolation="antialiased", zorder=1)
    axes.set_xlim(-180, 180)
    axes.set_ylim(_SOUTH if lowest < -58 else -58, _NORTH)
    return axes


@functools.cache
def _land() -> NDArray[np.uint8]:
    """The land as uint8 [H, W, 3], north up."""
    with drawing():
        height = round(_WIDTH * (_NORTH - _SOUTH) / 360)
        figure = Figure(figsize=(_WIDTH / 100, height / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        axes = world_axes(figure, np.array([_SOUTH]))
        axes.set_position((0, 0, 1, 1))
        axes.set_aspect("auto")
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
