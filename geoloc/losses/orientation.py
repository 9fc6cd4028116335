"""Orientation regression (dissertation 3.4.2)."""

from __future__ import annotations

import torch


def orientation_loss(found: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of `found` [B, 2] to the sine and cosine of `angle` [B] (radians): a scalar.

    An unknown angle (NaN) does not count; 0, with gradient 0, if all are unknown.
    """
    known = ~torch.isnan(angle)
    wanted = torch.stack([angle.sin(), angle.cos()], dim=1).nan_to_num(0.0)
    squared = (found.float() - wanted).square().sum(dim=1)
    return torch.where(known, squared, 0).sum() / known.sum().clamp_min(1)
