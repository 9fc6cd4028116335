"""The heads of a network over the cells of partitions: their names, sizes and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Heads:
    """A network with one head per partition. `heads` are their names and cell counts, in order, the main one first."""

    heads: dict[str, int]

    def split(self, scores: torch.Tensor) -> dict[str, torch.Tensor]:
        """The scores [B, C] separated by head, in order: [B, C of the head] by name."""
        parts = scores.split(list(self.heads.values()), dim=1)
        return dict(zip(self.heads, parts, strict=True))

    def check_heads(self, cell_counts: Mapping[str, int]) -> None:
        """Raise ValueError if the heads do not match partitions with these names and numbers of cells."""
        if list(cell_counts) != list(self.heads):
            raise ValueError(
                f"the model has the heads {', '.join(self.heads)}, the partitions are {', '.join(cell_counts)}: "
                "build the model for them"
            )
        for name, count in cell_counts.items():
            if count != self.heads[name]:
                raise ValueError(
                    f"the head {name} has {self.heads[name]} cells, the partition {name} has {count}: "
                    "build the model for it"
                )
