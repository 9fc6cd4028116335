"""Limits of memory and time for readers of outside bytes: a test under them runs in a process of its own."""

import functools
import multiprocessing
import resource
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ParamSpec

MEGABYTE = 1024**2
_BEYOND = 4096
"""Megabytes of address space beyond which the system itself refuses: this machine is everybody's."""


P = ParamSpec("P")


def under_limits(
    *, seconds: int = 20, megabytes: int = 300
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Run a test in a forked process that may take so many CPU seconds and grow by so many megabytes."""

    def limited(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            context = multiprocessing.get_context("fork")
            here, there = context.Pipe(duplex=False)
            child = context.Process(
                target=_child, args=(there, seconds, functools.partial(test, *args, **kwargs))
            )
            child.start()
            there.close()
            try:
                told, grown = here.recv()
            except EOFError:
                told, grown = None, 0.0
            child.join()
            assert child.exitcode != -signal.SIGXCPU, f"it took over {seconds} s of CPU"
            assert child.exitcode == 0, f"the process ended with {child.exitcode}"
            assert told is None, f"in a process of its own:\n{told}"
            assert grown <= megabytes, f"it took {grown:.0f} MB; the limit is {megabytes}"

        return run

    return limited


def _child(pipe: Connection, seconds: int, test: Callable[[], None]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = space + _BEYOND * MEGABYTE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    before, told = _peak(), None
    try:
        test()
    except BaseException:
        told = traceback.format_exc()
    pipe.send((told, (_peak() - before) / MEGABYTE))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
