"""Figures that explain a classifier: probabilities on a world map, most confident photos per cell, occlusion maps."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray
from PIL import Image

from geoloc.reports.photo_figures import jpeg, land_axes
from geoloc.reports.style import ERROR_COLOURS, INK, MUTED, bare, drawing, new_figure

if TYPE_CHECKING:
    from geoloc.evaluation.explaining.occlusion import (
        OcclusionMap,  # brings torch, which a report need not load
    )
    from geoloc.partitions.base import Partition

_FAINT = 1e-3  # of the largest probability: cells below this would all look alike


def probability_map(
    partition: Partition,
    probabilities: NDArray[np.float64],
    photo: bytes | None = None,
    truth: tuple[float, float] | None = None,
    answer: tuple[float, float] | None = None,
) -> bytes:
    """The probability of each cell for one photo on the world, as JPEG (PlaNet, figures 1 and 6).

    `probabilities` float [C]; `photo` (JPEG or PNG bytes) is shown beside it; `truth` and `answer` (latitude,
    longitude) are marked. Colours are logarithmic, down to a thousandth of the largest probability. Raises
    ValueError for another number of cells, a NaN (an unreadable photo has no map), or no probability above 0.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (partition.cell_count,):
        raise ValueError(f"probabilities must have shape ({partition.cell_count},), got {p.shape}")
    if np.isnan(p).any() or not p.max() > 0:
        raise ValueError("a probability map needs a photo that was read: its probabilities are NaN or all 0")
    shown = [int(cell) for cell in np.argsort(p, kind="stable") if p[cell] >= _FAINT * p.max()]
    rings = [(cell, ring[:, ::-1]) for cell in shown for ring in partition.rings(cell)]
    with drawing():
        figure = new_figure(9.2 + (3.0 if photo else 0), 4.5)
        world: Figure | SubFigure = figure
        if photo is not None:
            halves = figure.subfigures(1, 2, squeeze=False, width_ratios=(3.0, 9.2))[0]
            beside, world = halves[0].add_subplot(), halves[1]
            beside.imshow(_pixels(photo))
            bare(beside)
        axes = land_axes(world, min(ring[:, 1].min() for _, ring in rings))
        drawn = PolyCollection(
            [ring for _, ring in rings], cmap="viridis_r", norm=LogNorm(_FAINT * p.max(), p.max()),
            linewidths=0.3, edgecolors="#ffffff", alpha=0.8, zorder=2,
        )  # fmt: skip
        drawn.set_array(p[[cell for cell, _ in rings]])
        axes.add_collection(drawn)
        for place, mark, text in ((answer, "X", "answer"), (truth, "*", "taken here")):
            if place is not None:
                axes.scatter(
                    [place[1]], [place[0]], marker=mark, s=110, color=ERROR_COLOURS[-1] if mark == "X" else INK,
                    edgecolors="white", linewidths=0.9, zorder=5, label=text,
                )  # fmt: skip
        if truth is not None or answer is not None:
            axes.legend(loc="lower left", fontsize=8.5)
        bar = world.colorbar(
            drawn, ax=axes, orientation="horizontal", fraction=0.05, pad=0.02, aspect=50, shrink=0.6
        )
        bar.outline.set_visible(False)
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
        bar.ax.tick_params(labelsize=8.5)
        bar.set_label(
            f"probability of a cell (log scale); {len(shown):,} of {len(p):,} cells shown", fontsize=8.5
        )
        return jpeg(figure)


def confident_figure(
    partition: Partition,
    table: pd.DataFrame,
    photos: Mapping[str, bytes],
    names: Mapping[int, str] | None = None,
) -> bytes:
    """The most confident photos per cell, a row per cell with the cell on a world map, as JPEG (PlaNet, figure 8).

    `table` is that of `most_confident_photos`. `photos` are JPEG or PNG bytes by photo_id; a photo without bytes is an
    empty frame. `names` are the titles of cells. Raises ValueError for an empty table.
    """
    if table.empty:
        raise ValueError("no cell has a photo: there is nothing to show")
    cells = list(dict.fromkeys(int(cell) for cell in table["cell"]))
    columns = int(table["rank"].max())
    with drawing():
        figure = new_figure(3.4 + 1.55 * columns, 1.82 * len(cells) + 0.1)
        rows = figure.subfigures(len(cells), 1, squeeze=False)[:, 0]
        for row, cell in zip(rows, cells, strict=True):
            # A line of air above, or the titles of the first row touch the edge.
            _, below = row.subfigures(2, 1, height_ratios=(0.04, 1))
            left, right = below.subfigures(1, 2, width_ratios=(3.4, 1.55 * columns))
            _cell_on_the_world(left, partition, cell, (names or {}).get(cell, f"cell {cell}"))
            frames = right.subplots(1, columns, squeeze=False)[0]
            mine = table[table["cell"] == cell]
            for axes, photo in zip(frames, mine.itertuples(), strict=False):
                draw_photo(axes, photos.get(str(photo.photo_id)))
                mark = "✓" if photo.right else ""
                axes.set_title(f"{100 * photo.probability:.0f} % {mark}", fontsize=8.5, fontweight="normal")
            for axes in frames[len(mine) :]:
                axes.set_visible(False)
        return jpeg(figure)


def occlusion_figure(photo: bytes | NDArray[np.uint8], maps: Sequence[tuple[str, OcclusionMap]]) -> bytes:
    """A photo beside its occlusion maps, each with a title, as JPEG (PlaNet, figure 10).

    `photo` is the square that the network saw, JPEG or PNG bytes or uint8 [S, S, 3]. Red is where covering the photo
    lowers the probability, blue where it raises it, white no change. Raises ValueError without maps.
    """
    if not maps:
        raise ValueError("an occlusion figure needs at least one map, got none")
    pixels = _pixels(photo) if isinstance(photo, bytes) else np.asarray(photo)
    with drawing():
        figure = new_figure(2.85 + 3.35 * len(maps), 3.15)
        panels = figure.subplots(1, 1 + len(maps), width_ratios=(2.85, *(3.35,) * len(maps)))
        panels[0].imshow(pixels)
        panels[0].set_title("what the network sees\n", fontsize=8.5)
        bare(panels[0])
        for axes, (title, found) in zip(panels[1:], maps, strict=True):
            bare(axes)
            size = len(found.pixels)
            extent = (0, size, size, 0)
            axes.imshow(pixels.mean(axis=2), cmap="gray", extent=extent, vmin=0, vmax=255)
            reach = max(float(np.abs(found.pixels - found.whole).max()), 1e-6)
            shown = axes.imshow(
                found.pixels, cmap="RdBu", extent=extent, alpha=0.66,
                norm=TwoSlopeNorm(found.whole, found.whole - reach, found.whole + reach),
            )  # fmt: skip
            bar = figure.colorbar(shown, ax=axes, fraction=0.046, pad=0.03)
            bar.outline.set_visible(False)
            ends = (float(found.pixels.min()), float(found.pixels.max()))
            bar.set_ticks([found.whole, *(end for end in ends if abs(end - found.whole) > 0.2 * reach)])
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _per_cent(value)))
            bar.ax.tick_params(labelsize=8)
            axes.set_title(f"{title}\n{_per_cent(found.whole)} with nothing covered", fontsize=8.5)
        return jpeg(figure)


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _cell_on_the_world(figure: Figure | SubFigure, partition: Partition, cell: int, name: str) -> None:
    rings = [ring[:, ::-1] for ring in partition.rings(cell)]
    axes = land_axes(figure, min(ring[:, 1].min() for ring in rings))
    axes.add_collection(
        PolyCollection(
            rings, facecolors=ERROR_COLOURS[0], edgecolors=ERROR_COLOURS[0], linewidths=0.8, zorder=3
        )
    )
    middle = np.concatenate(rings).mean(axis=0)
    # A small cell would be an invisible dot.
    axes.scatter(
        middle[0], middle[1], s=260, facecolors="none", edgecolors=ERROR_COLOURS[-1], linewidths=1.1, zorder=4
    )
    axes.set_title(name, fontsize=9)


def draw_photo(axes: Axes, data: bytes | None) -> None:
    """Draw a photo from its bytes; a frame that says so without any."""
    bare(axes)
    if data is None:
        axes.text(0.5, 0.5, "no bytes", ha="center", va="center", fontsize=8, color=MUTED)
        return
    axes.imshow(_pixels(data, 240))


def _pixels(data: bytes, side: int = 480) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        return np.asarray(small)
