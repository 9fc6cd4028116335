"""Distillation: a network's projected features should point in the direction of a larger network's embeddings."""

from __future__ import annotations

import torch
from torch.nn import functional


def cosine_distillation(projected: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over B photos of 1 - cos(projected, teacher), float [B, D] each: a scalar in float32.

    A photo without a teacher (a row with a NaN) has loss 0 and gradient 0, and counts in the mean. The angle replaces a
    distance, because embeddings have unit length; the projection is that of Romero et al., FitNets, 2015, section 2.2.
    """
    known = ~torch.isnan(teacher).any(dim=1)
    wanted = torch.where(known[:, None], teacher, torch.ones_like(teacher)).float()
    losses = 1 - functional.cosine_similarity(projected.float(), wanted, dim=1)
    return torch.where(known, losses, torch.zeros_like(losses)).mean()
