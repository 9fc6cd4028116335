"""Asking for photos over HTTP with aiohttp: in a thread of its own, many at a time, each within limits."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from geoloc.photos.downloads.answer import (
    TRIED_AGAIN,
    Answer,
    BadAddress,
    is_never_asked,
    is_private,
    now,
    parse_address,
    place,
    refusal,
    shown,
)
from geoloc.photos.downloads.hosts import Host, LeftAlone, retry_after
from geoloc.photos.formats import SIGNATURE_BYTES, known_format, unread_format
from geoloc.photos.quarantine import Reason
from geoloc.photos.settings import DownloadSettings

_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (429, 503)
_PIECE = 64 * 1024
_LARGE = 4 * 1024 * 1024
_LARGE_AT_A_TIME = 4
"""Bodies above _LARGE that are in memory at a time."""

Take = Callable[[Answer], None]


class Fetcher:
    """Asks for photos. A context manager: the thread and the connections live as long as the block."""

    def __init__(self, settings: DownloadSettings, max_file_bytes: int) -> None:
        self._settings, self._most = settings, max_file_bytes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="downloads", daemon=True)
        self._client: _Client | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(
            _opened(self._settings, self._most), self._loop
        ).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, urls: Iterable[str], take: Take) -> Future[None]:
        """Ask for each address; `take` gets each answer as it comes, in the thread of the downloads.

        The future ends when all answers are taken.
        """
        assert self._client is not None, "used outside its block"
        return asyncio.run_coroutine_threadsafe(self._client.ask_all(list(urls), take), self._loop)

    async def _close(self) -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        if self._client is not None:
            await self._client.close()


class _Stop(Exception):
    """The answer to a request is known: no photo."""

    def __init__(
        self, reason: Reason, detail: str, later: bool, status: int | None = None, soon: bool = False
    ) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.later, self.status, self.soon = reason, detail, later, status, soon


async def _opened(settings: DownloadSettings, most: int) -> _Client:
    return _Client(settings, most)


class _Client:
    """One session, and what is known of each host."""

    def __init__(self, settings: DownloadSettings, most: int) -> None:
        self._settings, self._most = settings, most
        self._hosts: dict[str, Host] = {}
        self._everybody = asyncio.Semaphore(settings.connections)
        self._large = asyncio.Semaphore(_LARGE_AT_A_TIME)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, resolver=_PublicResolver(settings.private == "always"), ttl_dns_cache=300
            ),
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            headers={"User-Agent": settings.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def ask_all(self, urls: list[str], take: Take) -> None:
        async def one(url: str) -> None:
            take(await self._ask(url))

        await asyncio.gather(*map(one, urls))

    async def _ask(self, text: str) -> Answer:
        """One photo: as many tries as the settings and the answers allow."""
        try:
            url = parse_address(text, private=self._settings.private != "never")
        except BadAddress as error:
            return Answer(text, Reason.BAD_ADDRESS, str(error))
        tries = 0
        while True:
            tries += 1
            try:
                answer = await self._follow(text, url)
            except _Stop as stop:
                answer = Answer(text, stop.reason, f"{stop.detail}: {shown(url)}", stop.later, stop.status)
                if stop.soon and tries < self._settings.tries:
                    pause = self._settings.backoff * 2 ** (tries - 1)
                    if stop.status in _BUSY:
                        self._host(url).wait_for(pause)
                    await asyncio.sleep(pause)
                    continue
                if stop.soon:
                    self._host(url).failed()
            except LeftAlone as error:
                detail = f"not asked for: {error}: {shown(url)}"
                tries -= 1
                answer = Answer(text, Reason.HTTP_UNAVAILABLE, detail, later=True)
            return replace(answer, tries=tries, asked_at=now())

    def _host(self, url: URL) -> Host:
        name = place(url)
        if name not in self._hosts:
            self._hosts[name] = Host(self._settings)
        return self._hosts[name]

    async def _follow(self, text: str, first: URL) -> Answer:
        """One try: the request, and those to which it is redirected. Raises _Stop and LeftAlone."""
        url, seen = first, {first}
        while True:
            host = self._host(url)
            async with host.turn(self._everybody):
                try:
                    async with self._session.get(url, allow_redirects=False) as response:
                        if response.status not in TRIED_AGAIN:
                            host.answered()
                        if response.status not in _REDIRECTS:
                            return await self._photo(text, response, host)
                        to = self._target(first, url, response)
                except _NotPublic as error:
                    raise _Stop(Reason.BAD_ADDRESS, str(error), later=False) from None
                except TimeoutError:
                    what = f"no complete answer within {self._settings.timeout:g} s"
                    raise _Stop(Reason.HTTP_UNAVAILABLE, what, later=True, soon=True) from None
                except (aiohttp.ClientError, OSError, ValueError) as error:
                    not_public = _cause(error, _NotPublic)
                    if not_public is not None:
                        raise _Stop(Reason.BAD_ADDRESS, str(not_public), later=False) from None
                    unmet = isinstance(error, aiohttp.ClientConnectorError)
                    what = "no connection" if unmet else "the connection broke off"
                    raise _Stop(Reason.HTTP_UNAVAILABLE, what, later=True, soon=True) from None
            if to in seen or len(seen) > self._settings.redirects:
                what = "redirects in a circle" if to in seen else f"over {self._settings.redirects} redirects"
                raise _Stop(Reason.REDIRECT_REFUSED, what, later=False, status=302)
            seen.add(to)
            url = to

    def _target(self, first: URL, url: URL, response: aiohttp.ClientResponse) -> URL:
        """Where a redirect leads. Raises _Stop where that is not asked."""
        header = response.headers.get("Location", "")
        try:
            to = parse_address(
                str(url.join(URL(header))) if header else "", private=self._settings.private != "never"
            )
        except (BadAddress, ValueError) as error:
            what = f"{response.status} to {header[:100]!r}: {error}"
            raise _Stop(Reason.REDIRECT_REFUSED, what, later=False, status=response.status) from None
        upgraded = to.host == first.host and (first.port, to.port) == (80, 443)
        if place(to) == place(first) or upgraded or to.host in self._settings.redirect_hosts:
            return to
        what = f"{response.status} to another host, {to.host}, which --redirect-host does not name"
        raise _Stop(Reason.REDIRECT_REFUSED, what, later=False, status=response.status)

    async def _photo(self, text: str, response: aiohttp.ClientResponse, host: Host) -> Answer:
        """The photo of an answer that is one. Raises _Stop."""
        status, kind = response.status, response.headers.get("Content-Type", "")[:100]
        if status != 200:
            if status in _BUSY:
                wait = retry_after(response.headers.get("Retry-After"))
                if wait is not None:
                    host.wait_for(wait)
            reason, what, later = refusal(status)
            raise _Stop(reason, what, later, status, soon=status in TRIED_AGAIN)
        size = response.content_length
        if size is not None and size > self._most:
            raise self._too_large(size)
        data = await self._body(response)
        if not data:
            raise _Stop(Reason.NOT_A_PHOTO, "200 with an empty body", later=True, status=status)
        head = data[:SIGNATURE_BYTES]
        if known_format(head) is None and unread_format(head) is None:
            if not kind.lower().startswith("image/"):
                what = f"200 with {kind.partition(';')[0] or 'no type'}, which is no photo"
                raise _Stop(Reason.NOT_A_PHOTO, what, later=False, status=status)
            if data.lstrip()[:1] == b"<":
                what = f"200 with a page of text instead of {kind.partition(';')[0]}"
                raise _Stop(Reason.NOT_A_PHOTO, what, later=False, status=status)
        etag = response.headers.get("ETag")
        return Answer(text, None, status=status, etag=etag, content_type=kind or None, data=data)

    def _too_large(self, size: int) -> _Stop:
        what = f"{size} bytes or more; the limit is {self._most} bytes"
        return _Stop(Reason.TOO_LARGE_FILE, what, later=False, status=200)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body within the limit; few large ones at a time."""
        parts, size = [], 0
        async for part in response.content.iter_chunked(_PIECE):
            parts.append(part)
            size += len(part)
            if size > _LARGE:
                break
        if size > _LARGE:
            async with self._large:
                async for part in response.content.iter_chunked(_PIECE):
                    parts.append(part)
                    size += len(part)
                    if size > self._most:
                        raise self._too_large(size)
                return b"".join(parts)
        if size > self._most:
            raise self._too_large(size)
        return b"".join(parts)


class _NotPublic(OSError):
    """A public name that stands for a private address: somebody points at what is not theirs."""


class _PublicResolver(AbstractResolver):
    """Resolves names, but a name that does not say that it is of this machine must not lead into a private network."""

    def __init__(self, private: bool) -> None:
        self._names, self._private = ThreadedResolver(), private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._names.resolve(host, port, family)
        for entry in found:
            hidden = is_private(entry["host"]) and not is_private(host) and not self._private
            if hidden or is_never_asked(entry["host"]):
                raise _NotPublic(f"the name {host} leads to {entry['host']}, which is no public address")
        return found

    async def close(self) -> None:
        await self._names.close()


def _cause(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or getattr(error, "os_error", None)
    return error
