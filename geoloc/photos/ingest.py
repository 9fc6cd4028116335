"""Ingest: from candidates of any source to shards, catalog and quarantine; resumable, and appending only."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.photos import quarantine
from geoloc.photos.decoding import Limits, StoredPhoto, check_and_normalise
from geoloc.photos.photographers import photographer_id
from geoloc.photos.pool import PoolAppender, locked
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.screening import Screened, screen
from geoloc.photos.settings import IngestSettings
from geoloc.photos.sources.candidates import Candidates, Load

_PROGRESS_EVERY = 100
_METADATA_ROWS = 2_000_000
"""Metadata rows between commits: each writes the catalog anew, and metadata is read again quickly."""


@dataclass
class IngestSummary:
    """What became of every input. Also the argument of the progress callback, as it stands then.

    quarantined: photos turned away, by reason. fields_dropped: photos kept without a damaged field, by reason.
    notes: what else there is to say, with its count.
    """

    source: str
    added: int = 0
    already_present: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    fields_dropped: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Inputs that are accounted for."""
        return self.added + self.already_present + sum(self.quarantined.values())

    def __str__(self) -> str:
        lines = [f"{self.source}: {self.added} added, {self.already_present} already present,"
                 f" {sum(self.quarantined.values())} quarantined"]  # fmt: skip
        for title, counts in (
            ("quarantined", self.quarantined),
            ("kept without a field", self.fields_dropped),
            ("note", self.notes),
        ):
            lines += [f"  {title}: {name} {count}" for name, count in sorted(counts.items())]
        return "\n".join(lines)


Progress = Callable[[IngestSummary], None]


def ingest(
    pool: Path,
    candidates: Iterable[Candidates],
    *,
    source: str,
    photographer_key: bytes,
    settings: IngestSettings | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Add photos to a pool.

    A candidate is already present when the pool has its photo_id from the same source at the same coordinates, or its
    stored bytes under any id. Everything that cannot be added is in quarantine with a reason; nothing stops the run.
    A shard is written whole, synced and renamed before the catalog names it, so a run killed at any moment leaves a
    good pool, and the same run started again ends with the same bytes as one that was never killed. Old shards and
    rows are never rewritten. `progress` is called after each hundred photos and each batch.

    Raises PoolBusyError while another ingest runs, ValueError for an empty source name or too short a key, and what a
    source raises.
    """
    settings = settings or IngestSettings()
    if not source.strip():
        raise ValueError(f"source must be a name, got {source!r}")
    photographer_id("", photographer_key)  # a bad key is told before any work is done
    pool = Path(pool)
    with locked(pool):
        run = _Run(pool, source, photographer_key, settings, progress)
        try:
            run.take_all(candidates)
        except BaseException:
            run.appender.abandon()
            raise
        return run.summary


class _Run:
    """One ingest: what it knows of the pool, and the counts."""

    def __init__(
        self, pool: Path, source: str, key: bytes, settings: IngestSettings, progress: Progress | None
    ) -> None:
        self.source, self.key, self.settings, self.progress = source, key, settings, progress
        self.appender = PoolAppender(pool, source)
        self.summary = IngestSummary(source)
        self.known = _Known(self.appender.catalog, source)
        self.quarantined: Counter[str] = Counter()
        self.fields: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.unreported = 0

    def take_all(self, candidates: Iterable[Candidates]) -> None:
        workers = self.settings.workers or os.cpu_count() or 1
        with ThreadPoolExecutor(workers, thread_name_prefix="ingest") as threads:
            for batch in candidates:
                self.take(batch, threads, window=4 * workers)
                self.report()
        self.appender.commit()
        self.report()

    def take(self, batch: Candidates, threads: ThreadPoolExecutor, window: int) -> None:
        self.notes.update(batch.notes)
        screened = screen(batch, self.source, self.key)
        self.turn_away(screened.turned_away)
        kept: list[pa.Array] = []
        fresh = self.without_known(batch, screened, kept)
        pictured = _pictured(batch, screened.rows)[fresh]
        if pictured.any():
            self.take_photos(screened, fresh[pictured], batch.load, threads, window, kept)  # type: ignore[arg-type]
        if not pictured.all():
            self.take_metadata(screened.table.take(fresh[~pictured]), kept)
        references = pa.concat_arrays(kept) if kept else pa.array([], pa.string())
        self.appender.keep(references)
        faults = screened.field_faults
        faults = faults.filter(pc.is_in(faults["reference"], value_set=references))
        self.fields.update(faults["reason"].to_pylist())
        self.appender.turn_away(faults)
        if self.appender.shard_size == 0 and self.appender.waiting >= _METADATA_ROWS:
            self.appender.commit()

    def without_known(self, batch: Candidates, screened: Screened, kept: list[pa.Array]) -> NDArray[np.int64]:
        """Rows of the screened table that are new to the pool by their ids; the others are counted or turned away."""
        table = screened.table
        state = self.known.compare(table)
        present, elsewhere, moved = (state == code for code in (_PRESENT, _ELSEWHERE, _MOVED))
        if present.any():
            rows = table.filter(pa.array(present))
            ids = rows["photo_id"].to_pylist()
            # the first of equal ids is the photo itself; another in the same run is a second photo with its id
            again = np.array([not self.known.first_time(photo) for photo in ids], bool)
            self.turn_away(self.duplicates(rows.filter(pa.array(again)), "this source has it twice"))
            kept.append(rows["reference"].filter(pa.array(~again)).combine_chunks())
            self.summary.already_present += int((~again).sum())
            bare = _pictured(batch, screened.rows)[present] & ~again & ~self.known.stored(ids)
            if bare.any():  # rows are never rewritten, so this is said and not done
                self.notes["known by metadata only, and so the image was not added"] += int(bare.sum())
        self.turn_away(self.duplicates(table.filter(pa.array(elsewhere)), "another source has this photo_id"))
        moved_rows = table.filter(pa.array(moved))
        self.turn_away(
            self.duplicates(moved_rows, "the pool has this photo_id of this source, at other coordinates")
        )
        return np.flatnonzero(state == _NEW)

    def take_metadata(self, table: pa.Table, kept: list[pa.Array]) -> None:
        ids = table["photo_id"].to_pylist()
        first = np.array([self.known.first_time(photo) for photo in ids], bool)
        if not first.all():
            self.turn_away(self.duplicates(table.filter(pa.array(~first)), "this source has it twice"))
            table = table.filter(pa.array(first))
        self.appender.add_rows(table, None)
        kept.append(table["reference"].combine_chunks())
        self.summary.added += table.num_rows

    def take_photos(
        self,
        screened: Screened,
        rows: NDArray[np.int64],
        load: Load,
        threads: ThreadPoolExecutor,
        window: int,
        kept: list[pa.Array],
    ) -> None:
        table = screened.table.take(rows)
        ids, references = table["photo_id"].to_pylist(), table["reference"].to_pylist()
        limits = _limits(self.settings)
        accepted: list[int] = []
        stored: list[tuple[object, ...]] = []

        def flush() -> None:
            self.appender.add_rows(table.take(pa.array(accepted, pa.int64())), stored)
            accepted.clear()
            stored.clear()

        results = _ahead(
            threads, lambda row: _prepared(load, row, limits), screened.rows[rows].tolist(), window
        )
        for position, result in enumerate(results):
            row = table.slice(position, 1)
            if isinstance(result, Rejected):
                away = quarantine.rows(
                    self.source, row["reference"], row["photo_id"], result.reason, result.detail
                )
                self.turn_away(away)
            elif not self.known.first_time(ids[position]):
                self.turn_away(self.duplicates(row, "this source has it twice"))
            else:
                photo, sha256 = result
                kept.append(pa.array([references[position]], pa.string()))
                if not self.known.new_content(sha256):
                    self.summary.already_present += 1
                    self.notes["same bytes as a photo with another id"] += 1
                else:
                    place = self.appender.store(ids[position], photo)
                    accepted.append(position)
                    stored.append((photo.width, photo.height, sha256, photo.phash, *place))
                    self.summary.added += 1
                    if self.appender.shard_size >= self.settings.shard_bytes:
                        flush()
                        self.appender.commit()
            self.unreported += 1
            if self.unreported == _PROGRESS_EVERY:
                self.report()
        flush()

    def duplicates(self, table: pa.Table, why: str) -> pa.Table:
        return quarantine.rows(self.source, table["reference"], table["photo_id"], Reason.DUPLICATE_ID, why)

    def turn_away(self, rows: pa.Table) -> None:
        self.quarantined.update(rows["reason"].to_pylist())
        self.appender.turn_away(rows)

    def report(self) -> None:
        self.unreported = 0
        self.summary.quarantined = dict(sorted(self.quarantined.items()))
        self.summary.fields_dropped = dict(sorted(self.fields.items()))
        self.summary.notes = dict(sorted(self.notes.items()))
        if self.progress is not None:
            self.progress(self.summary)


_NEW, _PRESENT, _ELSEWHERE, _MOVED = range(4)


class _Known:
    """Ids and contents of the pool, and those that this run has met."""

    def __init__(self, table: pa.Table, source: str) -> None:
        own = pc.equal(table["source"], source)
        mine = table.filter(own)
        self.ids = pd.Index(mine["photo_id"].to_pandas().to_numpy(object))
        self.latitude, self.longitude = mine["latitude"].to_numpy(), mine["longitude"].to_numpy()
        self.has_image = pc.is_valid(mine["shard"]).to_numpy()
        self.elsewhere = set(table["photo_id"].filter(pc.invert(own)).to_pylist())
        self.contents = {bytes.fromhex(sha256) for sha256 in table["sha256"].drop_null().to_pylist()}
        self.met: set[str] = set()

    def compare(self, table: pa.Table) -> NDArray[np.int64]:
        """How each row stands to the pool as it was: _NEW, _PRESENT, _ELSEWHERE or _MOVED."""
        ids = table["photo_id"].to_pandas().to_numpy(object)
        state = np.zeros(len(ids), np.int64)
        if self.elsewhere:
            state[np.fromiter((photo in self.elsewhere for photo in ids), bool, len(ids))] = _ELSEWHERE
        if len(self.ids) and len(ids):
            at = self.ids.get_indexer(ids)
            found = at >= 0
            same = (self.latitude[at] == table["latitude"].to_numpy()) & (
                self.longitude[at] == table["longitude"].to_numpy()
            )
            state[found & same], state[found & ~same] = _PRESENT, _MOVED
        return state

    def stored(self, ids: list[str]) -> NDArray[np.bool_]:
        """Whether the pool has the images of photos of this source that it knows."""
        return np.asarray(self.has_image[self.ids.get_indexer(np.array(ids, object))], bool)

    def first_time(self, photo_id: str) -> bool:
        """Whether this run meets the id for the first time; now it has met it."""
        if photo_id in self.met:
            return False
        self.met.add(photo_id)
        return True

    def new_content(self, sha256: str) -> bool:
        """Whether the pool has no such bytes; now it has."""
        digest = bytes.fromhex(sha256)
        if digest in self.contents:
            return False
        self.contents.add(digest)
        return True


def _limits(settings: IngestSettings) -> Limits:
    return Limits(settings.max_pixels, settings.max_side, settings.max_file_bytes, settings.resize_short_side)


def _prepared(load: Load, row: int, limits: Limits) -> tuple[StoredPhoto, str] | Rejected:
    """The photo as it will be stored and its SHA-256, or why not. Runs in a thread."""
    try:
        photo = check_and_normalise(load(row, limits.max_file_bytes), limits)
    except Rejected as rejected:
        return rejected
    except FileNotFoundError as error:
        return Rejected(Reason.MISSING_FILE, str(error.strerror))
    except OSError as error:
        return Rejected(Reason.UNREADABLE_FILE, str(error.strerror or error))
    return photo, sha256_bytes(photo.bytes)


def _ahead(
    threads: ThreadPoolExecutor,
    work: Callable[[int], tuple[StoredPhoto, str] | Rejected],
    rows: list[int],
    window: int,
) -> Iterator[tuple[StoredPhoto, str] | Rejected]:
    """Results in the order of `rows`, at most `window` of them worked on or waiting: memory stays bounded."""
    waiting: deque[Future[tuple[StoredPhoto, str] | Rejected]] = deque()
    try:
        for row in rows:
            waiting.append(threads.submit(work, row))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _pictured(batch: Candidates, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    if batch.load is None:
        return np.zeros(len(rows), bool)
    return np.ones(len(rows), bool) if batch.pictured is None else batch.pictured[rows]
