"""Losses over single pairs: the distance-based logistic loss for pairs."""

from __future__ import annotations

import torch
from torch.nn import functional

from geoloc.losses.relations import Relations, mean_of


def dbl_pairs(distances: torch.Tensor, relations: Relations, margin: float) -> torch.Tensor:
    """Distance-based logistic loss for pairs (dissertation 3.5, 3.6), from distances [B, B]: a scalar. With

        p(a, b) = (1 + exp(-m)) / (1 + exp(D(a, b) - m))

    the probability of a match, the loss of a positive pair is -log p and that of a negative pair -log(1 - p). Returns
    half of the mean over positive pairs plus half of the mean over negative pairs, so that the many negatives do not
    drown the positives (3.6 has single pairs and no batch). -log(1 - p) is infinite at D = 0; there D counts as 1e-6.
    """
    close = functional.softplus(distances - margin) - functional.softplus(distances.new_tensor(-margin))
    apart = distances.clamp_min(1e-6)
    far = functional.softplus(margin - apart) - torch.log(-torch.expm1(-apart))
    return (mean_of(close, relations.positives) + mean_of(far, relations.negatives)) / 2
