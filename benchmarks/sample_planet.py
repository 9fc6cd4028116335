"""Is the sample planet a good instrument? The calibration study, one table per section.

    python benchmarks/sample_planet.py [--workspace DIR] [--photos N] [--sections 2 3 ...]

Needs a workspace with a built recipe on photos of the sample planet (default: this repository after `make demo`), and
only reads it. Sections 1 and 9 draw their own photos in a temporary folder: `--photos` for the speed, `--pairs` for the
overhead probe. `--seed` is that of the workspace's sample, whose truth is made again without drawing. If other code
made the sample, give its truth.csv with `--truth` instead.

Intervals are 95 % intervals by photographer: of shares and their paired differences those of
geoloc.evaluation.measures.intervals, of other numbers the bootstrap's. A verdict compares an interval with a target:
"holds" or "DOES NOT HOLD". Targets were set before anything was measured, except for mean colour at city level (see
docs/sample-planet.md). Rows without a verdict are for information.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sample_answers import albums, finer_cells, leaks, more_references, posting_times, trivial
from sample_rows import Row, Workspace
from sample_truth import dirt, headings, overhead, remade, speed, statistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workspace", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--recipe", default="default", help="whose build is studied")
    parser.add_argument("--photos", type=int, default=2000, help="photos drawn to measure the speed")
    parser.add_argument(
        "--pairs", type=int, default=2400, help="photos drawn with tiles for the overhead probe"
    )
    parser.add_argument("--pairs-folder", type=Path, help="such a sample that is already drawn")
    parser.add_argument(
        "--processes", type=int, default=None, help="that draw these pairs (default: one a core)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the workspace's sample (geoloc sample --seed)"
    )
    parser.add_argument("--sample-photos", type=int, help="photos of each version (default: from the ids)")
    parser.add_argument(
        "--truth", type=Path, help="truth.csv of the workspace's sample, beside its photos.csv"
    )
    parser.add_argument("--sections", type=int, nargs="*", default=list(range(1, 12)), metavar="N")
    options = parser.parse_args()
    space = Workspace(options.workspace, options.recipe)
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    torch.manual_seed(0)
    seed = 1
    print(f"the sample planet: {len(space.catalog):,} photos, {len(space.queries)} of them in the test set")
    print("generated photos: no figure here is comparable with a paper's")
    with tempfile.TemporaryDirectory(prefix="geoloc-planet-") as temporary:
        folder = Path(temporary)
        truth = remade(space, options)
        sections: dict[int, Callable[[], list[Row]]] = {
            1: lambda: speed(options, folder),
            2: lambda: trivial(space, seed),
            3: lambda: more_references(space, seed),
            4: lambda: finer_cells(space, seed),
            5: lambda: leaks(space, seed),
            6: lambda: posting_times(space, seed),
            7: lambda: albums(space, seed),
            8: lambda: headings(space, truth, seed),
            9: lambda: overhead(options, folder, seed),
            10: lambda: dirt(space, truth, seed),
            11: lambda: statistics(space, truth, options, seed),
        }
        rows = []
        for number in options.sections:
            started = time.perf_counter()
            rows += sections[number]()
            print(f"section {number}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
    judged = [row for row in rows if row.holds is not None]
    failed = [row for row in judged if not row.holds]
    print(f"\n{len(judged) - len(failed)} of {len(judged)} hold" + ("; these do not:" if failed else ""))
    for row in failed:
        print(row)


if __name__ == "__main__":
    main()
