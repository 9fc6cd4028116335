"""Files and folders on servers and in buckets, by fsspec address: listed, and fetched within limits."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from geoloc.files import DiskFullError, FileTooLargeError, disk_full_named, one_line

PROTOCOLS = ("http", "https", "s3", "gs", "hf", "memory")
"""What is fetched. `file://` addresses are paths; memory:// is of this process, for tests."""

_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "gs", "hf": "hf"}
DEEPEST = 32
"""Folders below each other that are entered: a server may list a folder in itself."""

_TRIES = 3
_PAUSE_SECONDS = 1.0
_SILENCE_SECONDS = 60


class SourceError(ValueError):
    """A source as a whole cannot be read: no such file, no such column. The message lists what exists."""


@dataclass(frozen=True, order=True)
class Address:
    """A file or folder elsewhere. Its text is without user and password, which only requests carry."""

    text: str
    given: str

    def __str__(self) -> str:
        return self.text

    @property
    def protocol(self) -> str:
        return self.given.partition("://")[0]

    @property
    def is_http(self) -> bool:
        return self.protocol in ("http", "https")

    @property
    def name(self) -> str:
        """The last part of its path, as a file's name."""
        last = _path(self).rstrip("/").rpartition("/")[2]
        name = (unquote(last) if self.is_http else last).replace("/", "_").replace("\0", "_")
        return name if name not in ("", ".", "..") else "file"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Address:
        """The folder that it is in, without query."""
        begin, _, rest = self.given.partition("://")
        path = rest.partition("?")[0] if self.is_http else rest
        above = path.rstrip("/").rpartition("/")[0]
        return _address(f"{begin}://{above or path}")

    def __truediv__(self, name: str) -> Address:
        if not self.is_http:
            return _address(f"{self.given.rstrip('/')}/{name}")
        return _address(f"{self.given.partition('?')[0].rstrip('/')}/{quote(name)}")


Place: TypeAlias = Path | Address


@dataclass(frozen=True)
class Entry:
    """What a folder lists. size: bytes; None: the server does not say."""

    name: str
    is_folder: bool
    size: int | None


def as_place(given: str | Path | Address) -> Place:
    """A path or an address. Raises SourceError for an address of a kind that is not read."""
    if isinstance(given, Path | Address):
        return given
    protocol, found, rest = given.partition("://")
    if not found or not protocol.isalnum():
        return Path(given)
    if protocol in ("file", "local"):
        return Path(rest)
    if protocol not in PROTOCOLS:
        known = ", ".join(name for name in PROTOCOLS if name != "memory")
        raise SourceError(f"{given}: an address begins with one of {known} (or file); got {protocol!r}")
    return _address(given)


def is_file(address: Address) -> bool:
    """Whether there is such a file. Raises SourceError where that cannot be asked."""
    with _told(address):
        filesystem, path = _opened(address)
        try:
            return bool(filesystem.info(path)["type"] == "file")
        except FileNotFoundError:
            return False


def matches(pattern: Address) -> list[Address]:
    """Files that a pattern with `*` names, sorted. Raises SourceError where they cannot be listed."""
    with _told(pattern):
        filesystem, path = _opened(pattern)
        found = filesystem.glob(path, detail=True)
        begin = _path(pattern).partition("*")[0].rpartition("/")[0]
        addresses = [
            _address(str(filesystem.unstrip_protocol(name)))
            for name, info in found.items()
            if info["type"] == "file"
        ]
        return sorted(a for a in addresses if begin in _path(a))


def listed(folder: Address) -> list[Entry]:
    """What lies directly in a folder, sorted by name; nothing of elsewhere that a server's page links to.

    Raises SourceError where it cannot be listed.
    """
    with _told(folder):
        filesystem, path = _opened(folder)
        base = path.rstrip("/") + "/"
        below = unquote(base) if folder.is_http else base
        found: dict[str, Entry] = {}
        for info in filesystem.ls(base if folder.is_http else path, detail=True):
            there = str(info["name"])
            name = unquote(there) if folder.is_http else there
            if not name.startswith(below) or (folder.is_http and ("?" in there or "#" in there)):
                continue
            is_folder = info["type"] == "directory"
            name = name[len(below) :].rstrip("/")
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                continue
            if name not in found or is_folder:
                found[name] = Entry(name, is_folder, None if is_folder else info.get("size"))
        return [found[name] for name in sorted(found)]


@contextlib.contextmanager
def fetched(place: Place) -> Iterator[Path]:
    """A local file with the content and name of `place`, for the block: a path is itself.

    What lies elsewhere is read once from its beginning to its end into a temporary file, so that a tar whose members
    lie apart is one request, and at most one file of a source is on disk at a time. Raises SourceError where it cannot
    be read or does not fit on the disk.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="geoloc-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / _short(place.name)
        try:
            fetch(place, path, shutil.disk_usage(folder).free)
        except FileTooLargeError as error:
            raise SourceError(f"{place} does not fit into {folder}: {error.strerror}") from None
        yield path


def each_fetched(places: Iterable[Place]) -> Iterator[tuple[Place, Path | SourceError]]:
    """Each place with its local file, as `fetched` until the next is asked for; or why there is none."""
    for place in places:
        try:
            with fetched(place) as path:
                yield place, path
        except SourceError as error:
            yield place, error


def fetch(address: Address, path: Path, most_bytes: int) -> None:
    """Read a file into a new file at `path`. Raises FileTooLargeError above `most_bytes`, where the size is known
    before any byte is read, and SourceError."""
    with _told(address):
        _try(address, lambda filesystem, there: _get(filesystem, there, path, most_bytes))


def read(address: Address, most_bytes: int) -> bytes:
    """The bytes of a file. Raises as `fetch`; FileNotFoundError where there is none."""
    with tempfile.TemporaryDirectory(prefix="geoloc-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "file"
        try:
            fetch(address, path, most_bytes)
        except SourceError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(None, "there is no such file", str(address)) from None
            raise
        return path.read_bytes()


def _get(filesystem: Any, there: str, path: Path, most: int) -> None:
    from fsspec import Callback

    class Bounded(Callback):
        """Stops a transfer above the limit: before it where its size is known, else in it."""

        def set_size(self, size: int | None) -> None:
            super().set_size(size)
            self._check(size or 0)

        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            self._check(self.value)

        def _check(self, size: int) -> None:
            if size > most:
                raise FileTooLargeError(path, f"{size} bytes large; the limit is {most} bytes")

    bounded = Bounded()
    with disk_full_named(path.parent):
        filesystem.get_file(there, str(path), callback=bounded)
    size = path.stat().st_size
    if size > most:
        raise FileTooLargeError(path, f"{size} bytes large; the limit is {most} bytes")
    if bounded.size is not None and size != bounded.size:
        raise OSError(f"{size} bytes came of {bounded.size}")


def _try(address: Address, work: Any) -> None:
    """Do something with a file system; again after what may pass."""
    filesystem, there = _opened(address)
    for attempt in range(1, _TRIES + 1):
        try:
            work(filesystem, there)
            return
        except (
            FileNotFoundError,
            PermissionError,
            FileTooLargeError,
            DiskFullError,
            ValueError,
            ImportError,
        ):
            raise
        except Exception as error:
            if attempt == _TRIES or 400 <= getattr(error, "status", 500) < 429:
                raise
            time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))


@contextlib.contextmanager
def _told(address: Address) -> Iterator[None]:
    """Whatever a file system raises, as SourceError with the address."""
    try:
        yield
    except (SourceError, FileTooLargeError, DiskFullError):
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{address}: there is no such file or folder") from error
    except ImportError as error:
        extra = _EXTRAS.get(address.protocol, address.protocol)
        raise SourceError(f"{address} needs more packages: pip install 'geoloc[{extra}]'") from error
    # each service has errors of its own, which share no class
    except Exception as error:
        told = one_line(error).replace(address.given, str(address))
        told = told if type(error).__name__ in told else f"{type(error).__name__}: {told}"
        raise SourceError(f"{address} cannot be read: {told}") from error


def _opened(address: Address) -> tuple[Any, str]:
    filesystem = _filesystem(address.protocol)
    return filesystem, str(filesystem._strip_protocol(address.given))


@cache
def _filesystem(protocol: str) -> Any:
    """The file system of a protocol, with its own settings (environment, FSSPEC_*, credential files)."""
    import fsspec  # with aiohttp half a second, which local sources do without

    options: dict[str, Any] = {}
    if protocol in ("http", "https"):
        import aiohttp

        # the default ends every transfer after five minutes, and a shard may take longer
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_SILENCE_SECONDS)
        options = {"client_kwargs": {"timeout": timeout}, "use_listings_cache": False}
    return fsspec.filesystem(protocol, **options)


def _address(given: str) -> Address:
    parts = urlsplit(given)
    host = parts.netloc.rpartition("@")[2]
    is_http = parts.scheme in ("http", "https")
    return Address(
        urlunsplit(parts._replace(netloc=host)) if is_http and host != parts.netloc else given, given
    )


def _path(address: Address) -> str:
    rest = address.given.partition("://")[2]
    return rest.partition("?")[0].partition("#")[0] if address.is_http else rest


def _short(name: str) -> str:
    """A name that every file system takes, with its suffixes."""
    return name if len(name.encode()) <= 200 else name[-50:]
