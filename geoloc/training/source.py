"""Where a training takes its batches from, for any family of models: photos, features, pairs, sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class TrainingError(ValueError):
    """A training cannot start or continue. The message names the reason and a remedy."""


@dataclass(frozen=True)
class Inputs:
    """One batch of B examples: `tensors`, [B, ...] each, in the order that the family's loss expects (one for
    photos, two for pairs); `positions` int64 [B], the examples' positions in the source; `unreadable` int64 [U],
    requested positions that could not be read."""

    tensors: tuple[torch.Tensor, ...]
    positions: NDArray[np.int64]
    unreadable: NDArray[np.int64]


class Source(Protocol):
    """Give batches of the examples at some positions, in that order; its length is the number of examples."""

    def __len__(self) -> int: ...

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """One batch per `batch_size` positions, without unreadable examples. Random changes of an example
        (augmentation) are a function of its position and the epoch."""
        ...
