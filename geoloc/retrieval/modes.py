"""All modes of the density of equation 1 on the sphere, by mean shift: the places that the neighbours speak for.

density.py gives the densest neighbour; a mode is a peak of the density itself, wherever it lies. Mean shift on the
sphere (Subbarao and Meer, Nonlinear Mean Shift over Riemannian Manifolds, IJCV 2009): from each neighbour, move to the
weighted mean of all neighbours in the tangent plane, with weights w_i exp(-angle² / 2σ²), until the step is nothing.
The sphere's curvature is positive, so no step lowers the density. Neighbours whose walks end together belong to one
mode, and their weights are its mass (Comaniciu and Meer, 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.retrieval.density import neighbour_weights
from geoloc.retrieval.settings import DensitySettings
from geoloc.sphere import from_vectors, unit_vectors

FloatArray = NDArray[np.float64]

_STEPS = 1000  # a walk along a ridge is slow; most are done in 20 steps
_REST = 1e-6  # in σ: a shorter step ends a walk
_TOGETHER = 0.1  # in σ: walks that end within this belong to one mode
_CHUNK_CELLS = 64_000  # kernel values of one step, so that its arrays stay in the processor's cache


@dataclass(frozen=True)
class Modes:
    """The modes of Q queries, densest first; NaN coordinates, share 0 and mass 0 beyond a query's last.

    `share` is the density as `Densest.share` has it. `mass` is the weight of the neighbours that the mode attracts:
    all masses of a query with neighbours sum to 1. `of` says which mode attracts each neighbour, -1 for a missing one.
    """

    latitude: FloatArray  # [Q, A] degrees
    longitude: FloatArray  # [Q, A]
    share: FloatArray  # [Q, A]
    mass: FloatArray  # [Q, A]
    of: NDArray[np.int64]  # [Q, k]


def find_modes(
    latitude: ArrayLike, longitude: ArrayLike, similarity: ArrayLike, settings: DensitySettings
) -> Modes:
    """Find all modes of Q queries from their neighbours [Q, k], most similar first; NaN coordinates mark a missing one.

    `similarity` is the inner product of L2-normalised vectors. Only the first `settings.k` columns are used. Raises
    ValueError for shapes that differ, and for flat degrees.
    """
    lat, lon, similar = (
        np.asarray(a, dtype=np.float64)[:, : settings.k] for a in (latitude, longitude, similarity)
    )
    missing = np.isnan(lat) | np.isnan(lon)
    weights = neighbour_weights(np.where(missing, np.nan, similar), settings.m)
    return modes_of(lat, lon, weights, settings.sigma, flat=settings.flat)


def modes_of(
    latitude: ArrayLike, longitude: ArrayLike, weights: ArrayLike, sigma: float, *, flat: bool = False
) -> Modes:
    """As `find_modes`, from the neighbours' weights [Q, k] (scaled here to sum to 1); σ in degrees."""
    lat, lon, w = (np.asarray(a, dtype=np.float64) for a in (latitude, longitude, weights))
    if not lat.shape == lon.shape == w.shape or lat.ndim != 2:
        raise ValueError(
            f"latitude, longitude and weights must have one shape [Q, k], got {lat.shape}, {lon.shape}, {w.shape}"
        )
    if flat:
        raise ValueError("modes are found on the sphere, not in flat degrees")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    present = ~(np.isnan(lat) | np.isnan(lon)) & (w > 0)
    w = np.where(present, w, 0.0)
    w = w / np.maximum(w.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    points = unit_vectors(np.where(present, lat, 0.0), np.where(present, lon, 0.0))
    width = float(np.radians(sigma))
    ends, density = _walk(points, w, width, present)
    return _together(ends, density, w, present, width)


def _walk(
    points: FloatArray, weights: FloatArray, width: float, present: NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Where the walk from each neighbour ends, [Q, k, 3], and the density there, [Q, k]."""
    ends, density = points.copy(), np.zeros_like(weights)
    query, start = np.nonzero(present)
    step = max(1, _CHUNK_CELLS // max(1, points.shape[1]))
    for _ in range(_STEPS):
        if not len(query):
            break
        moving = np.zeros(len(query), dtype=bool)
        for first in range(0, len(query), step):
            q, s = query[first : first + step], start[first : first + step]
            ends[q, s], length, density[q, s] = _shift(ends[q, s], points[q], weights[q], width)
            moving[first : first + step] = length > _REST * width
        query, start = query[moving], start[moving]
    return ends, density


def _shift(
    at: FloatArray, points: FloatArray, weights: FloatArray, width: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One step of n walks at `at` [n, 3] among their neighbours [n, k, 3]: where to, how far (radians), and the density
    before it."""
    # Half chords keep their digits for points a metre apart; an arc cosine would lose half of them.
    half = np.sqrt(((points - at[:, None, :]) ** 2).sum(axis=-1)) / 2
    angle = 2 * np.arcsin(np.minimum(half, 1.0))
    pull = weights * np.exp(-0.5 * (angle / width) ** 2)
    density = pull.sum(axis=1)
    sine = np.sin(angle)
    far = np.divide(angle, sine, out=np.ones_like(angle), where=sine > 1e-9)  # at 0 and at the antipode
    towards = np.einsum("nk,nkd->nd", pull * far, points) / np.maximum(density, np.finfo(float).tiny)[:, None]
    towards -= (towards * at).sum(axis=1, keepdims=True) * at  # into the tangent plane
    length = np.linalg.norm(towards, axis=1)
    direction = towards / np.maximum(length, np.finfo(float).tiny)[:, None]
    there = np.cos(length)[:, None] * at + np.sin(length)[:, None] * direction
    return there / np.linalg.norm(there, axis=1, keepdims=True), length, density


def _together(
    ends: FloatArray, density: FloatArray, weights: FloatArray, present: NDArray[np.bool_], width: float
) -> Modes:
    """Walks in one mode where they end together: the densest end first, with all within reach of it."""
    rows = np.arange(len(ends))
    limit = 2 * np.sin(min(_TOGETHER * width, np.pi) / 2)
    left, of = np.where(present, density, 0.0), np.full(weights.shape, -1, dtype=np.int64)
    places: list[FloatArray] = []
    shares: list[FloatArray] = []
    masses: list[FloatArray] = []
    while left.size and (left > 0).any():
        top = left.argmax(axis=1)
        found = left[rows, top] > 0
        gap = np.sum((ends - ends[rows, top][:, None, :]) ** 2, axis=-1)
        mine = (gap <= limit**2) & (left > 0) & found[:, None]
        of[mine] = len(places)
        places.append(np.where(found[:, None], ends[rows, top], np.nan))
        shares.append(np.where(found, left[rows, top], 0.0))
        masses.append(np.where(mine, weights, 0.0).sum(axis=1))
        left = np.where(mine, 0.0, left)
    if not places:
        none = np.empty((len(ends), 0))
        return Modes(none, none, none, none, of)
    lat, lon = from_vectors(np.stack(places, axis=1))
    return Modes(lat, lon, np.stack(shares, axis=1), np.stack(masses, axis=1), of)
