"""Every stage that looks at all photos at once, on synthetic pools of 0.1, 1 and, with --full, 10 million photos.

    python benchmarks/any_size.py [--full] [--photos 100000 1000000]

Prints seconds and peak memory of each step, each in its own process; how the time grows (the exponent between the two
largest sizes: 1 is linear, 2 quadratic); and what 28 million photos (MP-16 and YFCC's geotagged ones) and 91 million
(PlaNet's training photos) would cost at that rate. Wanted: no exponent above that of n log n, and no more than 16 GB at
10 million.

The pool: perceptual hashes of which three quarters are random, a fifth are in five dense clusters (as photos of a
horizon are), 4 per cent are near copies, and one per cent are nearly black; photographers with 1 to some thousand
photos around a place of their own. Steps of the evaluation use a tenth of the photos as queries.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.baselines import best_constant, random_reference
from geoloc.evaluation.measures.bootstrap import photographer_clusters, resampled_medians
from geoloc.evaluation.measures.groups import density_groups
from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.methods import class_methods
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.settings import LocalizerSettings
from geoloc.partitions.kmeans import KMeansPartition
from geoloc.partitions.settings import KMeansSettings
from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.photos.owners import photographer_keys
from geoloc.photos.settings import SplitSettings
from geoloc.photos.split_checks import check_splits
from geoloc.photos.splits import make_splits
from geoloc.photos.validation_parts import validation_parts
from geoloc.settings import parse
from geoloc.sphere import destination
from orchestration.assets.answers import ByClass
from orchestration.quality.frames import catalog_frame, splits_frame

SIZES, FULL = (100_000, 1_000_000), 10_000_000
LARGER = (28_000_000, 91_000_000)
MOST_GB, WANTED_AT = 16.0, 10_000_000
N_LOG_N = 1.25
"""n log n grows with an exponent of 1.1 from 0.1 to 10 million; the rest is noise of a shared machine and caches."""
CELLS = 1_000
SPLITS = parse(SplitSettings, {"external": {"published": "published"}, "exclude_radius_km": 0.05}, "splits")
Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, nargs="+", default=list(SIZES), help="numbers of photos")
    parser.add_argument("--full", action="store_true", help=f"also {FULL:,} photos")
    parser.add_argument("--only", choices=tuple(STEPS), nargs="+", default=list(STEPS), help="some steps")
    options = parser.parse_args()
    sizes = sorted({*options.photos, *([FULL] if options.full else [])})
    measured: dict[str, list[tuple[float, float]]] = {step: [] for step in options.only}
    with tempfile.TemporaryDirectory(prefix="geoloc-any-size-") as folder:
        for photos in sizes:
            pool = Path(folder) / f"{photos}.parquet"
            apart(partial(write_pool, photos, pool))
            for step in options.only:
                measured[step].append(apart(partial(prepared, step, pool)))
                print(f"{photos:,} {step}: {measured[step][-1][0]:.1f} s", file=sys.stderr, flush=True)
            pool.unlink()
    for line in table(sizes, measured):
        print(line)


def write_pool(photos: int, pool: Path) -> None:
    pq.write_table(synthetic(photos), pool)


def prepared(step: str, pool: Path) -> Work:
    return STEPS[step](pd.read_parquet(pool))


def apart(prepare: Callable[[], Work | None]) -> tuple[float, float]:
    """Runs `prepare`, then what it returns, in a process of its own: the seconds of the second, and the peak in GB.

    Forked, so that no step waits for imports, and the peak of one does not hide that of the next.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        work = prepare()
        start = time.perf_counter()
        if work is not None:
            work()
        theirs.send((time.perf_counter() - start, peak_gb()))

    process = context.Process(target=run)
    process.start()
    theirs.close()
    try:
        seconds, gb = ours.recv()
    except EOFError:
        sys.exit("a step ended without a result: see above")
    process.join()
    return seconds, gb


def table(sizes: list[int], measured: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Returns the lines of the table of seconds and GB by step and size."""
    heads = [*(f"{size:,}" for size in sizes), *(f"({size / 1e6:.0f} M)" for size in LARGER)]
    lines = [f"{'seconds, GB':<24}" + "".join(f"{head:>18}" for head in heads) + f"{'grows with n^':>16}"]
    too_fast, too_large = [], []
    for step, found in measured.items():
        growth = exponent(sizes, [seconds for seconds, _ in found])
        cells = [f"{seconds:.1f} s {gb:.2f}" for seconds, gb in found]
        for size in (*LARGER, WANTED_AT):
            times = size / sizes[-1]
            seconds, gb = (
                found[-1][0] * times ** max(growth, 1.0),
                grown(sizes, [gb for _, gb in found], size),
            )
            if size in LARGER:
                cells.append(f"{told(seconds)} {gb:.1f}")
            elif gb > MOST_GB:
                too_large.append(step)
        if growth > N_LOG_N:
            too_fast.append(step)
        lines.append(f"{step:<24}" + "".join(f"{cell:>18}" for cell in cells) + f"{growth:>16.2f}")
    lines += ["", f"in brackets: extrapolated from {sizes[-1]:,} photos"]
    lines.append(f"grows faster than n log n (exponent above {N_LOG_N}): {', '.join(too_fast) or 'none'}")
    lines.append(f"above {MOST_GB:g} GB at {WANTED_AT:,} photos: {', '.join(too_large) or 'none'}")
    return lines


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Returns the power of n with which the time grew between the two largest sizes; NaN for one size."""
    if len(sizes) < 2:
        return float("nan")
    # A hundredth of a second more, so that steps which take no time do not seem to grow.
    return float(np.log((seconds[-1] + 0.01) / (seconds[-2] + 0.01)) / np.log(sizes[-1] / sizes[-2]))


def grown(sizes: list[int], gb: list[float], size: int) -> float:
    """Returns the memory at `size` photos on the straight line through the two largest sizes."""
    if len(sizes) < 2:
        return gb[-1]
    slope = max((gb[-1] - gb[-2]) / (sizes[-1] - sizes[-2]), 0.0)
    return gb[-1] + slope * (size - sizes[-1])


def told(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


# The pool


def synthetic(photos: int, seed: int = 0) -> pa.Table:
    """Returns the catalog of a synthetic pool; see the head of this file."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.lognormal(1.5, 1.5, photos // 4 + 10).astype(np.int64) + 1, 5_000)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    owner = np.concatenate([owner, rng.integers(0, len(sizes), max(photos - len(owner), 0))])[:photos]
    owner = owner[rng.permutation(photos)]
    homes = np.degrees(np.arcsin(rng.uniform(-0.6, 0.9, len(sizes)))), rng.uniform(-180, 180, len(sizes))
    latitude, longitude = destination(
        homes[0][owner], homes[1][owner], rng.uniform(0, 360, photos), rng.exponential(50, photos)
    )
    taken = 1_300_000_000 + rng.integers(0, 400_000_000, photos)
    source = np.full(photos, "own", dtype=object)
    source[owner < max(len(sizes) // 1000, 3)] = "published"
    return pa.table(
        {
            "photo_id": _texts(rng.permutation(photos).astype(np.uint64), 16),
            "source": pa.array(source, pa.string()),
            "photographer": _texts(owner.astype(np.uint64), 16),
            "album": pa.nulls(photos, pa.string()),
            "latitude": latitude,
            "longitude": longitude,
            "taken_at": pa.array(taken * 1_000_000, pa.timestamp("us")),
            "posted_at": pa.array((taken + 86_400) * 1_000_000, pa.timestamp("us")),
            "heading": pa.nulls(photos, pa.float64()),
            "prob_indoor": rng.uniform(0, 1, photos),
            "licence": pa.nulls(photos, pa.string()),
            "width": np.full(photos, 341),
            "height": np.full(photos, 256),
            "sha256": _texts(rng.integers(0, 2**64, (photos, 4), dtype=np.uint64), 64),
            "phash": _texts(hashes(photos, rng), 16),
            "shard": pa.array(np.full(photos, "photos-000000.tar", dtype=object), pa.string()),
            "offset": np.arange(photos) * 25_000,
            "length": np.full(photos, 24_000),
        }
    )


def hashes(photos: int, rng: np.random.Generator) -> np.ndarray:
    """Returns perceptual hashes, uint64 [photos]; see the head of this file."""

    def flipped(values: np.ndarray, bits: int) -> np.ndarray:
        flips = np.uint64(1) << rng.integers(0, 64, (bits, len(values)), dtype=np.uint64)
        return np.asarray(values ^ np.bitwise_xor.reduce(flips, axis=0))

    centres = rng.integers(0, 2**64, 5, dtype=np.uint64)
    dense = flipped(centres[rng.integers(0, 5, photos // 5)], 10)
    black = flipped(np.zeros(photos // 100, np.uint64), 3)
    alone = rng.integers(0, 2**64, photos - len(dense) - len(black) - photos // 25, dtype=np.uint64)
    near = flipped(rng.choice(alone, photos // 25), 2)
    return rng.permutation(np.concatenate([alone, dense, black, near]))


def _texts(numbers: np.ndarray, digits: int) -> pa.Array:
    """Returns numbers as texts of so many hex digits."""
    text = np.frombuffer(numbers.astype(">u8").tobytes().hex().encode(), dtype=f"S{digits}")
    return pa.array(text, pa.binary()).cast(pa.string())


# The steps: each prepares from the catalog and returns what is measured


def duplicates(catalog: pd.DataFrame) -> Work:
    return lambda: near_duplicate_groups(catalog["phash"], catalog["sha256"], SPLITS.max_hamming)


def splits(catalog: pd.DataFrame) -> Work:
    return lambda: make_splits(catalog, SPLITS, 0)


def dealt(catalog: pd.DataFrame) -> pd.DataFrame:
    """Returns splits by photographer alone, at once: what the checks and frames look at."""
    side = pd.util.hash_array(catalog["photographer"].to_numpy(object)) % 10
    split = np.where(side == 0, "test", np.where(side == 1, "validation", "train"))
    split = np.where(catalog["source"] == "published", "published", split)
    return pd.DataFrame({"photo_id": catalog["photo_id"], "split": split, "reason": None}).astype("str")


def checks(catalog: pd.DataFrame) -> Work:
    made = dealt(catalog)
    return lambda: check_splits(catalog, made, SPLITS)


def uses(catalog: pd.DataFrame) -> Work:
    some = catalog.iloc[: len(catalog) // 10]
    return lambda: validation_parts(some, 0)


def frame(catalog: pd.DataFrame) -> Work:
    return lambda: catalog_frame(catalog)


def frame_of_splits(catalog: pd.DataFrame) -> Work:
    made = dealt(catalog)
    return lambda: splits_frame(catalog, made, [])


def sides(catalog: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns queries, a tenth of the photos, and references."""
    count = len(catalog) // 10
    return catalog.iloc[:count].reset_index(drop=True), catalog.iloc[count:].reset_index(drop=True)


def places(photos: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return photos["latitude"].to_numpy(np.float64), photos["longitude"].to_numpy(np.float64)


def medians(catalog: pd.DataFrame) -> Work:
    queries = sides(catalog)[0]
    errors = np.random.default_rng(0).lognormal(5, 3, len(queries))
    clusters = photographer_clusters(photographer_keys(queries))
    return lambda: resampled_medians(errors, clusters, resamples=1000, seed=0)


def random_references(catalog: pd.DataFrame) -> Work:
    queries, references = sides(catalog)
    return lambda: random_reference(*places(references), *places(queries), seed=0)


def constant(catalog: pd.DataFrame) -> Work:
    queries, references = sides(catalog)
    return lambda: best_constant(*places(references), *places(queries), seed=0)


def density(catalog: pd.DataFrame) -> Work:
    queries, references = sides(catalog)
    return lambda: density_groups(*places(queries), *places(references))


def whole_evaluation(catalog: pd.DataFrame) -> Work:
    """One method, with all baselines that need no partition, intervals and medians."""
    queries, references = sides(catalog)
    latitude, longitude = places(queries)
    rng = np.random.default_rng(0)
    found = destination(
        latitude, longitude, rng.uniform(0, 360, len(queries)), rng.lognormal(5, 3, len(queries))
    )
    sure = rng.uniform(0, 1, len(queries)).astype(np.float32)
    return lambda: evaluate({"[L]1000C": Answers(*found, sure)}, queries, references, seed=0)


def by_class(catalog: pd.DataFrame) -> Work:
    """Temperatures, regions, answers and facts of a thousand cells; random probabilities instead of a network's."""
    queries = sides(catalog)[0]
    sample = places(catalog.iloc[:50_000])
    partition = KMeansPartition(KMeansSettings(cells=CELLS, rounds=2)).fit(*sample)

    class Network(ByClass):
        def predict(self, photos: pd.DataFrame) -> tuple[dict[str, Any], np.ndarray]:
            rng = np.random.default_rng(len(photos))
            made = rng.exponential(size=(len(photos), partition.cell_count)).astype(np.float32)
            return {"cells": made / made.sum(axis=1, keepdims=True)}, np.empty(0, np.int64)

    wanted = LocalizerSettings(calibrate=True, coverages=(0.5, 0.9))
    run: Any = SimpleNamespace(log=lambda line: None, settings=SimpleNamespace(localizers=wanted))
    methods = class_methods({"cells": partition}, wanted, *sample)

    def work() -> object:
        network: Any = Network(run, {"cells": partition}, methods, None, Calibration.none())  # type: ignore[arg-type]
        calibration = Calibration.fit(
            {"cells": partition}, lambda rows: network.predict(queries.iloc[rows])[0], *places(queries), wanted,
            queries["photographer"], batch=64,
        )  # fmt: skip
        network = Network(run, {"cells": partition}, methods, None, calibration)  # type: ignore[arg-type]
        return network.answer("test", queries)

    return work


STEPS: dict[str, Callable[[pd.DataFrame], Work]] = {
    "near-duplicates": duplicates,
    "make_splits": splits,
    "check_splits": checks,
    "validation parts": uses,
    "catalog frame": frame,
    "splits frame": frame_of_splits,
    "medians": medians,
    "random reference": random_references,
    "best constant point": constant,
    "density groups": density,
    "evaluate, one method": whole_evaluation,
    "answers by class": by_class,
}


def peak_gb() -> float:
    """Returns the peak memory of this process. The system reports kB on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


if __name__ == "__main__":
    main()
