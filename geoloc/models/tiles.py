"""Overhead tiles as a network sees them: rotated, scaled and unrolled on the device, a batch at a time."""

from __future__ import annotations

import torch
from torch.nn import functional


def seen_tiles(
    tiles: torch.Tensor, up: torch.Tensor, polar: bool = False, scale: torch.Tensor | None = None
) -> torch.Tensor:
    """Normalised tiles [B, C, S, S], north up, as seen with the bearing `up` [B] (degrees clockwise from north) at the
    top: [B, C, S, S].

    Only the inscribed circle is kept, so that no corner tells the rotation; outside is 0, the mean. With `polar`,
    columns are bearings, from `up` - 180 at the left to `up` + 180 at the right, and rows are distances from the
    circle's edge at the top to the centre at the bottom (Shi et al., SAFA, 2019). `scale` [B] enlarges a tile around
    its centre.
    """
    turn = torch.deg2rad(up.to(torch.float32))
    zoom = torch.ones_like(turn) if scale is None else 1 / scale.to(torch.float32)
    size = tiles.shape[-1]
    grid = _polar(turn, zoom, size) if polar else _turned(turn, zoom, size)
    seen = functional.grid_sample(tiles, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return seen if polar else seen * _circle(size, seen)


def _turned(turn: torch.Tensor, zoom: torch.Tensor, size: int) -> torch.Tensor:
    """Where each pixel of the turned tiles lies in the tiles, [B, S, S, 2]: x east, y south, the edges at ±1."""
    cos, sin = turn.cos() * zoom, turn.sin() * zoom
    none = torch.zeros_like(cos)
    matrices = torch.stack([cos, -sin, none, sin, cos, none], dim=1).view(-1, 2, 3)
    # Autocast would round places to a third of a pixel.
    with torch.autocast(turn.device.type, enabled=False):
        return functional.affine_grid(matrices, [len(turn), 1, size, size], align_corners=False)


def _polar(turn: torch.Tensor, zoom: torch.Tensor, size: int) -> torch.Tensor:
    steps = (torch.arange(size, device=turn.device, dtype=torch.float32) + 0.5) / size
    bearing = turn[:, None, None] + (2 * steps - 1)[None, None, :] * torch.pi
    radius = zoom[:, None, None] * (1 - steps)[None, :, None]
    return torch.stack([radius * bearing.sin(), -radius * bearing.cos()], dim=-1)


def _circle(size: int, like: torch.Tensor) -> torch.Tensor:
    steps = (torch.arange(size, device=like.device, dtype=torch.float32) + 0.5) * 2 / size - 1
    return (steps[:, None] ** 2 + steps[None, :] ** 2 <= 1).to(like.dtype)
