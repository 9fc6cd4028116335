"""Kernel-density location (equation 1, exact over the candidates) against a loop of scikit-learn's KernelDensity.

    python benchmarks/density.py [--queries 1000] [--k 100] [--seed 0]

Both find the densest of k neighbours for each query. scikit-learn fits one KernelDensity per query with the weights as
sample_weight and scores the candidates (haversine metric on the sphere, Euclidean when flat). Prints a table of
milliseconds per query, the ratio, and how many answers agree. Exits with 1 if a ratio is below 20 or an answer differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np
from sklearn.neighbors import KernelDensity

from geoloc.retrieval.density import densest, feature_distance
from geoloc.retrieval.settings import DensitySettings

WANTED_RATIO = 20.0


def made_neighbours(queries: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours like those of retrieval: most are in 2 to 12 towns, a third are anywhere, and some coordinates
    repeat. Similarities fall from left to right."""
    rng = np.random.default_rng(seed)
    towns = rng.integers(2, 13, queries)
    town = (rng.random((queries, k)) ** 2 * towns[:, None]).astype(int)
    rows = np.arange(queries)[:, None]
    centre_latitude = np.degrees(np.arcsin(rng.uniform(-0.9, 0.9, (queries, 12))))[rows, town]
    centre_longitude = rng.uniform(-180, 180, (queries, 12))[rows, town]
    spread = rng.choice([0.0, 0.05, 1.0], size=(queries, k))
    latitude = centre_latitude + spread * rng.normal(size=(queries, k))
    longitude = centre_longitude + spread * rng.normal(size=(queries, k))
    alone = rng.random((queries, k)) < 1 / 3
    latitude = np.where(alone, np.degrees(np.arcsin(rng.uniform(-1, 1, (queries, k)))), latitude)
    longitude = np.where(alone, rng.uniform(-180, 180, (queries, k)), (longitude + 180) % 360 - 180)
    similarity = -np.sort(-rng.beta(8, 4, (queries, k)), axis=1).astype(np.float32)
    return latitude, longitude, similarity


def by_scikit_learn(
    latitude: np.ndarray, longitude: np.ndarray, similarity: np.ndarray, settings: DensitySettings
) -> np.ndarray:
    """Returns the column of the densest candidate of each query, found by a loop."""
    weights = feature_distance(similarity) ** -settings.m
    points = np.stack([latitude, longitude], axis=-1)
    if settings.flat:
        kernel = KernelDensity(bandwidth=settings.sigma)
    else:
        points, kernel = (
            np.radians(points),
            KernelDensity(bandwidth=np.radians(settings.sigma), metric="haversine"),
        )
    best = np.empty(len(points), dtype=np.int64)
    for query in range(len(points)):
        kernel.fit(points[query], sample_weight=weights[query])
        best[query] = kernel.score_samples(points[query]).argmax()
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    latitude, longitude, similarity = made_neighbours(options.queries, options.k, options.seed)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{options.queries} queries, k = {options.k}, m = 10, {processors} processors; best of 3 for geoloc"
    )
    print(f"{'geometry':<10}{'σ':>5}{'scikit-learn':>16}{'geoloc':>14}{'ratio':>9}{'same answers':>15}")
    good = True
    for flat in (False, True):
        for sigma in (1.0, 4.0, 16.0):
            settings = DensitySettings(k=options.k, sigma=sigma, flat=flat)
            started = time.perf_counter()
            expected = by_scikit_learn(latitude, longitude, similarity, settings)
            slow = time.perf_counter() - started
            fast = np.inf
            for _ in range(3):
                started = time.perf_counter()
                found = densest(latitude, longitude, similarity, settings)
                fast = min(fast, time.perf_counter() - started)
            # Compare places: neighbours with equal coordinates are one candidate.
            place = np.take_along_axis(np.stack([latitude, longitude]), expected[None, :, None], axis=2)[
                ..., 0
            ]
            same = int(((place[0] == found.latitude) & (place[1] == found.longitude)).sum())
            good &= slow / fast >= WANTED_RATIO and same == options.queries
            per_query = 1000 / options.queries
            print(
                f"{'flat' if flat else 'sphere':<10}{sigma:>5g}{slow * per_query:>13.3f} ms{fast * per_query:>11.3f} ms"
                f"{slow / fast:>9.1f}{f'{same}/{options.queries}':>15}"
            )
    print(f"wanted: at least {WANTED_RATIO:g} times faster, every answer the same: {'yes' if good else 'NO'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
