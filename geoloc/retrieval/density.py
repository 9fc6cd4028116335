"""Location from neighbours by weighted kernel density: equation 1 of Revisiting IM2GPS (Vo et al., 2017).

    f(x) = Σ_i w_i N(x; x_i, σ² I),   w_i = s_i^m,   s_i = 1 / |query feature - reference feature|

The answer is the neighbour's location with the highest density, exact over these candidates: no grid, no
mean shift. Two geometries: on the sphere (the default: N is a Gaussian of the great-circle angle in degrees)
and flat (as printed: plain degrees of latitude and longitude, which neither wraps at 180 nor narrows towards
the poles, kept to reproduce published figures). At the equator a degree is the same in both, so σ compares.

Everything is float64: in float32 5 to 8 % of the answers differ.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.retrieval.settings import DensitySettings
from geoloc.sphere import unit_vectors

FloatArray = NDArray[np.float64]

MINIMUM_FEATURE_DISTANCE = 1e-3
"""Feature distances below this count as this. Similarities are float32 (and stored vectors may be float16),
so the distance of two equal vectors comes out anywhere between 0 and about 5e-4; 1 / 0 has no value, and
without a floor rounding noise to the tenth power would choose among exact duplicates. With it they weigh the
same."""

TIE = 1e-12
"""Densities within this relative distance of the highest are ties; the neighbour most like the query wins."""

_LOWEST_EXPONENT = -690.0  # 1e-300, nothing beside 1 / k: exp is 10 times slower where it underflows
_BLOCK = 34  # candidates a side of a block: only blocks on and above the diagonal are computed
_CHUNK_CELLS = 64_000  # kernel values of one step, so that its two arrays stay in the processor's cache


@dataclass(frozen=True)
class Densest:
    """The densest candidate of each of Q queries, and up to A peaks in falling order (the first is the
    answer).

    A density is a share: the weighted mean over the neighbours of exp(-distance² / 2σ²), which is f(x) of
    equation 1 with weights that sum to 1, divided by the highest value it can take (1 / 2πσ²). It is in (0,
    1]: 1 if all neighbours are at the answer, near 1/k if they are scattered and equally similar. It grows with
    σ and is a score, not a calibrated probability; shares of peaks need not sum to 1.
    """

    latitude: FloatArray  # [Q] degrees; NaN where a query has no neighbour
    longitude: FloatArray  # [Q]
    share: FloatArray  # [Q] density of the answer; 0 where there is none
    column: NDArray[np.int64]  # [Q] which neighbour it is; -1 where there is none
    peak_latitude: FloatArray  # [Q, A]; NaN beyond the last peak
    peak_longitude: FloatArray  # [Q, A]
    peak_share: FloatArray  # [Q, A]; 0 beyond the last peak


def feature_distance(similarity: ArrayLike) -> FloatArray:
    """Euclidean distance of L2-normalised vectors from their inner product: sqrt(2 - 2 s).

    Never below MINIMUM_FEATURE_DISTANCE. NaN in gives NaN out.
    """
    squared = 2.0 - 2.0 * np.asarray(similarity, dtype=np.float64)
    return np.sqrt(np.maximum(squared, MINIMUM_FEATURE_DISTANCE**2))


def neighbour_weights(similarity: ArrayLike, m: float) -> FloatArray:
    """w_i = s_i^m of equation 1 for inner products [Q, k], scaled to sum to 1 a query; 0 where NaN.

    Powers are taken as logarithms relative to the heaviest neighbour, so no m overflows. A weight below
    1e-308 of the heaviest becomes 0; that cannot change an answer, because the heaviest neighbour is a
    candidate too. A query without neighbours has all zeros.
    """
    log_weight = -m * np.log(feature_distance(similarity))
    log_weight = np.where(np.isnan(log_weight), -np.inf, log_weight)
    top = np.max(log_weight, axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(log_weight - np.where(np.isfinite(top), top, 0.0))
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1.0)  # the heaviest is 1, or all are 0


def kernel_density(
    latitude: ArrayLike,
    longitude: ArrayLike,
    weights: ArrayLike,
    sigma: float,
    *,
    flat: bool = False,
    threads: int | None = None,
) -> FloatArray:
    """Density at each neighbour's own location, float64 [Q, k]: Σ_j w_j exp(-distance(i, j)² / 2σ²).

    `latitude`, `longitude` [Q, k] in degrees and `weights` [Q, k] belong to k neighbours of Q queries; σ in
    degrees. A neighbour with NaN coordinates is missing: it adds nothing and its density is 0. Multiply
    by 1 / 2πσ² for f(x) of equation 1. `threads` (default: the processors this process may use, at most 8)
    changes the speed only. Raises ValueError for shapes that differ, infinite coordinates, negative or NaN
    weights, or σ <= 0.
    """
    lat, lon, w = (np.asarray(a, dtype=np.float64) for a in (latitude, longitude, weights))
    if not lat.shape == lon.shape == w.shape or lat.ndim != 2:
        raise ValueError(
            "latitude, longitude and weights must have one shape [Q, k],"
            f" got {lat.shape}, {lon.shape}, {w.shape}"
        )
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    present = ~(np.isnan(lat) | np.isnan(lon))
    if np.isinf(lat).any() or np.isinf(lon).any():
        raise ValueError("coordinates must be finite, or NaN for no neighbour")
    w = np.where(present, w, 0.0)
    if not (w >= 0).all():
        raise ValueError("weights must be at least 0 and not NaN")
    lat, lon = np.where(present, lat, 0.0), np.where(present, lon, 0.0)
    # Axis first, so that the broadcast differences below read contiguous rows. Half of a chord is the sine
    # of half of its angle, hence the division by 2.
    axes = (
        np.stack([lat, lon]) if flat else np.ascontiguousarray(np.moveaxis(unit_vectors(lat, lon), -1, 0)) / 2
    )
    density = np.zeros_like(w)
    queries, k = w.shape
    step = max(1, _CHUNK_CELLS // max(1, min(k, _BLOCK) ** 2))
    spans = [slice(start, min(queries, start + step)) for start in range(0, queries, step)]

    def work(span: slice) -> None:
        _chunk_density(axes[:, span], w[span], sigma, flat, density[span])

    threads = (
        min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        if threads is None
        else threads
    )
    if threads > 1 and len(spans) > 1:
        with ThreadPoolExecutor(threads) as pool:  # numpy leaves the interpreter lock inside each step
            list(pool.map(work, spans))
    else:
        for span in spans:
            work(span)
    return np.where(present, density, 0.0)


def density_at(
    latitude: ArrayLike,
    longitude: ArrayLike,
    of_latitude: ArrayLike,
    of_longitude: ArrayLike,
    weights: ArrayLike,
    sigma: float,
) -> FloatArray:
    """Density of one query at any P points, degrees, float64 [P], from its k neighbours and their weights, [k] each: as
    `kernel_density` gives it at the neighbours themselves, on the sphere."""
    a, b = (
        np.ascontiguousarray(unit_vectors(*place).T)[:, None, :] / 2
        for place in ((latitude, longitude), (of_latitude, of_longitude))
    )
    w = np.asarray(weights, dtype=np.float64)
    step = max(1, _CHUNK_CELLS // max(1, len(w)))
    parts = [
        _kernel(a[:, :, start : start + step], b, sigma, False)[0] @ w for start in range(0, a.shape[2], step)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _chunk_density(axes: FloatArray, weights: FloatArray, sigma: float, flat: bool, out: FloatArray) -> None:
    """Add the density of a few queries into `out` [q, k], block by block; the kernel is symmetric."""
    k = weights.shape[1]
    blocks = [slice(start, min(k, start + _BLOCK)) for start in range(0, k, _BLOCK)]
    for number, rows in enumerate(blocks):
        for columns in blocks[number:]:
            kernel = _kernel(axes[:, :, rows], axes[:, :, columns], sigma, flat)
            out[:, rows] += np.einsum("qij,qj->qi", kernel, weights[:, columns])
            if columns is not rows:
                out[:, columns] += np.einsum("qij,qi->qj", kernel, weights[:, rows])


def _kernel(a: FloatArray, b: FloatArray, sigma: float, flat: bool) -> FloatArray:
    """exp(-distance² / 2σ²) of every pair, [q, i, j], from coordinates [axes, q, i] and [axes, q, j]."""
    total = np.subtract(a[0][:, :, None], b[0][:, None, :])
    total *= total
    for axis in range(1, len(a)):
        difference = np.subtract(a[axis][:, :, None], b[axis][:, None, :])
        difference *= difference
        total += difference
    if not flat:  # squared half chords become squared half angles
        np.sqrt(total, out=total)
        np.minimum(total, 1.0, out=total)
        np.arcsin(total, out=total)
        total *= total
        total *= 4.0 * np.degrees(1.0) ** 2
    total *= -0.5 / sigma**2
    np.maximum(total, _LOWEST_EXPONENT, out=total)
    return np.exp(total, out=total)


def densest(
    latitude: ArrayLike, longitude: ArrayLike, similarity: ArrayLike, settings: DensitySettings
) -> Densest:
    """Locate Q queries from their neighbours [Q, k], most similar first; NaN coordinates mark a missing one.

    `similarity` is the inner product of L2-normalised vectors. Only the first `settings.k` columns are used.
    Peaks are candidates in falling order of density, each further than σ from all before it. Raises
    ValueError as `kernel_density` does.
    """
    lat, lon, similar = (
        np.asarray(a, dtype=np.float64)[:, : settings.k] for a in (latitude, longitude, similarity)
    )
    missing = np.isnan(lat) | np.isnan(lon)
    weights = neighbour_weights(np.where(missing, np.nan, similar), settings.m)
    density = kernel_density(lat, lon, weights, settings.sigma, flat=settings.flat)
    return peaks(lat, lon, density, settings)


def peaks(
    latitude: ArrayLike, longitude: ArrayLike, density: ArrayLike, settings: DensitySettings
) -> Densest:
    """The candidates [Q, k] of the highest `density` [Q, k], each further than σ from all before it; densities of 0
    are no candidates. Only `sigma`, `flat` and `alternatives` of the settings are used."""
    lat, lon, density = (np.asarray(a, dtype=np.float64) for a in (latitude, longitude, density))
    rows = np.arange(len(lat))
    axes = np.stack([lat, lon], axis=-1) if settings.flat else unit_vectors(lat, lon)
    # Compared with squared straight-line distances: a chord of the sphere for an angle of σ, or σ itself.
    limit = settings.sigma if settings.flat else 2 * np.sin(np.radians(min(settings.sigma, 180.0)) / 2)
    left = density.copy()
    columns, shares = [], []
    for _ in range(settings.alternatives):
        top = np.max(left, axis=1, initial=0.0)
        column = (
            (left >= top[:, None] * (1 - TIE)).argmax(axis=1) if left.shape[1] else np.zeros(len(left), int)
        )
        columns.append(np.where(top > 0, column, -1))
        shares.append(top)
        if left.shape[1]:
            gap = np.sum((axes - axes[rows, column][:, None, :]) ** 2, axis=-1)
            left = np.where(gap > limit**2, left, 0.0)
    picked = np.stack(columns, axis=1)
    none = picked < 0

    def at(values: FloatArray) -> FloatArray:
        if values.shape[1] == 0:
            return np.full(picked.shape, np.nan)
        return np.where(none, np.nan, np.take_along_axis(values, np.maximum(picked, 0), axis=1))

    peak_latitude, peak_longitude, peak_share = at(lat), at(lon), np.stack(shares, axis=1)
    return Densest(
        latitude=peak_latitude[:, 0],
        longitude=peak_longitude[:, 0],
        share=peak_share[:, 0],
        column=picked[:, 0].astype(np.int64),
        peak_latitude=peak_latitude,
        peak_longitude=peak_longitude,
        peak_share=peak_share,
    )
