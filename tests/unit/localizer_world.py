"""A small world for tests of localizers: clustered photos, nested S2 partitions of them, random probabilities."""

from __future__ import annotations

import numpy as np

from geoloc.partitions.s2 import S2Partition, S2Settings
from geoloc.sphere import destination


def photos(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Photos in a dozen towns over the whole world, one of them on the antimeridian."""
    rng = np.random.default_rng(seed)
    towns = np.stack([np.degrees(np.arcsin(rng.uniform(-0.9, 0.9, 12))), rng.uniform(-180, 180, 12)], axis=1)
    towns[0] = [-17.0, 179.9]
    chosen = towns[rng.integers(0, 12, count)]
    return destination(chosen[:, 0], chosen[:, 1], rng.uniform(0, 360, count), rng.exponential(300, count))


def nested(latitude: np.ndarray, longitude: np.ndarray) -> list[S2Partition]:
    """A fine, a coarse and a middle partition, in no order."""
    settings = [(15, 2), (150, 2), (40, 2)]
    return [
        S2Partition(S2Settings(max_photos=most, min_photos=least, max_level=12)).fit(latitude, longitude)
        for most, least in settings
    ]


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def probabilities(count: int, cells: int, seed: int, spread: float = 2.0) -> np.ndarray:
    return softmax(np.random.default_rng(seed).normal(0, spread, (count, cells)))
