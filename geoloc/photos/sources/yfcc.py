"""Source: YFCC100M metadata, in either layout, joined with a folder of photos or with none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from geoloc.photos.addresses import Place, SourceError, as_place, each_fetched
from geoloc.photos.sources.candidates import SCHEMA, Candidates, expand, lost
from geoloc.photos.sources.delimited import Block, first_row, read_blocks, references
from geoloc.photos.sources.fields import text, typed, undecodable, unquoted
from geoloc.photos.sources.pictures import files_by_id, read_picture

# Zero-based columns of the 23 (Thomee et al., YFCC100M, CACM 59(2), 2016; its readme). The other layout, of 25, has
# a row number in front of the id and a hash behind it.
_COLUMNS_23 = {
    "photo_id": 0,
    "photographer": 1,
    "taken_at": 3,
    "posted_at": 4,
    "longitude": 10,
    "latitude": 11,
    "licence": 15,
    "video": 22,
}
_COLUMNS_25 = {name: 1 if name == "photo_id" else column + 2 for name, column in _COLUMNS_23.items()}
LAYOUTS = {23: _COLUMNS_23, 25: _COLUMNS_25}
"""Number of columns -> field -> column. Longitude comes before latitude in both."""

_URLS = {23: 14, 25: 16}
"""Number of columns -> column of the address of the photo."""

NO_PHOTOS = "none"


def yfcc_candidates(path: Place | str, *, photos: Place | str | None = None) -> Iterator[Candidates]:
    """Rows of a metadata file (.tsv, .txt, no suffix, or .bz2 or .gz of these), or of several (a pattern), streamed.

    posted_at is the upload time (Unix seconds, UTC); photographer the user's NSID; text is URL-decoded. A damaged
    taken-date leaves the photo in, with that field in quarantine. With `photos`, each row takes the image file named
    as its id, anywhere below that folder, and rows without one are left out and counted in the notes: of 100 million
    rows a team has a part. Videos are left out and counted too. Both may be addresses. Raises SourceError for a
    file of another layout.
    """
    files = expand(path, "YFCC100M metadata file")
    for file in files:
        if isinstance(file, Path):
            _layout(file)  # told before anything is read
    folder = None if photos is None or str(photos) == NO_PHOTOS else as_place(photos)
    by_id = None if folder is None else files_by_id(folder)
    return _batches(files, folder, by_id)


def yfcc_addresses(file: Path) -> Iterator[Candidates]:
    """Rows of one metadata file with the addresses of the photos (`url`), without images."""
    layout = _layout(file)
    for block in _blocks(file, layout, [_URLS[layout]]):
        yield _candidates(file, block, layout, None, None, url=f"c{_URLS[layout]}")


def _blocks(file: Path, layout: int, more: list[int]) -> Iterator[Block]:
    names = [f"c{i}" for i in range(layout)]
    wanted = [names[i] for i in [*LAYOUTS[layout].values(), *more]]
    return read_blocks(file, "\t", names, header=False, quoted=False, wanted=wanted)


def _layout(file: Path) -> int:
    cells = len(first_row(file, "\t", quoted=False))
    if cells not in LAYOUTS:
        raise SourceError(f"{file} must have 23 or 25 columns (tab-separated, as YFCC100M has), got {cells}")
    return cells


def _batches(
    files: list[Place], folder: Place | None, by_id: Mapping[str, str] | None
) -> Iterator[Candidates]:
    for place, file in each_fetched(files):
        if isinstance(file, SourceError):
            yield lost(place, file)
            continue
        layout = _layout(file)
        for block in _blocks(file, layout, []):
            yield replace(_candidates(file, block, layout, folder, by_id), origin=place)


def _candidates(
    file: Path,
    block: Block,
    layout: int,
    folder: Place | None,
    by_id: Mapping[str, str] | None,
    url: str | None = None,
) -> Candidates:
    if block.rows is None:
        return Candidates(SCHEMA.empty_table(), faults=block.faults)
    count = block.rows.num_rows
    raw = {name: _text(block.rows.column(f"c{i}"), count) for name, i in LAYOUTS[layout].items()}
    if url is not None:
        raw["url"] = _text(block.rows.column(url), count)
    notes = {}
    videos = pc.fill_null(pc.equal(raw.pop("video"), "1"), False).to_numpy(zero_copy_only=False)
    use = ~videos
    notes["videos left out"] = int(videos.sum())
    if by_id is not None:
        pictured = np.array([(photo or "") in by_id for photo in raw["photo_id"].to_pylist()], bool)
        notes["rows without an image left out"] = int((use & ~pictured).sum())
        use &= pictured
    reference = references(file, block.numbers)
    if not use.all():
        reference = reference.filter(use)
        raw = {name: column.filter(use) for name, column in raw.items()}
    for name in ("photographer", "licence"):
        raw[name] = unquoted(raw[name])
    # The set writes an unknown date as null, which is no damage.
    raw["taken_at"] = pc.if_else(
        pc.equal(raw["taken_at"], "null"), pa.scalar(None, pa.string()), raw["taken_at"]
    )
    table, faults, _ = typed(reference, raw)
    load = None
    if folder is not None and by_id is not None:
        names = [by_id[photo] for photo in table["photo_id"].to_pylist()]
        load = lambda row, most: read_picture(folder, names[row], most)  # noqa: E731
    return Candidates(
        table,
        load,
        faults=pa.concat_tables([block.faults, faults]),
        notes={name: number for name, number in notes.items() if number},
    )


def _text(values: pa.Array, count: int) -> pa.Array:
    """As `text`, with U+FFFD where it is no UTF-8, as URL-decoding leaves it there; `typed` refuses both."""
    bad = undecodable(values, count)
    return pc.if_else(pa.array(bad), "\ufffd", text(values, count)) if bad.any() else text(values, count)
