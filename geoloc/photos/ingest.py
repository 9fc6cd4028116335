"""Ingest: from candidates of any source to shards, catalog and quarantine; resumable, and appending only."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from geoloc.files import disk_full_named, sha256_bytes
from geoloc.photos import quarantine
from geoloc.photos.account import IngestSummary
from geoloc.photos.batches import Batch
from geoloc.photos.decoding import Limits, StoredPhoto, check_and_normalise, decoder_failure
from geoloc.photos.known import Known, People, same_place
from geoloc.photos.lookup import digests, first_ones
from geoloc.photos.origins import place_digest
from geoloc.photos.photographers import check_key, photographer_id
from geoloc.photos.pool import PoolAppender, locked
from geoloc.photos.quarantine import LABEL, PHOTO, Reason, Rejected
from geoloc.photos.screening import screen
from geoloc.photos.settings import IngestSettings
from geoloc.photos.sources.candidates import Candidates, Load
from geoloc.photos.tombstones import Tombstones
from geoloc.photos.warned import Warned, counted_warnings, reading

_PROGRESS_EVERY = 100
_TWICE = "this source has it twice"
_METADATA_ROWS = 1_000_000
"""Metadata rows between commits: so many are written at once, and metadata is read again quickly."""

Progress = Callable[[IngestSummary], None]


def ingest(
    pool: Path,
    candidates: Iterable[Candidates],
    *,
    source: str,
    photographer_key: bytes,
    settings: IngestSettings | None = None,
    progress: Progress | None = None,
    origin: str | None = None,
) -> IngestSummary:
    """Add photos to a pool.

    Two photos are one only if their bytes say so: a candidate is already present when this source has a photo with its
    bytes at its place and by its photographer (or, where there are no bytes, its photo_id at its place). A photo_id
    that another photo has gets the source's name in front, or digits of its bytes behind. Equal bytes in another source
    are another photo; where place or photographer differ, both labels are recorded. Everything that cannot be added is
    in quarantine with a reason; nothing stops the run. What was taken down (geoloc.photos.takedown) is only counted.

    A shard is written whole, synced and renamed before the catalog names it, so a run killed at any moment leaves a
    good pool, and the same run started again ends with the same bytes as one that was never killed. Old shards and rows
    are never rewritten. `progress` is called after each hundred photos and each batch. `origin` names where all inputs
    come from (default: where each file lies).

    Raises PoolBusyError while another ingest runs, PhotographerKeyError for too short a key or another one than the
    pool's, DiskFullError where there is no room (what is committed stays, and the next run goes on), ValueError for an
    empty source name, and what a source raises.
    """
    settings = settings or IngestSettings()
    if not source.strip():
        raise ValueError(f"source must be a name, got {source!r}")
    photographer_id("", photographer_key)  # raises for a bad key before any work is done
    pool = Path(pool)
    with disk_full_named(pool), locked(pool):
        check_key(pool, photographer_key)
        run = _Run(pool, source, photographer_key, settings, progress, origin)
        try:
            run.take_all(candidates)
        except BaseException:
            run.appender.abandon()
            raise
        return run.summary


class _Run:
    """One ingest: what it knows of the pool, and the counts."""

    def __init__(
        self,
        pool: Path,
        source: str,
        key: bytes,
        settings: IngestSettings,
        progress: Progress | None,
        origin: str | None,
    ) -> None:
        self.source, self.key, self.settings, self.progress = source, key, settings, progress
        self.pool, self.given_origin = pool, origin
        self.appender = PoolAppender(pool, source)
        self.summary = IngestSummary(source)
        self.known = Known(pool, source)
        self.tombstones = Tombstones(pool, key)
        self.quarantined: Counter[str] = Counter()
        self.fields: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.encoded_again: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.people = People()
        self.warned = Warned()
        self.unreported = 0
        self.taken: list[Callable[[], None]] = []

    def take_all(self, candidates: Iterable[Candidates]) -> None:
        workers = self.settings.workers or os.cpu_count() or 1
        with (
            counted_warnings() as self.warned,
            ThreadPoolExecutor(workers, thread_name_prefix="ingest") as threads,
        ):
            for batch in candidates:
                self.take(batch, threads, window=4 * workers)
                if batch.done is not None:
                    self.taken.append(batch.done)
                self.report()
        self.commit()
        self.report()

    def commit(self) -> None:
        """Make everything so far durable, and say so to the sources of the batches that are wholly in the pool."""
        self.appender.commit()
        taken, self.taken = self.taken, []
        for done in taken:
            done()

    def take(self, batch: Candidates, threads: ThreadPoolExecutor, window: int) -> None:
        self.notes.update(batch.notes)
        origin = self.origin(batch)
        screened = screen(batch, self.source, self.key, origin, self.settings.max_file_bytes)
        self.turn_away(screened.turned_away)
        part = Batch(batch, screened.table, screened.rows, origin)
        stays = self.tombstones.staying(part, self.source)
        if len(stays) < len(part.ids):
            self.summary.taken_down += len(part.ids) - len(stays)
            part = Batch(batch, screened.table.take(pa.array(stays)), screened.rows[stays], origin)
        fresh = self.without_known(part)
        pictured = part.pictured[fresh]
        if pictured.any():
            self.take_photos(part, fresh[pictured], threads, window)
        if not pictured.all():
            self.take_metadata(part, fresh[~pictured])
        kept = part.kept_rows()
        self.appender.keep(kept.drop_columns("reference"))
        faults = screened.field_faults
        if faults.num_rows:
            faults = faults.filter(pc.is_in(faults["reference"], value_set=kept["reference"]))
            self.fields.update(faults["reason"].to_pylist())
            self.appender.turn_away(faults)
        if self.appender.shard_size == 0 and self.appender.waiting >= _METADATA_ROWS:
            self.commit()

    def origin(self, batch: Candidates) -> str:
        """A digest of where the files of a batch lie."""
        if self.given_origin is not None or batch.origin is None:
            return quarantine.digest(self.key, self.given_origin or "")
        return place_digest(self.pool, batch.origin, self.key)

    def without_known(self, part: Batch) -> NDArray[np.int64]:
        """Rows that are new to the pool, or whose bytes have to tell; the others are counted or turned away.

        What either side knows by metadata only has no bytes: there the id and the place tell.
        """
        known = self.known.own_rows(part.digests, part.table["photo_id"])
        bare = self.known.without_image(known)
        by_name = (known >= 0) & (bare | ~part.pictured)
        near = by_name & self.known.at_same_place(known, *part.places)
        new = self.first_met(part, np.flatnonzero(near))
        for row in new.tolist():
            part.keep(row, part.ids[row])
        self.summary.already_present += len(new)
        if without := int(
            (bare & part.pictured)[new].sum()
        ):  # rows are never rewritten: it is said, not done
            self.notes["known by metadata only, and so the image was not added"] += without
        elsewhere = np.flatnonzero(by_name & ~near)
        twice = self.known.met(part.digests[elsewhere])
        self.turn_away_rows(part, elsewhere[twice], Reason.DUPLICATE_ID, _TWICE)
        why = "the pool has this photo_id of this source, at other coordinates"
        self.turn_away_rows(part, elsewhere[~twice], Reason.DUPLICATE_ID, why)
        return np.flatnonzero(~by_name)

    def first_met(self, part: Batch, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those rows whose id this run meets for the first time; the others are turned away."""
        ids = part.digests[rows]
        new = ~self.known.met(ids) & (first_ones(ids) == np.arange(len(ids)))
        self.known.meet(ids[new])
        self.turn_away_rows(part, rows[~new], Reason.DUPLICATE_ID, _TWICE)
        return rows[new]

    def take_metadata(self, part: Batch, rows: NDArray[np.int64]) -> None:
        rows = self.first_met(part, rows)
        taken = self.known.taken(part.digests[rows])
        self.known.add_ids(part.digests[rows[~taken]])
        ids = [part.ids[row] for row in rows.tolist()]
        for position in np.flatnonzero(taken).tolist():
            ids[position] = self.known.free_id(ids[position], part.facts_digest(int(rows[position])))
            self.known.add_ids(digests([ids[position]]))
        for row, photo in zip(rows.tolist(), ids, strict=True):
            part.keep(row, photo)
        self.appender.add_rows(part.renamed(rows.tolist(), ids), None)
        self.summary.added += len(rows)

    def take_photos(
        self, part: Batch, rows: NDArray[np.int64], threads: ThreadPoolExecutor, window: int
    ) -> None:
        load, limits = part.batch.load, _limits(self.settings)
        assert load is not None
        accepted: list[int] = []
        ids: list[str] = []
        stored: list[tuple[object, ...]] = []

        def flush() -> None:
            self.appender.add_rows(part.renamed(accepted, ids), stored)
            accepted.clear()
            ids.clear()
            stored.clear()

        references: list[str] = part.table["reference"].to_pylist()

        def work(row: int) -> _Result:
            with reading(references[row]):
                try:
                    return _prepared(load, int(part.rows[row]), limits, self.known)
                except Exception as error:
                    error.add_note(f"while reading {references[row]} of {self.source}")
                    raise

        results = _ahead(threads, work, rows.tolist(), window)
        for row, result in zip(rows.tolist(), results, strict=True):
            if result.rejected is not None:
                why = result.rejected
                self.turn_away_row(part, row, why.reason, why.detail, result.input_sha256)
            elif self.tombstones.has_bytes(result.input_sha256, result.sha256):
                self.summary.taken_down += 1  # and no row of quarantine, which would name it again
            elif self.is_new(part, row, result):
                photo = result.photo
                assert photo is not None
                name = self.known.free_id(part.ids[row], result.sha256)
                self.known.add(replace(part.label(row, self.source), photo_id=name), result.sha256)
                part.keep(row, name)
                place = self.appender.store(name, photo)
                accepted.append(row)
                ids.append(name)
                came_as = None if result.input_sha256 == result.sha256 else result.input_sha256
                stored.append((photo.width, photo.height, result.sha256, photo.phash, *place, came_as))
                self.summary.added += 1
                if photo.encoded_again is not None:
                    self.encoded_again[photo.encoded_again] += 1
                if self.appender.shard_size >= self.settings.shard_bytes:
                    flush()
                    self.commit()
            self.unreported += 1
            if self.unreported == _PROGRESS_EVERY:
                self.report()
        flush()

    def is_new(self, part: Batch, row: int, result: _Result) -> bool:
        """Whether to store a photo; what need not be stored is counted, or turned away with both labels."""
        label, wanted, digest = part.label(row, self.source), part.ids[row], part.digests[row : row + 1]
        twins = self.known.of_bytes(result.sha256)
        own = [twin for twin in twins if twin.source == self.source]
        again = not part.batch.local_ids and self.known.met(digest)[0]
        same = next((twin for twin in own if twin.agrees(label)), None)
        if again:
            self.turn_away_row(part, row, Reason.DUPLICATE_ID, _TWICE, result.input_sha256)
            return False
        if same is not None:
            self.known.meet(digest)
            part.keep(row, same.photo_id)
            self.summary.already_present += 1
            if not self.known.calls(same.photo_id, wanted, result.sha256):
                self.notes["same bytes as a photo with another id"] += 1
                detail = f"its bytes are those of {same.photo_id} of this source, which is kept for both"
                self.record_label(part, row, Reason.DUPLICATE_PHOTO, detail, result.input_sha256)
            return False
        if own:
            named = [twin for twin in own if self.known.calls(twin.photo_id, wanted, result.sha256)]
            twin = (named or own)[0]
            both = f"here {label}, there {twin}"
            if named and not part.batch.local_ids:
                apart = same_place(label.latitude, label.longitude, twin.latitude, twin.longitude)
                where = "by another photographer" if apart else "at other coordinates"
                detail = f"the pool has this photo_id of this source, {where}: {both}"
                self.turn_away_row(part, row, Reason.DUPLICATE_ID, detail, result.input_sha256)
            else:
                detail = f"its bytes are those of {twin.photo_id} of this source: {both}"
                self.turn_away_row(part, row, Reason.CONFLICTING_LABEL, detail, result.input_sha256)
            return False
        for twin in twins:
            self.people.compare(label, twin)
        other = next((twin for twin in twins if not twin.agrees(label)), None)
        if other is not None:
            detail = f"its bytes are those of {other.photo_id} of {other.source}: here {label}, there {other}"
            self.record_label(part, row, Reason.CONFLICTING_LABEL, detail, result.input_sha256)
        elif twins:
            self.notes[f"also in the source {twins[0].source}, with the same label"] += 1
        self.known.meet(digest)
        return True

    def turn_away_row(
        self, part: Batch, row: int, reason: Reason, detail: str, input_sha256: str | None = None
    ) -> None:
        self.turn_away(part.told(self.source, self.key, [row], reason, detail, PHOTO, input_sha256))

    def turn_away_rows(self, part: Batch, rows: NDArray[np.int64], reason: Reason, detail: str) -> None:
        self.turn_away(part.told(self.source, self.key, rows.tolist(), reason, detail, PHOTO, None))

    def record_label(
        self, part: Batch, row: int, reason: Reason, detail: str, input_sha256: str | None
    ) -> None:
        self.labels[str(reason)] += 1
        self.appender.turn_away(part.told(self.source, self.key, [row], reason, detail, LABEL, input_sha256))

    def turn_away(self, rows: pa.Table) -> None:
        self.quarantined.update(rows["reason"].to_pylist())
        self.appender.turn_away(rows)

    def report(self) -> None:
        self.unreported = 0
        self.summary.quarantined = dict(sorted(self.quarantined.items()))
        self.summary.fields_dropped = dict(sorted(self.fields.items()))
        self.summary.labels = dict(sorted(self.labels.items()))
        self.summary.encoded_again = dict(sorted(self.encoded_again.items()))
        notes = {**self.notes, **self.people.notes(), **self.warned.notes()}
        self.summary.notes = dict(sorted(notes.items()))
        if self.progress is not None:
            self.progress(self.summary)


@dataclass(frozen=True)
class _Result:
    """An image file, looked at: rejected, or known to the pool (photo: None), or as it will be stored."""

    input_sha256: str | None = None
    sha256: str = ""
    photo: StoredPhoto | None = None
    rejected: Rejected | None = None


def _limits(settings: IngestSettings) -> Limits:
    return Limits(
        max_pixels=settings.max_pixels,
        max_side=settings.max_side,
        min_side=settings.min_side,
        max_file_bytes=settings.max_file_bytes,
        resize_short_side=settings.resize_short_side,
    )


def _prepared(load: Load, row: int, limits: Limits, known: Known) -> _Result:
    """The photo as it will be stored, or which photo of the pool it is, or why it cannot be. Runs in a thread."""
    try:
        data = load(row, limits.max_file_bytes)
    except Rejected as rejected:
        return _Result(rejected.input_sha256, rejected=rejected)
    except FileNotFoundError as error:
        return _Result(rejected=Rejected(Reason.MISSING_FILE, str(error.strerror)))
    except OSError as error:
        return _Result(rejected=Rejected(Reason.UNREADABLE_FILE, str(error.strerror or error)))
    came_as = sha256_bytes(data)
    stored = known.has_input(came_as)  # what the pool has is not decoded again
    if stored is not None:
        return _Result(came_as, stored)
    try:
        photo = check_and_normalise(data, limits)
    except Rejected as rejected:
        return _Result(came_as, rejected=rejected)
    except Exception as error:  # decoders of damaged files raise anything, and none may end the run
        return _Result(came_as, rejected=decoder_failure(error))
    return _Result(came_as, sha256_bytes(photo.bytes), photo)


def _ahead(
    threads: ThreadPoolExecutor, work: Callable[[int], _Result], rows: list[int], window: int
) -> Iterator[_Result]:
    """Results in the order of `rows`, at most `window` of them worked on or waiting: memory stays bounded."""
    waiting: deque[Future[_Result]] = deque()
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
