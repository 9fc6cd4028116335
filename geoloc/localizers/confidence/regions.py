"""The regions of answers: the cells that contain a photo with a stated probability, with their area, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.conformal import ConformalRegions

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


@dataclass(frozen=True)
class Region:
    """Cells of `partition` that contain the photo with probability `coverage`: count, tokens, area in km².

    Where calibration could promise that coverage only for all cells together, `anywhere` is True, and tokens and area
    are None.
    """

    coverage: float
    partition: str
    cells: int
    area_km2: float | None
    anywhere: bool
    tokens: tuple[str, ...] | None

    def __str__(self) -> str:
        if self.anywhere:
            return f"{100 * self.coverage:g} % region: anywhere"
        cells = "1 cell" if self.cells == 1 else f"{self.cells:,} cells"
        return f"{100 * self.coverage:g} % region: {cells}, {_area(self.area_km2 or 0.0)}"


def regions_of(
    calibration: Calibration,
    name: str,
    partition: Partition,
    probabilities: Mapping[str, NDArray[Any]],
) -> list[tuple[Region, ...] | None]:
    """The regions of N photos over the partition `name`, by rising coverage; None where no region was fitted.

    `probabilities` are scaled already, float [N, C] by partition.
    """
    p = probabilities[name]
    if name not in calibration.regions:
        return [None] * len(p)
    tokens = np.array(partition.tokens(), dtype=object)
    areas = partition.areas_km2()
    by_coverage = [_at_one(one, name, p, areas, tokens) for one in calibration.regions[name]]
    return [tuple(regions) for regions in zip(*by_coverage, strict=True)]


def _at_one(
    conformal: ConformalRegions,
    partition: str,
    probabilities: NDArray[Any],
    areas: NDArray[np.float64],
    tokens: NDArray[np.object_],
) -> list[Region]:
    """The region of each photo at one coverage."""
    found = conformal.predict(probabilities, areas)
    if np.isinf(conformal.threshold):
        return [Region(conformal.coverage, partition, len(tokens), None, True, None)] * len(found)
    return [
        Region(conformal.coverage, partition, int(size), float(area), False, tuple(tokens[cells]))
        for size, area, cells in zip(found.size, found.area_km2, found.cells, strict=True)
    ]


def _area(km2: float) -> str:
    """An area for people: 3.4 million km², 12,300 km², 0.42 km²."""
    if km2 >= 999_500:
        return f"{km2 / 1e6:.1f} million km²"
    return f"{float(f'{km2:.3g}'):,g} km²"  # three digits: more would claim a precision that a region does not have
