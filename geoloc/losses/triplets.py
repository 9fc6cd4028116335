"""Mean loss over every valid triplet of a batch, exactly, in memory linear in the number of pairs.

A batch of 64 classes × 32 photos has 128 million triplets. Each is a function of two distances of its anchor, so both
losses are computed from the [B, B] distances, anchor by anchor, together with their gradient (dissertation 3.5.3:
exhausting the mini-batch).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from geoloc.losses.relations import Relations

_IN_CACHE = 2**18
"""Triplets at a time on a CPU: few enough that two such blocks stay in its caches."""
_AT_ONCE = 2**25
"""Triplets at a time on an accelerator; never below what one anchor has (at most B²)."""


def soft_triplet(distances: torch.Tensor, relations: Relations) -> torch.Tensor:
    """Mean over all valid triplets (a, p, n) of log(1 + exp(d(a, p) - d(a, n))), from distances [B, B]: a scalar.

    With squared Euclidean distances this is the distance-based logistic loss for triplets (dissertation 3.7, 3.8; 4.4.4
    with its sign corrected), with Euclidean ones equation 5.1. 0, with gradient 0, if there is no triplet. O(B² · P)
    time for P positives per anchor, O(B²) memory; not twice differentiable.
    """
    loss: torch.Tensor = _SoftTriplet.apply(distances, relations)
    return loss


def hinge_triplet(
    distances: torch.Tensor, relations: Relations, margin: float, mean_over: str = "all"
) -> torch.Tensor:
    """Mean over all valid triplets (a, p, n) of max(0, margin + d(a, p) - d(a, n)), from distances [B, B]: a scalar
    (dissertation 3.4).

    With `mean_over` violating, the mean is over the triplets with a loss above 0 (Hermans et al., In defense of the
    triplet loss, 2017, section 2). 0, with gradient 0, if there is none. O(B² log B) time, O(B²) memory; not twice
    differentiable.
    """
    if mean_over not in ("all", "violating"):
        raise ValueError(f"mean_over must be all or violating, got {mean_over!r}")
    loss: torch.Tensor = _HingeTriplet.apply(distances, relations, margin, mean_over)
    return loss


class _FromDistances(Function):
    """A function of distances [B, B] whose gradient was computed with it."""

    @staticmethod
    @once_differentiable
    def backward(context: Any, of_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = context.saved_tensors
        return of_loss * gradient, *[None] * context.others


class _SoftTriplet(_FromDistances):
    @staticmethod
    def forward(context: Any, distances: torch.Tensor, relations: Relations) -> torch.Tensor:
        distances = distances.detach()
        count = relations.triplets.clamp_min(1)
        gradient = torch.zeros_like(distances)
        total = _sum_of_soft_triplets(distances, relations, gradient)
        context.others = 1
        context.save_for_backward(gradient.div_(count))
        return (total / count).to(distances.dtype)


def _sum_of_soft_triplets(
    distances: torch.Tensor, relations: Relations, gradient: torch.Tensor
) -> torch.Tensor:
    """Sum of the losses of all triplets, float64; adds its gradient to `gradient` [B, B].

    A triplet's loss is log1p(z) and its derivative z / (1 + z), with z = exp(d(a, p) - d(a, n)). z is the product of
    exp(d(a, p) - c) and exp(c - d(a, n)), so there are 2 B² exponentials instead of one per triplet; c is the middle of
    the anchor's distances. Where these are too far apart for such factors, which needs embeddings far longer than
    `scale` makes them, z's logarithm is used.
    """
    valid = relations.positives | relations.negatives
    low = distances.masked_fill(~valid, torch.inf).amin(dim=1, keepdim=True)
    high = distances.masked_fill(~valid, -torch.inf).amax(dim=1, keepdim=True)
    farthest = 80.0 if distances.dtype == torch.float32 else 600.0  # exp of ± this is an ordinary number
    apart = bool(((high - low) > farthest).any())
    to_middle = torch.where(relations.positives, distances - (low + high) / 2, -torch.inf)
    from_middle = torch.where(relations.negatives, (low + high) / 2 - distances, -torch.inf)
    if not apart:
        to_middle, from_middle = to_middle.exp_(), from_middle.exp_()
    total = distances.new_zeros((), dtype=torch.float64)
    for anchors, columns in _blocks(relations):
        of_positives = to_middle[anchors[:, None], columns][:, :, None]
        of_negatives = from_middle[anchors][:, None, :]
        if apart:
            each = of_positives + of_negatives
            total += functional.softplus(each).sum()
            each.sigmoid_()
        else:
            each = of_positives * of_negatives
            total += each.log1p().sum()
            each.div_(each + 1)
        gradient[anchors] -= each.sum(dim=1)
        gradient[anchors[:, None], columns] += each.sum(dim=2)
    return total


def _blocks(relations: Relations) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields anchors, int64 [A], and the columns of their positives, int64 [A, P], in blocks of bounded size.

    Anchors with similar numbers of positives are together; the last columns of those with fewer are no positives.
    Anchors without a triplet are left out.
    """
    positives = relations.positives.sum(dim=1)
    counts, anchors = torch.where(relations.negatives.any(dim=1), positives, 0).sort(descending=True)
    wanted = [count for count in counts.tolist() if count]
    columns = _columns(relations.positives)
    limit = _IN_CACHE if positives.device.type == "cpu" else _AT_ONCE
    start = 0
    while start < len(wanted):
        end = min(start + max(1, limit // (wanted[start] * len(counts))), len(wanted))
        yield anchors[start:end], columns[anchors[start:end], : wanted[start]]
        start = end


def _columns(positives: torch.Tensor) -> torch.Tensor:
    """The columns of each anchor's positives, int64 [B, P] for at most P each, filled up with the anchor's own column,
    which is no positive."""
    counts = positives.sum(dim=1)
    row, column = positives.nonzero(as_tuple=True)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    own = torch.arange(len(counts), device=row.device)
    columns = own[:, None].repeat(1, int(counts.max()) if len(counts) else 0)
    columns[row, place] = column
    return columns


class _HingeTriplet(_FromDistances):
    @staticmethod
    def forward(
        context: Any, distances: torch.Tensor, relations: Relations, margin: float, mean_over: str
    ) -> torch.Tensor:
        distances = distances.detach()
        negatives, columns = relations.negatives, _columns(relations.positives)
        # A triplet has a loss if its negative is nearer than the positive's limit, d(a, p) + margin.
        is_positive = relations.positives.gather(1, columns)
        limits = torch.where(is_positive, distances.gather(1, columns) + margin, -torch.inf)
        sorted_negatives = torch.where(negatives, distances, torch.inf).sort(dim=1).values
        sums = torch.where(sorted_negatives < torch.inf, sorted_negatives, 0).cumsum(1, dtype=torch.float64)
        nearer = torch.searchsorted(sorted_negatives, limits)  # the number of negatives within each limit
        within = torch.where(nearer > 0, sums.gather(1, (nearer - 1).clamp_min(0)), 0)
        total = (torch.where(is_positive, limits, 0) * nearer - within).sum()
        farther = columns.shape[1] - torch.searchsorted(limits.sort(dim=1).values, distances, right=True)
        gradient = torch.where(negatives, -farther, 0).scatter_add_(1, columns, nearer)
        count = (nearer.sum() if mean_over == "violating" else relations.triplets).clamp_min(1)
        context.others = 3
        context.save_for_backward(gradient.to(distances.dtype).div_(count))
        return (total / count).to(distances.dtype)
