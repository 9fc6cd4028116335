"""From a feature map to one vector: average, maximum, and generalised mean (GeM)."""

from __future__ import annotations

import torch
from torch import nn


class AveragePooling(nn.Module):
    """The mean over positions: [B, D, H, W] to [B, D]."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return features.mean(dim=(2, 3))


class MaxPooling(nn.Module):
    """The maximum over positions: [B, D, H, W] to [B, D] (Revisiting IM2GPS, figure 3)."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool."""
        return features.amax(dim=(2, 3))


class GemPooling(nn.Module):
    """The generalised mean (mean of x^p)^(1/p) over positions, p learnt: [B, D, H, W] to [B, D].

    Radenovic et al., Fine-tuning CNN image retrieval, equation 3. Features below 1e-6 are raised to it, because a real
    power of a negative number does not exist.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor([power], dtype=torch.float32))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Pool, in float32: half precision overflows at x = 41 for p = 3."""
        with torch.autocast(features.device.type, enabled=False):
            powers = features.float().clamp(min=1e-6).pow(self.power)
            return powers.mean(dim=(2, 3)).pow(1 / self.power)


def make_pooling(name: str, gem_power: float = 3.0) -> nn.Module:
    """The pooling called `name`: average, max or gem. Raises ValueError for any other name."""
    if name == "gem":
        return GemPooling(gem_power)
    if name in ("average", "max"):
        return AveragePooling() if name == "average" else MaxPooling()
    raise ValueError(f"pooling must be one of average, max, gem; got {name!r}")
