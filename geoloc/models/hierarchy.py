"""Hierarchical softmax over nested partitions: the probability of a fine cell is a share of its coarse cell's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from geoloc.partitions.base import Partition, PartitionError

Parents = dict[str, NDArray[np.int64]]
"""For each head except the last: the cell of the next head that encloses each of its cells."""


def nested_parents(partitions: Mapping[str, Partition]) -> Parents:
    """The parents of nested partitions, which are given from the finest to the coarsest.

    Raises ValueError for a single partition, and if a partition does not lie within the next.
    """
    if len(partitions) < 2:
        raise ValueError(
            "model.softmax hierarchical needs at least two partitions, the finest first, got one"
        )
    named = list(partitions.items())
    parents = {}
    for (name, fine), (wider, coarse) in itertools.pairwise(named):
        try:
            found = fine.parent_cells(coarse)
        except PartitionError as error:
            raise ValueError(
                f"model.softmax hierarchical: {name} does not nest in {wider}: {error}"
            ) from None
        if found is None or (found < 0).any():
            outside = fine.cell_count if found is None else int((found < 0).sum())
            raise ValueError(
                f"model.softmax hierarchical needs each cell of {name} within one of {wider}: {outside} of "
                f"{fine.cell_count} are not; name the finest partition first, or use flat"
            )
        parents[name] = found.astype(np.int64)
    return parents


class HierarchicalSoftmax(nn.Module):
    """Scores [B, C] of all heads, from the finest to the coarsest, to log-probabilities float32 [B, C]:

        log P(cell) = log P(parent of cell) + log softmax over the parent's cells of the scores

    and a plain softmax for the coarsest (Morin and Bengio, Hierarchical probabilistic neural network language model,
    2005, section 3: a product of conditionals). The probability of a parent without cells goes to no fine cell. Fine
    cells then sum to less than 1, and the softmax that every reader of scores applies normalises them.

    Has no weights. `parents` is the result of `nested_parents`; memory is B x parents x the most cells of one parent.
    """

    def __init__(self, heads: Mapping[str, int], parents: Mapping[str, ArrayLike]) -> None:
        super().__init__()
        self.counts = list(heads.values())
        names = list(heads)
        if list(parents) != names[:-1]:
            raise ValueError(
                f"hierarchical softmax needs the parents of {', '.join(names[:-1])}, got {list(parents)}"
            )
        for h, name in enumerate(names[:-1]):
            parent = np.asarray(parents[name], dtype=np.int64)
            if parent.shape != (self.counts[h],) or parent.min() < 0 or parent.max() >= self.counts[h + 1]:
                raise ValueError(
                    f"parents of {name} must be {self.counts[h]} cells of {names[h + 1]}, from 0 to "
                    f"{self.counts[h + 1] - 1}, got shape {parent.shape}, {parent.min()} to {parent.max()}"
                )
            _, family, sizes = np.unique(parent, return_inverse=True, return_counts=True)
            order = np.argsort(family, kind="stable")
            place = np.arange(len(parent)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            # One row per parent with its cells, padded with the index of a column of minus infinity after the scores.
            rows = np.full((len(sizes), int(sizes.max())), len(parent), dtype=np.int64)
            rows[family[order], place] = order
            for what, values in (("parent", parent), ("family", family), ("rows", rows)):
                # Not saved with the weights: the parents are in the model's header.
                self.register_buffer(
                    f"{what}_{h}", torch.from_numpy(values.astype(np.int64)), persistent=False
                )

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [B, C]."""
        parts = scores.float().split(self.counts, dim=1)
        logs = [parts[-1].log_softmax(dim=1)]
        for h in range(len(parts) - 2, -1, -1):
            parent, family, rows = (self.get_buffer(f"{what}_{h}") for what in ("parent", "family", "rows"))
            nothing = torch.full_like(parts[h][:, :1], -torch.inf)
            filled = torch.cat([parts[h], nothing], dim=1)[:, rows.flatten()]
            together = filled.unflatten(1, tuple(rows.shape)).logsumexp(dim=2)
            logs.insert(0, logs[0][:, parent] + parts[h] - together[:, family])
        return torch.cat(logs, dim=1)
