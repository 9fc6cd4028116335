"""Answers of an overhead index: position and heading, how sure they are, and whether the photo is in its area at
all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex
from geoloc.models.cross_view_prediction import headings_of
from geoloc.sphere import distance_km

RADIUS_SHARE = 0.5
"""The share of the probability within `radius_km`."""


@dataclass(frozen=True)
class OverheadAnswers:
    """Answers for Q photos, and their K best candidates, most probable first.

    `latitude`, `longitude` float64 (Q,): the centre of the best tile. `heading` (Q,): degrees clockwise from north, NaN
    if the index cannot tell it; `heading_error` its median error on validation pairs. `radius_km` (Q,): RADIUS_SHARE of
    the probability is within it. `distance` (Q,): squared distance to the best tile. `inside` bool (Q,): whether any
    tile is near enough; where not, all answers are NaN, because the photo is outside of the index's area.
    `candidate` int64 (Q, K): positions in the index (-1: none), with their `probability` and `candidate_heading`.
    """

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    heading: NDArray[np.float64]
    heading_error: float
    radius_km: NDArray[np.float64]
    distance: NDArray[np.float64]
    inside: NDArray[np.bool_]
    candidate: NDArray[np.int64]
    probability: NDArray[np.float64]
    candidate_heading: NDArray[np.float64]


def locate_by_overhead(
    index: OverheadIndex,
    embedder: CrossViewEmbedder,
    photos: NDArray[np.float32],
    k: int = 10,
    log_prior: NDArray[np.float64] | None = None,
) -> OverheadAnswers:
    """Answers for photos by their embeddings float32 (Q, D).

    Probabilities are in proportion to exp(-distance / temperature), with the calibration of the index. `log_prior`
    float64 (Q, N) is added: what is known of each tile otherwise (see joint.log_priors). A tile with -inf is left out.
    Raises ValueError if the index is by another network or not calibrated.
    """
    if index.model != embedder.model:
        raise ValueError(
            f"the index holds embeddings by network {index.model[:12]}, the photos are embedded by "
            f"{embedder.model[:12]}: build the index again"
        )
    if index.calibration is None:
        raise ValueError(
            "the index has no calibration, so a photo outside of its area cannot be told: build it again"
        )
    apart, turned = index.distances(photos)
    scores = -apart.astype(np.float64) / index.calibration.temperature
    if log_prior is not None:
        scores = scores + log_prior
    near = (apart <= index.calibration.reach) & np.isfinite(scores)
    inside: NDArray[np.bool_] = np.asarray(near.any(axis=1))
    highest = np.where(np.isfinite(scores), scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.where(np.isfinite(scores), np.exp(scores - highest), 0.0)
    probability = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)

    kept = min(k, len(index))
    order = np.argsort(-probability, axis=1, kind="stable")[:, :kept]
    share = np.take_along_axis(probability, order, axis=1)
    candidate = np.where((share > 0) & inside[:, None], order, -1)
    headings = np.full(candidate.shape, np.nan)
    for at in range(kept):
        asked = np.flatnonzero(candidate[:, at] >= 0)
        tiles = candidate[asked, at]
        headings[asked, at] = _headings(index, embedder, photos[asked], tiles, turned[asked, tiles])
    places = index.tiles[["latitude", "longitude"]].to_numpy(dtype=np.float64)
    best = order[:, 0] if kept else np.zeros(len(photos), np.int64)
    where = np.where(inside[:, None], places[best], np.nan)
    error = index.calibration.heading_error
    return OverheadAnswers(
        latitude=where[:, 0],
        longitude=where[:, 1],
        heading=np.where(inside, headings[:, 0], np.nan),
        heading_error=np.nan if error is None else error,
        radius_km=np.where(inside, _radii(places, best, probability), np.nan),
        distance=np.take_along_axis(apart, best[:, None], axis=1)[:, 0].astype(np.float64),
        inside=inside,
        candidate=candidate,
        probability=np.where(candidate >= 0, share, 0.0),
        candidate_heading=headings,
    )


def _headings(
    index: OverheadIndex,
    embedder: CrossViewEmbedder,
    photos: NDArray[np.float32],
    tiles: NDArray[np.int64],
    rotation: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Headings of photos (A, D) on one tile each, NaN if they cannot be told."""
    if not len(tiles):
        return np.empty(0)
    if index.north is not None:
        return headings_of(embedder.network, photos, np.array(index.north[tiles]), np.zeros(len(tiles)))
    return headings_of(embedder.network, photos, np.array(index.vectors[tiles, rotation]), index.up[rotation])


def _radii(
    places: NDArray[np.float64], best: NDArray[np.int64], probability: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The distance from the best tile within which RADIUS_SHARE of the probability is, km float64 (Q,)."""
    found = np.empty(len(best))
    for row, (tile, weights) in enumerate(zip(best, probability, strict=True)):
        apart = distance_km(places[tile, 0], places[tile, 1], places[:, 0], places[:, 1])
        order = np.argsort(apart, kind="stable")
        reached = np.searchsorted(np.cumsum(weights[order]), RADIUS_SHARE * weights.sum() - 1e-12)
        found[row] = apart[order[min(int(reached), len(order) - 1)]]
    return found
