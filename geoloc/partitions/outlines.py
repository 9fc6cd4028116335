"""Outlines of cells on a flat map: rings cut at the antimeridian and led along the poles; GeoJSON of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Coordinates = NDArray[np.float64]
_POLE = 90.0 - 1e-9


def map_rings(polygon: Coordinates) -> list[Coordinates]:
    """A spherical outline as rings that a flat (plate carrée) map can draw and fill.

    `polygon`: latitude, longitude in degrees, float64 (V, 2), first vertex not repeated, no edge longer than half
    a turn of longitude except through a pole. Returns rings (W, 2) with latitude in [-90, 90] and longitude in
    [-180, 180]: several where the outline crosses the antimeridian. An outline around a pole is led along the
    map's edge, and a vertex on a pole is drawn as a line, since a pole has every longitude.
    """
    path = _unwrap(_without_pole_vertices(np.asarray(polygon, dtype=np.float64)))
    west, east = path[:, 1].min(), path[:, 1].max()
    turns = np.arange(np.floor((west + 180) / 360), np.floor((east + 180) / 360) + 1)
    rings = []
    for turn in turns:
        ring = path - [0.0, 360.0 * turn]
        ring = _clip(_clip(ring, -180.0, keep_above=True), 180.0, keep_above=False)
        if len(ring) >= 3 and np.ptp(ring[:, 1]) > 0:
            rings.append(ring)
    return rings


def geojson_geometry(rings: list[Coordinates]) -> dict[str, Any]:
    """Rings as a GeoJSON Polygon or MultiPolygon: longitude first, first vertex repeated at the end."""
    closed = [[np.vstack([ring, ring[:1]])[:, ::-1].tolist()] for ring in rings]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _without_pole_vertices(polygon: Coordinates) -> Coordinates:
    """Each vertex on a pole replaced by two: at the longitude before it and at the one after it."""
    rows: list[Coordinates] = []
    for row, vertex in enumerate(polygon):
        if abs(vertex[0]) < _POLE:
            rows.append(vertex)
            continue
        pole = np.copysign(90.0, vertex[0])
        rows += [np.array([pole, polygon[side % len(polygon)][1]]) for side in (row - 1, row + 1)]
    return np.array(rows)


def _unwrap(polygon: Coordinates) -> Coordinates:
    """The path with continuous longitudes, closed along a pole where it goes around one."""
    steps = np.diff(np.append(polygon[:, 1], polygon[0, 1]))
    steps = (steps + 180.0) % 360.0 - 180.0
    path = np.column_stack([polygon[:, 0], polygon[0, 1] + np.concatenate([[0.0], np.cumsum(steps[:-1])])])
    turned = steps.sum()
    if abs(turned) < 180.0:
        return path
    pole = np.copysign(90.0, turned)  # anticlockwise seen from outside: eastwards around the north pole
    path = _from_antimeridian(np.vstack([path, [path[0, 0], path[0, 1] + turned]]), turned)
    return np.vstack([path, [pole, path[-1, 1]], [pole, path[0, 1]]])


def _from_antimeridian(path: Coordinates, turned: float) -> Coordinates:
    """The same closed path around a pole, begun and ended on the map's edge: elsewhere it looks like a border."""
    to_edge = (180.0 - path[0, 1]) % 360.0
    edge = path[0, 1] + (to_edge if turned > 0 else to_edge - 360.0 if to_edge else 0.0)
    beyond = (path[:, 1] >= edge) if turned > 0 else (path[:, 1] <= edge)
    after = int(np.argmax(beyond))  # the first vertex on or over the edge
    if after == 0:
        return path
    (lat_a, lon_a), (lat_b, lon_b) = path[after - 1], path[after]
    crossing = np.array([lat_a + (edge - lon_a) / (lon_b - lon_a) * (lat_b - lat_a), edge])
    turn = np.array([0.0, turned])
    return np.vstack([crossing, path[after:-1], path[:after] + turn, crossing + turn])


def _clip(ring: Coordinates, longitude: float, keep_above: bool) -> Coordinates:
    """The part of a ring on one side of a meridian (Sutherland and Hodgman)."""
    if len(ring) == 0:
        return ring
    side = ring[:, 1] - longitude if keep_above else longitude - ring[:, 1]
    rows: list[Coordinates] = []
    for here in range(len(ring)):
        after = (here + 1) % len(ring)
        if side[here] >= 0:
            rows.append(ring[here])
        if (side[here] > 0 > side[after]) or (side[here] < 0 < side[after]):
            share = side[here] / (side[here] - side[after])
            latitude = ring[here, 0] + share * (ring[after, 0] - ring[here, 0])
            rows.append(np.array([latitude, longitude]))
    return np.array(rows).reshape(-1, 2)
