"""Settings of partitions: the kind, and the limits of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Tag

from geoloc.settings import Number, Settings, SettingsError, as_mapping, parse, setting

KINDS = ("s2", "latlon", "delaunay", "cities", "kmeans")
_KIND = f"how the Earth is cut: one of {', '.join(KINDS)}; the section of that name has its settings"


class S2Settings(Settings):
    """Adaptive S2 cells, PlaNet section 3. The first two defaults are PlaNet's (section 4): t1 10,000, t2 50.

    PlaNet has no limit on the level. One is needed: no subdivision separates identical geotags, however many photos
    have them. A level-15 cell is about 0.3 km wide, well below the street level of 1 km.
    """

    max_photos: int = setting(
        10_000, minimum=1, when=("wanted_cells", (0,)), help="t1: a cell with more photos than this is split"
    )
    min_photos: int = setting(50, minimum=1, help="t2: a cell with fewer photos than this is discarded")
    max_level: int = setting(15, minimum=0, maximum=30, help="cells of this level are never split")

    def check(self, key: str) -> None:
        """Raise SettingsError if min_photos is above max_photos."""
        _limits_agree(self.max_photos, self.min_photos, key)


class LatLonSettings(Settings):
    """Boxes of latitude and longitude, Revisiting IM2GPS section 3.1, which gives neither threshold.

    The rule is the paper's: a box is divided until it has fewer than `max_photos` photos or is smaller than
    `min_area_km2`. The default area, 0.1 km2, is that of the smallest S2 cells here, well below the street level.
    """

    max_photos: int = setting(
        10_000,
        minimum=1,
        when=("wanted_cells", (0,)),
        help="t_img: a box is split until it has fewer photos than this",
    )
    min_area_km2: Number = setting(0.1, minimum=0.001, help="t_area: a box smaller than this is never split")
    min_photos: int = setting(1, minimum=1, help="a box with fewer photos than this is discarded")
    split: Literal["even", "random"] = setting(
        "even", help="where the longer side is cut: in the middle, or at a random place"
    )
    seed: int = setting(0, minimum=0, when=("split", ("random",)), help="seed of the random cuts")

    def check(self, key: str) -> None:
        """Raise SettingsError if min_photos is above max_photos."""
        _limits_agree(self.max_photos, self.min_photos, key)


class DelaunaySettings(Settings):
    """Triangles, Multi-modal Geolocation table 1. The defaults are its fine mesh; see DELAUNAY_MESHES for all three.

    The paper gives no smallest triangle. One is needed, as for S2: identical geotags are never separated.
    """

    max_photos: int = setting(
        5000,
        minimum=1,
        when=("wanted_cells", (0,)),
        help="refinement limit: a triangle with more photos is refined",
    )
    min_photos: int = setting(500, minimum=1, help="a triangle with fewer photos than this is discarded")
    min_area_km2: Number = setting(0.1, minimum=0.001, help="a triangle smaller than this is never refined")
    rows: int = setting(31, minimum=3, maximum=301, help="parallels of the start grid, both poles included")
    columns: int = setting(
        31, minimum=4, maximum=301, help="meridians of the start grid, -180 and 180 both counted"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if min_photos is above max_photos."""
        _limits_agree(self.max_photos, self.min_photos, key)


DELAUNAY_MESHES = {
    "coarse": DelaunaySettings(max_photos=8000, min_photos=1000),
    "fine": DelaunaySettings(max_photos=5000, min_photos=500),
    "fineP": DelaunaySettings(max_photos=10_000, min_photos=50),
}
"""The three meshes of Multi-modal Geolocation, table 1: 538, 6565 and 4771 cells on its 2 and 14 million photos."""


class CitiesSettings(Settings):
    """Cities as classes, Diving Deeper into IM2GPS section III: at least 11,000 photos each, none overlapping.

    The paper does not give the radius of a city; 25 km is the city level of Revisiting IM2GPS.
    """

    radius_km: Number = setting(
        25.0, minimum=0.1, maximum=1000.0, help="largest distance of a city's photos from its centre"
    )
    min_photos: int = setting(11_000, minimum=1, help="a city with fewer photos than this is discarded")
    min_population: int = setting(15_000, minimum=500, help="smallest population of a city")


class KMeansSettings(Settings):
    """Voronoi cells around sites that are placed by the density of photos: see geoloc/partitions/kmeans.py."""

    cells: int = setting(
        1000,
        minimum=1,
        when=("wanted_cells", (0,)),
        help="number of cells; fewer if there are too few places",
    )
    min_photos: int = setting(50, minimum=1, help="smallest number of photos in a cell")
    balance: Number = setting(
        0.25, minimum=0.0, maximum=0.5, help="smallest share of a cluster's photos on either side of a split"
    )
    smallest_km: Number = setting(
        0.5, minimum=0.0, help="clusters with a smaller spread (root mean square) are not divided"
    )
    softness_km: Number = setting(
        5.0, minimum=0.01, maximum=5000.0, help="errors well below this count about the same"
    )
    rounds: int = setting(5, minimum=0, maximum=1000, help="rounds of moving all sites after the last split")
    grid_level: int = setting(
        17, minimum=8, maximum=30, help="photos in one S2 cell of this level count as one place"
    )


class _AnyKind(Settings):
    kind: str = setting(help=_KIND)
    wanted_cells: int = setting(
        0,
        minimum=0,
        help="approximate number of cells: the max_photos (cities: min_photos, kmeans: cells) that gives it is "
        "searched for, and the one in the kind's section is ignored; 0: use the kind's section",
    )

    scale_with_photos: bool = setting(
        False,
        help="limits for any number of photos N, in place of those of the kind's section: max_photos (kmeans: cells) "
        "is the square root of N, min_photos a twentieth of that",
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if two settings both decide the number of cells."""
        if self.scale_with_photos and self.wanted_cells:
            raise SettingsError(
                f"{key}.wanted_cells must be 0 where scale_with_photos is true, got {self.wanted_cells}"
            )

    @property
    def chosen(self) -> KindSettings:
        """The section of the kind."""
        section: KindSettings = getattr(self, self.kind)
        return section


class S2PartitionSettings(_AnyKind):
    """A partition into S2 cells."""

    kind: Literal["s2"] = setting("s2", help=_KIND)
    s2: S2Settings = setting(S2Settings())


class LatLonPartitionSettings(_AnyKind):
    """A partition into boxes of latitude and longitude."""

    kind: Literal["latlon"] = setting(help=_KIND)
    latlon: LatLonSettings = setting(LatLonSettings())


class DelaunayPartitionSettings(_AnyKind):
    """A partition into triangles."""

    kind: Literal["delaunay"] = setting(help=_KIND)
    delaunay: DelaunaySettings = setting(DelaunaySettings())


class CitiesPartitionSettings(_AnyKind):
    """A partition into cities."""

    kind: Literal["cities"] = setting(help=_KIND)
    cities: CitiesSettings = setting(CitiesSettings())


class KMeansPartitionSettings(_AnyKind):
    """A partition into Voronoi cells."""

    kind: Literal["kmeans"] = setting(help=_KIND)
    kmeans: KMeansSettings = setting(KMeansSettings())


class _Sections(Settings):
    """The sections of all kinds."""

    s2: S2Settings = setting(S2Settings())
    latlon: LatLonSettings = setting(LatLonSettings())
    delaunay: DelaunaySettings = setting(DelaunaySettings())
    cities: CitiesSettings = setting(CitiesSettings())
    kmeans: KMeansSettings = setting(KMeansSettings())


def _of_one_kind(values: Any) -> Any:
    """`values` with a kind and without the sections of other kinds. Those are validated and dropped: they change
    nothing."""
    values = as_mapping(values)
    if not isinstance(values, dict):
        return values
    kind = values.get("kind", "s2")
    if kind not in KINDS:
        raise SettingsError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    others = {name: section for name, section in values.items() if name in KINDS and name != kind}
    parse(_Sections, others)
    return {"kind": kind, **{name: value for name, value in values.items() if name not in others}}


def _tag(values: Any) -> str:
    return f"kind={values['kind'] if isinstance(values, Mapping) else values.kind}"


PartitionSettings = Annotated[
    Annotated[S2PartitionSettings, Tag("kind=s2")]
    | Annotated[LatLonPartitionSettings, Tag("kind=latlon")]
    | Annotated[DelaunayPartitionSettings, Tag("kind=delaunay")]
    | Annotated[CitiesPartitionSettings, Tag("kind=cities")]
    | Annotated[KMeansPartitionSettings, Tag("kind=kmeans")],
    Discriminator(_tag),
    BeforeValidator(_of_one_kind),
]
"""A partition: its kind (default s2), a section of that name, and `wanted_cells`."""

KindSettings = S2Settings | LatLonSettings | DelaunaySettings | CitiesSettings | KMeansSettings
"""The settings of any one kind; all have `min_photos`."""


def _limits_agree(max_photos: int, min_photos: int, key: str) -> None:
    if min_photos > max_photos:
        raise SettingsError(f"{key}.min_photos must be at most max_photos ({max_photos}), got {min_photos}")
