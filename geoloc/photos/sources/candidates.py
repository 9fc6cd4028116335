"""What every source hands to ingest: batches of candidates, photos that may enter the pool."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geoloc.files import FileTooLargeError, read_regular
from geoloc.photos.addresses import Address, Place, SourceError, as_place, is_file, matches
from geoloc.photos.quarantine import PHOTO, Reason, Rejected

SCHEMA = pa.schema(
    [
        ("reference", pa.string()),
        ("photo_id", pa.string()),
        ("photographer", pa.string()),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("taken_at", pa.timestamp("us")),
        ("posted_at", pa.timestamp("us")),
        ("album", pa.string()),
        ("heading", pa.float64()),
        ("prob_indoor", pa.float64()),
        ("licence", pa.string()),
        ("heading_reference", pa.string()),
        ("place_source", pa.string()),
        ("time_source", pa.string()),
        ("url", pa.string()),
    ]
)
"""reference: its position in the source, for people. photographer: as the source names it; ingest hashes it. Null
is unknown; NaN is a value that the source gives, and ingest turns it away. place_source, time_source: what the source
read the coordinates and the time from, where it had a choice (exif, xmp, takeout, ...). url: the address from which it
downloads the photo."""

FIELDS = tuple(
    name for name in SCHEMA.names if name not in ("reference", "place_source", "time_source", "url")
)
"""What a table or a record may give."""

FAULTS = pa.schema(
    [
        ("reference", pa.string()),
        ("photo_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("severity", pa.string()),
        ("content", pa.string()),
    ]
)
"""What a source itself cannot read. content: what it read, or a digest of it, so that another input that is once found
at the same reference is not taken for this one; it is hashed before it is stored."""

Load = Callable[[int, int], bytes]
"""load(row, max_file_bytes): the image file of a row. Raises Rejected, or OSError. Called from several threads."""


@dataclass(frozen=True)
class Candidates:
    """A batch of N candidates.

    `table` has SCHEMA. `load` gives the image files, of the rows where `pictured` (bool [N]; None: all) holds;
    without it the batch is metadata only. `faults` has FAULTS. `notes` counts what was left out by design.
    `local_ids`: photo ids are unique in this source only, so ingest puts the source's name in front.
    `photographer_folder`: references, ids and albums begin with a folder named as the photographer, so ingest puts
    the keyed hash in its place. `origin`: the file or folder in which the references count: row 1 of one table is
    not row 1 of another, whatever the two are called. `done` is called once all of the batch is durable in the pool.
    """

    table: pa.Table
    load: Load | None = None
    pictured: NDArray[np.bool_] | None = None
    faults: pa.Table = field(default_factory=FAULTS.empty_table)
    notes: Mapping[str, int] = field(default_factory=dict)
    local_ids: bool = False
    photographer_folder: bool = False
    origin: Place | None = None
    done: Callable[[], None] | None = None


def fault(
    reference: str,
    reason: Reason,
    detail: str,
    *,
    photo_id: str | None = None,
    severity: str = PHOTO,
    content: str | None = None,
) -> dict[str, str | None]:
    """A row of FAULTS."""
    return {
        "reference": reference,
        "photo_id": photo_id,
        "reason": str(reason),
        "detail": detail,
        "severity": severity,
        "content": content,
    }


def fault_table(rows: Sequence[Mapping[str, str | None]]) -> pa.Table:
    """Rows of `fault` as a table."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=FAULTS)


def shown(names: Sequence[str]) -> str:
    """Names of columns for a message, which is one line of moderate length."""
    text = ", ".join(name[:40] for name in names[:30])
    return text if len(names) <= 30 else f"{text} and {len(names) - 30} more"


def read_file(path: Path, max_file_bytes: int) -> bytes:
    """A file of at most `max_file_bytes`. Raises Rejected for a larger one, OSError where it cannot be read."""
    try:
        return read_regular(path, max_file_bytes)
    except FileTooLargeError as error:
        raise Rejected(Reason.TOO_LARGE_FILE, str(error.strerror)) from None


def expand(paths: str | Place | Iterable[str | Place], what: str) -> list[Place]:
    """Files of a path, a pattern (`shards/*.tar`, `shards/{00000..00010}.tar`) or several, each once, sorted; of
    addresses too.

    Raises SourceError for none, and for a name of a pattern with braces that is missing.
    """
    given = [paths] if isinstance(paths, str | Path | Address) else list(paths)
    found: set[Place] = set()
    for item in given:
        whole = as_place(item)
        if isinstance(whole, Path) and whole.is_file():
            found.add(whole)
            continue
        spelled = [
            as_place(text) for text in braces(whole.given if isinstance(whole, Address) else str(item))
        ]
        for place in spelled:
            named = _named(place)
            if not named and len(spelled) > 1:
                raise SourceError(f"{place}: there is no {what} (of the pattern {whole})")
            found.update(named)
    if not found:
        raise SourceError(f"{', '.join(str(as_place(item)) for item in given)}: there is no {what}")
    return sorted(found, key=lambda place: place.parts if isinstance(place, Path) else (str(place),))


def _named(place: Place) -> Sequence[Place]:
    """The file at a place, or the files that it is a pattern of."""
    if isinstance(place, Address):
        if "*" in place.given or ("[" in place.given and not place.is_http):
            return matches(place)
        return [place] if is_file(place) else []
    return [place] if place.is_file() else [match for match in _matches(place) if match.is_file()]


def lost(place: Place, why: SourceError) -> Candidates:
    """In place of a file that could not be fetched."""
    told = fault(f"{place.name}: its beginning", Reason.UNREADABLE_FILE, str(why)[:300])
    return Candidates(SCHEMA.empty_table(), faults=fault_table([told]), origin=place)


_BRACES = re.compile(r"\{(?:(\d{1,9})\.\.(\d{1,9})|([^{},]*(?:,[^{},]*)+))\}")
_MOST_NAMES = 1_000_000


def braces(pattern: str) -> list[str]:
    """What a shell makes of `{00000..00010}` and `{a,b}`: every name, zeros kept. Raises SourceError for over a million
    names."""
    done, waiting = [], [pattern]
    while waiting:
        text = waiting.pop()
        match = _BRACES.search(text)
        if match is None:
            done.append(text)
            continue
        if match[3] is None:
            first, last = int(match[1]), int(match[2])
            size = abs(last - first) + 1
            width = (
                max(len(match[1]), len(match[2]))
                if match[1].startswith("0") or match[2].startswith("0")
                else 0
            )
            middles = [
                f"{n:0{width}d}"
                for n in range(min(first, last), min(first, last) + min(size, _MOST_NAMES + 1))
            ]
        else:
            middles = match[3].split(",")
        if len(done) + len(waiting) + len(middles) > _MOST_NAMES:
            raise SourceError(f"{pattern} stands for over {_MOST_NAMES} names")
        waiting += [text[: match.start()] + middle + text[match.end() :] for middle in reversed(middles)]
    return done


def _matches(pattern: Path) -> list[Path]:
    """Files that a pattern with `*`, `?` or `[` names; a folder that exists is itself, whatever signs it has."""
    parts = pattern.parts
    fixed = 0
    while fixed < len(parts) - 1 and (
        not any(sign in parts[fixed] for sign in "*?[") or Path(*parts[: fixed + 1]).is_dir()
    ):
        fixed += 1
    if not any(sign in part for part in parts[fixed:] for sign in "*?["):
        return []
    return list(Path(*parts[:fixed]).glob(str(Path(*parts[fixed:]))))
