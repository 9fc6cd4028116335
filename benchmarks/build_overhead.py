"""Time that a build spends outside its stages: start-up, Dagster, checks, DVC.

    python benchmarks/build_overhead.py [--workspace DIR] [--recipe NAME] [--wall SECONDS | --run]

Reads the lineage records of the last build of a recipe and prints a table: the seconds of each stage, their sum, the
time from the first stage's start to the last one's end, and by how many per cent that exceeds the sum. Records have
their start in whole seconds, so the result is exact to a second.

The command itself starts before its first stage and ends after its last. `--wall` gives its wall time if that was
measured. `--run` measures it: it builds everything afresh in a temporary copy of the workspace, with a copy of DVC's
cache, so that DVC stores nothing twice.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from geoloc.files import read_json

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".venv", "build", "mlflow", ".dagster", ".geoloc", ".mypy_cache", ".ruff_cache", ".pytest_cache")
"""Left out of the copy for `--run`: earlier builds, and what is not part of a workspace."""


def last_build(workspace: Path, recipe: str) -> list[dict[str, Any]]:
    """Returns the lineage records of the stages that the recipe's last build ran, by start; empty without a build."""
    folders = [workspace / "build" / "lineage", workspace / "build" / recipe / "lineage"]
    records = [read_json(path) for folder in folders for path in folder.glob("*.json")]
    records.sort(key=lambda record: (record["started_at"], end(record)))
    return [record for record in records if record["dagster_run"] == records[-1]["dagster_run"]]


def end(record: dict[str, Any]) -> datetime:
    """Returns the time at which the stage ended."""
    return datetime.fromisoformat(record["started_at"]) + timedelta(seconds=record["seconds"])


def run_afresh(workspace: Path, recipe: str) -> tuple[list[dict[str, Any]], float]:
    """Returns records and wall time (seconds) of a whole build in a temporary copy of the workspace."""
    with tempfile.TemporaryDirectory(prefix="geoloc-overhead-") as folder:
        copy = Path(folder) / "workspace"

        def left_out(at: str, names: list[str]) -> list[str]:
            return [name for name in names if name in LEFT_OUT and Path(at) == workspace]

        shutil.copytree(workspace, copy, symlinks=True, ignore=left_out)
        command = [sys.executable, "-m", "orchestration.cli", "--workspace", str(copy)]
        clock = time.monotonic()
        subprocess.run([*command, "build", "--recipe", recipe], cwd=ROOT, check=True)
        seconds = time.monotonic() - clock
        return last_build(copy, recipe), seconds


def table(records: list[dict[str, Any]], wall: float | None) -> list[str]:
    """Returns the lines of the table."""
    stages = sum(record["seconds"] for record in records)
    span = (max(map(end, records)) - datetime.fromisoformat(records[0]["started_at"])).total_seconds()
    rows = [(record["artefact"], record["seconds"]) for record in records] + [("sum of the stages", stages)]
    lines = [f"{'stage':<36} {'seconds':>8} {'beside the stages':>18}"]
    lines += [f"{name:<36} {seconds:8.1f}" for name, seconds in rows]
    walls = [("first start to last end", span), *([("wall time of the command", wall)] if wall else [])]
    return lines + [
        f"{name:<36} {seconds:8.1f} {100 * (seconds / stages - 1):16.1f} %" for name, seconds in walls
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, default=ROOT, help="default: this checkout")
    parser.add_argument("--recipe", default="default")
    measured = parser.add_mutually_exclusive_group()
    measured.add_argument("--wall", type=float, metavar="SECONDS", help="wall time of the build command")
    measured.add_argument(
        "--run", action="store_true", help="build afresh in a temporary copy and measure it"
    )
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()
    if arguments.run:
        records, wall = run_afresh(workspace, arguments.recipe)
    else:
        records, wall = last_build(workspace, arguments.recipe), arguments.wall
    if not records:
        print(f"nothing to measure: no build of {arguments.recipe} in {workspace}; see --run")
        return 0
    print("\n".join(table(records, wall)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
