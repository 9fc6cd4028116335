"""Losses that compare one anchor with all of its positives and negatives at once: O(B²) time and memory."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from geoloc.losses.relations import Relations, log_sum_exp, mean_of


def soft_sets(distances: torch.Tensor, relations: Relations) -> torch.Tensor:
    """Mean over anchors a of -log(Σ_i exp s(a, p_i) / (Σ_i exp s(a, p_i) + Σ_j exp s(a, n_j))), with s = -distance,
    from distances [B, B]: a scalar (dissertation 5.2: several positives, several negatives).

    Anchors without a positive or without a negative do not count.
    """
    positives = log_sum_exp(-distances, relations.positives)
    negatives = log_sum_exp(-distances, relations.negatives)
    return mean_of(functional.softplus(negatives - positives), _complete(relations))


def info_nce(cosines: torch.Tensor, relations: Relations, temperature: float) -> torch.Tensor:
    """Mean over positive pairs (a, p) of -log(exp(s(a, p) / t) / (exp(s(a, p) / t) + Σ_j exp(s(a, n_j) / t))), from
    cosines s [B, B]: a scalar (Sohn, Improved deep metric learning with multi-class N-pair loss, 2016, equation 6;
    van den Oord et al., Contrastive predictive coding, 2018, equation 4).

    Pairs of an anchor without a negative do not count.
    """
    scores = cosines / temperature
    negatives = log_sum_exp(scores, relations.negatives)[:, None]
    return mean_of(
        functional.softplus(negatives - scores), relations.positives & _complete(relations)[:, None]
    )


def lifted(distances: torch.Tensor, relations: Relations, margin: float) -> torch.Tensor:
    """Half the mean over positive pairs (i, j) of max(0, J)², with

        J = log(Σ_k exp(margin - d(i, n_k)) + Σ_l exp(margin - d(j, n_l))) + d(i, j)

    from distances [B, B]: a scalar (Song et al., Deep metric learning via lifted structured feature embedding, 2016,
    equation 4). Pairs without a negative on either side do not count.
    """
    negatives = log_sum_exp(margin - distances, relations.negatives)
    any_negative = relations.negatives.any(dim=1)
    both = torch.logaddexp(negatives[:, None], negatives[None, :])
    counted = relations.positives & (any_negative[:, None] | any_negative[None, :])
    return mean_of(functional.relu(torch.where(counted, both + distances, 0)).square() / 2, counted)


def angular(cosines: torch.Tensor, relations: Relations, degrees: float) -> torch.Tensor:
    """Mean over positive pairs (a, p) of log(1 + Σ_n exp(4 t² (a + p)·n - 2 (1 + t²) a·p)), with t = tan(alpha) and n
    the anchor's negatives, from dot products of embeddings of length 1 [B, B]: a scalar (Wang et al., Deep metric
    learning with angular loss, 2017, equation 8).

    exp(4 t² (a + p)·n) is the product of a factor of (a, n) and one of (p, n), so all sums over n are one product of
    two matrices. At most 60 degrees: the factors stay within float32.
    """
    squared = math.tan(math.radians(degrees)) ** 2
    factors = (4 * squared * (cosines - 1)).exp()  # at most 1
    sums = (factors * relations.negatives) @ factors.T
    logarithm = sums.clamp_min(torch.finfo(sums.dtype).tiny).log() + 8 * squared
    terms = functional.softplus(logarithm - 2 * (1 + squared) * cosines)
    return mean_of(terms, relations.positives & _complete(relations)[:, None])


def _complete(relations: Relations) -> torch.Tensor:
    """The anchors with a positive and a negative, bool [B]."""
    return relations.positives.any(dim=1) & relations.negatives.any(dim=1)
