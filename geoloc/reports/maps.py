"""World maps: where answers went wrong, and the cells of a partition. Plate carrée, land in grey."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from geoloc.evaluation.result import Evaluation
from geoloc.files import atomic_path
from geoloc.land import land_rings, water_rings
from geoloc.reports.answer_map import answer_map_html
from geoloc.reports.style import COAST, ERROR_COLOURS, INK, LAND, SEA, bare, drawing, new_figure, png
from geoloc.sphere import from_vectors, unit_vectors

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

__all__ = ["answer_map_html", "error_map", "great_circles", "partition_map", "photo_map", "world_axes"]

FloatArray = NDArray[np.float64]
_MAX_LINES = 300
_SMALL_CELL = (
    2.5  # degrees: where no cell is larger, as with cities, none can be seen on a world map without a dot
)


def world_axes(figure: Figure | SubFigure, latitudes: FloatArray | None = None) -> Axes:
    """Axes with the land drawn on them; x is longitude, y latitude. Antarctica shows only where `latitudes` need it."""
    axes = figure.add_subplot()
    bare(axes)
    axes.set_facecolor(SEA)
    # add_patch would work out the limits of all curves: half of a map's time, and the limits are set here.
    axes.add_artist(PathPatch(_land(), facecolor=LAND, edgecolor=COAST, linewidth=0.25, zorder=1))
    lowest = float(np.nanmin(latitudes)) if latitudes is not None and len(latitudes) else 0.0
    axes.set_xlim(-180, 180)
    axes.set_ylim(-90 if lowest < -58 else -58, 86)
    axes.set_aspect("equal")
    return axes


def great_circles(
    latitude: FloatArray,
    longitude: FloatArray,
    to_latitude: FloatArray,
    to_longitude: FloatArray,
    points: int = 40,
) -> list[FloatArray]:
    """Shortest lines between pairs of points as (longitude, latitude) paths, cut where they cross the antimeridian.

    Antipodes, which have no one shortest line, are left out.
    """
    a, b = unit_vectors(latitude, longitude), unit_vectors(to_latitude, to_longitude)
    angle = 2 * np.arcsin(np.clip(np.linalg.norm(a - b, axis=-1) / 2, 0, 1))
    share = np.linspace(0, 1, points)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.sin((1 - share) * angle[:, None]) / np.sin(angle)[:, None]
        right = np.sin(share * angle[:, None]) / np.sin(angle)[:, None]
    path = left[..., None] * a[:, None, :] + right[..., None] * b[:, None, :]
    lat, lon = from_vectors(path)
    kept = (angle > 1e-9) & (angle < np.pi - 1e-6)
    return [piece for line in zip(lon[kept], lat[kept], strict=True) for piece in _cut(np.column_stack(line))]


def _cut(path: FloatArray) -> list[FloatArray]:
    """A (longitude, latitude) path in pieces that each end and begin at the map's edge where it goes over it."""
    pieces = []
    start: FloatArray = path[:0]
    begin = 0
    for before in np.flatnonzero(np.abs(np.diff(path[:, 0])) > 180):
        edge = float(np.copysign(180.0, path[before, 0]))
        after = path[before + 1] + [2 * edge, 0.0]  # as if the map went on beyond its edge
        share = (edge - path[before, 0]) / (after[0] - path[before, 0])
        latitude = path[before, 1] + share * (after[1] - path[before, 1])
        pieces.append(np.vstack([start, path[begin : before + 1], [[edge, latitude]]]))
        start, begin = np.array([[-edge, latitude]]), int(before) + 1
    return [*pieces, np.vstack([start, path[begin:]])]


def error_map(evaluation: Evaluation, method: str, max_lines: int = _MAX_LINES) -> bytes:
    """Where one method's answers went, as PNG: a dot where each photo was taken, a line to where it was placed.

    Colours show within which level the answer was. Of more than `max_lines` answers a sample gets lines, drawn by
    the evaluation's seed. Raises ValueError for an unknown method.
    """
    photos = evaluation.per_photo[evaluation.per_photo["method"] == method].reset_index(drop=True)
    if photos.empty:
        raise ValueError(f"method must be one of {', '.join(evaluation.methods)}; got {method!r}")
    levels = dict(list(evaluation.levels_km.items())[-4:])
    labels = [f"within {km:,g} km" for km in levels.values()] + ["farther"]
    band = np.searchsorted(list(levels.values()), photos["error_km"].to_numpy(), side="left")
    colours = ERROR_COLOURS[: len(levels)] + ERROR_COLOURS[-1:]
    answered = (photos["status"] == "answered").to_numpy()
    drawn = np.flatnonzero(answered)
    if len(drawn) > max_lines:
        drawn = np.sort(np.random.default_rng(evaluation.seed).choice(drawn, max_lines, replace=False))
    with drawing():
        figure = new_figure(9.2, 4.35)
        seen = pd.concat([photos["true_latitude"], photos["latitude"]]).to_numpy()
        axes = world_axes(figure, seen)
        for value in range(len(labels)):
            some = photos.iloc[drawn[band[drawn] == value]]
            lines = great_circles(
                *(some[c].to_numpy() for c in ("true_latitude", "true_longitude", "latitude", "longitude"))
            )
            axes.add_collection(
                LineCollection(lines, colors=colours[value], linewidths=0.45, alpha=0.32, zorder=2)
            )
        for value in reversed(range(len(labels))):  # the right ones on top: they are few and worth seeing
            here = photos[answered & (band == value)]
            axes.scatter(
                here["true_longitude"], here["true_latitude"], s=9, color=colours[value], linewidths=0.3,
                edgecolors="white", zorder=3 + len(labels) - value,
            )  # fmt: skip
        silent = photos[~answered]
        axes.scatter(
            silent["true_longitude"],
            silent["true_latitude"],
            s=14,
            marker="x",
            color=INK,
            linewidths=0.8,
            zorder=9,
        )
        counts = [int((answered & (band == value)).sum()) for value in range(len(labels))]
        marks = [_dot(c, f"{text}: {n:,}") for c, text, n in zip(colours, labels, counts, strict=True)]
        if len(silent):
            marks.append(
                Line2D([], [], linestyle="none", marker="x", color=INK, label=f"no answer: {len(silent):,}")
            )
        note = "" if len(drawn) == answered.sum() else f"   (lines for {len(drawn):,} answers drawn by lot)"
        axes.set_title(method + note, fontsize=10)
        figure.legend(
            handles=marks, loc="outside lower center", ncols=len(marks), fontsize=8.5, handletextpad=0.1
        )
        return png(figure, dpi=140)


def partition_map(partition: Partition, path: Path | str | None = None) -> bytes:
    """The cells of a partition on the world, coloured by how many photos each was fitted on, as PNG.

    Also written to `path`, atomically, where one is given.
    """
    counts = partition.photo_counts()
    rings, owner = [], []
    for cell in range(partition.cell_count):
        for ring in partition.rings(cell):
            rings.append(ring[:, ::-1])
            owner.append(cell)
    with drawing():
        figure = new_figure(9.2, 4.5)
        lowest = np.array([ring[:, 1].min() for ring in rings])
        axes = world_axes(figure, lowest)
        few = max(int(counts.min()), 1) if len(counts) else 1
        many = max(int(counts.max(initial=1)), few + 1)
        cells = PolyCollection(
            rings,
            cmap="viridis_r",
            norm=LogNorm(few, many),
            linewidths=0.35,
            edgecolors="#ffffff",
            alpha=0.72,
            zorder=2,
        )
        shown = np.maximum(counts[np.array(owner, dtype=int)], 1)
        cells.set_array(shown)
        axes.add_collection(cells)
        middles = np.array([(ring.min(axis=0) + ring.max(axis=0)) / 2 for ring in rings])
        if max(float(np.ptp(ring, axis=0).max()) for ring in rings) < _SMALL_CELL:
            norm = LogNorm(few, many)
            axes.scatter(
                middles[:, 0],
                middles[:, 1],
                s=14,
                c=shown,
                cmap="viridis_r",
                norm=norm,
                linewidths=0,
                zorder=4,
            )
        axes.add_artist(PathPatch(_land(), fill=False, edgecolor=INK, linewidth=0.3, alpha=0.55, zorder=3))
        bar = figure.colorbar(
            cells, ax=axes, orientation="horizontal", fraction=0.05, pad=0.02, aspect=50, shrink=0.6
        )
        bar.outline.set_visible(False)
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
        bar.set_label(f"photos in a cell (log scale); {partition.cell_count:,} cells", fontsize=8.5)
        data = png(figure, dpi=140)
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    return data


def photo_map(latitude: FloatArray, longitude: FloatArray) -> bytes:
    """Where N photos are, as PNG: a dot for each square degree that has any, darker and larger the more it has.

    Degrees, float64[N]; photos at unknown places are left out. Raises ValueError where none is left.
    """
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if not known.any():
        raise ValueError("photo_map needs at least one photo with coordinates, got none")
    places = pd.DataFrame({"latitude": latitude[known], "longitude": longitude[known]})
    squares = places.groupby([np.floor(places["latitude"]), np.floor(places["longitude"])], sort=True)
    # A dot is at the mean of its photos: a grid of dots would show squares, not cities.
    dots = squares.mean().assign(photos=squares.size()).sort_values("photos", kind="stable")
    many = max(int(dots["photos"].max()), 2)
    with drawing():
        figure = new_figure(9.2, 4.5)
        axes = world_axes(figure, dots["latitude"].to_numpy())
        shown = axes.scatter(
            dots["longitude"], dots["latitude"], c=dots["photos"], cmap="viridis_r", norm=LogNorm(1, many),
            s=7 + 26 * np.log(dots["photos"]) / np.log(many), linewidths=0.3, edgecolors="white", zorder=3,
        )  # fmt: skip
        bar = figure.colorbar(
            shown, ax=axes, orientation="horizontal", fraction=0.05, pad=0.02, aspect=50, shrink=0.6
        )
        bar.outline.set_visible(False)
        bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        bar.ax.xaxis.set_minor_formatter(NullFormatter())
        bar.set_label(f"photos in a square degree (log scale); {len(places):,} photos", fontsize=8.5)
        return png(figure, dpi=140)


def _land() -> Outline:
    """The land as one outline. Waters run the other way round, so filling leaves them open."""
    rings = [np.vstack([ring, ring[:1]])[:, ::-1] for ring in (*land_rings(), *water_rings())]
    return Outline.make_compound_path(*(Outline(ring, closed=True) for ring in rings))


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker="o", markersize=5.5, color=colour, label=label)
