"""Country and region of points, against a search of every town."""

from __future__ import annotations

import numpy as np
import pytest

from geoloc import countries
from geoloc.countries import REACH_KM, area_names, areas_of
from geoloc.sphere import distance_km


def named(latitude, longitude) -> list[tuple[str | None, str | None]]:
    table = area_names(areas_of(latitude, longitude))
    return [tuple(None if cell != cell else cell for cell in row) for row in table.itertuples(index=False)]


def test_places_that_everybody_knows():
    places = {
        (48.8566, 2.3522): ("FR", "FR.11"),  # Paris, Île-de-France
        (37.7749, -122.4194): ("US", "US.CA"),
        (1.3521, 103.8198): ("SG", "SG."),  # has no regions that most of its towns are in
        (18.4655, -66.1057): ("PR", "PR.127"),  # a territory is a country of its own
        (-33.8688, 151.2093): ("AU", "AU.02"),
        (0.0, 0.0): (None, None),  # at sea
        (-89.0, 10.0): (None, None),
        (float("nan"), float("nan")): (None, None),
    }
    latitude, longitude = zip(*places, strict=True)
    assert named(latitude, longitude) == list(places.values())


def test_the_nearest_town_within_reach_decides():
    """Against every town, one point at a time; some points are beyond reach."""
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(-60, 75, 80), rng.uniform(-180, 180, 80)
    towns, _ = countries._towns()
    found, seen = areas_of(latitude, longitude), []
    for i in range(len(latitude)):
        away = distance_km(latitude[i], longitude[i], towns["latitude"], towns["longitude"])
        town = towns.iloc[int(np.argmin(away))]
        expected = (town["country"], town["region"]) if away.min() <= REACH_KM else (-1, -1)
        assert (found.country[i], found.region[i]) == expected
        seen.append(expected[0] >= 0)
    assert 0 < sum(seen) < len(seen)


def test_the_shipped_towns_are_those_of_the_package():
    shipped, made = countries._table(), countries.towns_from_package()
    assert shipped.num_rows == made.num_rows > 170_000
    assert shipped.cast(made.schema).equals(made)


@pytest.mark.parametrize("place", [(91.0, 0.0), (0.0, 181.0), (float("nan"), 0.0), (float("inf"), 0.0)])
def test_impossible_points_are_refused(place):
    with pytest.raises(ValueError, match=r"a point needs latitude in \[-90, 90\]"):
        areas_of([place[0]], [place[1]])
