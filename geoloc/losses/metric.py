"""A metric loss by its settings: from embeddings and the relations of a batch to one number."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from geoloc.losses.library import library_loss
from geoloc.losses.pairs import dbl_pairs
from geoloc.losses.relations import Relations, distances
from geoloc.losses.sets import angular, info_nce, lifted, soft_sets
from geoloc.losses.settings import BY_DISTANCE, MetricLossSettings
from geoloc.losses.triplets import hinge_triplet, soft_triplet

MetricLoss = Callable[[torch.Tensor, Relations], torch.Tensor]
PUBLISHED_MARGINS = {
    "hinge_triplet": 0.2,
    "dbl_pairs": 10.0,
    "contrastive": 1.0,
    "lifted": 1.0,
    "circle": 0.4,
}
"""FaceNet 3.2 (2015); dissertation 3.3.5; the library's defaults, which are those of the papers."""


def metric_loss(settings: MetricLossSettings, scale: torch.Tensor | None = None) -> MetricLoss:
    """The loss of embeddings [B, D] and their relations by `settings`: a scalar in float32 (float64 for embeddings in
    float64). 0, with gradient 0, if the batch has no valid pair or triplet.

    `scale` is the learnt factor of the embeddings if settings.learnt_scale, a tensor of one element.
    """
    kind, margin = settings.kind, settings.margin
    if margin is None:
        margin = PUBLISHED_MARGINS.get(kind, 0.0)
    of_library = library_loss(kind, settings.distance, margin) if kind in _OF_LIBRARY else None

    def loss(embeddings: torch.Tensor, relations: Relations) -> torch.Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
            if kind not in BY_DISTANCE or settings.normalise:
                vectors = functional.normalize(vectors)
            if kind in BY_DISTANCE:
                vectors = vectors * (settings.scale if scale is None else scale)
            if of_library is not None:
                return of_library(vectors, relations)
            if kind in BY_DISTANCE:
                apart = distances(vectors, settings.distance)
                return _by_distance(settings, margin, apart, relations)
            cosines = vectors @ vectors.T
            if kind == "info_nce":
                return info_nce(cosines, relations, settings.temperature)
            return angular(cosines, relations, settings.angle)

    return loss


_OF_LIBRARY = ("contrastive", "multi_similarity", "circle")


def _by_distance(
    settings: MetricLossSettings, margin: float, apart: torch.Tensor, relations: Relations
) -> torch.Tensor:
    if settings.kind == "soft_triplet":
        return soft_triplet(apart, relations)
    if settings.kind == "hinge_triplet":
        return hinge_triplet(apart, relations, margin, settings.mean_over)
    if settings.kind == "soft_sets":
        return soft_sets(apart, relations)
    if settings.kind == "dbl_pairs":
        return dbl_pairs(apart, relations, margin)
    return lifted(apart, relations, margin)
