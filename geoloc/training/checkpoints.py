"""Checkpoints: all that a training needs to go on, in one safetensors file with JSON in its header.

One file, renamed into place, is whole or absent; there is no moment at which weights and step disagree.
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
    """Where a training is. `epoch` is from 1 and the one under way, `step` counts steps of all epochs."""

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
    """A checkpoint is of another training, or damaged. The message says what differs."""


def changing_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights and buffers of a model that training may change: all but frozen weights."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def save_state(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Tensors and JSON metadata in one safetensors file, atomically; equal values give equal bytes."""
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
    """Write the checkpoint of `folder`. Random numbers need none: they are functions of seed and step.

    `average` are the tensors of the weights' moving average, where there is one.
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
    """Put back what save_checkpoint wrote, into `average` too; None where there is no checkpoint.

    Raises CheckpointError, with nothing changed, for one of another training (another fingerprint) or a damaged one.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        tensors, metadata = read_safetensors(path)
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    if metadata is None or metadata.get("kind") != "checkpoint" or metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of format {FORMAT}")
    stored = metadata["fingerprint"]
    differing = sorted(k for k in stored.keys() | fingerprint.keys() if stored.get(k) != fingerprint.get(k))
    if differing:
        raise CheckpointError(f"{path} is of a training with other {', '.join(differing)}")
    model_state = {k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)}
    if model_state.keys() != changing_state(model).keys():
        raise CheckpointError(f"{path} holds other weights than this model has")
    averaged = {k.removeprefix(_AVERAGE): v for k, v in tensors.items() if k.startswith(_AVERAGE)}
    if averaged.keys() != (average or {}).keys():
        raise CheckpointError(f"{path} holds another moving average than this training has")
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
    scaler.load_state_dict(metadata["scaler"])
    return Progress(**metadata["progress"])


def best_path(folder: Path, epoch: int) -> Path:
    """Where the weights of a best epoch are kept."""
    return folder / f"best-{epoch:05d}.safetensors"


def save_best(folder: Path, model: nn.Module, epoch: int) -> None:
    """Keep the weights of an epoch. The older ones stay until the checkpoint names this one."""
    save_state(best_path(folder, epoch), changing_state(model), {"kind": "best", "epoch": epoch})


def load_best(folder: Path, model: nn.Module, epoch: int) -> None:
    """Put back the weights of an epoch. Raises CheckpointError if they are absent or damaged."""
    try:
        tensors, _ = read_safetensors(best_path(folder, epoch))
    except WeightsError as error:
        raise CheckpointError(f"the best weights are lost: {error}") from error
    model.load_state_dict(tensors, strict=False)


def remove_others(folder: Path, best_epoch: int | None) -> None:
    """Remove best weights that no checkpoint names any more, and what a killed writer left."""
    kept = None if best_epoch is None else best_path(folder, best_epoch)
    for path in [*folder.glob("best-*.safetensors"), *folder.glob(".*.part")]:
        if path != kept:
            path.unlink()
