"""Optimisers by name, with their parameter groups."""

from __future__ import annotations

import torch
from torch import nn

from geoloc.training.loop_settings import LoopSettings

SHARE = "share"
"""Key in a parameter group: the group's learning rate as a share of the training's."""


def make_optimiser(model: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    """The optimiser over the weights of `model` that learn, in groups: backbone or not, with weight decay or without.

    A weight is of the backbone if a part of its name is "backbone": towers.0.backbone.x too. Weights of one dimension
    (biases, normalisation, GeM's power) have no weight decay: pulling a scale towards zero does not regularise the
    function.
    """
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = ("backbone" in name.split("."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    parameters = [
        {
            "params": members,
            "weight_decay": settings.weight_decay if decayed else 0.0,
            SHARE: settings.backbone_learning_rate_share if backbone else 1.0,
        }
        for (backbone, decayed), members in sorted(groups.items())
    ]
    rate = settings.learning_rate
    if settings.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum)
    if settings.optimiser == "adagrad":
        return torch.optim.Adagrad(
            parameters, lr=rate, initial_accumulator_value=settings.initial_accumulator
        )
    return torch.optim.AdamW(parameters, lr=rate)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set each group's learning rate to its share of `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group[SHARE]
