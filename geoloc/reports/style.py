"""How every figure looks, and PNG bytes that are equal for equal figures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

INK, MUTED, GRID, PAPER = "#1d2733", "#5b6773", "#dfe4ea", "#ffffff"
SEA, LAND, COAST = "#f3f6f9", "#dcdfe0", "#b4bac0"

METHOD_COLOURS = ("#0b6fb8", "#c8511b", "#12805c", "#8a4fa3", "#a87800", "#b3356b", "#3f8fb0", "#555555")
"""Dark enough on white (at least 3:1) and distinguishable when colour-blind; line styles differ as well."""
METHOD_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""The first line styles; further ones are a dash and ever more dots."""
ERROR_COLOURS = ("#0a4f8f", "#3d9bd6", "#d9a400", "#e06c1f", "#a3161a")
"""From right to wrong: blue to red by way of yellow, falling in no one's eyes into the same grey."""

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look and hash alike on every machine
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with this module's style, whatever matplotlibrc has; the caller's settings are restored."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches: pyplot, which keeps every figure in a global list, is never used."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def pixels(figure: Figure, dpi: int) -> NDArray[np.uint8]:
    """The figure drawn, uint8 [H, W, 4]. Once: `savefig` would draw it a first time for its layout."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as PNG bytes, without dates or versions."""
    stream = io.BytesIO()
    Image.fromarray(pixels(figure, dpi)).save(stream, format="png", dpi=(dpi, dpi))
    return stream.getvalue()


def bare(axes: Axes) -> None:
    """No grid, ticks or frame."""
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def method_colour(position: int) -> str:
    """The colour of the method at a position; repeats after eight, when the dashes differ."""
    return METHOD_COLOURS[position % len(METHOD_COLOURS)]


def method_dash(position: int) -> str | tuple[int, tuple[float, ...]]:
    """The line style of the method at a position: no two positions share both it and the colour."""
    rounds, styles = position // len(METHOD_COLOURS), len(METHOD_DASHES)
    # Each round of colours begins with another style; when all styles were first, new ones follow.
    number = (position + rounds) % styles + rounds // styles * styles
    return METHOD_DASHES[number] if number < styles else (0, (6, 1.5) + (1.5, 1.5) * (number - 2))
