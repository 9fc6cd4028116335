"""The land as an SVG path: the background of the answer map, drawn without matplotlib."""

from __future__ import annotations

import functools

import numpy as np

from geoloc.land import land_rings, water_rings


@functools.cache
def land_path() -> str:
    """The land, without inland waters, as the `d` of an SVG path: x is longitude, y minus latitude, in 1/100 degree.

    Land runs anticlockwise and waters clockwise, so SVG's default fill rule leaves the waters open. Moves are
    relative and whole, which makes the text half as long as coordinates would.
    """
    parts = []
    for ring in [*land_rings(), *water_rings()]:
        points = np.round(np.column_stack([ring[:, 1], -ring[:, 0]]) * 100).astype(np.int64)
        x, y = points[0]
        moves = "".join(f"l{dx} {dy}" for dx, dy in np.diff(points, axis=0))
        parts.append(f"M{x} {y}{moves}z")
    return "".join(parts)
