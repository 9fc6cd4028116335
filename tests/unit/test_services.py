"""Processes of `geoloc ui` end together, however the command ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestration.cli import main
from tests.unit.pretended import bare_workspace

SERVICE = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
file = pathlib.Path(sys.argv[1])
file.with_suffix(".part").write_text(f"{os.getpid()} {child.pid}")
file.with_suffix(".part").replace(file)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(seconds: float = 600) -> subprocess.Popen[str]:
        files = [tmp_path / name for name in ("first", "second")]
        commands = {file.name: [sys.executable, "-c", SERVICE, str(file), str(seconds)] for file in files}
        code = (
            "from orchestration.commands.services import run_services as r; from pathlib import Path; import sys;"
            "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL);"  # the tests may run under nohup
            f"sys.exit(r({commands!r}, Path({str(tmp_path)!r}), Path({str(files[0])!r})))"
        )
        started.append(subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_until(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def all_pids(folder: Path) -> list[int]:
    wait_until(lambda: (folder / "second").exists())
    return [int(pid) for name in ("first", "second") for pid in (folder / name).read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        pass
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_all_and_what_they_started(start, tmp_path, number):
    process = start()
    pids = all_pids(tmp_path)
    process.send_signal(number)
    assert process.wait() == (-number if number == signal.SIGKILL else 0)
    wait_until(lambda: not any(lives(pid) for pid in pids))


def test_one_that_ends_by_itself_ends_the_others_and_is_named(start, tmp_path):
    process = start(seconds=1)
    assert process.wait() == 1
    assert "geoloc: the first ended with status 0" in process.stderr.read()
    pids = [int(pid) for pid in (tmp_path / "first").read_text().split()]
    wait_until(lambda: not any(lives(pid) for pid in pids))


@pytest.mark.parametrize("port", [None, 70000, -1])
def test_a_port_that_cannot_be_used_is_refused(tmp_path, capsys, port):
    bare_workspace(tmp_path / "w", {"seed": 1})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        given = taken.getsockname()[1] if port is None else port
        assert main(["--workspace", str(tmp_path / "w"), "ui", "--port", str(given)]) == 2
    assert f"--port must be a free port from 1024 to 65535; {given} cannot be used" in capsys.readouterr().err
