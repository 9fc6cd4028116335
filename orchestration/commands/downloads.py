"""What `geoloc ingest urls` adds to the other kinds of ingest: its settings as options, and where downloads wait."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from geoloc.photos.settings import DownloadSettings

URLS_EXAMPLES = """\
examples:
  geoloc ingest urls photos.csv                               a table with url, latitude, longitude, ...
  geoloc ingest urls photos.parquet --column url=link --column photo_id=key
  geoloc ingest urls yfcc100m_dataset.bz2                     YFCC100M's metadata; its licences are kept
  geoloc ingest urls mp16_urls.csv --table mp16_places365.csv
  geoloc ingest urls osv5m/train.csv                          OSV-5M's columns are known
  geoloc ingest urls photos.csv --per-host 2 --delay 0.5 --user-agent 'atlas (mail@atlas.example)'

each address is asked for once, also after a kill: run the same command again. 404 and 410 are final; 429, 503,
timeouts and broken connections are asked again in the same run, and by the next one. Only hosts of the table are asked:
a redirect to another host is refused unless --redirect-host names it. data/downloads.parquet has each answer.
"""

# name of the setting, type, what stands for a value; the help is the setting's own
_OPTIONS = (
    ("connections", int, "N"),
    ("per_host", int, "N"),
    ("delay", float, "SECONDS"),
    ("tries", int, "N"),
    ("backoff", float, "SECONDS"),
    ("longest_wait", float, "SECONDS"),
    ("timeout", float, "SECONDS"),
    ("redirects", int, "N"),
    ("host_failures", int, "N"),
    ("user_agent", str, "TEXT"),
)
_HELP = {
    "connections": "requests at a time, to all hosts (default: 64)",
    "per_host": "requests at a time, to one host (default: 8)",
    "delay": "seconds between the starts of two requests to one host (default: 0)",
    "tries": "requests for one photo in a run (default: 4)",
    "backoff": "seconds before the second try, doubled for each next one (default: 1)",
    "longest_wait": "longest Retry-After that is waited for (default: 120)",
    "timeout": "seconds that one request may take (default: 60)",
    "redirects": "redirects that are followed for one photo (default: 5)",
    "host_failures": "photos of a host in a row without an answer, after which it is left alone (default: 20)",
    "user_agent": "the User-Agent; name your project and how to reach you",
}


def add_download_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each download setting."""
    for name, kind, metavar in _OPTIONS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=_HELP[name])
    parser.add_argument(
        "--redirect-host",
        dest="redirect_hosts",
        action="append",
        default=None,
        metavar="HOST",
        help="a host to which the hosts of the table may redirect",
    )
    parser.add_argument(
        "--private",
        choices=("named", "always", "never"),
        help="ask addresses of this machine or a private network where the table writes them so (default), also where"
        " a public name leads there, or never",
    )


def download_settings(options: argparse.Namespace) -> DownloadSettings:
    """The settings that the options give. Raises SettingsError for a value that is not allowed."""
    from geoloc.photos.settings import DownloadSettings
    from geoloc.settings import parse

    names = (*(name for name, _, _ in _OPTIONS), "redirect_hosts", "private")
    given: dict[str, Any] = {
        name: getattr(options, name) for name in names if getattr(options, name) is not None
    }
    return parse(DownloadSettings, given, "download")


def spool_folder(workspace: Workspace, table: str) -> Path:
    """Where downloads of a table wait until the pool has them."""
    from geoloc.files import sha256_bytes

    place = table if "://" in table else str(Path(table).resolve())
    return (
        workspace.root / ".geoloc" / "downloads" / sha256_bytes(place.encode("utf-8", "surrogateescape"))[:16]
    )
