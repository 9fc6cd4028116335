"""Time of `geoloc --help`, compared with an empty Python and with the imports that it must avoid."""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 5
LIMIT_SECONDS = 0.5


def seconds(code: str) -> float:
    """Returns the wall time in seconds of the fastest of a few runs of a Python program."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> int:
    help_code = "import orchestration.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass"
    rows = [
        ("python -c pass", seconds("pass")),
        ("geoloc --help", seconds(help_code)),
        ("import torch, for comparison", seconds("import torch")),
    ]
    print(f"{'what':<32} seconds")
    for name, value in rows:
        print(f"{name:<32} {value:7.3f}")
    return int(rows[1][1] >= LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
