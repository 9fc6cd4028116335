"""A figure of photos with their nearest references, and where all their neighbours are, under the density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from geoloc.evaluation.explaining.neighbourhoods import Neighbourhoods
from geoloc.reports.cell_figures import draw_photo
from geoloc.reports.pages import kilometres
from geoloc.reports.photo_figures import jpeg, land_axes
from geoloc.reports.style import ERROR_COLOURS, INK, drawing, new_figure
from geoloc.retrieval.density import density_at

SHOWN = 4
"""Nearest references shown beside each photo."""
_GRID = 1.5  # degrees
_FAINT = 0.01  # of the highest density: less is not drawn


def neighbourhood_figure(found: Neighbourhoods, photos: Mapping[str, bytes]) -> bytes:
    """A row per photo, as JPEG (Revisiting IM2GPS, figure 7): the photo, its nearest references, and on the world all
    neighbours, their density, the answer and where the photo was taken.

    `photos` are JPEG or PNG bytes by photo_id; a photo without bytes is an empty frame. Raises ValueError for none.
    """
    if found.photos.empty:
        raise ValueError("no photo has neighbours: there is nothing to show")
    with drawing():
        figure = new_figure(10.2, 1.72 * len(found.photos) + 0.1)
        rows = figure.subfigures(len(found.photos), 1, squeeze=False)[:, 0]
        for row, photo in zip(rows, found.photos.itertuples(), strict=True):
            _, below = row.subfigures(2, 1, height_ratios=(0.05, 1))
            left, right = below.subfigures(1, 2, width_ratios=(1.3 * (1 + SHOWN), 3.7))
            frames = left.subplots(1, 1 + SHOWN)
            draw_photo(frames[0], photos.get(str(photo.photo_id)))
            frames[0].set_title("the photo", fontsize=8.5)
            mine = found.neighbours[found.neighbours["photo_id"] == photo.photo_id]
            for axes, near in zip(frames[1:], mine.head(SHOWN).itertuples(), strict=False):
                draw_photo(axes, photos.get(str(near.neighbour)))
                axes.set_title(f"{near.similarity:.2f}", fontsize=8.5, fontweight="normal")
            for axes in frames[1 + len(mine) :]:
                axes.set_visible(False)
            _world(right, photo, mine, found.sigma)
        return jpeg(figure)


def _world(figure: Figure | SubFigure, photo: Any, mine: pd.DataFrame, sigma: float) -> None:
    truth = float(photo.true_latitude), float(photo.true_longitude)
    axes = land_axes(figure, min(mine["latitude"].min(), truth[0]))
    latitude, longitude = np.arange(-88.5, 86, _GRID), np.arange(-180 + _GRID / 2, 180, _GRID)
    grid = np.meshgrid(latitude, longitude, indexing="ij")
    # A kernel narrower than the grid would fall between its points.
    density = density_at(
        grid[0].ravel(),
        grid[1].ravel(),
        mine["latitude"],
        mine["longitude"],
        mine["weight"],
        max(sigma, 1.5 * _GRID),
    ).reshape(grid[0].shape)
    shown = np.ma.masked_less(density / max(density.max(), 1e-300), _FAINT)
    axes.imshow(
        shown, extent=(-180, 180, latitude[0] - _GRID / 2, latitude[-1] + _GRID / 2), origin="lower",
        cmap="YlOrRd", alpha=0.75, vmin=0, vmax=1, zorder=2, aspect="auto",
    )  # fmt: skip
    axes.set_xlim(-180, 180)
    axes.scatter(
        mine["longitude"], mine["latitude"], marker="*", s=14, color=ERROR_COLOURS[0], linewidths=0, zorder=3
    )
    axes.scatter(truth[1], truth[0], s=85, facecolors="none", edgecolors="#12805c", linewidths=1.8, zorder=5)
    axes.scatter(
        photo.longitude, photo.latitude, marker="*", s=90, color=ERROR_COLOURS[-1], edgecolors="white",
        linewidths=0.7, zorder=6,
    )  # fmt: skip
    axes.set_title(f"{kilometres(photo.error_km)} km off", fontsize=8.5, fontweight="normal", color=INK)
