"""Warnings of the libraries that read pictures: counted with the name of a file, instead of printed without."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import PurePath
from typing import TextIO

_LIBRARIES = ("PIL", "pillow_heif")
_MOST_KINDS = 20
_reading: ContextVar[str] = ContextVar("reading", default="a file")


@contextlib.contextmanager
def reading(reference: str) -> Iterator[None]:
    """Warnings inside are about this input (in this thread)."""
    token = _reading.set(reference)
    try:
        yield
    finally:
        _reading.reset(token)


class Warned:
    """Kinds of warnings, how often each came, and one of the inputs it was about."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        """Count a warning about what is being read. Numbers in it make no kind of their own."""
        kind = re.sub(r"\d+", "N", text.strip().split("\n")[0])[:120]
        with self._lock:
            if kind not in self._kinds and len(self._kinds) == _MOST_KINDS:
                kind = "others"
            count, first = self._kinds.get(kind, (0, _reading.get()))
            self._kinds[kind] = (count + 1, min(first, _reading.get()))

    def notes(self) -> dict[str, int]:
        """What to tell people, with its count."""
        return {
            f"warning of a decoder: {kind} (as of {first})": count
            for kind, (count, first) in self._kinds.items()
        }


@contextlib.contextmanager
def counted_warnings() -> Iterator[Warned]:
    """Collect warnings and log lines of the libraries that decode, of all threads; those of others are shown.

    Not for two at once: how warnings are shown is a matter of the whole process.
    """
    warned = Warned()
    handler = _Handler(warned)
    logger = logging.getLogger("PIL")
    propagate = logger.propagate
    with warnings.catch_warnings():
        for library in _LIBRARIES:
            warnings.filterwarnings("always", module=rf"{library}(\.|$)")
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if any(library in PurePath(filename).parts for library in _LIBRARIES):
                warned.add(str(message))
            else:
                shown(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        logger.addHandler(handler)
        logger.propagate = False
        try:
            yield warned
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


class _Handler(logging.Handler):
    def __init__(self, warned: Warned) -> None:
        super().__init__(logging.WARNING)
        self._warned = warned

    def emit(self, record: logging.LogRecord) -> None:
        self._warned.add(record.getMessage())
