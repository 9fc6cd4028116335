"""What is kept of the probabilities of cells: a few numbers per photo, so that no matrix of all photos exists.

Probabilities of N photos over C cells are read in parts of bounded size, and each part is summarised and dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.by_class.probabilities import (
    Probabilities,
    checked_probabilities,
    log_probabilities,
)
from geoloc.localizers.confidence.calibration import Calibration


@dataclass(frozen=True, eq=False)
class RegionFacts:
    """Of the conformal regions of N photos: whether each holds the true cell, bool [N] (False for a photo in no cell);
    its `size` int64 [N] cells; and its `area_km2` float64 [N]."""

    covered: NDArray[np.bool_]
    size: NDArray[np.int64]
    area_km2: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CellFacts:
    """Of the probabilities of N photos over the cells of one partition.

    - `true_cell` int64 [N]: -1 for a photo in no cell.
    - `cell` int64 [N]: the most probable; -1 for an unreadable photo.
    - `probability`, `uncalibrated` float64 [N]: of that cell, after and before temperature scaling; NaN if unreadable.
    - `log_true` float64 [N]: the natural logarithm of the probability of the true cell (an underflowed 0 counts as
      float32's smallest normal number); NaN for an unreadable photo and for one in no cell.
    - `regions`: those of each stated coverage, in the order of the calibration.
    """

    true_cell: NDArray[np.int64]
    cell: NDArray[np.int64]
    probability: NDArray[np.float64]
    uncalibrated: NDArray[np.float64]
    log_true: NDArray[np.float64]
    regions: tuple[RegionFacts, ...] = ()

    def __len__(self) -> int:
        return len(self.cell)

    @classmethod
    def of(
        cls,
        raw: NDArray[Any],
        scaled: NDArray[Any],
        true_cell: NDArray[np.signedinteger],
        regions: tuple[RegionFacts, ...] = (),
    ) -> Self:
        """Summarise N photos: probabilities before and after scaling, float [N, C], a row of NaN for an unreadable
        photo. Raises ValueError as `checked_probabilities`."""
        p, unread = checked_probabilities(scaled, np.shape(scaled)[1])
        rows, best = np.arange(len(p)), p.argmax(axis=1)
        known = ~unread & (true_cell >= 0)
        log_true = np.where(known, log_probabilities(p[rows, true_cell]), np.nan)
        return cls(
            np.asarray(true_cell, np.int64),
            np.where(unread, -1, best),
            np.where(unread, np.nan, p[rows, best]),
            np.where(unread, np.nan, np.asarray(raw)[rows, best]),
            log_true,
            regions,
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The facts of the photos of all parts, in order."""

        def join(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])

        regions = zip(*(part.regions for part in parts), strict=True)
        return cls(
            join("true_cell"),
            join("cell"),
            join("probability"),
            join("uncalibrated"),
            join("log_true"),
            tuple(_joined_regions(some) for some in regions),
        )


def cell_facts(
    calibration: Calibration,
    raw: Probabilities,
    scaled: Probabilities,
    true_cells: Mapping[str, NDArray[np.signedinteger]],
    areas_km2: Mapping[str, NDArray[np.float64]],
) -> dict[str, CellFacts]:
    """Summarise N photos by partition, with the regions of the calibration. `areas_km2` are those of the cells (C,);
    they are needed for partitions with regions."""
    made = {}
    for name, p in scaled.items():
        regions = []
        for one in calibration.regions.get(name, ()):
            found = one.predict(p, areas_km2[name])
            regions.append(RegionFacts(found.covered(true_cells[name]), found.size, found.area_km2))
        made[name] = CellFacts.of(raw[name], p, true_cells[name], tuple(regions))
    return made


def _joined_regions(parts: Sequence[RegionFacts]) -> RegionFacts:
    return RegionFacts(
        np.concatenate([part.covered for part in parts]),
        np.concatenate([part.size for part in parts]),
        np.concatenate([part.area_km2 for part in parts]),
    )
