"""What became of one address: the photo's bytes, or why there are none and whether to ask again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address

from yarl import URL

from geoloc.photos.quarantine import Reason

TRIED_AGAIN = frozenset([408, 425, 429, 502, 503, 504])
"""Answers after which the same request may succeed soon."""

LONGEST_URL = 4096


@dataclass(frozen=True)
class Answer:
    """What became of one address.

    reason: None where `data` is the photo. later: worth asking for again in another run. status: of the last answer;
    None: there was none. asked_at: UTC, without zone.
    """

    url: str
    reason: Reason | None
    detail: str = ""
    later: bool = False
    status: int | None = None
    tries: int = 0
    asked_at: datetime | None = None
    etag: str | None = None
    content_type: str | None = None
    data: bytes = b""


class BadAddress(ValueError):
    """A text that is no address of a photo, or one that is not asked for. The message says why."""


def parse_address(text: str, *, private: bool = True) -> URL:
    """The address of a photo. Raises BadAddress for what is not http or https, for one with a password, for an address
    of a cloud's metadata service and, without `private`, of this machine or a private network."""
    if len(text) > LONGEST_URL:
        raise BadAddress(f"an address of {len(text)} characters; the limit is {LONGEST_URL}")
    try:
        url = URL(text)
        _ = url.port  # parsed only now
    except ValueError as error:
        raise BadAddress(f"no address: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise BadAddress("must begin with http:// or https:// and a host")
    if url.user is not None or url.password is not None:
        raise BadAddress("an address with a user or a password is not asked for")
    if is_never_asked(url.host) or (not private and is_private(url.host)):
        raise BadAddress(f"{url.host} is no public address")
    return url.with_fragment(None)


def is_private(host: str) -> bool:
    """Whether a host is written as an address of this machine or a private network."""
    try:
        return not ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return host.lower().rstrip(".") in ("localhost", "localhost.localdomain") or host.lower().endswith(
            ".localhost"
        )


def is_never_asked(host: str) -> bool:
    """Whether a host is a link-local address: clouds give out credentials there."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_link_local or (mapped is not None and mapped.is_link_local)


def place(url: URL) -> str:
    """The host and port: what counts as one host."""
    return f"{url.host}:{url.port}"


def shown(url: URL) -> str:
    """An address for people: without its query, which may be a key."""
    return str(url.with_query(None))[:300]


def refusal(status: int) -> tuple[Reason, str, bool]:
    """Reason, text and whether to ask again later, for an answer that is no photo."""
    try:
        told = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        told = str(status)
    if status in (404, 410):
        return Reason.HTTP_GONE, told, False
    if status in TRIED_AGAIN or status >= 500:
        return Reason.HTTP_UNAVAILABLE, told, True
    return Reason.HTTP_REFUSED, told, False


def now() -> datetime:
    """The time in UTC, to the second, without zone."""
    return datetime.now(UTC).replace(microsecond=0, tzinfo=None)
