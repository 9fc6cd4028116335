"""The index that is chosen against the flat one, and against hnswlib or usearch where they are installed.

    python benchmarks/index.py [--references 1000000] [--dimension 512] [--queries 1000] [--recall 0.95]
                               [--factory auto] [--seed 0] [--machine-gb 64]

Made-up embeddings: clusters of many sizes in a space of few dimensions, with noise, so that they have near and far
neighbours as embeddings of photos do. Each index is built in a process of its own, so that its memory is its own. One
row an index: build time (with training, filling and tuning), file size, memory above that of the vectors, queries a
second (batches of 256), recall@100 against the exact search. hnswlib and usearch are searched at the least effort that
reaches the wanted recall. Then a plan for 28 and 126 million: bytes by the plan of the index corrected by the file that
was measured, seconds by the growth of the build time from a half to all references, machines by their memory.
Exits with 1 if the chosen index has less than the wanted recall or, from a million references on, less than 10 times
the queries a second of the flat index.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.plan import REFINED_FROM, index_bytes, plan_index
from geoloc.retrieval.settings import IndexSettings

K, BATCH, WANTED_RATIO = 100, 256, 10.0
LARGE = (28_000_000, 126_000_000)
OTHERS = ("hnswlib", "usearch")
_EFFORTS = (100, 150, 200, 300, 500, 800, 1_200, 2_000)


def made_vectors(count: int, dimension: int, seed: int, which: int) -> NDArray[np.float32]:
    """Returns unit vectors [count, dimension]; `which` draws others of the same clusters."""
    world = np.random.default_rng(seed)
    hidden = min(32, dimension)
    basis = world.normal(size=(hidden, dimension)).astype(np.float32) / math.sqrt(hidden)
    centres = world.normal(size=(2_000, hidden)).astype(np.float32)
    weight = 1 / np.arange(1, len(centres) + 1)
    rng = np.random.default_rng([seed, which])
    vectors = np.empty((count, dimension), dtype=np.float32)
    for start in range(0, count, 65_536):
        part = vectors[start : start + 65_536]
        place = centres[rng.choice(len(centres), len(part), p=weight / weight.sum())]
        place = place + 0.6 * rng.standard_normal(place.shape, dtype=np.float32)
        part[:] = place @ basis + 0.05 * rng.standard_normal(part.shape, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def memory() -> int:
    """Bytes of the peak of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def searched(search: Callable[[NDArray[np.float32]], Any], queries: NDArray[np.float32]) -> tuple[float, Any]:
    """Returns queries a second and the rows found [Q, K]."""
    search(queries[:BATCH])
    started = time.perf_counter()
    found = [search(queries[start : start + BATCH]) for start in range(0, len(queries), BATCH)]
    return len(queries) / (time.perf_counter() - started), np.concatenate(found)


def ours(
    factory: str, vectors: NDArray[np.float32], options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Measure an index of this project."""
    ids = np.char.mod("%d", np.arange(len(vectors))).astype(object)
    rows = pd.DataFrame({"photo_id": ids, "latitude": 0.0, "longitude": 0.0, "photographer": None})
    settings = IndexSettings(factory=factory, recall=options.recall)
    started = time.perf_counter()
    index = ReferenceIndex.build(Embeddings(ids, vectors), rows, settings, options.seed)
    seconds = time.perf_counter() - started
    index.save(folder / "index")
    size = (folder / "index" / "index.faiss").stat().st_size
    queries = made_vectors(options.queries, options.dimension, options.seed, 1)
    rate, found = searched(lambda some: index.search(some, K).row, queries)
    return {"seconds": seconds, "file": size, "rate": rate, "found": found, "note": str(index.tuned)}


def theirs(
    name: str, vectors: NDArray[np.float32], options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Measure hnswlib or usearch with 32 links, at the least effort that reaches the wanted recall."""
    queries = made_vectors(options.queries, options.dimension, options.seed, 1)
    truth = np.load(options.truth)
    started = time.perf_counter()
    effort: Callable[[int], None]
    if name == "hnswlib":
        import hnswlib

        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), M=32, ef_construction=200, random_seed=options.seed)
        index.add_items(vectors)
        seconds = time.perf_counter() - started
        index.save_index(str(folder / "other"))
        effort = index.set_ef

        def search(some: NDArray[np.float32]) -> Any:
            return index.knn_query(some, K)[0].astype(np.int64)
    else:
        from usearch.index import Index

        index = Index(ndim=vectors.shape[1], metric="ip", connectivity=32, expansion_add=200)
        index.add(np.arange(len(vectors)), vectors)
        seconds = time.perf_counter() - started
        index.save(str(folder / "other"))

        def effort(value: int) -> None:
            index.expansion_search = value

        def search(some: NDArray[np.float32]) -> Any:
            return index.search(some, K).keys.astype(np.int64)

    for ef in _EFFORTS:
        effort(ef)
        rate, found = searched(search, queries)
        if recall(found, truth) >= options.recall:
            break
    size = (folder / "other").stat().st_size
    return {"seconds": seconds, "file": size, "rate": rate, "found": found, "note": f"ef {ef}"}


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Returns the share of the true neighbours that were found."""
    hits = sum(len(np.intersect1d(a, b[b >= 0])) for a, b in zip(found, truth, strict=True))
    return hits / max(1, int((truth >= 0).sum()))


def one(options: argparse.Namespace) -> None:
    """Measure one index in this process and print the figures as JSON."""
    vectors = made_vectors(options.references, options.dimension, options.seed, 0)
    before = memory()
    with tempfile.TemporaryDirectory() as folder:
        measure = theirs if options.one in OTHERS else ours
        figures = measure(options.one, vectors, options, Path(folder))
    figures["memory"] = max(0, memory() - before)
    truth = Path(options.truth)
    if not truth.exists():
        np.save(truth, figures["found"])
    figures["recall"] = recall(figures.pop("found"), np.load(truth))
    print(json.dumps(figures))


def measured(name: str, references: int, options: argparse.Namespace, truth: Path) -> dict[str, Any]:
    """Measure one index in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--one",
        name,
        "--truth",
        str(truth),
        "--references",
        str(references),
    ]
    for key in ("dimension", "queries", "recall", "seed"):
        command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def print_plan(
    factory: str, half: dict[str, Any], whole: dict[str, Any], options: argparse.Namespace
) -> None:
    """Print what the chosen kind would take at the large sizes."""
    count = options.references
    correction = whole["file"] / index_bytes(factory, count, options.dimension)
    growth = max(1.0, math.log2(whole["seconds"] / half["seconds"]))
    print(
        f"\nPlan, from {count // 2:,} and {count:,} references measured here: build time grows as N^{growth:.2f};"
        f" files are {correction:.3f} of their plan; machines of {options.machine_gb:g} GB, of which 0.8 is for"
        " the index"
    )
    print(f"{'references':>12}{'GB':>9}{'build, hours':>14}{'machines':>10}  index")
    for references in LARGE:
        plan = plan_index(references, options.dimension, IndexSettings(recall=options.recall))
        size = plan.bytes * correction
        hours = whole["seconds"] * (references / count) ** growth / 3600
        machines = math.ceil(size / (0.8e9 * options.machine_gb))
        print(f"{references:>12,}{size / 1e9:>9.1f}{hours:>14.2f}{machines:>10}  {plan.factory}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--factory", default="auto", help="the index to measure beside Flat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machine-gb", type=float, default=64)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--truth", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options)
        return 0
    count, settings = options.references, IndexSettings(factory=options.factory, recall=options.recall)
    plan = plan_index(count, options.dimension, settings)
    print(f"{count:,} × {options.dimension}, {options.queries:,} queries, k = {K}. {plan.reason}")
    print(
        f"{'index':<36}{'build, s':>10}{'file, MB':>10}{'memory, MB':>12}{'queries/s':>11}{'recall@100':>12}  search"
    )
    others = [name for name in OTHERS if importlib.util.find_spec(name)]
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in dict.fromkeys(["Flat", plan.factory, *others]):
            figures[name] = row = measured(name, count, options, Path(folder) / "truth.npy")
            print(
                f"{name:<36}{row['seconds']:>10.1f}{row['file'] / 1e6:>10.1f}{row['memory'] / 1e6:>12.1f}"
                f"{row['rate']:>11.0f}{row['recall']:>12.3f}  {row['note']}",
                flush=True,
            )
        half = measured(plan.factory, count // 2, options, Path(folder) / "half.npy")
    chosen = figures[plan.factory]
    print_plan(plan.factory, half, chosen, options)
    ratio = chosen["rate"] / figures["Flat"]["rate"]
    print(
        f"\n{plan.factory}: recall@100 {chosen['recall']:.3f}, {ratio:.1f} times the flat index's queries a second"
    )
    return int(chosen["recall"] < options.recall or (count >= REFINED_FROM and ratio < WANTED_RATIO))


if __name__ == "__main__":
    sys.exit(main())
