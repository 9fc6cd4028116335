"""Settings of partitions: which kind, and the limits of each kind."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.settings import SettingsError, setting


@dataclass(frozen=True)
class S2Settings:
    """Adaptive S2 cells, PlaNet section 3. The first two defaults are PlaNet's (section 4): t1 10,000, t2 50.

    PlaNet names no level cap. One is needed: identical geotags can put any number of photos in one cell that no
    subdivision separates. A level-15 cell is about 0.3 km wide, well inside the street level of 1 km.
    """

    max_photos: int = setting(10_000, minimum=1, help="t1: a cell with more photos than this is split")
    min_photos: int = setting(50, minimum=1, help="t2: a cell with fewer photos than this is discarded")
    max_level: int = setting(15, minimum=0, maximum=30, help="cells of this level are never split")

    def validate(self, key: str) -> None:
        """Raise SettingsError where no cell could hold both limits."""
        if self.min_photos > self.max_photos:
            raise SettingsError(
                f"{key}.min_photos must be at most max_photos ({self.max_photos}), got {self.min_photos}"
            )


@dataclass(frozen=True)
class PartitionSettings:
    """A partition: its kind, and a section for each kind."""

    kind: str = setting("s2", choices=("s2",), help="how the Earth is cut")
    s2: S2Settings = setting(S2Settings())
