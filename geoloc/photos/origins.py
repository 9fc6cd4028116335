"""Where photos come from: a digest of the place, and a name for each place that is given without one."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from geoloc.files import arrow_batches, read_json, write_json
from geoloc.photos.addresses import Address, as_place
from geoloc.photos.catalog import batches
from geoloc.photos.photographers import check_key
from geoloc.photos.pool import locked
from geoloc.photos.quarantine import QUARANTINE_FILE, SCHEMA, digest

SOURCES_FILE = "sources.json"
"""In the pool: name of a source -> digest of its place, for names that were not chosen by a person."""

_PATTERN_SIGNS = "*?[{"
_SUFFIXES = (
    ".tar", ".csv", ".tsv", ".txt", ".parquet", ".msg", ".msgpack", ".json", ".jsonl", ".gz", ".bz2", ".zst", ".tgz",
)  # fmt: skip


def place_digest(pool: Path, path: Path | Address | str, key: bytes) -> str:
    """A keyed digest of where a file or folder lies; within the pool's workspace relative to it, as it may be moved."""
    if isinstance(path, Address) or "://" in str(path):
        return digest(key, str(path))
    place, root = Path(path).resolve(), Path(pool).resolve().parent
    return digest(key, str(place.relative_to(root)) if place.is_relative_to(root) else str(place))


def claim_source(pool: Path, kind: str, path: Path | str, key: bytes) -> str:
    """The name of the source at `path` (a file, a folder, or a pattern of files), for ever the same in this pool.

    It is called as its file or folder; where another place has that name, with the folder above in front, else with a
    number. All files of one folder that a pattern matches are one source. Raises PoolBusyError while another process
    adds to the pool, PhotographerKeyError for another key than the pool's.
    """
    fixed = fixed_part(str(as_place(path)) if "://" in str(path) else path)  # without a password
    place = digest(key, kind + place_digest(pool, fixed, key))
    with locked(Path(pool)):
        check_key(Path(pool), key)
        names: dict[str, str] = (
            read_json(pool / SOURCES_FILE, dict) if (pool / SOURCES_FILE).is_file() else {}
        )
        for name, known in names.items():
            if known == place:
                return name
        taken = {*names, *source_names(pool)}
        name = next(name for name in possible_names(fixed) if name not in taken)
        write_json(pool / SOURCES_FILE, {**names, name: place})
        return name


def fixed_part(path: Path | str) -> Path | str:
    """The path or address, or the folder in which a pattern begins to match."""
    if "://" in str(path):
        begin, slashes, rest = str(path).partition("://")
        signs = "*{" if begin.startswith("http") else _PATTERN_SIGNS  # ? begins a query there
        parts = rest.split("/")
        for position, part in enumerate(parts):
            if any(sign in part for sign in signs):
                return begin + slashes + "/".join(parts[:position])
        return str(path)
    path = Path(path)
    if not path.exists():
        for position, part in enumerate(path.parts):
            if any(sign in part for sign in _PATTERN_SIGNS):
                return Path(*path.parts[:position])
    return path


def possible_names(path: Path | str) -> Iterator[str]:
    """Names for the source at `path`, the best first, without end."""
    if "://" in str(path):
        begin, _, rest = str(path).partition("://")
        place = Path(unquote(rest.partition("?")[0]) if begin.startswith("http") else rest)
        is_file = bool(place.suffix)
    else:
        place = Path(path).resolve()
        is_file = not place.is_dir()
    name, above = _clean(place.name), _clean(place.parent.name)
    if is_file:
        while suffix := next((s for s in _SUFFIXES if name.lower().endswith(s) and name.lower() != s), ""):
            name = name[: -len(suffix)]
    name = name or "root"
    if above and any(letter.isalpha() for letter in name):
        yield name
    with_folder = f"{above}-{name}" if above else name
    yield with_folder
    number = 2
    while True:
        yield f"{with_folder}-{number}"
        number += 1


def _clean(name: str) -> str:
    """A file's name as text of one line, composed (NFC), whatever its bytes are."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", "_", unicodedata.normalize("NFC", text)).strip()


def source_names(pool: Path) -> set[str]:
    """Every source that the catalog or the quarantine names."""
    found: set[str] = set()
    away = pool / QUARANTINE_FILE
    tables = [batches(pool, ["source"])]
    if away.is_file():
        tables.append(arrow_batches(away, SCHEMA, ["source"]))
    for table in itertools.chain(*tables):
        found.update(table["source"].unique().to_pylist())
    return found
