"""Position of the sun.

The formulas are the low-precision ones of Jean Meeus, Astronomical Algorithms (2nd edition 1998), chapters 22, 25 and
28, as NOAA's solar calculator uses them (gml.noaa.gov/grad/solcalc/calcdetails.html). They are right to about 0.01
degrees from 1900 to 2100.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

DAY_SECONDS = 86_400
_J2000 = np.datetime64("2000-01-01T12:00:00", "s")


def sun_position(utc: ArrayLike, latitude: ArrayLike, longitude: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns the elevation of the sun's centre and its azimuth clockwise from north, in [0, 360): degrees, float64.

    `utc` datetime64, coordinates in degrees; arguments broadcast. Ignores refraction (half a degree at the horizon,
    nothing above 10 degrees) and the height of the place.
    """
    declination, equation_minutes = sun_coordinates(utc)
    seconds = np.asarray(utc).astype("datetime64[s]").astype(np.int64) % DAY_SECONDS
    # Hour angle: how far the sun is past the meridian of the place.
    angle = seconds / 240.0 + equation_minutes / 4.0 + np.asarray(longitude, np.float64) - 180.0
    hour, lat, dec = (
        np.radians(x) for x in np.broadcast_arrays(angle, np.asarray(latitude, np.float64), declination)
    )
    up = np.sin(lat) * np.sin(dec) + np.cos(lat) * np.cos(dec) * np.cos(hour)
    north = np.cos(lat) * np.sin(dec) - np.sin(lat) * np.cos(dec) * np.cos(hour)
    east = -np.cos(dec) * np.sin(hour)
    azimuth = np.degrees(np.arctan2(east, north)) % 360.0
    azimuth = np.where(azimuth >= 360.0, 0.0, azimuth)  # -1e-17 % 360 rounds to 360 itself
    return np.degrees(np.arctan2(up, np.hypot(east, north))), azimuth


def sun_coordinates(utc: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns the sun's apparent declination in degrees and the equation of time in minutes (apparent - mean), float64.

    Meeus, formulas 25.2 to 25.8 and 28.3. Uses universal time in place of dynamical time: in a minute the sun moves
    0.0007 degrees.
    """
    since = (np.asarray(utc).astype("datetime64[s]") - _J2000).astype(np.float64)
    t = since / (36_525.0 * DAY_SECONDS)  # Julian centuries from J2000.0
    mean_longitude = np.radians((280.46646 + t * (36_000.76983 + 0.0003032 * t)) % 360.0)
    anomaly = np.radians(357.52911 + t * (35_999.05029 - 0.0001537 * t))
    eccentricity = 0.016708634 - t * (0.000042037 + 0.0000001267 * t)
    centre = (
        np.sin(anomaly) * (1.914602 - t * (0.004817 + 0.000014 * t))
        + np.sin(2 * anomaly) * (0.019993 - 0.000101 * t)
        + np.sin(3 * anomaly) * 0.000289
    )
    node = np.radians(125.04 - 1934.136 * t)  # of the Moon: nutation
    apparent = mean_longitude + np.radians(centre - 0.00569 - 0.00478 * np.sin(node))
    mean_obliquity = 23.0 + (26.0 + (21.448 - t * (46.815 + t * (0.00059 - 0.001813 * t))) / 60.0) / 60.0
    obliquity = np.radians(mean_obliquity + 0.00256 * np.cos(node))
    declination = np.degrees(np.arcsin(np.sin(obliquity) * np.sin(apparent)))
    y = np.tan(obliquity / 2) ** 2
    equation = (
        y * np.sin(2 * mean_longitude)
        - 2 * eccentricity * np.sin(anomaly)
        + 4 * eccentricity * y * np.sin(anomaly) * np.cos(2 * mean_longitude)
        - 0.5 * y**2 * np.sin(4 * mean_longitude)
        - 1.25 * eccentricity**2 * np.sin(2 * anomaly)
    )
    return declination, 4.0 * np.degrees(equation)
