"""Which photos of a batch should be near each other and which far apart, and how far apart they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Relations:
    """The valid pairs of a batch of B photos: `positives` and `negatives`, bool [B, B], row anchor, column other.

    A pair may be neither, never both. Neither needs to be symmetric.
    """

    positives: torch.Tensor
    negatives: torch.Tensor

    def __post_init__(self) -> None:
        square = (len(self.positives),) * 2
        if self.positives.shape != square or self.negatives.shape != square:
            raise ValueError(
                f"relations need two square masks of one size, got {tuple(self.positives.shape)} and "
                f"{tuple(self.negatives.shape)}"
            )

    @property
    def triplets(self) -> torch.Tensor:
        """The number of valid triplets (anchor, positive, negative), an int64 scalar."""
        return (self.positives.sum(dim=1) * self.negatives.sum(dim=1)).sum()

    def to(self, device: torch.device) -> Relations:
        """The relations on a device."""
        return Relations(self.positives.to(device), self.negatives.to(device))

    def closest(self, similarities: torch.Tensor, count: int) -> Relations:
        """Keeps the `count` most similar positives of each anchor, by `similarities` [B, B]; the other positives become
        neither (NetVLAD section 4: only the best match within the radius is known to show the same place)."""
        ranked = similarities.detach().masked_fill(~self.positives, -torch.inf)
        best = ranked.topk(min(count, len(ranked)), dim=1).indices
        kept = torch.zeros_like(self.positives).scatter_(1, best, True)
        return Relations(self.positives & kept, self.negatives)


def relations_by_class(classes: torch.Tensor) -> Relations:
    """Relations by class, int64 [B]: photos of one class are positive to each other, all others negative."""
    same = classes[:, None] == classes[None, :]
    return Relations(same & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device), ~same)


def squared_distances(embeddings: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distance of each pair of embeddings [B, D]: [B, B], not below 0, gradient 0 where it is 0."""
    lengths = embeddings.square().sum(dim=1)
    return (lengths[:, None] + lengths[None, :] - 2 * embeddings @ embeddings.T).clamp_min(0)


def distances(embeddings: torch.Tensor, kind: str) -> torch.Tensor:
    """Distance of each pair of embeddings [B, D], euclidean or squared_euclidean: [B, B]."""
    squared = squared_distances(embeddings)
    # The root's gradient is infinite at 0 (equal photos, and the diagonal).
    smallest = torch.finfo(squared.dtype).eps
    return squared if kind == "squared_euclidean" else squared.clamp_min(smallest).sqrt()


def mean_of(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the values where `mask` is true; 0, with gradient 0, where it is nowhere."""
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum() / mask.sum().clamp_min(1)


def log_sum_exp(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log Σ exp of the values where `mask` is true, along the last dimension; a row with none gives a very low number
    and gradient 0."""
    lowest = torch.finfo(values.dtype).min / 4
    return values.masked_fill(~mask, lowest).logsumexp(dim=-1)
