"""Losses of pytorch-metric-learning over the relations of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from geoloc.losses.relations import Relations


def library_loss(
    kind: str, distance: str, margin: float
) -> Callable[[torch.Tensor, Relations], torch.Tensor]:
    """A loss of embeddings [B, D] and their relations: a scalar; 0, with gradient 0, if there is no pair.

    contrastive: mean over positive pairs of the distance plus mean over negative pairs of max(0, margin - distance)
    (Hadsell et al., Dimensionality reduction by learning an invariant mapping, 2006). multi_similarity: Wang et al.,
    Multi-similarity loss with general pair weighting, 2019. circle: Sun et al., Circle loss, 2020, with `margin`. Means
    are over all terms; the library's default leaves out those that are 0.
    """
    from pytorch_metric_learning import distances, losses, reducers  # 1 s; only these kinds need it

    # With ours, embeddings already have their length.
    metric = distances.LpDistance(
        p=2, power=2 if distance == "squared_euclidean" else 1, normalize_embeddings=False
    )
    mean = reducers.MeanReducer()
    made: Any
    if kind == "contrastive":
        made = losses.ContrastiveLoss(pos_margin=0, neg_margin=margin, distance=metric, reducer=mean)
    elif kind == "multi_similarity":
        made = losses.MultiSimilarityLoss(reducer=mean)
    elif kind == "circle":
        made = losses.CircleLoss(m=margin, reducer=mean)
    else:
        raise ValueError(f"kind must be one of contrastive, multi_similarity, circle; got {kind!r}")

    def loss(embeddings: torch.Tensor, relations: Relations) -> torch.Tensor:
        pairs = (
            *relations.positives.nonzero(as_tuple=True),
            *relations.negatives.nonzero(as_tuple=True),
        )
        if not len(pairs[0]) and not len(pairs[2]):
            return embeddings.sum() * 0
        found: torch.Tensor = made(embeddings, indices_tuple=pairs)
        return found

    return loss
