"""`geoloc ui`: the Dagster UI."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "ui", "open the Dagster UI on this workspace's history (loopback only)",
        "  geoloc ui\n  geoloc ui --port 3001",
        run,
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=3000, help="default: 3000")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns Dagster's exit status."""
    from orchestration.graph.runs import end_killed_runs_if_free

    workspace = open_workspace(options)
    end_killed_runs_if_free(workspace)  # else those of a killed UI would keep all new runs in the queue
    command = [sys.executable, "-m", "dagster", "dev", "-m", "orchestration.definitions"]
    command += ["--host", "127.0.0.1", "--port", str(options.port)]
    print(f"Dagster UI: http://127.0.0.1:{options.port}  (ctrl-C stops it)")
    return subprocess.run(command, cwd=workspace.root, env=os.environ, check=False).returncode
