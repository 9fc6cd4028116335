"""Fitting an adaptive S2 partition and assigning a million points, compared with loops over s2sphere.

    python benchmarks/partition.py [--geotags FILE.csv.gz] [--points 1000000] [--sample 50000] [--seed 0]

`--geotags` is a CSV of real photos with the columns latitude and longitude; without it, skewed points are generated.
Prints a table of seconds and ratios of one run. Exits with 1 if a ratio is below 20 or an answer differs.

How the comparison is made:
- The loops are measured on a random sample and scaled by the number of points, since a conversion takes the same time
  for every point. The scale is printed, and so is s2sphere's time per point: 12 µs on some machines, half of that on
  others.
- A fitting loop must convert each point; an assigning loop must convert it again and search the sorted cells. Each is
  compared with the call that does the same. The last row is the strictest: our fit and assign, which convert every
  point twice, against a bare conversion of each point once, without cells or look-ups.
- A fit with s2sphere would also have to count and split; its time leaves that out.
"""

from __future__ import annotations

import argparse
import bisect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import s2sphere

from geoloc.partitions import S2Settings, partition_of

WANTED_RATIO = 20.0
SETTINGS = S2Settings(max_photos=500, min_photos=50)
REPEATS = 3


def made_points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points as skewed as photos: nine tenths are in 2,000 towns of very unequal size, some with one exact geotag."""
    rng = np.random.default_rng(seed)
    town_latitude = np.degrees(np.arcsin(rng.uniform(-0.6, 0.95, 2000)))
    town_longitude = rng.uniform(-180, 180, 2000)
    town = np.minimum(rng.zipf(1.3, count) - 1, 1999)
    spread = rng.choice([0.0, 0.01, 0.2], count, p=[0.1, 0.6, 0.3])
    latitude = np.clip(town_latitude[town] + spread * rng.normal(size=count), -90, 90)
    longitude = (town_longitude[town] + spread * rng.normal(size=count) + 180) % 360 - 180
    alone = rng.random(count) < 0.1
    return (
        np.where(alone, np.degrees(np.arcsin(rng.uniform(-1, 1, count))), latitude),
        np.where(alone, rng.uniform(-180, 180, count), longitude),
    )


def convert(latitude: float, longitude: float) -> s2sphere.CellId:
    return s2sphere.CellId.from_lat_lng(s2sphere.LatLng.from_degrees(latitude, longitude))


def loop_convert(latitude: list[float], longitude: list[float]) -> list[int]:
    """Returns the leaf cell of each point, the first step of any use of s2sphere."""
    return [convert(a, b).id() for a, b in zip(latitude, longitude, strict=True)]


def loop_assign(tokens: list[str], latitude: list[float], longitude: list[float]) -> list[int]:
    """Returns the cell of each point, by s2sphere and Python's bisect over the sorted cells."""
    cells = [s2sphere.CellId.from_token(token) for token in tokens]
    first, last = [c.range_min().id() for c in cells], [c.range_max().id() for c in cells]
    found = []
    for a, b in zip(latitude, longitude, strict=True):
        leaf = convert(a, b).id()
        cell = bisect.bisect_right(first, leaf) - 1
        found.append(cell if cell >= 0 and leaf <= last[cell] else -1)
    return found


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Returns the seconds of the best of some runs, and the answer."""
    best, answer = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        best = min(best, time.perf_counter() - start)
    return best, answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--geotags", type=Path, help="CSV with latitude and longitude of real photos")
    parser.add_argument("--points", type=int, default=1_000_000, help="how many points to generate")
    parser.add_argument("--sample", type=int, default=50_000, help="points on which the loops are measured")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.geotags:
        frame = pd.read_csv(options.geotags, usecols=["latitude", "longitude"])
        latitude, longitude = frame["latitude"].to_numpy(), frame["longitude"].to_numpy()
    else:
        latitude, longitude = made_points(options.points, options.seed)
    count = len(latitude)
    chosen = np.random.default_rng(options.seed).choice(count, min(options.sample, count), replace=False)
    sample = latitude[chosen].tolist(), longitude[chosen].tolist()
    scale = count / len(chosen)

    fit_s, partition = timed(lambda: partition_of(SETTINGS).fit(latitude, longitude), REPEATS)
    assign_s, cells = timed(lambda: partition.assign(latitude, longitude), REPEATS)
    convert_s, _ = timed(lambda: loop_convert(*sample), REPEATS)
    loop_s, loop_cells = timed(lambda: loop_assign(partition.tokens(), *sample), REPEATS)
    differ = int((cells[chosen] != np.array(loop_cells)).sum())

    print(f"{'real' if options.geotags else 'made'} points: {count:,}; {partition!r}")
    print(
        f"s2sphere: {1e6 * convert_s / len(chosen):.1f} µs a conversion, {1e6 * loop_s / len(chosen):.1f} µs with "
        f"its cell, on a sample of {len(chosen):,}, scaled by {scale:.1f}"
    )
    rows = [
        ("fit", fit_s, convert_s * scale, True),
        ("assign", assign_s, loop_s * scale, True),
        ("fit + assign", fit_s + assign_s, (convert_s + loop_s) * scale, True),
        ("fit + assign against one bare conversion", fit_s + assign_s, convert_s * scale, False),
    ]
    print(f"\n{'what':42}{'geoloc s':>10}{'loop s':>10}{'ratio':>8}")
    for name, ours, loop, _ in rows:
        print(f"{name:42}{ours:10.3f}{loop:10.2f}{loop / ours:8.1f}")
    print(f"\n{differ} of {len(chosen):,} sampled points are in another cell than s2sphere says")
    total = rows[2]
    slow = total[2] / total[1] < WANTED_RATIO
    print(f"wanted: fit + assign at least {WANTED_RATIO:.0f} times faster: {'no' if slow else 'yes'}")
    return int(slow or differ > 0)


if __name__ == "__main__":
    sys.exit(main())
