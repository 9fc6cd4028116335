"""Location by a product of probabilities across nested partitions: coarse, middle and fine.

The probability of a fine cell is multiplied by those of the coarser cells that enclose it, and the answer is the
fine cell with the largest product: a mistake of the fine classifier far away from where the coarse one looks is
outvoted. Müller-Budack, Pustu-Iren, Ewerth: Geolocation Estimation of Photos using a Hierarchical Model and Scene
Classification, ECCV 2018, section 3.3. Logarithms are added, so nothing underflows; logits are refused, because
two negative logits would make a large product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers, Localizer
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.by_class.probabilities import checked_groups, normalised

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


class HierarchyLocalizer(Localizer):
    """Answers with the cell of the finest partition with the largest product of probabilities down to it.

    `partitions` are nested and of one kind, in any order; `finest` is the one with most cells. A finest cell that
    no cell of some coarser partition encloses cannot be the answer, since that partition gives it no probability;
    `orphans` counts such cells. Confidence is the product, normalised over the finest cells. It is high where the
    partitions agree, and overconfident if they make the same errors. With calibration, each partition's probabilities
    are scaled by its own temperature (temperature.py); the product is not scaled again.
    `answer` and `alternatives` are ClassLocalizer's.

    Raises ValueError for fewer than two partitions, for a kind without hierarchy (OverlayLocalizer combines any),
    and where every finest cell is an orphan; PartitionError for partitions of different kinds.
    """

    def __init__(
        self,
        partitions: Sequence[Partition],
        answer: str = "centroid",
        model_name: str = "M",
        alternatives: int = 5,
    ) -> None:
        if len(partitions) < 2:
            raise ValueError(f"a hierarchy needs at least 2 partitions, got {len(partitions)}")
        self.partitions = tuple(partitions)
        self._finest = max(range(len(partitions)), key=lambda i: partitions[i].cell_count)
        self.finest = self.partitions[self._finest]
        self._by_class = ClassLocalizer(self.finest, answer, model_name, alternatives)
        self._parents = [
            np.arange(self.finest.cell_count) if i == self._finest else _parents(self.finest, coarser)
            for i, coarser in enumerate(self.partitions)
        ]
        self._orphan = np.logical_or.reduce([parents < 0 for parents in self._parents])
        if self._orphan.all():
            raise ValueError("the partitions do not nest: no finest cell lies in a cell of every coarser one")

    @property
    def orphans(self) -> int:
        """How many finest cells lie in no cell of some coarser partition, and so are never answered."""
        return int(self._orphan.sum())

    @property
    def name(self) -> str:
        """For example [M]359C product."""
        return f"{self._by_class.name} product"

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        counts = ", ".join(f"{count:,}" for count in sorted(p.cell_count for p in self.partitions))
        left_out = f"; {self.orphans:,} finest cells lie in no coarser one" if self.orphans else ""
        return f"largest product of probabilities over {counts} nested {self.finest.kind} cells{left_out}"

    def combine(self, probabilities: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The product over the finest cells, normalised, float32 [N, C]; NaN for a photo unread in any partition.

        `probabilities` are float [N, C_i], one array a partition in the order of `partitions`, each summing to 1 a
        photo. Raises ValueError for other shapes and for logits.
        """
        logs, unread = checked_groups(probabilities, [p.cell_count for p in self.partitions])
        total = np.zeros((len(unread), self.finest.cell_count))
        for log, parents in zip(logs, self._parents, strict=True):
            total += log[:, parents]  # parent -1 reads a wrong column, which the next line overwrites
        total[:, self._orphan] = -np.inf
        combined = normalised(total).astype(np.float32)
        combined[unread] = np.nan
        return combined

    def locate(self, probabilities: Any, /) -> Answers:
        """Locate N photos; arguments as `combine`. A photo unread in any partition abstains."""
        return self._by_class.locate(self.combine(probabilities))


def _parents(finest: Partition, coarser: Partition) -> NDArray[np.int32]:
    parents = finest.parent_cells(coarser)
    if parents is None:
        raise ValueError(
            f"partitions of kind {finest.kind!r} have no hierarchy: combine them with OverlayLocalizer"
        )
    return parents
