"""The camera of a ground photo: a pinhole above the plane, and what it sees of walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.sample.looks import ROOFS
from geoloc.sample.surroundings import Boxes

FloatArray = NDArray[np.float64]

_NEAREST = 0.6  # metres: anything nearer counts as behind the lens
_MOST_FACES = 40
NORMALS = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
"""Outward directions (p, q) of the four sides of a house."""
_GRAIN = 2.0**16


def rounded_tan(degrees: float) -> float:
    """The tangent, rounded to 2^-16 so that it is the same on every machine."""
    return float(np.rint(np.tan(np.radians(degrees)) * _GRAIN) / _GRAIN)


@dataclass(frozen=True)
class View:
    """A camera and its weather. Angles in degrees."""

    heading: float
    field_of_view: float
    pitch: float
    roll: float
    eye_m: float
    sun_elevation: float
    sun_azimuth: float
    day_of_year: int
    southern: bool
    cloud: int  # 0 to 255
    fog: int  # 0 to 255
    scene: int  # seed of the clouds


@dataclass(frozen=True, eq=False)
class Camera:
    """The view in numbers that are the same on every machine: sines are rounded to 2^-16."""

    size: int
    focal: float  # pixels
    ahead: tuple[float, float]  # p, q of the unit vector ahead
    right: tuple[float, float]
    across: FloatArray  # t of each column [size]
    horizon: FloatArray  # row of the horizon in each column [size]
    azimuth: FloatArray  # degrees of each column, rounded

    @staticmethod
    def of(view: View, turn: float, size: int) -> Camera:
        """The camera of a view, in a grid turned by `turn` degrees, for a photo of `size` pixels each way."""
        focal = size / 2 / rounded_tan(view.field_of_view / 2)
        angle = np.radians(view.heading - turn)
        sine, cosine = (float(np.rint(f(angle) * _GRAIN) / _GRAIN) for f in (np.sin, np.cos))
        columns = (np.arange(size) + 0.5 - size / 2).astype(np.float64)
        across = columns / focal
        horizon = size / 2 + rounded_tan(view.pitch) * focal + rounded_tan(view.roll) * columns
        azimuth = np.rint((view.heading + np.degrees(np.arctan(across))) * 64) / 64
        return Camera(size, focal, (sine, cosine), (cosine, -sine), across, horizon, azimuth)

    def seen_from(self, p: FloatArray, q: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Metres to the right and ahead of points p, q from the camera."""
        return (
            p * self.right[0] + q * self.right[1],
            p * self.ahead[0] + q * self.ahead[1],
        )


@dataclass(frozen=True)
class Face:
    """A wall of a house that looks at the camera, clipped in front of the lens: from (x0, z0) to (x1, z1)."""

    house: int
    side: int  # index into NORMALS
    first: int  # columns
    last: int
    x0: float
    z0: float
    x1: float
    z1: float
    start: float  # metres along the wall at which the clipped part begins
    length: float  # metres of the whole wall
    end: bool  # a gable end

    def met_by(self, t: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Where columns meet the wall: metres ahead, and metres along it."""
        dx, dz = self.x1 - self.x0, self.z1 - self.z0
        down = dx - t * dz
        share = np.clip((t * self.z0 - self.x0) / np.where(np.abs(down) < 1e-9, 1e-9, down), 0.0, 1.0)
        return self.z0 + share * dz, self.start + share * float(np.sqrt(dx * dx + dz * dz))


def visible_faces(houses: Boxes, camera: Camera) -> list[Face]:
    """Returns the walls that face the camera and are in view, nearest first. At most 40: they fill any view."""
    p0, p1, q0, q1 = houses.p0, houses.p1, houses.q0, houses.q1
    count = len(p0)
    # The four sides of each house: towards lower p, higher p, lower q, higher q. The camera is at (0, 0).
    looks_here = np.concatenate([p0 > 0, p1 < 0, q0 > 0, q1 < 0])
    xa, za = camera.seen_from(np.concatenate([p0, p1, p0, p0]), np.concatenate([q0, q0, q0, q1]))
    xb, zb = camera.seen_from(np.concatenate([p0, p1, p1, p1]), np.concatenate([q1, q1, q0, q1]))
    wide, deep = p1 - p0, q1 - q0
    # Gables are on the shorter sides, as roofs are.
    end = np.concatenate([deep <= wide, deep <= wide, wide < deep, wide < deep])
    length = np.concatenate([deep, deep, wide, wide])

    cut_a, cut_b = _cut(za, zb), _cut(zb, za)
    x0, z0 = xa + cut_a * (xb - xa), np.maximum(za, _NEAREST)
    x1, z1 = xb + cut_b * (xa - xb), np.maximum(zb, _NEAREST)
    left, right = np.minimum(x0 / z0, x1 / z1), np.maximum(x0 / z0, x1 / z1)
    half = camera.size / 2
    first = np.clip(np.floor(left * camera.focal + half), 0, camera.size).astype(np.int64)
    last = np.clip(np.ceil(right * camera.focal + half), 0, camera.size).astype(np.int64)
    kept = np.flatnonzero(looks_here & (np.maximum(za, zb) > _NEAREST) & (last > first))
    order = kept[np.argsort(np.minimum(z0, z1)[kept], kind="stable")][:_MOST_FACES]
    columns = (
        order % max(count, 1),
        order // max(count, 1),
        first,
        last,
        x0,
        z0,
        x1,
        z1,
        cut_a * length,
        length,
        end,
    )
    rows = [column.tolist() if k < 2 else column[order].tolist() for k, column in enumerate(columns)]
    return [Face(*values) for values in zip(*rows, strict=True)]


def _cut(z: FloatArray, other: FloatArray) -> FloatArray:
    """Share of a wall that is behind the lens, from its end at depth z; 0 where that end is in front."""
    behind = z < _NEAREST
    return np.where(behind, (_NEAREST - z) / np.where(behind & (other != z), other - z, 1.0), 0.0)


def roof_rise(kind: int, along: FloatArray, end: bool, height: float, number: int) -> FloatArray:
    """Metres above the wall's top at each share along it."""
    name = ROOFS[kind] if number % 4 else "flat"
    rise = 1.2 + 0.22 * height if height < 14 else 1.5
    off = np.abs(2 * along - 1)
    if name == "gable":
        return rise * (1 - off) * 1.3 if end else np.full_like(along, rise)
    if name == "dome":
        return rise * np.sqrt(np.maximum(1 - off * off, 0))
    if name == "tiered":
        return np.where(off > 0.8, 0.5 * rise, np.where(off > 0.4, 0.15 * rise, rise))
    if name == "spire":
        return np.where(off < 0.2, 2.4 * rise * (1 - off / 0.2), 0.25)
    return np.full_like(along, 0.3)
