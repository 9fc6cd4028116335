"""The catalog at scale: time and peak memory of ingest, open, filter, join and write at N rows.

    python benchmarks/catalog.py [--rows 100000 1000000]

Prints a table. The target at a million rows: seconds, and under 2 GB. With `--rows 100000 1000000 10000000 --ingest` it
shows how ingest grows, of which the target is: under 2 GB at ten million rows, the first time and the second.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv

from geoloc.photos.account import IngestSummary
from geoloc.photos.catalog import CATALOG_FILE, part_paths, read_catalog, write_catalog
from geoloc.photos.ingest import ingest
from geoloc.photos.sources import open_source

KEY = b"a key of the benchmark"
STEPS = (
    "ingest metadata",
    "ingest it again",
    "open 3 columns",
    "open",
    "filter",
    "join",
    "write with images",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--ingest", action="store_true", help="only ingest, twice, and open some columns")
    parser.add_argument(
        "--step", choices=STEPS, help="one step, in this process (used by the benchmark itself)"
    )
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.step:
        seconds = run_step(options.step, options.folder, options.rows[0])
        print(f"{seconds:.2f} {peak_bytes() / 1e9:.2f}")
        return
    print(f"{'photos':>11}  {'step':<20} {'seconds':>8} {'us/photo':>9} {'peak GB':>8}")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="geoloc-catalog-") as folder:
            write_table(Path(folder), rows)
            measure(Path(folder), rows, STEPS[:4] if options.ingest else STEPS)


def measure(folder: Path, rows: int, steps: Sequence[str]) -> None:
    """Print a line for each step, and the size of the catalog."""
    for step in steps:  # each in its own process: the peak of one would hide the next
        command = [sys.executable, __file__, "--rows", str(rows), "--folder", str(folder), "--step", step]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        each = 1e6 * float(told[0]) / rows
        print(f"{rows:>11,}  {step:<20} {told[0]:>8} {each:>9.1f} {told[1]:>8}", flush=True)
    pool = folder / "pool"
    files = [*part_paths(pool), pool / CATALOG_FILE]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{rows:>11,}  {'catalog':<20} {size:.0f} MB in {len(files)} files", flush=True)


def run_step(step: str, folder: Path, rows: int) -> float:
    """Returns the seconds of one step, without imports and preparation."""
    pool = folder / "pool"
    if step.startswith("ingest"):
        candidates = open_source("table", folder / "photos.csv")
        return timed(
            lambda: check(step, rows, ingest(pool, candidates, source="bench", photographer_key=KEY))
        )
    if step == "open":
        return timed(lambda: read_catalog(pool))
    if step == "open 3 columns":
        return timed(lambda: read_catalog(pool, ["photo_id", "latitude", "longitude"]))
    catalog = read_catalog(pool)
    if step == "filter":
        return timed(
            lambda: catalog[
                (catalog["latitude"] > 0) & catalog["photographer"].isin(catalog["photographer"][:50])
            ]
        )
    if step == "join":
        generator = np.random.default_rng(0)
        splits = catalog[["photo_id"]].iloc[generator.permutation(rows)].assign(split="train")
        return timed(lambda: catalog.merge(splits, on="photo_id", validate="1:1"))
    digits = pd.Series(np.arange(rows)).map("{:064x}".format)
    catalog = catalog.assign(
        width=341, height=256, sha256=digits, phash=digits.str[-16:], shard="photos-000000.tar",
        offset=np.arange(rows) * 25_000, length=24_000,
    )  # fmt: skip
    return timed(lambda: write_catalog(pool, catalog))


def check(step: str, rows: int, account: IngestSummary) -> None:
    """Every row is added the first time, and none the second."""
    wanted = (rows, 0) if step == STEPS[0] else (0, rows)
    assert (account.added, account.already_present) == wanted, account


def write_table(folder: Path, rows: int) -> None:
    """Write a CSV like that of a collection: a few thousand photographers, unordered ids."""
    generator = np.random.default_rng(0)
    table = {
        "photo_id": pa.array(generator.permutation(rows) + 10**9),
        "photographer": pa.array(generator.zipf(1.3, rows) % 5000).cast(pa.string()),
        "latitude": pa.array(generator.uniform(-60, 70, rows).round(6)),
        "longitude": pa.array(generator.uniform(-180, 180, rows).round(6)),
        "posted_at": pa.array(generator.integers(1_100_000_000, 1_500_000_000, rows)),
    }
    csv.write_csv(pa.table(table), folder / "photos.csv")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """Returns the peak memory of this process in bytes. The system reports kB on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
