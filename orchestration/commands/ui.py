"""`geoloc ui`: the Dagster UI."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
from pathlib import Path

from geoloc.files import write_text
from orchestration.commands.common import open_workspace
from orchestration.commands.parsing import add_command
from orchestration.commands.services import run_services
from orchestration.errors import UsageError

HOST = "127.0.0.1"
DEFINITIONS = "orchestration.definitions"


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "ui", "open the Dagster UI on this workspace's history (loopback only)",
        "  geoloc ui\n  geoloc ui --port 3001",
        run,
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=3000, help="default: 3000")


def run(options: argparse.Namespace) -> int:
    """Run the command until it is stopped; returns the exit status. Raises UsageError for a port that is not free."""
    from orchestration.graph.runs import end_killed_runs_if_free
    from orchestration.stores.databases import check_dagster

    workspace = open_workspace(options)
    _check_port(options.port)
    check_dagster(workspace)
    end_killed_runs_if_free(workspace)  # else those of a killed UI would keep all new runs in the queue
    # Not in TMPDIR, which may be long: the path of a socket may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="geoloc-ui-", dir="/tmp") as folder:
        meeting = Path(folder) / "definitions.sock"
        services = dagster_services(meeting, options.port)
        print(f"Dagster UI: http://{HOST}:{options.port}  (ctrl-C stops it)", flush=True)
        # Not in the workspace: a folder there could be taken for a module of ours. Its path is in the environment.
        return run_services(services, Path(folder), first=meeting)


def dagster_services(meeting: Path, port: int) -> dict[str, list[str]]:
    """The commands of Dagster's processes by name: the server of the definitions first, which the others ask.

    `dagster dev`, which starts the same processes, is superseded and says so at each start; `dg dev` wants a project of
    its own layout. `meeting` is the socket where they meet.
    """
    servers = meeting.with_name("workspace.yaml")
    server = {"socket": str(meeting), "location_name": DEFINITIONS}
    write_text(servers, json.dumps({"load_from": [{"grpc_server": server}]}))  # JSON is YAML
    python = [sys.executable, "-m"]
    quiet = ["--log-level", "warning"]
    return {
        "definitions": [
            *python, "dagster", "code-server", "start", "-m", DEFINITIONS, "--socket", str(meeting), *quiet,
        ],
        "web server": [
            *python, "dagster_webserver", "--workspace", str(servers), "--host", HOST, "--port", str(port),
            "--dagster-log-level", "warning", "--uvicorn-log-level", "warning",
        ],
        "daemon": [*python, "dagster._daemon", "run", "--workspace", str(servers), *quiet],
    }  # fmt: skip


def _check_port(port: int) -> None:
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((HOST, port))
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--port must be a free port from 1024 to 65535; {port} cannot be used ({error})"
        ) from None
