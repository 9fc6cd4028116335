"""Networks over sequences of photos: PlaNet's LSTMs (section 4, figure 12), and a small transformer.

The inputs are embeddings or probabilities that are stored (context_inputs.py). Every kind answers for every photo of a
sequence; offsets and repetitions are inside. Sequences of a batch are packed by their lengths, so that padding is never
seen.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from geoloc.models.described import load_described, save_described
from geoloc.models.sequence_settings import SequenceNetworkSettings
from geoloc.settings import parse, used

KIND = "sequence"
_HOURS = (1 / 60, 0.25, 1.0, 6.0, 24.0, 72.0, 24.0 * 14, 24.0 * 90)
"""Bounds of the times between two photos that the transformer tells apart, in each direction."""


class SequenceNetwork(nn.Module):
    """Scores of C cells for each photo of a batch of sequences, from inputs of D numbers a photo.

    `shift` [D] and `scale` are subtracted from the inputs and divided by: `standardise` sets them.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, inputs: int, cells: int, settings: SequenceNetworkSettings) -> None:
        super().__init__()
        settings.check("network")
        self.inputs, self.cells, self.settings = inputs, cells, settings
        self.register_buffer("shift", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(()))
        width = settings.hidden
        if settings.kind == "transformer":
            self.body: nn.Module = _Transformer(inputs, settings)
        else:
            both = settings.kind == "bidirectional"
            between = settings.dropout if settings.layers > 1 else 0.0
            self.body = nn.LSTM(
                inputs, width, settings.layers, batch_first=True, dropout=between, bidirectional=both
            )
            width *= 1 + both
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(width, cells)

    def standardise(self, rows: torch.Tensor) -> None:
        """Set `shift` and `scale` so that these inputs [N, D] have mean 0, and variance 1 over all dimensions."""
        with torch.no_grad():
            self.shift.copy_(rows.mean(dim=0))
            self.scale.copy_((rows - self.shift).pow(2).mean().sqrt().clamp_min(1e-6))

    def forward(self, inputs: torch.Tensor, hours: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Scores [M, C] of the M photos of B sequences, sequence after sequence.

        `inputs` float [B, T, D] and `hours` float [B, T], padded with anything; `lengths` int64 [B], on the CPU, at
        least 1 and at most T. `hours` are since the first photo of the sequence.
        """
        longest = int(lengths.max())
        valid = _valid(lengths, longest).to(inputs.device)
        x = (inputs[:, :longest] - self.shift) / self.scale
        x = torch.where(valid[:, :, None], x, torch.zeros_like(x))
        kind = self.settings.kind
        if kind == "transformer":
            states = self.body(x, hours[:, :longest], valid)
        elif kind == "repeated":
            twice, second = _repeated(lengths)
            long = x.gather(1, twice.to(x.device)[:, :, None].expand(-1, -1, x.shape[2]))
            states = self._recurrent(long, 2 * lengths)
            at = second.to(x.device)[:, :, None]
            states = states.gather(1, at.expand(-1, -1, states.shape[2]))
        else:
            later = self.settings.offset
            states = self._recurrent(functional.pad(x, (0, 0, 0, later)), lengths + later)[:, later:]
        scores: torch.Tensor = self.head(self.dropout(states[valid]))
        return scores

    def _recurrent(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states: torch.Tensor = pad_packed_sequence(
            self.body(packed)[0], batch_first=True, total_length=x.shape[1]
        )[0]
        return states

    def __repr__(self) -> str:
        s = self.settings
        return f"SequenceNetwork({s.kind}, {self.inputs} inputs, {s.layers} × {s.hidden}, {self.cells} cells)"


def _valid(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """Which places of a padded batch are photos, bool [B, T]."""
    return torch.arange(longest)[None, :] < lengths[:, None]


def _repeated(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For sequences that are repeated: the photo at each step, int64 [B, 2T], and the second step of each photo,
    int64 [B, T]. Beyond a sequence's end any step is as good."""
    longest = int(lengths.max())
    step = torch.arange(2 * longest)[None, :].expand(len(lengths), -1)
    again = step - lengths[:, None]
    photo = torch.where(step < lengths[:, None], step, again).clamp(max=longest - 1)
    second = (torch.arange(longest)[None, :] + lengths[:, None]).clamp(max=2 * longest - 1)
    return photo, second


class _Transformer(nn.Module):
    """Layers of attention over all photos of a sequence; how much a photo looks at another depends on the time between
    the two, which each head learns for _HOURS."""

    def __init__(self, inputs: int, settings: SequenceNetworkSettings) -> None:
        super().__init__()
        width = settings.hidden
        self.enter = nn.Linear(inputs, width)
        self.layers = nn.ModuleList([_Layer(width, settings) for _ in range(settings.layers)])
        self.leave = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, hours: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hours = torch.nan_to_num(hours.float())
        apart = hours[:, None, :] - hours[:, :, None]  # to photo j from photo i
        size = torch.bucketize(apart.abs(), torch.tensor(_HOURS, device=x.device))
        gap = len(_HOURS) + size * torch.sign(apart).long()
        x = self.enter(x)
        for layer in self.layers:
            x = layer(x, gap, valid)
        left: torch.Tensor = self.leave(x)
        return left


class _Layer(nn.Module):
    def __init__(self, width: int, settings: SequenceNetworkSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.by_time = nn.Embedding(2 * len(_HOURS) + 1, settings.heads)
        nn.init.zeros_(self.by_time.weight)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: torch.Tensor, gap: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        batch, longest, width = x.shape
        parts = self.project(self.before(x)).view(batch, longest, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        scores = scores + self.by_time(gap).permute(0, 3, 1, 2)
        scores = scores.masked_fill(~valid[:, None, None, :], -torch.inf)
        seen = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, longest, width)
        x = x + self.dropout(self.join(seen))
        thought: torch.Tensor = x + self.dropout(self.think(self.between(x)))
        return thought


def build_sequence_network(
    inputs: int, cells: int, settings: SequenceNetworkSettings, seed: int
) -> SequenceNetwork:
    """A network with random weights; equal arguments give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SequenceNetwork(inputs, cells, settings)


def save_sequence_network(path: Path | str, model: SequenceNetwork) -> None:
    """Write a network to one safetensors file, see described.py."""
    description = {"inputs": model.inputs, "cells": model.cells, "settings": used(model.settings)}
    save_described(path, KIND, model, description)


def load_sequence_network(path: Path | str) -> SequenceNetwork:
    """The network that save_sequence_network wrote, in eval mode on the CPU. Raises WeightsError as load_described."""
    return load_described(
        path,
        KIND,
        lambda found: build_sequence_network(
            found["inputs"],
            found["cells"],
            parse(SequenceNetworkSettings, found["settings"], "sequences.network"),
            0,
        ),
    )
