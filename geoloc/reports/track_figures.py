"""The report's section on albums and times: tracks of albums, and when photos of each longitude are posted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from geoloc.models.posting_time import time_parts
from geoloc.reports.pages import count, kilometres
from geoloc.reports.photo_figures import fewer_colours, jpeg, land_axes
from geoloc.reports.style import ERROR_COLOURS, INK, drawing, new_figure, png
from geoloc.reports.thoughts import Figure, FigureGroup

_BANDS = 24  # of longitude
_TRUE = "#12805c"


def track_figure(tracks: pd.DataFrame) -> bytes:
    """A world map an album, as JPEG: where its photos were taken (green rings), where each is placed alone (grey dots),
    and all together (blue, joined in order of time). `tracks` as of evaluation/explaining/tracks.py. Raises ValueError
    for none.
    """
    if tracks.empty:
        raise ValueError("no album has a track: there is nothing to show")
    albums = list(dict.fromkeys(tracks["album"]))
    with drawing():
        rows = -(-len(albums) // 2)
        figure = new_figure(11.0, 2.9 * rows)
        panels = figure.subfigures(rows, 2, squeeze=False).ravel()
        for panel, album in zip(panels, albums, strict=False):
            mine = tracks[tracks["album"] == album]
            latitudes = mine[["true_latitude", "alone_latitude", "latitude"]].to_numpy()
            _album(land_axes(panel, float(np.nanmin(latitudes))), mine)
        return jpeg(figure)


def _album(axes: Axes, mine: pd.DataFrame) -> None:
    axes.scatter(
        mine["alone_longitude"], mine["alone_latitude"], s=16, color="#7d8590", linewidths=0, zorder=3
    )
    longitude = mine["longitude"].to_numpy()
    cut = (
        np.flatnonzero(np.abs(np.diff(longitude)) > 180) + 1
    )  # no line across the map where it is over the date line
    for rows in np.split(np.arange(len(mine)), cut):
        part = mine.iloc[rows]
        axes.plot(part["longitude"], part["latitude"], color=ERROR_COLOURS[0], linewidth=1.2, zorder=4)
    axes.scatter(longitude, mine["latitude"], s=26, color=ERROR_COLOURS[0], linewidths=0, zorder=5)
    axes.scatter(
        mine["true_longitude"], mine["true_latitude"], s=80, facecolors="none", edgecolors=_TRUE, linewidths=1.6,
        zorder=6,
    )  # fmt: skip
    alone, together = mine["alone_km"].mean(), mine["error_km"].mean()
    axes.set_title(
        f"{len(mine)} photos: {kilometres(alone)} km off alone, {kilometres(together)} km together",
        fontsize=8.5, fontweight="normal", color=INK,
    )  # fmt: skip


def posting_figure(longitude: ArrayLike, posted_at: pd.Series) -> bytes:
    """How often photos of each longitude are posted at each hour (UTC), as PNG: Multi-modal Geolocation, figure 1. Each
    band of longitude is scaled by itself. Raises ValueError where no photo has a time of posting.
    """
    hour = time_parts(posted_at)[:, 0]
    known = hour >= 0
    if not known.any():
        raise ValueError("no photo has a time of posting: there is nothing to show")
    band = (
        np.floor((np.asarray(longitude, np.float64)[known] + 180) / (360 / _BANDS))
        .astype(int)
        .clip(0, _BANDS - 1)
    )
    counts = np.bincount(band * 24 + hour[known], minlength=_BANDS * 24).reshape(_BANDS, 24).astype(float)
    whole = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, whole, out=np.full_like(counts, np.nan), where=whole > 0)
    with drawing():
        figure = new_figure(7.2, 3.6)
        axes = figure.add_subplot()
        axes.grid(False)
        shown = axes.imshow(
            np.ma.masked_invalid(100 * shares.T), origin="lower", aspect="auto", extent=(-180, 180, 0, 24),
            cmap="YlGnBu", vmin=0, vmax=np.nanquantile(100 * shares, 0.98) or 1.0,
        )  # fmt: skip
        axes.set_xlabel("longitude where it was taken, degrees")
        axes.set_ylabel("hour of posting, UTC")
        axes.set_yticks(range(0, 25, 6))
        axes.set_xticks(range(-180, 181, 60))
        figure.colorbar(shown, ax=axes, label="% of the band's photos")
        return fewer_colours(png(figure, dpi=110))


def track_group(tracks: pd.DataFrame | None, method: str) -> tuple[FigureGroup, ...]:
    """The report's group of tracks; none without albums to show. `method` is what answers together."""
    if tracks is None or tracks.empty:
        return ()
    sides = tracks.drop_duplicates("album")["side"].value_counts()
    told = ", ".join(f"{count(int(sides[side]))} {side}" for side in ("helped", "misled") if side in sides)
    return (
        FigureGroup(
            "Tracks of albums",
            f"Albums by {method}, in order of time: where the photos were taken (green rings), where each is placed "
            "alone (grey), and all together (blue, joined). First the albums that the others helped most, then those "
            "that they misled most: an album of several places, or a surer photo that is wrong.",
            (
                Figure(
                    "tracks",
                    track_figure(tracks),
                    f"World maps with the tracks of {sides.sum()} albums",
                    f"Of albums of at least four photos: {told} most.",
                ),
            ),
            opened=True,
        ),
    )


def posting_group(longitude: ArrayLike, posted_at: pd.Series) -> tuple[FigureGroup, ...]:
    """The report's group of times of posting; none where no photo has one."""
    known = int(posted_at.notna().sum())
    if not known:
        return ()
    return (
        FigureGroup(
            "When photos are posted",
            "For each band of longitude, how often its photos are posted at each hour in UTC: people post while they "
            "are awake. What models of time learn is in these stripes; where all bands are alike, the hour says "
            "nothing of the longitude. After Multi-modal Geolocation, figure 1.",
            (
                Figure(
                    "posting-times",
                    posting_figure(longitude, posted_at),
                    "Hours of posting in UTC by longitude",
                    f"{count(known)} photos with a time of posting, training photos and test photos together.",
                ),
            ),
        ),
    )
