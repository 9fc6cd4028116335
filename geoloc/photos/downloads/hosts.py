"""Manners: how many requests a host gets at a time and how soon, and when it is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

from geoloc.photos.settings import DownloadSettings


class LeftAlone(Exception):
    """A host is not asked any more in this run. The message says why."""


class Host:
    """One host in one run. All methods are called in one event loop."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.per_host)
        self._next_start = 0.0
        self._failures = 0
        self._left_alone: str | None = None

    @asynccontextmanager
    async def turn(self, everybody: asyncio.Semaphore) -> AsyncIterator[None]:
        """Wait until a request may start, and hold its places until it ends. Raises LeftAlone."""
        async with self._slots:
            while True:
                if self._left_alone is not None:
                    raise LeftAlone(self._left_alone)
                wait = self._next_start - time.monotonic()
                if wait <= 0:
                    break
                await asyncio.sleep(wait)  # and look again: a Retry-After may have come meanwhile
            self._next_start = time.monotonic() + self._settings.delay
            async with everybody:  # last, so that a host that waits keeps no other from its turn
                yield

    def wait_for(self, seconds: float) -> None:
        """Ask the host nothing for so long; nothing more in this run where that is longer than the settings allow."""
        if seconds > self._settings.longest_wait:
            longest = self._settings.longest_wait
            self._left_alone = (
                f"the host asks to wait {seconds:.0f} s, and {longest:g} s are waited for at most"
            )
        else:
            self._next_start = max(self._next_start, time.monotonic() + seconds)

    def answered(self) -> None:
        """The host lives."""
        self._failures = 0

    def failed(self) -> None:
        """A photo got no answer, however often it was asked for."""
        self._failures += 1
        if self._failures >= self._settings.host_failures:
            self._left_alone = f"the host gave no answer for {self._failures} photos in a row"


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); None where it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
