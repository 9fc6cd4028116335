"""Processes that run together and end together, however the command that started them ends."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 10.0
"""How long a process may take to end by itself before it is killed."""
POLL_SECONDS = 0.2
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_services(commands: Mapping[str, Sequence[str]], folder: Path, first: Path) -> int:
    """Run commands, by name, in `folder` until one of them ends or this process is stopped; returns the exit status: 0
    after ctrl-C or SIGTERM, 1 if a command ended by itself.

    The others start when the first one has made the file or socket `first`. A keeper process holds them all: it stops
    them when its input closes, as it does even if this process is killed.
    """
    keeper = subprocess.Popen(
        [
            sys.executable,
            "-m",
            __name__,
            str(first),
            json.dumps({k: list(one) for k, one in commands.items()}),
        ],
        stdin=subprocess.PIPE,
        cwd=folder,
        start_new_session=True,  # a terminal's ctrl-C comes to this process, which then stops the others in order
    )
    assert keeper.stdin is not None
    pipe = keeper.stdin

    def stop(number: int, frame: FrameType | None) -> None:
        pipe.close()

    # Under nohup, which ignores it, the end of the terminal stops nothing.
    heeded = [one for one in STOPS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        return keeper.wait()
    finally:
        pipe.close()
        keeper.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def keep(commands: Mapping[str, Sequence[str]], first: Path) -> int:
    """As `run_services`, until stdin closes. All have ended when it returns."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # who starts the keeper says when to stop, by its input
    waiting, running = list(commands), dict[str, subprocess.Popen[bytes]]()
    try:
        while True:
            if waiting and (not running or first.exists()):
                name = waiting.pop(0)
                running[name] = subprocess.Popen(
                    commands[name], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_heed
                )
                continue
            if select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
                return 0
            for name, process in running.items():
                if process.poll() is not None:
                    print(f"geoloc: the {name} ended with status {process.returncode}", file=sys.stderr)
                    return 1
    finally:
        _stop(list(running.values()))


def _heed() -> None:
    """Undo in a child what `keep` ignores: ignored signals are inherited."""
    for number in STOPS:
        signal.signal(number, signal.SIG_DFL)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and all that they started, the last one first."""
    for process in reversed(processes):
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(_lives(process) for process in processes):
        time.sleep(POLL_SECONDS)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()


def _lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process, or one of its group, lives."""
    process.poll()  # else it stays in its group as a zombie
    return _signal(process, 0)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(keep(json.loads(sys.argv[2]), Path(sys.argv[1])))
