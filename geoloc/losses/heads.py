"""The loss of a classifier with one or several heads: the weighted sum of their losses (Revisiting IM2GPS, section
3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from geoloc.losses.classification import cross_entropy, distance_targets, soft_cross_entropy


@dataclass(frozen=True)
class HeadLoss:
    """The loss of one head: `weight` in the sum, `class_weights` float32 [C] or None, `label_smoothing`.

    With `smoothing_km` above 0, targets are smoothed by distance from `points`, the cells' points as unit vectors
    float64 [C, 3].
    """

    weight: float = 1.0
    class_weights: torch.Tensor | None = None
    label_smoothing: float = 0.0
    smoothing_km: float = 0.0
    points: torch.Tensor | None = None

    def __call__(self, scores: torch.Tensor, cells: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Mean loss of scores [B, C] against cells int64 [B] (-1 for none): a scalar, without `weight`. `places` are
        the photos' locations, unit vectors float64 [B, 3].

        A photo in no cell has loss 0 and does not train the head. The mean is still over all B, so a photo has the same
        influence in every batch, however many others are in no cell.
        """
        if self.smoothing_km and self.points is not None:
            targets = distance_targets(self.points, places, self.smoothing_km, cells)
            return soft_cross_entropy(scores, targets, cells, self.class_weights)
        return cross_entropy(scores, cells, self.class_weights, self.label_smoothing)


def sum_of_heads(
    losses: Mapping[str, HeadLoss],
    scores: Mapping[str, torch.Tensor],
    cells: torch.Tensor,
    places: torch.Tensor,
) -> torch.Tensor:
    """Sum over heads h of weight_h · loss_h: scores by head [B, C_h], cells int64 [B, H] in the order of `scores`,
    places [B, 3].

    A head with weight 0 is skipped: even an infinite loss of it does not count.
    """
    parts = [
        losses[name].weight * losses[name](of_head, cells[:, h], places)
        for h, (name, of_head) in enumerate(scores.items())
        if losses[name].weight
    ]
    return torch.stack(parts).sum()
