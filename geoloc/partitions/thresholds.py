"""The threshold that gives a wanted number of cells.

Revisiting IM2GPS (section 3.1, figure 2) trains on partitions of 10, 80, 359, 1060, 1693 and 7011 cells and does not
name the thresholds, which depend on the photos anyway; comparisons of kinds are fair at equal cell counts only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from numpy.typing import ArrayLike

from geoloc.partitions import partition_of
from geoloc.partitions.base import Partition, PartitionError
from geoloc.partitions.settings import CitiesSettings, KindSettings, KMeansSettings, PartitionSettings
from geoloc.settings import replace

__all__ = ["GRANULARITIES", "fit_partition", "scaled", "threshold_for"]

GRANULARITIES = (10, 80, 359, 1060, 1693, 7011)
"""The cell counts of Revisiting IM2GPS, figure 2."""

_KMEANS_TRIES = 4
_FARTHEST = 0.1  # a count farther off than this share is no answer
_ADVICE = {
    "s2": "lower s2.min_photos, or raise s2.max_level",
    "latlon": "lower latlon.min_photos or latlon.min_area_km2",
    "delaunay": "change delaunay.min_photos, delaunay.min_area_km2, or the start grid, delaunay.rows and columns",
    "cities": "change cities.radius_km or cities.min_population",
}
Settings = TypeVar("Settings", bound=KindSettings)


def fit_partition(settings: PartitionSettings, latitude: ArrayLike, longitude: ArrayLike) -> Partition:
    """The partition that the settings name, fitted on photos in degrees, (N,) each.

    With `wanted_cells` the threshold of the kind's section is replaced by the one that gives about so many cells, with
    `scale_with_photos` its limits by those for N photos.
    Raises PartitionError where no cell is left, or no threshold comes within a tenth of the wanted number.
    """
    chosen = settings.chosen
    if settings.scale_with_photos:
        chosen = scaled(chosen, len(latitude))  # type: ignore[arg-type]
    if settings.wanted_cells:
        try:
            chosen = threshold_for(chosen, latitude, longitude, settings.wanted_cells)
        except PartitionError as error:
            raise PartitionError(
                f"wanted_cells must be near what the photos make, got {settings.wanted_cells:,}: {error}"
            ) from None
    return partition_of(chosen).fit(latitude, longitude)


def scaled(settings: Settings, photos: int) -> Settings:
    """The same settings with limits for so many photos: a cell has at most about their square root, so there are at
    least as many cells, and at least a twentieth of that.

    For PlaNet's 126 million photos the first is 11,225, near its own 10,000; for a million the second is its 50.
    """
    most = max(round(photos**0.5), 1)
    least = max(most // 20, 1)
    if isinstance(settings, KMeansSettings):
        return replace(settings, cells=most, min_photos=least)
    if isinstance(settings, CitiesSettings):
        return replace(settings, min_photos=least)
    return replace(settings, max_photos=most, min_photos=least)


def threshold_for(
    settings: Settings, latitude: ArrayLike, longitude: ArrayLike, cells: int, tolerance: float = 0.0
) -> Settings:
    """The same settings with the threshold that gives, for these photos, as nearly as can be `cells` cells.

    The threshold is `max_photos` for s2, latlon and delaunay, `min_photos` for cities, and `cells` for kmeans, which
    gives fewer than it is asked for where small cells go. Whole thresholds do not give every count: the nearest count
    is taken, of equals the coarser; the search ends early once a count is within `tolerance` (a share of `cells`),
    which is worth it for delaunay, where every count is a fit. With min_photos above 1 more splitting can mean fewer
    cells, so counts may be reached twice: the coarsest solution is taken.

    Raises PartitionError where `cells` is below 1, or no threshold comes within a tenth of it.
    """
    if cells < 1:
        raise PartitionError(f"cells must be at least 1, got {cells}")
    if isinstance(settings, KMeansSettings):
        return _ask_for_more(settings, latitude, longitude, cells, tolerance)  # type: ignore[return-value]
    partition = partition_of(settings)
    count = partition.cell_counter(latitude, longitude)  # type: ignore[attr-defined]  # of all kinds but kmeans
    name = "min_photos" if isinstance(settings, CitiesSettings) else "max_photos"
    lowest = 1 if name == "min_photos" else settings.min_photos
    highest = len(latitude) + 1  # type: ignore[arg-type]
    found = _search(count, lowest, highest, cells, tolerance, _ADVICE[partition.kind])
    return replace(settings, **{name: found})


def _search(
    count: Callable[[int], int], lowest: int, highest: int, cells: int, tolerance: float, advice: str
) -> int:
    """The largest whole number in the range whose count is nearest to `cells`."""
    counts: dict[int, int] = {}

    def off(threshold: int) -> int:
        if threshold not in counts:
            counts[threshold] = count(threshold)
        return counts[threshold] - cells

    def near_enough() -> bool:
        return min(abs(found - cells) for found in counts.values()) <= tolerance * cells

    high = max(highest, lowest)
    low = high
    while off(low) < 0 and low > lowest:  # by halves, from coarse to fine
        high, low = low, max(low // 2, lowest)
    while high - low > 1 and not near_enough():
        middle = (low + high) // 2
        if off(middle) < 0:
            high = middle
        else:
            low = middle
    best = min(counts, key=lambda threshold: (abs(counts[threshold] - cells), -threshold))
    if abs(counts[best] - cells) > max(tolerance, _FARTHEST) * cells and abs(counts[best] - cells) > 1:
        raise PartitionError(
            f"no threshold from {lowest:,} up gives about {cells:,} cells; the nearest that these photos make is "
            f"{counts[best]:,}; {advice}"
        )
    return best


def _ask_for_more(
    settings: KMeansSettings, latitude: ArrayLike, longitude: ArrayLike, cells: int, tolerance: float
) -> KMeansSettings:
    """kmeans with its `cells` raised by what goes missing."""
    asked, best = cells, (cells, cells)
    for _ in range(_KMEANS_TRIES):
        got = partition_of(replace(settings, cells=asked)).fit(latitude, longitude).cell_count
        best = min(best, (abs(got - cells), asked)) if asked != cells else (abs(got - cells), asked)
        if best[0] <= tolerance * cells:
            break
        asked = max(asked + cells - got, 1)
    if best[0] > max(tolerance, _FARTHEST) * cells and best[0] > 1:
        raise PartitionError(
            f"these photos do not make {cells:,} cells of at least {settings.min_photos:,} photos; lower "
            "kmeans.min_photos"
        )
    return replace(settings, cells=best[1])
