"""Large batches in little memory: Algorithm 1 of the dissertation (section 5.2.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_chunks(
    network: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, size: int
) -> torch.Tensor:
    """The outputs [B, ...] of `network` for inputs [B, ...], `size` of them at a time, for any loss over all B.

    The first pass keeps no intermediate result. The backward pass runs the network again, chunk by chunk, with the same
    random numbers (dropout), and adds up the gradients: equal to those of one pass over the same chunks, in the memory
    of one chunk. Whatever counts batches must be off: see check_no_batch_statistics.
    """
    # Each chunk is a segment of gradient checkpointing; autograd finishes the last segment before it reruns another.
    outputs = [
        checkpoint(network, chunk, use_reentrant=False, preserve_rng_state=True)
        for chunk in inputs.split(size)
    ]
    return torch.cat(outputs)


def check_no_batch_statistics(model: nn.Module, key: str) -> None:
    """Raise ValueError if a batch norm of `model` is in training mode: its statistics would be those of a chunk, not of
    the batch, and be updated twice. `key` names the setting of the chunk size."""
    found = [
        name for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training
    ]
    if found:
        raise ValueError(
            f"{key} needs batch norm with fixed statistics, but {len(found)} layers learn theirs, such as {found[0]}: "
            f"set {key.rpartition('.')[0]}.batch_norm to eval, or {key} to null"
        )
