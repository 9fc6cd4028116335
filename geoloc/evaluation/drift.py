"""Drift: whether new photos are like those that a model was trained on, in place, time, picture and embedding.

Photos by one person are alike, so chance is measured by dealing whole photographers to the two sides at random, not
photos: a new photographer at home is no drift by himself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.health_settings import HealthSettings

DEALS = 99
"""Random deals of the photographers; p is 0.01 at least."""
_LATITUDES, _LONGITUDES = 9, 18
"""Boxes of equal area that places are counted in."""
_FEW = 0.5
"""Added to each count of a population stability index, so that an empty box does not make it infinite."""

Statistic = Callable[[NDArray[np.bool_]], float]
"""From which of N photos are new to how far these are from the others."""


@dataclass(frozen=True)
class Drift:
    """One comparison of new photos with those trained on: the value of a measure, its bound, and the share of random
    deals that give at least as much. NaN values where it could not be measured; `detail` says why."""

    what: str
    measure: str
    value: float
    bound: float
    p: float
    new: int
    trained: int
    drifted: bool
    detail: str = ""


def place_psi(latitude: ArrayLike, longitude: ArrayLike) -> Statistic:
    """The population stability index over boxes of equal area: the sum of (a - b) ln(a / b) of the shares of photos.
    Coordinates [N] in degrees."""
    rows = np.clip((np.sin(np.radians(np.asarray(latitude))) + 1) / 2 * _LATITUDES, 0, _LATITUDES - 1e-9)
    columns = np.clip((np.asarray(longitude) + 180) / 360 * _LONGITUDES, 0, _LONGITUDES - 1e-9)
    _, box = np.unique(rows.astype(int) * _LONGITUDES + columns.astype(int), return_inverse=True)
    boxes = int(box.max()) + 1 if len(box) else 0

    def value(new: NDArray[np.bool_]) -> float:
        return psi(np.bincount(box[~new], minlength=boxes), np.bincount(box[new], minlength=boxes))

    return value


def psi(expected: ArrayLike, found: ArrayLike) -> float:
    """The population stability index of counts [B] in the same bins; 0 for equal shares."""
    a, b = np.asarray(expected, dtype=float) + _FEW, np.asarray(found, dtype=float) + _FEW
    a, b = a / a.sum(), b / b.sum()
    return float(((a - b) * np.log(a / b)).sum())


def ks(values: ArrayLike) -> Statistic:
    """The Kolmogorov-Smirnov distance of N numbers: the largest gap between two distribution functions, in [0, 1]."""
    numbers = np.asarray(values, dtype=float)
    order = np.argsort(numbers, kind="stable")
    last = np.append(np.diff(numbers[order]) > 0, True)  # after all that are equal

    def value(new: NDArray[np.bool_]) -> float:
        side = new[order]
        gaps = np.cumsum(side) / max(side.sum(), 1) - np.cumsum(~side) / max((~side).sum(), 1)
        return float(np.abs(gaps[last]).max())

    return value


def energy(vectors: ArrayLike) -> Statistic:
    """The energy distance of vectors [N, D], as a share of the mean distance between the sides: 0 if they are equally
    distributed, 1 at most."""
    points = np.asarray(vectors, dtype=np.float64)
    squares = (points**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))

    def value(new: NDArray[np.bool_]) -> float:
        between = apart[new][:, ~new].mean()
        within = apart[new][:, new].mean() + apart[~new][:, ~new].mean()
        return float(max(2 * between - within, 0) / (2 * between)) if between > 0 else 0.0

    return value


def drift_of(
    what: str,
    measure: str,
    statistic: Statistic,
    new: NDArray[np.bool_],
    photographers: ArrayLike,
    bound: float,
    settings: HealthSettings,
    seed: int,
) -> Drift:
    """Measure one drift of N photos: `new` [N] says which are new, `photographers` [N] whose each is."""
    counts = int(new.sum()), int((~new).sum())
    if min(counts) < settings.least_photos:
        few = f"fewer than {settings.least_photos} photos to compare"
        return Drift(what, measure, float("nan"), bound, float("nan"), *counts, False, few)
    value = statistic(new)
    by_chance = sum(statistic(dealt) >= value for dealt in _deals(new, photographers, seed))
    p = (1 + by_chance) / (1 + DEALS)
    return Drift(what, measure, value, bound, p, *counts, bool(value > bound and p <= settings.p))


def _deals(new: NDArray[np.bool_], photographers: ArrayLike, seed: int) -> list[NDArray[np.bool_]]:
    """DEALS random choices of whole photographers with about as many photos as are new; neither side is empty."""
    _, owner = np.unique(np.asarray(photographers, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(owner)
    generator, found = np.random.default_rng(seed), []
    for _ in range(DEALS):
        order = generator.permutation(len(sizes))
        before = np.cumsum(sizes[order]) - sizes[order]
        chosen = order[(before < new.sum())]
        dealt = np.isin(owner, chosen)
        if dealt.all() or not dealt.any():  # one photographer only: photos are dealt
            dealt = generator.permutation(new)
        found.append(dealt)
    return found


def drifts(
    facts: Mapping[str, Any],
    new: NDArray[np.bool_],
    photographers: ArrayLike,
    settings: HealthSettings,
    seed: int,
) -> list[Drift]:
    """The drift of everything in `facts` [N each]: `latitude` with `longitude`, `embedding` [N, D], and numbers such as
    times by name. Photos without a value (NaN) are left out of it."""
    found = []
    owners = np.asarray(photographers, dtype=object)
    for what, values in facts.items():
        if what == "longitude":
            continue
        array = np.asarray(values, dtype=float)
        known = ~np.isnan(array).reshape(len(array), -1).any(axis=1)
        if what == "latitude":
            name, measure, bound = "place", "PSI", settings.psi
            statistic = place_psi(array[known], np.asarray(facts["longitude"], dtype=float)[known])
        elif what == "embedding":
            name, measure, bound, statistic = what, "energy distance", settings.energy, energy(array[known])
        else:
            name, measure, bound, statistic = what, "KS distance", settings.ks, ks(array[known])
        found.append(
            drift_of(name, measure, statistic, new[known], owners[known], float(bound), settings, seed)
        )
    return found
