"""Checkpoints: everything needed to resume a training, in one safetensors file with JSON in its header.

The file is renamed into place, so it is whole or missing: weights and step never disagree.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from geoloc.files import atomic_path
from geoloc.models.weights import METADATA_KEY, WeightsError, read_safetensors

FORMAT = 1
CHECKPOINT = "checkpoint.safetensors"
_MODEL, _OPTIMISER, _AVERAGE = "model.", "optimiser.", "average."


@dataclass
class Progress:
    """The position of a training. `epoch` is the current one, from 1; `step` counts steps over all epochs."""

    epoch: int = 1
    epoch_step: int = 0
    step: int = 0
    loss_sum: float = 0.0
    photos: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    unreadable: list[int] = field(default_factory=list)
    finished: bool = False


class CheckpointError(ValueError):
    """A checkpoint belongs to a different training, or is damaged. The message names the differences."""


def changing_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights and buffers of a model that training may change: all except frozen weights."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def save_state(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata to one safetensors file, atomically; equal values give equal bytes."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def save_checkpoint(
    folder: Path,
    fingerprint: dict[str, str],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Progress,
    average: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write the checkpoint of `folder`. It needs no random state: random numbers are functions of seed and step.

    `average` holds the tensors of the moving average of weights, if there is one.
    """
    tensors = {_MODEL + name: value for name, value in changing_state(model).items()}
    tensors |= {_AVERAGE + name: value for name, value in (average or {}).items()}
    numbers: dict[str, Any] = {}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{_OPTIMISER}{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    metadata = {
        "format": FORMAT,
        "kind": "checkpoint",
        "fingerprint": fingerprint,
        "optimiser": numbers,
        "scaler": scaler.state_dict(),
        "progress": vars(progress),
    }
    save_state(folder / CHECKPOINT, tensors, metadata)


def load_checkpoint(
    folder: Path,
    fingerprint: dict[str, str],
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    average: dict[str, torch.Tensor] | None = None,
) -> Progress | None:
    """Restore what save_checkpoint wrote, including `average`; returns None if there is no checkpoint.

    Raises CheckpointError, with nothing changed, if it belongs to a different training (another fingerprint) or is
    damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        tensors, metadata = read_safetensors(path)
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    if metadata is None or metadata.get("kind") != "checkpoint" or metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}")
    stored = metadata["fingerprint"]
    differing = sorted(k for k in stored.keys() | fingerprint.keys() if stored.get(k) != fingerprint.get(k))
    if differing:
        raise CheckpointError(f"{path} belongs to a training with different {', '.join(differing)}")
    model_state = {k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)}
    if model_state.keys() != changing_state(model).keys():
        raise CheckpointError(f"{path} holds different weights than this model has")
    averaged = {k.removeprefix(_AVERAGE): v for k, v in tensors.items() if k.startswith(_AVERAGE)}
    if averaged.keys() != (average or {}).keys():
        raise CheckpointError(f"{path} holds a different moving average than this training has")
    for name, value in (average or {}).items():
        value.copy_(averaged[name])
    model.load_state_dict(model_state, strict=False)
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_OPTIMISER):
            index, name = key.removeprefix(_OPTIMISER).split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
    for key, number in metadata["optimiser"].items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = number
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    _lay_out_as_weights(optimiser)
    scaler.load_state_dict(metadata["scaler"])
    return Progress(**metadata["progress"])


def _lay_out_as_weights(optimiser: torch.optim.Optimizer) -> None:
    """Give the optimiser's tensors the memory layout of their weights, as they have in a run that was never killed: on
    a GPU, tensors of different layouts are updated by other kernels, which round otherwise."""
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.ndim:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def best_path(folder: Path, epoch: int) -> Path:
    """The file with the weights of the best epoch `epoch`."""
    return folder / f"best-{epoch:05d}.safetensors"


def save_best(folder: Path, model: nn.Module, epoch: int) -> None:
    """Save the weights of an epoch. Older ones are kept until the checkpoint names this one."""
    save_state(best_path(folder, epoch), changing_state(model), {"kind": "best", "epoch": epoch})


def load_best(folder: Path, model: nn.Module, epoch: int) -> None:
    """Restore the weights of an epoch. Raises CheckpointError if they are missing or damaged."""
    try:
        tensors, _ = read_safetensors(best_path(folder, epoch))
    except WeightsError as error:
        raise CheckpointError(f"the best weights are lost: {error}") from error
    model.load_state_dict(tensors, strict=False)


def remove_others(folder: Path, best_epoch: int | None) -> None:
    """Remove best weights that no checkpoint names any more, and temporary files of killed writers."""
    kept = None if best_epoch is None else best_path(folder, best_epoch)
    for path in [*folder.glob("best-*.safetensors"), *folder.glob(".*.part")]:
        if path != kept:
            path.unlink()
