"""Points and s2sphere answers that the tests of S2 partitions share."""

import math

import numpy as np
import s2sphere
from hypothesis import strategies as st


def oracle_leaf(latitude, longitude):
    return s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(float(latitude), float(longitude)))


def oracle_leaves(latitude, longitude):
    return np.array(
        [oracle_leaf(a, b).id() for a, b in zip(latitude, longitude, strict=True)], dtype=np.uint64
    )


def sphere_points(n, seed):
    rng = np.random.default_rng(seed)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)


def skewed_points(n, seed):
    """A few cities, repeated geotags, and a thin spread: the shape of real photos."""
    rng = np.random.default_rng(seed)
    latitude, longitude = sphere_points(n, seed)
    city_lat, city_lon = sphere_points(12, seed + 1)
    city = rng.integers(0, 12, n)
    in_city = rng.random(n) < 0.8
    spread = rng.choice([0.0, 0.01, 0.3], n)
    near_lat = np.clip(city_lat[city] + spread * rng.normal(size=n), -90, 90)
    near_lon = (city_lon[city] + spread * rng.normal(size=n) + 180) % 360 - 180
    return np.where(in_city, near_lat, latitude), np.where(in_city, near_lon, longitude)


# Latitudes and longitudes where an implementation goes wrong: poles, equator, face edges and corners, antimeridian.
CORNER = math.degrees(math.asin(1 / math.sqrt(3)))
edge_latitudes = st.sampled_from(
    [-90.0, 90.0, 0.0, -0.0, 45.0, -45.0, CORNER, -CORNER, 1e-300, 89.9999999999]
)
edge_longitudes = st.sampled_from([-180.0, 180.0, 0.0, -0.0, 45.0, -45.0, 135.0, -135.0, 90.0, -90.0, 1e-300])
latitudes = st.one_of(edge_latitudes, st.floats(-90, 90))
longitudes = st.one_of(edge_longitudes, st.floats(-180, 180))
