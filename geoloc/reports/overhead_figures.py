"""The report's figures of cross-view matching: histograms, ranked tiles, maps of candidates, alignments."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from geoloc.evaluation.cross_view import CANDIDATES_OF, MAPPED, CrossViewEvaluation, spread_by_rank
from geoloc.evaluation.explaining.pair_maps import (
    ATTENTION,
    IMPORTANCE,
    PHOTO_VIEW,
    TILE_VIEW,
    map_of_rows,
)
from geoloc.evaluation.measures.overhead import ALL
from geoloc.reports.style import ERROR_COLOURS, INK, MUTED, bare, drawing, method_colour, new_figure, png
from geoloc.reports.thoughts import Figure, FigureGroup

RIGHT, WRONG = ERROR_COLOURS[0], ERROR_COLOURS[-1]
Read = Callable[[str], bytes | None]
"""The JPEG of a photo or tile by its id; None if it is not stored."""
_QUERIES, _RANKED = MAPPED, 6


def cross_view_group(found: CrossViewEvaluation, photo: Read, tile: Read) -> tuple[FigureGroup, ...]:
    """The section of cross-view matching."""
    figures = [
        Figure(
            "cross-view-distances",
            distances_figure(found),
            "Histograms of distances of matched and of unmatched pairs",
            "Squared distances of matched and unmatched test pairs (figure 3.9 of the dissertation).",
        )
    ]
    if found.headings["pairs"].sum():
        figures.append(
            Figure(
                "cross-view-headings",
                headings_figure(found),
                "Histogram of errors of the heading",
                "Error of the heading at the photo's own tile, by method (figure 3.15). A peak at 180 degrees is of "
                "places that look alike from both sides.",
            )
        )
    if len(found.candidates):
        figures += [
            Figure(
                "cross-view-ranked",
                ranked_figure(found, photo, tile),
                "Photos with their best tiles",
                "A photo and its best tiles among those of its city, each turned to its best rotation; the photo's own "
                "tile is framed in blue (figure 3.8). Photos are spread evenly from the best rank to the worst.",
            ),
            Figure(
                "cross-view-map",
                candidates_figure(found),
                "Maps of the candidates of photos",
                "The places of the best candidates of these photos: larger and darker dots are nearer. The cross is "
                "where the photo was taken (figure 3.11).",
            ),
        ]
        if found.pairs["heading_found"].notna().any():
            figures.append(
                Figure(
                    "cross-view-alignments",
                    alignments_figure(found, photo, tile),
                    "Photos beside their own tiles, with true and predicted headings",
                    "The photo's own tile, north up; the blue line is where the photo looks, the red one what the "
                    "network says (figure 3.16).",
                )
            )
    if len(found.maps):
        figures.append(
            Figure(
                "cross-view-attention",
                attention_figure(found, photo, tile),
                "Photos and their own tiles with maps of attention and importance",
                "Where the network looks in a photo, and in its own tile with the photo's heading at the top. "
                "Attention (brighter is more) is the length of the last feature map at each place. Importance: red "
                "where the pair is farther apart while that part is covered, blue where it is nearer (figures 3.17 and "
                "3.18).",
            )
        )
    return (
        FigureGroup(
            "Street photos and overhead tiles",
            "How photos are matched with overhead tiles of cities that the network was not trained on. After Vo's "
            "dissertation, chapter 3.",
            tuple(figures),
        ),
    )


def score_table(found: CrossViewEvaluation) -> pd.DataFrame:
    """The scores as people read them: a row a method and measure, shares in per cent with their interval."""
    rows = found.scores[found.scores["group"] == ALL]
    shares = ~rows["measure"].str.startswith("orientation")
    factor = np.where(shares, 100.0, 1.0)
    return pd.DataFrame(
        {
            "method": rows["method"],
            "measure": rows["measure"] + np.where(shares, ", %", ", degrees"),
            "value": (rows["value"] * factor).round(1),
            "interval by photographer": [
                _interval(*both) for both in zip(rows["low"] * factor, rows["high"] * factor, strict=True)
            ],
            "interval by city": [
                _interval(*both)
                for both in zip(rows["city_low"] * factor, rows["city_high"] * factor, strict=True)
            ],
            "by chance": (rows["chance"] * factor).round(1),
            "pairs": rows["n"],
        }
    )


def distances_figure(found: CrossViewEvaluation) -> bytes:
    """Distances of matched and unmatched pairs, of 1 and 16 rotations."""
    methods = [name for name in ("1 rotation", "16 rotations") if (found.distances["method"] == name).any()]
    with drawing():
        figure = new_figure(8.6, 2.8)
        for axes, method in zip(figure.subplots(1, len(methods), squeeze=False)[0], methods, strict=True):
            rows = found.distances[found.distances["method"] == method]
            for i, column in enumerate(("matched", "unmatched")):
                axes.bar(
                    rows["from"], rows[column], rows["to"] - rows["from"], align="edge", color=method_colour(i),
                    alpha=0.6, label=f"{column} pairs",
                )  # fmt: skip
            axes.set_title(method)
            axes.set_xlabel("distance, squared")
            axes.legend(fontsize=8)
        return png(figure, dpi=120)


def headings_figure(found: CrossViewEvaluation) -> bytes:
    """Signed errors of headings, a panel a method."""
    methods = [name for name, rows in found.headings.groupby("method", sort=False) if rows["pairs"].sum()]
    with drawing():
        figure = new_figure(9.2, 2.5)
        panels = figure.subplots(1, len(methods), squeeze=False, sharey=True)[0]
        for axes, method in zip(panels, methods, strict=True):
            rows = found.headings[found.headings["method"] == method]
            axes.bar(
                rows["from"], rows["pairs"], rows["to"] - rows["from"], align="edge", color=method_colour(0)
            )
            axes.set_title(method, fontsize=8.5)
            axes.set_xticks([-180, 0, 180])
        panels[0].set_ylabel("pairs")
        return png(figure, dpi=120)


def ranked_figure(found: CrossViewEvaluation, photo: Read, tile: Read) -> bytes:
    """A row a photo: the photo, and its best tiles in their best rotations."""
    shown = _shown(found)
    with drawing():
        figure = new_figure(9.2, 1.45 * len(shown))
        panels = figure.subplots(len(shown), _RANKED + 1, squeeze=False)
        for row, pair in zip(panels, shown.itertuples(), strict=True):
            _draw(row[0], photo(pair.photo_id))
            row[0].set_title(f"rank {pair.rank:.0f} of {pair.candidates:.0f}", fontsize=8)
            best = found.candidates[found.candidates["pair_id"] == pair.pair_id].head(_RANKED)
            for axes in row[1:]:
                bare(axes)
            for axes, candidate in zip(row[1:], best.itertuples(), strict=False):
                _draw(axes, tile(candidate.overhead_id), candidate.up)
                if candidate.overhead_id == pair.overhead_id:
                    for spine in axes.spines.values():
                        spine.set(visible=True, color=RIGHT, linewidth=2.5)
        return png(figure, dpi=110)


def candidates_figure(found: CrossViewEvaluation) -> bytes:
    """A panel a photo: where its best candidates are, and where it was taken."""
    shown = _shown(found)
    with drawing():
        figure = new_figure(9.2, 2.6)
        for axes, pair in zip(
            figure.subplots(1, len(shown), squeeze=False)[0], shown.itertuples(), strict=True
        ):
            best = found.candidates[found.candidates["pair_id"] == pair.pair_id]
            near = np.linspace(1, 0.15, len(best))
            axes.scatter(
                best["longitude"],
                best["latitude"],
                s=70 * near,
                c=WRONG,
                alpha=0.2 + 0.6 * near,
                linewidths=0,
            )
            own = best[best["overhead_id"] == pair.overhead_id]
            axes.scatter(own["longitude"], own["latitude"], s=110, facecolors="none", edgecolors=RIGHT)
            axes.plot(pair.longitude, pair.latitude, "+", color=INK, markersize=11, markeredgewidth=2)
            axes.set_title(str(pair.city), fontsize=8.5)
            axes.set_aspect(1 / max(float(np.cos(np.radians(pair.latitude))), 0.1))
            axes.set_xticks([])
            axes.set_yticks([])
        return png(figure, dpi=110)


def alignments_figure(found: CrossViewEvaluation, photo: Read, tile: Read) -> bytes:
    """Photos above their own tiles, with the true and the predicted heading."""
    shown = _shown(found, 6)
    shown = shown[shown["heading"].notna() & shown["heading_found"].notna()]
    with drawing():
        figure = new_figure(9.2, 3.2)
        panels = figure.subplots(2, max(len(shown), 1), squeeze=False)
        for column, pair in zip(panels.T, shown.itertuples(), strict=False):
            _draw(column[0], photo(pair.photo_id))
            side = _draw(column[1], tile(pair.overhead_id))
            for heading, colour in ((pair.heading, RIGHT), (pair.heading_found, WRONG)):
                turn = np.radians(heading)
                column[1].plot(
                    side / 2 + np.array([0, np.sin(turn)]) * side * 0.45,
                    side / 2 - np.array([0, np.cos(turn)]) * side * 0.45,
                    color=colour,
                    linewidth=2,
                )
            column[1].set_title(f"{abs(pair.heading_error):.0f}° off", fontsize=8, color=MUTED)
        return png(figure, dpi=110)


def attention_figure(found: CrossViewEvaluation, photo: Read, tile: Read) -> bytes:
    """A row a pair: the photo with its attention and importance, and its own tile with those."""
    shown = found.pairs.drop_duplicates("pair_id").set_index("pair_id")
    maps = list(found.maps.groupby("pair_id", sort=False))
    with drawing():
        figure = new_figure(9.2, 1.6 * len(maps))
        panels = figure.subplots(len(maps), 6, squeeze=False)
        for title, axes in zip(2 * ("", ATTENTION, IMPORTANCE), panels[0], strict=True):
            axes.set_title(title, fontsize=8.5)
        for row, (pair_id, of_pair) in zip(panels, maps, strict=True):
            first, pair = of_pair.iloc[0], shown.loc[pair_id]
            for axes, view, picture in (
                (row[:3], PHOTO_VIEW, _square(photo(pair["photo_id"]), first["seen"])),
                (row[3:], TILE_VIEW, _square(tile(pair["overhead_id"]), 1.0, first["up"])),
            ):
                of_view = of_pair[of_pair["view"] == view]
                _draw_maps(axes, picture, {kind: map_of_rows(one) for kind, one in of_view.groupby("map")})
        return png(figure, dpi=110)


def _draw_maps(
    axes: Sequence[Axes], picture: NDArray[np.uint8] | None, maps: dict[str, NDArray[np.float64]]
) -> None:
    """Draws a picture, and attention and importance over it in grey; the maps alone without a picture."""
    extent = (0, 1, 1, 0)
    for one in axes:
        bare(one)
        one.set_aspect("equal")
    if picture is not None:
        axes[0].imshow(picture, extent=extent)
        for one in axes[1:]:
            one.imshow(picture.mean(axis=2), cmap="gray", extent=extent, vmin=0, vmax=255)
    axes[1].imshow(maps[ATTENTION], cmap="inferno", extent=extent, alpha=0.6, interpolation="bilinear")
    reach = max(float(np.nanmax(np.abs(maps[IMPORTANCE]))), 1e-6)
    axes[2].imshow(
        maps[IMPORTANCE],
        cmap="RdBu_r",
        extent=extent,
        alpha=0.6,
        vmin=-reach,
        vmax=reach,
        interpolation="bilinear",
    )


def _square(data: bytes | None, seen: float, up: float = 0.0) -> NDArray[np.uint8] | None:
    """The middle square of a picture, `seen` of its short side, with the bearing `up` at the top; None without one,
    and for a panorama (NaN), of which the network sees no square."""
    if data is None or np.isnan(seen):
        return None
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    side = seen * min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    pixels = min(320, max(1, round(side)))
    square = picture.resize((pixels, pixels), box=(left, top, left + side, top + side))
    return np.asarray(square.rotate(up, Image.Resampling.BILINEAR))


def _shown(found: CrossViewEvaluation, count: int = _QUERIES) -> pd.DataFrame:
    """Pairs from the best rank to the worst, evenly spread, with the place of their own tile."""
    return spread_by_rank(found.pairs[found.pairs["method"] == CANDIDATES_OF], count)


def _draw(axes: Axes, data: bytes | None, up: float = 0.0) -> int:
    """Draws a picture, with the bearing `up` at the top; returns its side in pixels."""
    bare(axes)
    if data is None:
        return 1
    picture: NDArray[np.uint8] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").rotate(up))
    axes.imshow(picture)
    return len(picture)


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f"{low:.1f} to {high:.1f}"
