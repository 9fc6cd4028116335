"""Ways to cut the Earth into cells, behind one interface (base.Partition): made from a kind's settings, or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoloc.partitions.settings import (
    DELAUNAY_MESHES,
    KINDS,
    CitiesSettings,
    DelaunaySettings,
    KindSettings,
    KMeansSettings,
    LatLonSettings,
    PartitionSettings,
    S2Settings,
)

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

__all__ = [
    "DELAUNAY_MESHES",
    "KINDS",
    "CitiesSettings",
    "DelaunaySettings",
    "KMeansSettings",
    "KindSettings",
    "LatLonSettings",
    "PartitionSettings",
    "S2Settings",
    "load_partition",
    "partition_of",
]

# The kinds are imported inside the functions: the command line reads PartitionSettings from this package and
# must not pay for pandas, scipy and s2sphere.


def partition_of(settings: KindSettings) -> Partition:
    """A partition of the kind whose settings these are, not yet fitted."""
    from geoloc.partitions.cities import CitiesPartition
    from geoloc.partitions.delaunay import DelaunayPartition
    from geoloc.partitions.kmeans import KMeansPartition
    from geoloc.partitions.latlon import LatLonPartition
    from geoloc.partitions.s2 import S2Partition

    match settings:
        case S2Settings():
            return S2Partition(settings)
        case LatLonSettings():
            return LatLonPartition(settings)
        case DelaunaySettings():
            return DelaunayPartition(settings)
        case CitiesSettings():
            return CitiesPartition(settings)
        case KMeansSettings():
            return KMeansPartition(settings)


def load_partition(path: Path | str) -> Partition:
    """The fitted partition that `Partition.save` wrote to the folder `path`.

    Raises PartitionError for a folder that is missing, damaged, or of a kind or format this version does not know.
    """
    from geoloc.partitions.cities import CitiesPartition
    from geoloc.partitions.delaunay import DelaunayPartition
    from geoloc.partitions.kmeans import KMeansPartition
    from geoloc.partitions.latlon import LatLonPartition
    from geoloc.partitions.s2 import S2Partition
    from geoloc.partitions.saved import load_saved

    kinds = (S2Partition, LatLonPartition, DelaunayPartition, CitiesPartition, KMeansPartition)
    return load_saved(path, kinds)
