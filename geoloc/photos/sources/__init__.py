"""Sources that fill the pool: each reads one kind of collection and yields batches of `Candidates`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoloc.photos.sources.candidates import Candidates, SourceError

KINDS = ("folder", "table", "yfcc", "webdataset", "mp16", "urls")


def open_source(kind: str, path: str | Path, **options: Any) -> Iterator[Candidates]:
    """Candidates of a source of one of KINDS; options as of `<kind>_candidates` in the module of that name.

    Raises SourceError for an unknown kind, and where the source as a whole cannot be read.
    """
    # a source's reader is imported when it is used
    if kind == "folder":
        from geoloc.photos.sources.folder import folder_candidates

        return folder_candidates(path, **options)
    if kind == "table":
        from geoloc.photos.sources.table import table_candidates

        return table_candidates(path, **options)
    if kind == "yfcc":
        from geoloc.photos.sources.yfcc import yfcc_candidates

        return yfcc_candidates(path, **options)
    if kind == "webdataset":
        from geoloc.photos.sources.webdataset import webdataset_candidates

        return webdataset_candidates(path, **options)
    if kind == "mp16":
        from geoloc.photos.sources.mp16 import mp16_candidates

        return mp16_candidates(path, **options)
    if kind == "urls":
        from geoloc.photos.sources.urls import urls_candidates

        return urls_candidates(path, **options)
    raise SourceError(f"a source is one of {', '.join(KINDS)}; got {kind!r}")
