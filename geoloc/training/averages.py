"""A moving average of the weights during training, evaluated and saved instead of the weights of the last step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from geoloc.training.checkpoints import changing_state


class WeightAverage:
    """The exponential moving average of all weights and buffers that training changes.

    After step s (from 0): average ← d · average + (1 - d) · weights, with d = min(decay, (1 + s) / (10 + s)), so that
    the random first weights are soon forgotten (as TensorFlow's ExponentialMovingAverage with num_updates; Polyak and
    Juditsky, Acceleration of stochastic approximation by averaging, 1992). Integers (counters) are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in changing_state(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after a step."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = changing_state(model)
        floats = [name for name, value in self.tensors.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in floats], [current[name].detach() for name in floats], 1 - decay
        )
        for name in self.tensors.keys() - set(floats):
            self.tensors[name].copy_(current[name])

    def apply(self, model: nn.Module) -> None:
        """Replace the model's weights by the average."""
        model.load_state_dict(self.tensors, strict=False)

    @contextlib.contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """A block in which the model has the average; its own weights are restored at the end."""
        own = {name: value.detach().clone() for name, value in changing_state(model).items()}
        self.apply(model)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)
