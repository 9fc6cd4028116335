"""Figures of embeddings: a t-SNE map coloured by place, and the photos that excite units most."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from geoloc.reports.photo_figures import fewer_colours, jpeg, land_axes
from geoloc.reports.style import bare, drawing, new_figure, png
from geoloc.reports.thoughts import Figure, FigureGroup
from geoloc.sphere import unit_vectors


def place_colours(latitude: ArrayLike, longitude: ArrayLike) -> NDArray[np.float64]:
    """Colours of places, RGB in [0, 1] (N, 3): near places have near colours, also across the date line."""
    colours: NDArray[np.float64] = 0.08 + 0.84 * (unit_vectors(latitude, longitude) + 1) / 2
    return colours


def tsne_figure(places: pd.DataFrame) -> bytes:
    """A t-SNE map and beside it the world, each photo in the colour of its place, as PNG (dissertation, figure 2.9).

    `places` has the columns x, y, latitude, longitude. Raises ValueError for an empty table.
    """
    if places.empty:
        raise ValueError("a map of embeddings needs photos, got none")
    colours = place_colours(places["latitude"], places["longitude"])
    with drawing():
        figure = new_figure(11.0, 4.4)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(4.4, 6.6))[0]
        axes = left.add_subplot()
        bare(axes)
        axes.scatter(places["x"], places["y"], s=12, c=colours, linewidths=0)
        axes.set_aspect("equal", adjustable="datalim")
        world = land_axes(right, float(places["latitude"].min()))
        world.scatter(places["longitude"], places["latitude"], s=12, c=colours, linewidths=0, zorder=3)
        return fewer_colours(png(figure, dpi=110))


def units_figure(table: pd.DataFrame, photos: Mapping[str, bytes]) -> bytes:
    """The photos that excite units most, a row a unit, as JPEG (dissertation, figure 2.10).

    `table` is that of `exciting_photos`; `photos` are JPEG or PNG bytes by photo_id, an empty frame where they lack.
    Raises ValueError for an empty table.
    """
    if table.empty:
        raise ValueError("no unit has a photo: there is nothing to show")
    units, columns = list(dict.fromkeys(table["unit"])), int(table["rank"].max())
    with drawing():
        figure = new_figure(1.35 * columns + 0.7, 1.4 * len(units))
        panels = figure.subplots(len(units), columns, squeeze=False)
        for row, unit in zip(panels, units, strict=True):
            mine = table[table["unit"] == unit]
            for axes, photo in zip(row, mine.itertuples(), strict=False):
                bare(axes)
                data = photos.get(str(photo.photo_id))
                if data is not None:
                    with Image.open(io.BytesIO(data)) as image:
                        axes.imshow(np.asarray(image.convert("RGB")))
            for axes in row[len(mine) :]:
                axes.set_visible(False)
            row[0].set_ylabel(f"unit {unit}", fontsize=8.5)
        return jpeg(figure)


def embedding_groups(
    maps: Mapping[str, pd.DataFrame],
    units: Mapping[str, pd.DataFrame],
    picture: Callable[[str], bytes | None],
) -> tuple[FigureGroup, ...]:
    """The report's groups of these figures, by the models' names in tables; none for empty tables. `picture` gives a
    small picture of a photo, None if it has none."""

    def pictures(table: pd.DataFrame) -> dict[str, bytes]:
        found = {photo: picture(photo) for photo in dict.fromkeys(table["photo_id"].astype(str))}
        return {photo: data for photo, data in found.items() if data is not None}

    shown = [
        FigureGroup(
            "Embeddings on a map",
            "Test photos by the t-SNE of their embeddings: photos that a network finds alike are near each other. Each "
            "has the colour of its place, as on the world beside it. Where colours mix, looks do not tell the place. "
            "After Vo's dissertation, figure 2.9.",
            tuple(
                Figure(
                    f"tsne-{number}",
                    tsne_figure(table),
                    f"t-SNE of {len(table)} test photos by [{name}], coloured by place",
                    f"[{name}], {len(table)} photos.",
                )
                for number, (name, table) in enumerate(maps.items(), start=1)
                if len(table)
            ),
        ),
        FigureGroup(
            "What excites a unit",
            "Each row shows the test photos whose embedding has the largest values in one of its dimensions, each "
            "photographer once. The dimensions are those whose largest values stand out most. After Vo's "
            "dissertation, figure 2.10.",
            tuple(
                Figure(
                    f"units-{number}",
                    units_figure(table, pictures(table)),
                    f"The photos that excite {table['unit'].nunique()} units of [{name}] most",
                    f"[{name}].",
                )
                for number, (name, table) in enumerate(units.items(), start=1)
                if len(table)
            ),
        ),
    ]
    return tuple(group for group in shown if group.figures)
