"""Ways to cut the Earth into cells, behind one interface (base.Partition): made from settings, or loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoloc.partitions.settings import PartitionSettings, S2Settings

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

__all__ = ["PartitionSettings", "S2Settings", "load_partition", "make_partition"]

# The kinds are imported inside the functions: the command line reads PartitionSettings from this package and
# must not pay for pandas and s2sphere.


def make_partition(settings: PartitionSettings) -> Partition:
    """A partition of the kind that the settings name, not yet fitted."""
    from geoloc.partitions.s2 import S2Partition

    return {"s2": lambda: S2Partition(settings.s2)}[settings.kind]()


def load_partition(path: Path | str) -> Partition:
    """The fitted partition that `Partition.save` wrote to the folder `path`.

    Raises PartitionError where the folder is absent, damaged, or of a kind or format this version does not know.
    """
    from geoloc.partitions.base import load_saved
    from geoloc.partitions.s2 import S2Partition

    return load_saved(path, (S2Partition,))
