"""Throughput of `geoloc locate --table`, compared with embedding the same photos by the same network.

    python benchmarks/locate_table.py [--workspace DIR] [--recipe default] [--count 2000] [--rounds 3]

Takes photos of a built workspace, repeated until there are `--count`. Embeddings are extracted from the pool's shards,
as the build does; the table names files of the same bytes, and gives places, names, alternatives and regions. Both
decode, on all processors. They run in turn; the fastest of `--rounds` counts. Exits with 1 below 0.8.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from geoloc.models.classifier import load_model
from geoloc.models.engine import engine_name, ready_network
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from geoloc.retrieval.embeddings import extract_embeddings
from orchestration.lineage.build import Build
from orchestration.locate.question import Question
from orchestration.locate.table import locate_table
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE
from orchestration.workspace import Workspace

WANTED_RATIO = 0.8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, default=Path())
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    build = Build(Workspace.open(options.workspace), options.recipe)
    pool, folder = build.workspace.pool, build.folder("classifier")
    stored = read_catalog(pool).dropna(subset=["shard"]).reset_index(drop=True)
    rows = stored.iloc[[i % len(stored) for i in range(options.count)]].reset_index(drop=True)
    rows["photo_id"] = [f"{number}" for number in range(len(rows))]  # a photo that is repeated counts again
    network = ready_network(folder / GRAPH_FILE, lambda: load_model(folder / MODEL_FILE))
    with tempfile.TemporaryDirectory() as temporary, ShardReader(pool) as reader:
        base = Path(temporary)
        for row in rows.itertuples():
            data = reader.read(row.shard, int(row.offset), int(row.length))
            (base / f"{row.photo_id}.jpg").write_bytes(data)
        table = base / "photos.csv"
        pd.DataFrame({"file": rows["photo_id"] + ".jpg"}).to_csv(table, index=False)
        kilobytes = rows["length"].astype(float).mean() / 1000
        print(
            f"{len(rows):,} photos of {kilobytes:.0f} kB, recipe {options.recipe}, {engine_name(network)}\n"
        )
        embedding, locating = [], []
        for number in range(options.rounds):
            embedding.append(
                measured(
                    extract_embeddings, network, pool, rows, base / f"e{number}", build.settings.embeddings
                )
            )
            locating.append(measured(locate_table, build, table, base / "answers.parquet", Question()))
    print("| | photos/s | processor ms a photo |\n|---|---|---|")
    for name, times in (("embeddings", embedding), ("locate --table", locating)):
        wall, cpu = (min(values) for values in zip(*times, strict=True))
        print(f"| {name} | {len(rows) / wall:.0f} | {1000 * cpu / len(rows):.2f} |")
    ratio = min(embedding)[0] / min(locating)[0]
    print(f"\nratio {ratio:.2f}, wanted {WANTED_RATIO}")
    return 0 if ratio >= WANTED_RATIO else 1


def measured(work, *arguments) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Returns seconds of wall time, and of processor time, which other work on the machine changes less."""
    started, before = time.perf_counter(), time.process_time()
    work(*arguments)
    return time.perf_counter() - started, time.process_time() - before


if __name__ == "__main__":
    sys.exit(main())
