"""Settings of partitions: which kind, and the limits of each kind."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.settings import SettingsError, setting

KINDS = ("s2", "latlon", "delaunay", "cities", "kmeans")


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
        _limits_agree(self.max_photos, self.min_photos, key)


@dataclass(frozen=True)
class LatLonSettings:
    """Boxes of latitude and longitude, Revisiting IM2GPS section 3.1, which names neither threshold.

    The rule is the paper's: a box is divided until it holds fewer than `max_photos` photos or is smaller than
    `min_area_km2`. The default area, 0.1 km2, is that of the smallest S2 cells here, well inside the street level.
    """

    max_photos: int = setting(10_000, minimum=1, help="t_img: a box is split until it holds fewer photos")
    min_area_km2: float = setting(0.1, minimum=0.001, help="t_area: a box smaller than this is never split")
    min_photos: int = setting(1, minimum=1, help="a box with fewer photos than this is discarded")
    split: str = setting("even", choices=("even", "random"), help="where the longer side is cut")
    seed: int = setting(0, minimum=0, help="of the cuts, where they are random")

    def validate(self, key: str) -> None:
        """Raise SettingsError where no cell could hold both limits."""
        _limits_agree(self.max_photos, self.min_photos, key)


@dataclass(frozen=True)
class DelaunaySettings:
    """Triangles, Multi-modal Geolocation table 1. The defaults are its fine mesh; see DELAUNAY_MESHES for all three.

    The paper names no smallest triangle. One is needed, as for S2: identical geotags are never separated.
    """

    max_photos: int = setting(
        5000, minimum=1, help="refinement limit: a triangle with more photos is refined"
    )
    min_photos: int = setting(500, minimum=1, help="a triangle with fewer photos than this is discarded")
    min_area_km2: float = setting(0.1, minimum=0.001, help="a triangle smaller than this is never refined")
    rows: int = setting(31, minimum=3, maximum=301, help="parallels of the start grid, both poles included")
    columns: int = setting(
        31, minimum=4, maximum=301, help="meridians of the start grid, -180 and 180 both counted"
    )

    def validate(self, key: str) -> None:
        """Raise SettingsError where no cell could hold both limits."""
        _limits_agree(self.max_photos, self.min_photos, key)


DELAUNAY_MESHES = {
    "coarse": DelaunaySettings(8000, 1000),
    "fine": DelaunaySettings(5000, 500),
    "fineP": DelaunaySettings(10_000, 50),
}
"""The three meshes of Multi-modal Geolocation, table 1: 538, 6565 and 4771 cells on its 2 and 14 million photos."""


@dataclass(frozen=True)
class CitiesSettings:
    """Cities as classes, Diving Deeper into IM2GPS section III: at least 11,000 photos each, none overlapping.

    The paper does not say how far a city reaches; 25 km is the city level of Revisiting IM2GPS.
    """

    radius_km: float = setting(
        25.0, minimum=0.1, maximum=1000.0, help="photos this near a city's centre are in it"
    )
    min_photos: int = setting(11_000, minimum=1, help="a city with fewer photos than this is discarded")
    min_population: int = setting(15_000, minimum=500, help="smaller places are not cities")


@dataclass(frozen=True)
class KMeansSettings:
    """Voronoi cells around sites that are placed where photos are: see geoloc/partitions/kmeans.py."""

    cells: int = setting(
        1000, minimum=1, help="how many cells are wanted; fewer where there are too few places"
    )
    min_photos: int = setting(50, minimum=1, help="no cell has fewer photos than this")
    balance: float = setting(
        0.25, minimum=0.0, maximum=0.5, help="least share of a cluster's photos on either side"
    )
    smallest_km: float = setting(
        0.5, minimum=0.0, help="clusters that spread less (root mean square) are not divided"
    )
    softness_km: float = setting(
        5.0, minimum=0.01, maximum=5000.0, help="errors below this count as much alike"
    )
    rounds: int = setting(
        5, minimum=0, maximum=1000, help="rounds in which all sites move, after the last split"
    )
    grid_level: int = setting(
        17, minimum=8, maximum=30, help="photos in one S2 cell of this level count as one place"
    )


@dataclass(frozen=True)
class PartitionSettings:
    """A partition: its kind, and a section for each kind."""

    kind: str = setting("s2", choices=KINDS, help="how the Earth is cut")
    wanted_cells: int = setting(
        0,
        minimum=0,
        help="about so many cells: the max_photos (of cities the min_photos, of kmeans the cells) that gives them is "
        "found, whatever its section says; 0: as its section says",
    )
    s2: S2Settings = setting(S2Settings())
    latlon: LatLonSettings = setting(LatLonSettings())
    delaunay: DelaunaySettings = setting(DelaunaySettings())
    cities: CitiesSettings = setting(CitiesSettings())
    kmeans: KMeansSettings = setting(KMeansSettings())

    @property
    def chosen(self) -> KindSettings:
        """The section of the kind that is named."""
        sections: dict[str, KindSettings] = {
            "s2": self.s2,
            "latlon": self.latlon,
            "delaunay": self.delaunay,
            "cities": self.cities,
            "kmeans": self.kmeans,
        }
        return sections[self.kind]


KindSettings = S2Settings | LatLonSettings | DelaunaySettings | CitiesSettings | KMeansSettings
"""The settings of any one kind; all have `min_photos`."""


def _limits_agree(max_photos: int, min_photos: int, key: str) -> None:
    if min_photos > max_photos:
        raise SettingsError(f"{key}.min_photos must be at most max_photos ({max_photos}), got {min_photos}")
