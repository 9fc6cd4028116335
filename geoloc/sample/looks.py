"""How a made-up place looks: colours and shapes that change smoothly over the globe, and a pattern per city.

Everything here is a function of the place alone. A few smooth fields over the sphere (sums of sine waves of
fixed directions) stand for climate and building custom. All results are whole numbers, so that the drawing
that follows does integer arithmetic only and its bytes do not depend on a processor's last float digit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.sphere import unit_vectors

IntArray = NDArray[np.int32]
FloatArray = NDArray[np.float64]

ROOFS = ("flat", "gable", "dome", "tiered", "spire")
TREES = ("conifer", "round", "palm", "scrub")

_FIELD_SEED = 20240229  # the planet itself: not the sample's seed, so that every sample shows the same Earth
_WALLS = np.array(
    [[226, 218, 204], [204, 158, 92], [158, 78, 62], [132, 130, 128], [230, 186, 176], [150, 172, 186],
     [196, 190, 120], [112, 84, 62]]
)  # fmt: skip
_ROOF_COLOURS = np.array(
    [[182, 88, 58], [84, 90, 100], [92, 128, 104], [150, 140, 122], [120, 52, 46], [64, 96, 140]]
)


@dataclass(frozen=True)
class Looks:
    """The look of N places; colours are int32[N,3] from 0 to 255, the rest int32[N]."""

    sky_top: IntArray
    sky_low: IntArray
    ground: IntArray
    rock: IntArray
    leaf: IntArray
    wall: IntArray
    roof: IntArray
    roof_kind: IntArray  # index into ROOFS
    tree_kind: IntArray  # index into TREES
    cloud: IntArray  # 0 to 255: how much of the sky
    relief: IntArray  # 0 to 255: height of the mountains
    snow: IntArray  # 0 to 255
    green: IntArray  # 0 to 255: how many trees
    window_pitch: IntArray  # pixels
    window_shape: IntArray  # 0 square, 1 tall, 2 ribbon
    line: IntArray  # colour of the line on the road
    pavement: IntArray  # 0 to 3: pattern, by city
    pavement_a: IntArray  # colours, by city
    pavement_b: IntArray


def looks(latitude: ArrayLike, longitude: ArrayLike, city: ArrayLike) -> Looks:
    """The looks of places (degrees, float[N]) in or near cities (any whole number per city, int[N])."""
    lat = np.asarray(latitude, dtype=np.float64)
    vectors = unit_vectors(lat, longitude)
    wide = _fields(vectors, 12, 1.5, 5.0, 0)  # continents
    fine = _fields(vectors, 26, 4.0, 12.0, 1)  # countries and regions

    cold = np.clip((np.abs(lat) - 18) / 48 + 0.12 * fine[0], 0, 1)
    belt = np.exp(-(((np.abs(lat) - 25) / 10) ** 2))  # the dry belts beside the tropics
    dry = np.clip(0.12 + 0.45 * belt + 0.45 * wide[0] + 0.15 * fine[1] - 0.2 * cold, 0, 1)
    snow = np.clip((cold - 0.62) * 3 + 0.3 * fine[2], 0, 1)

    ground = _mix(cold, (96, 146, 56), (112, 132, 88))
    ground = _mix(dry, ground, (206, 168, 108))
    ground = _mix(np.clip(wide[1], 0, 1) * dry, ground, (184, 96, 60))  # red earth
    ground = _mix(snow, ground, (232, 236, 242))
    leaf = _mix(cold, (40, 128, 38), (36, 78, 52))
    leaf = _mix(dry, leaf, (132, 138, 74))
    leaf = _mix(np.clip(fine[3], 0, 1) * 0.5 * cold, leaf, (176, 112, 36))
    rock = _mix(np.clip((wide[2] + 1) / 2, 0, 1), (116, 110, 124), (150, 112, 84))
    sky_top = _mix(cold, (58, 122, 208), (112, 154, 200)) + 24 * np.stack([wide[3], fine[4], wide[4]], -1)
    sky_low = _mix(dry, (190, 216, 234), (226, 210, 184)) + 18 * np.stack([fine[5], wide[5], fine[6]], -1)

    roof_score = (
        np.stack([0.9 * dry - 0.3, 0.7 * cold - 0.1, 0.6 * dry, 0.5 * (1 - cold), 0.5 * cold - 0.1], axis=0)
        + 0.9 * wide[6:11]
    )
    tree_score = np.stack([2 * cold - 1, 0.4 - np.abs(cold - 0.45), 1 - 2.6 * cold, 1.6 * dry - 0.8], axis=0)
    return Looks(
        sky_top=_whole(sky_top),
        sky_low=_whole(sky_low),
        ground=_whole(ground),
        rock=_whole(rock),
        leaf=_whole(leaf),
        wall=_whole(_blend(fine[7:15], _WALLS)),
        roof=_whole(_blend(fine[15:21], _ROOF_COLOURS)),
        roof_kind=roof_score.argmax(axis=0).astype(np.int32),
        tree_kind=(tree_score + 0.25 * fine[21:25]).argmax(axis=0).astype(np.int32),
        cloud=_whole(255 * np.clip(0.45 - 0.5 * dry + 0.3 * cold + 0.2 * wide[11], 0.05, 0.85)),
        relief=_whole(255 * np.clip(0.35 + 0.6 * fine[25], 0, 1)),
        snow=_whole(255 * snow),
        green=_whole(255 * np.clip(0.9 - 0.8 * dry - 0.3 * snow, 0.08, 1)),
        window_pitch=_whole(7 + 2.6 * fine[4]),
        window_shape=np.stack([fine[8], fine[16], fine[21]], 0).argmax(axis=0).astype(np.int32),
        line=np.where((wide[7] > 0)[:, None], [232, 190, 40], [236, 236, 232]).astype(np.int32),
        **_pavements(np.asarray(city, dtype=np.uint64)),
    )


def _fields(vectors: FloatArray, count: int, low: float, high: float, stream: int) -> FloatArray:
    """`count` smooth fields at unit vectors [N,3], about -1 to 1, float64 [count,N].

    Each is a sum of plane waves through the ball with wave numbers from low to high radians per Earth radius.
    """
    rng = np.random.default_rng([_FIELD_SEED, stream])
    waves = 7
    direction = rng.normal(size=(count, waves, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    number = rng.uniform(low, high, size=(count, waves, 1))
    phase = rng.uniform(0, 2 * np.pi, size=(count, waves))
    made = np.empty((count, len(vectors)))
    for field in range(count):
        made[field] = np.sin(vectors @ (direction[field] * number[field]).T + phase[field]).sum(axis=1)
    return made / np.sqrt(waves)


def _mix(amount: FloatArray, a: ArrayLike, b: ArrayLike) -> FloatArray:
    t = np.asarray(amount)[:, None]
    return np.asarray(a, np.float64) * (1 - t) + np.asarray(b, np.float64) * t


def _blend(fields: FloatArray, colours: IntArray | NDArray[np.int64]) -> FloatArray:
    """Colours weighed so that the strongest field rules, with soft borders between."""
    weights = np.exp(3.5 * fields)
    return (weights / weights.sum(axis=0)).T @ colours


def _pavements(city: NDArray[np.uint64]) -> dict[str, IntArray]:
    """Pavement pattern and two colours per city, from a mixing of its number (splitmix64)."""
    x = city * np.uint64(0x9E3779B97F4A7C15) + np.uint64(_FIELD_SEED)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    byte = [((x >> np.uint64(8 * k)) & np.uint64(255)).astype(np.int32) for k in range(7)]
    return {
        "pavement": byte[0] & 3,
        "pavement_a": np.stack(byte[1:4], axis=-1) * 3 // 5 + 90,
        "pavement_b": np.stack(byte[4:7], axis=-1) * 3 // 5 + 20,
    }


def _whole(values: FloatArray) -> IntArray:
    return np.rint(np.clip(values, 0, 255)).astype(np.int32)
