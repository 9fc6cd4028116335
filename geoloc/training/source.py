"""What a training takes its batches from, whatever a family of models trains on: photos, features, pairs, sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class TrainingError(ValueError):
    """A training cannot start or go on. The message says why and what to do."""


@dataclass(frozen=True)
class Inputs:
    """One batch of B examples: `tensors`, [B, ...] each, in the order that the family's loss takes them (one for
    photos, two for pairs); `positions` int64 [B], the examples' positions in the source; `unreadable` int64 [U], the
    positions that were asked for and could not be read."""

    tensors: tuple[torch.Tensor, ...]
    positions: NDArray[np.int64]
    unreadable: NDArray[np.int64]


class Source(Protocol):
    """What gives batches of the examples at some positions, in that order; its length is the number of examples."""

    def __len__(self) -> int: ...

    def batches(self, order: NDArray[np.int64], batch_size: int, epoch: int) -> Iterator[Inputs]:
        """Each `batch_size` positions as one batch, as far as they are readable; random changes of an example (an
        augmentation) are a function of its position and the epoch."""
        ...
