"""The network that corrects an image model's answer by the time of posting: Multi-modal Geolocation's M2, table 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geoloc.models.context_inputs import ContextInputs
from geoloc.models.described import load_described, save_described
from geoloc.models.time_settings import TimeNetworkSettings
from geoloc.settings import parse, used

KIND = "time"


class TimeNetwork(nn.Module):
    """Scores [B, C] of C cells from the inputs of TopCells, float [B, C + 4].

    Five layers: as wide as the input with ReLU, three hidden ones with sigmoid, ReLU and sigmoid, each with batch
    normalisation and dropout, and the output.
    """

    def __init__(self, cells: int, settings: TimeNetworkSettings) -> None:
        super().__init__()
        self.cells, self.settings = cells, settings
        widths = [cells + 4, settings.first or cells + 4, *[settings.hidden] * 3]
        activations: list[nn.Module] = [nn.ReLU(), nn.Sigmoid(), nn.ReLU(), nn.Sigmoid()]
        layers: list[nn.Module] = []
        for i, activation in enumerate(activations):
            # Batch normalisation has a bias of its own.
            layers += [nn.Linear(widths[i], widths[i + 1], bias=False), nn.BatchNorm1d(widths[i + 1])]
            layers += [activation, nn.Dropout(settings.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], cells))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.layers(inputs)
        return scores


def build_time_network(cells: int, settings: TimeNetworkSettings, seed: int) -> TimeNetwork:
    """A network with random weights; equal arguments give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TimeNetwork(cells, settings)


def save_time_network(path: Path | str, model: TimeNetwork) -> None:
    """Write a network to one safetensors file, see described.py."""
    save_described(path, KIND, model, {"cells": model.cells, "settings": used(model.settings)})


def load_time_network(path: Path | str) -> TimeNetwork:
    """The network that save_time_network wrote, in eval mode on the CPU. Raises WeightsError as load_described does."""
    return load_described(
        path,
        KIND,
        lambda found: build_time_network(
            found["cells"], parse(TimeNetworkSettings, found["settings"], "time.network"), 0
        ),
    )


def time_probabilities(
    model: TimeNetwork, inputs: ContextInputs, batch_size: int = 1024
) -> NDArray[np.float32]:
    """Probabilities of cells for N photos, float32 [N, C]; a row of NaN for a photo without inputs (unreadable, or of
    no time). The model runs in eval mode on its device; its mode is restored."""
    readable = np.flatnonzero(inputs.readable)
    found = np.full((len(inputs.readable), model.cells), np.nan, dtype=np.float32)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(readable), batch_size):
                rows = readable[start : start + batch_size]
                found[rows] = model(inputs.rows(rows).to(device)).softmax(dim=1).cpu().numpy()
    finally:
        model.train(was_training)
    return found
