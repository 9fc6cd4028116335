"""Everything that geoloc does on a GPU, tried and compared with the CPU; and its speed there.

    python benchmarks/cuda.py [--part branches|speed|search|cross_view ...] [--quick] [--out FOLDER]

Each row is printed as it ends, with its seconds. A row that fails prints the last line of the exception, and the others
go on; the exit code is 1 if one failed. Without a GPU nothing is tried, unless --quick, which tries the script itself
on the CPU in small sizes.

- branches: every family's training at float32, bfloat16 and float16 against the CPU at float32; equal bytes of equal
  trainings; resumption; embeddings, probabilities, export, occlusion, searches and evaluations against the CPU's.
- speed: photos a second of forward passes and training steps by precision, memory layout and torch.compile; then
  geoloc's own embedding and training from stored JPEGs, beside decoding alone.
- search: the exhaustive triplet loss against pytorch-metric-learning; exact search; overhead tiles in 16 rotations.
- cross_view: the recipes cross_view_* trained on the sample's pairs for longer than a CPU can, and on more pairs of the
  same planet, which `--part planet` draws into --planet (on all processors).

The parts are in cuda_branches.py, cuda_speed.py and cuda_cross_view.py. Nothing beyond geoloc's library is imported: no
dagster, dvc, mlflow or great_expectations.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from cuda_table import Rows

from geoloc.processors import processors

PARTS = ("planet", "branches", "speed", "search", "cross_view")


def main() -> int:
    """Run the parts. Returns 1 if a row failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS[1:]))
    parser.add_argument("--quick", action="store_true", help="small sizes, also on the CPU")
    parser.add_argument(
        "--seconds", type=float, default=240, help="cross_view: no training runs longer than that"
    )
    parser.add_argument(
        "--planet", type=Path, help="cross_view: the folder of drawn pairs; --part planet fills it"
    )
    parser.add_argument("--shots", type=Path, help="planet: a table of what to draw; default: made")
    parser.add_argument(
        "--pairs",
        type=int,
        default=18000,
        help="planet: pairs to split; 60 %% get one and are drawn",
    )
    parser.add_argument("--processes", type=int, default=6, help="cross_view: trainings at a time")
    parser.add_argument("--out", type=Path, help="a folder for results as tables")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    if not cuda and not options.quick and options.part != ["planet"]:
        print("no GPU that torch can use: nothing is tried; --quick tries the script itself on the CPU")
        return 0
    rows = Rows("cuda" if cuda else "cpu", options.quick)
    name = torch.cuda.get_device_name() if cuda else "CPU"
    print(
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
        f"python {sys.version.split()[0]}, {processors()} processors, {os.getloadavg()[0]:.1f} load",
        flush=True,
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for part in options.part:
            try:
                _run(part, rows, Path(folder), options)
            except Exception:
                traceback.print_exc(file=sys.stdout)
                rows.failed.append(f"part {part}")
    print(f"\n{time.perf_counter() - started:.0f} s; {len(rows.failed)} rows failed")
    for failed in rows.failed:
        print(f"  {failed}")
    return 1 if rows.failed else 0


def _run(part: str, rows: Rows, folder: Path, options: argparse.Namespace) -> None:
    if part == "planet":
        from cuda_planet import draw

        rows.row("planet", draw, options)
    elif part == "branches":
        from cuda_branches import branches

        branches(rows, folder)
    elif part == "cross_view":
        from cuda_cross_view import cross_view

        cross_view(rows, folder, options)
    else:
        import cuda_speed

        getattr(cuda_speed, part)(rows, folder)


if __name__ == "__main__":
    sys.exit(main())
