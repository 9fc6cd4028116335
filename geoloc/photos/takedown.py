"""Taking photos down from a pool: their bytes, their rows and all that names them; tombstones stay.

Each step can be repeated: a process that was killed between any two is completed by the same call.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geoloc.files import read_arrow
from geoloc.photos import catalog, pairs, quarantine, tombstones
from geoloc.photos.catalog import CATALOG_FILE, durable_path
from geoloc.photos.downloads import log
from geoloc.photos.photographers import check_key
from geoloc.photos.pool import locked, remove_leftovers
from geoloc.photos.quarantine import QUARANTINE_FILE, digest
from geoloc.photos.shards import SHARD_PATTERN, ShardReader, ShardWriter

_COLUMNS = (
    "photo_id", "source", "photographer", "latitude", "longitude", "sha256", "input_sha256", "url",
)  # fmt: skip


@dataclass(frozen=True)
class Gone:
    """A photo that is taken down, as the catalog had it."""

    photo_id: str
    source: str
    photographer: str | None
    latitude: float
    longitude: float
    sha256: str | None
    input_sha256: str | None
    url: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def find_gone(pool: Path, photo_id: str | None = None, photographer: str | None = None) -> list[Gone]:
    """The photos of a catalog with this id, or by this photographer (as the catalog has them), and those of any source
    with the same stored bytes: else these would stay."""
    found = _rows_with(pool, "photo_id", [photo_id] if photo_id is not None else [])
    found += _rows_with(pool, "photographer", [photographer] if photographer is not None else [])
    twins = _rows_with(pool, "sha256", [one.sha256 for one in found if one.sha256 is not None])
    return list({one.photo_id: one for one in (*found, *twins)}.values())


def _rows_with(pool: Path, column: str, values: Sequence[str]) -> list[Gone]:
    found: list[Gone] = []
    wanted = pa.array(sorted(set(values)), pa.string())
    for table in catalog.batches(pool, _COLUMNS) if values else ():
        rows = table.filter(pc.is_in(table[column], value_set=wanted))
        found += [Gone(**row) for row in rows.to_pylist()]
    return found


def take_down(
    pool: Path,
    photos: Sequence[Gone],
    key: bytes,
    *,
    at: datetime,
    reason: str,
    photographer: str | None = None,
) -> None:
    """Take photos down from a pool, and the overhead tiles that only they are paired with.

    First come the tombstones, also of `photographer`, then new shards without the photos, then the catalog that names
    these, and then the old shards are removed: at any moment the catalog names what is there. Raises PoolBusyError
    while another process adds to the pool, PhotographerKeyError for another key than the pool's.
    """
    with locked(Path(pool)):
        check_key(pool, key)
        tombstones.add_tombstones(pool, _digests(photos, key, photographer), at, reason)
        _take_pairs(pool, {one.photo_id for one in photos})
        _take_rows(pool, photos)


def _digests(photos: Iterable[Gone], key: bytes, photographer: str | None) -> list[tuple[str, str]]:
    texts = [
        tombstones.bytes_text(sha256) for one in photos for sha256 in (one.sha256, one.input_sha256) if sha256
    ]
    for one in (one for one in photos if one.sha256 is None):
        # The pool may have put the source's name in front of the id.
        names = {one.photo_id, one.photo_id.removeprefix(f"{one.source}/")}
        texts += [tombstones.name_text(one.source, name) for name in sorted(names)]
    found = [(digest(key, text), tombstones.PHOTO) for text in texts]
    if photographer is not None:
        found.append((digest(key, tombstones.photographer_text(photographer)), tombstones.PHOTOGRAPHER))
    return found


def _take_pairs(pool: Path, ids: Collection[str]) -> None:
    """Remove the pairs of photos, and the tiles that no other pair names: a tile lies where its photo was taken."""
    path, overhead = Path(pool) / pairs.PAIRS_FILE, pairs.overhead_pool(pool)
    if not path.is_file():
        return
    old = read_arrow(path, pairs.SCHEMA)
    kept = tombstones.without(old, "photo_id", ids)
    if kept.num_rows == old.num_rows:
        return
    tiles = set(old["overhead_id"].to_pylist()) - set(kept["overhead_id"].to_pylist())
    if (overhead / CATALOG_FILE).is_file():
        # Before the pairs, which name them: after a kill they are found again.
        with locked(overhead):
            _take_rows(
                overhead, [one for tile in sorted(tiles) for one in find_gone(overhead, photo_id=tile)]
            )
    with durable_path(path) as temporary:
        pq.write_table(kept.cast(pairs.SCHEMA).combine_chunks(), temporary, compression="zstd")


def _take_rows(pool: Path, photos: Sequence[Gone]) -> None:
    """Remove photos from shards, catalog, quarantine and downloads of a locked pool."""
    ids = {one.photo_id for one in photos}
    table = catalog.read_table(pool)
    gone = pc.is_in(table["photo_id"], value_set=pa.array(sorted(ids), pa.string()))
    if pc.any(gone).as_py():
        shards = set(table.filter(gone)["shard"].drop_null().to_pylist())
        kept = _without_bytes(pool, table.filter(pc.invert(gone)), shards)
        catalog.write_table(pool, kept)
    _take_quarantine(pool, photos)
    _take_downloads(pool, photos)
    remove_leftovers(pool)  # the old shards, which the catalog does not name any more


def _without_bytes(pool: Path, kept: pa.Table, shards: Collection[str]) -> pa.Table:
    """Write new shards of the photos in `shards` that stay; the catalog rows with their new places."""
    number = remove_leftovers(pool)
    moved = _is_in(kept["shard"], shards)
    names = ("photo_id", "shard", "offset", "length")
    rows = kept.filter(pa.array(moved)).select(names).to_pylist()
    with ShardReader(pool) as reader:
        for shard in sorted({row["shard"] for row in rows}):
            with ShardWriter(pool, SHARD_PATTERN.format(number)) as writer:
                for row in sorted(
                    (row for row in rows if row["shard"] == shard), key=lambda one: one["offset"]
                ):
                    data = reader.read(shard, row["offset"], row["length"])
                    row["offset"], row["length"] = writer.add(row["photo_id"], data)
                    row["shard"] = writer.name
            number += 1
    for name in names[1:]:
        field = catalog.SCHEMA.field(name)
        new = pa.array([row[name] for row in rows], field.type)
        column = pc.replace_with_mask(kept[name].combine_chunks(), pa.array(moved), new)
        kept = kept.set_column(kept.schema.get_field_index(name), field, column)
    return kept


def _take_quarantine(pool: Path, photos: Sequence[Gone]) -> None:
    """Remove rows of quarantine that are about the photos or name them: by id, address or position."""
    if not (pool / QUARANTINE_FILE).is_file():
        return
    table = quarantine.read_table(pool)
    names = {one.photo_id for one in photos} | {one.url for one in photos if one.url}
    # What a source calls a photo whose id was taken already.
    names |= {one.photo_id.removeprefix(f"{one.source}/") for one in photos}
    told = np.zeros(table.num_rows, bool)
    for column in ("photo_id", "mended_by"):
        told |= _is_in(table[column], names)
    mentions = mention(names)
    for column in ("reference", "detail"):
        texts = table[column].to_pylist()
        told |= np.array([text is not None and mentions.search(text) is not None for text in texts], bool)
    if told.any():
        quarantine.write_table(pool, table.filter(pa.array(~told)))


def _take_downloads(pool: Path, photos: Sequence[Gone]) -> None:
    path, urls = pool / log.DOWNLOADS_FILE, {one.url for one in photos if one.url}
    if not urls or not path.is_file():
        return
    table = read_arrow(path, log.SCHEMA)
    gone = _is_in(table["url"], urls)
    if gone.any():
        with durable_path(path) as temporary:
            kept = table.filter(pa.array(~gone))
            pq.write_table(kept.combine_chunks(), temporary, compression="zstd")


def _is_in(column: pa.ChunkedArray, values: Collection[str]) -> NDArray[np.bool_]:
    found = pc.is_in(column, value_set=pa.array(sorted(values), pa.string()))
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def mention(names: Iterable[str]) -> re.Pattern[str]:
    """A pattern of any of these names as whole words: `p1` is not in `p12` or `p1-3`."""
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or r"(?!)"
    return re.compile(rf"(?<![\w-])(?:{either})(?![\w-])")
