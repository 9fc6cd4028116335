"""Source: photos that a table lists by their addresses; each is downloaded once and kept until the pool has it."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geoloc.photos.addresses import Place, as_place, fetched
from geoloc.photos.decoding import open_image
from geoloc.photos.downloads.fetch import Fetcher
from geoloc.photos.downloads.log import DownloadLog, final_answer
from geoloc.photos.downloads.past import Past
from geoloc.photos.downloads.spool import Kept, Part, Spool
from geoloc.photos.exif import read_exif
from geoloc.photos.facts import PhotoFacts
from geoloc.photos.quarantine import Reason, Rejected
from geoloc.photos.settings import DownloadSettings, IngestSettings
from geoloc.photos.sources.candidates import SCHEMA, Candidates, fault, fault_table
from geoloc.photos.sources.mp16 import found_table, open_places
from geoloc.photos.sources.url_tables import UrlTable

_BATCH = 512
_AHEAD = 2
"""Batches that are asked for while one is taken in."""


def urls_candidates(
    path: Place | str,
    *,
    pool: Path,
    spool: Path,
    columns: Mapping[str, str] | None = None,
    table: Place | str | None = None,
    download: DownloadSettings | None = None,
    again: bool = False,
    max_file_bytes: int = IngestSettings().max_file_bytes,
) -> Iterator[Candidates]:
    """Photos of a table of addresses (see `UrlTable`; itself a path or an address), in its order.

    What the pool has, and what was final (404, 410, no photo, ...), is not asked for again; `again`: only the former.
    What was not (429, 503, no answer) is. `spool`: a folder for what is downloaded and not in the pool yet. `table`:
    coordinates by id (IMG_ID, LAT, LON), where the table has none (default: the one such CSV beside it); without
    either, the coordinates are those in the photo. Raises SourceError as `UrlTable`.
    """
    place = as_place(path)
    given = None if table is None else as_place(table)
    if isinstance(
        place, Path
    ):  # at once, so that a table that cannot be read is told before anything is done
        _open(place, columns, given).path.stat()
    return _batches(place, columns, given, pool, spool, download or DownloadSettings(), again, max_file_bytes)


def _open(path: Path, columns: Mapping[str, str] | None, places: Place | None) -> UrlTable:
    if places is not None:
        return UrlTable(path, columns, open_places(places))
    made = UrlTable(path, columns, None)
    found = found_table([path]) if made.unplaced else None
    return made if found is None else UrlTable(path, columns, open_places(found))


def _batches(
    place: Place,
    columns: Mapping[str, str] | None,
    places: Place | None,
    pool: Path,
    spool: Path,
    settings: DownloadSettings,
    again: bool,
    most: int,
) -> Iterator[Candidates]:
    with fetched(place) as path, Fetcher(settings, most) as fetcher:
        table = _open(path, columns, places)
        run = _Run(place, table.unplaced, fetcher, Spool(spool), DownloadLog(pool), Past(pool), again)
        waiting: deque[_Batch] = deque()
        for rows in table.rows():
            yield Candidates(SCHEMA.empty_table(), faults=rows.faults, notes=rows.notes, origin=place)
            for start in range(0, rows.table.num_rows, _BATCH):
                waiting.append(run.start(rows.table.slice(start, _BATCH)))
                if len(waiting) > _AHEAD:
                    yield run.finish(waiting.popleft())
        while waiting:
            yield run.finish(waiting.popleft())
        yield Candidates(SCHEMA.empty_table(), done=run.spool.remove, origin=place)


@dataclass
class _Batch:
    """Rows of which some are being asked for. parts: where the answers come, by address, also of those that an earlier
    batch asks for. known: what is known of a row without asking. unusable: rows whose photo would be of no use."""

    table: pa.Table
    urls: list[str]
    asked: Future[None]
    parts: dict[str, Part] = field(default_factory=dict)
    known: dict[int, _Known] = field(default_factory=dict)
    unusable: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Known:
    """What an earlier run left of an address: `load` gives the photo or raises Rejected; or why there is none."""

    load: Callable[[], bytes] | None = None
    why: tuple[Reason, str] | None = None
    facts: PhotoFacts = field(default_factory=PhotoFacts)


@dataclass
class _Run:
    """One ingest of a table of addresses."""

    place: Place
    unplaced: bool
    fetcher: Fetcher
    spool: Spool
    log: DownloadLog
    past: Past
    again: bool
    live: dict[str, Part] = field(default_factory=dict)

    def start(self, table: pa.Table) -> _Batch:
        """Begin to ask for what is not known of these rows."""
        urls: list[str] = table["url"].to_pylist()
        nothing: Future[None] = Future()
        nothing.set_result(None)
        batch = _Batch(table, urls, nothing)
        if not self.unplaced:
            batch.unusable = set(np.flatnonzero(~_placed(table)).tolist())
        ask: dict[str, None] = {}
        logged = self.log.rows(urls)
        rows = zip(urls, table["reference"].to_pylist(), table["photo_id"].to_pylist(), strict=True)
        for row, (url, reference, photo_id) in enumerate(rows):
            if row in batch.unusable or url in ask:
                continue
            if url in self.live:
                batch.parts[url] = self.live[url]
                continue
            kept, entry = self.spool.found.get(url), logged[row]
            if kept is not None and not kept.answer.later:
                continue
            if entry is not None and (known := self._past(entry, reference, photo_id)) is not None:
                batch.known[row] = known
            else:
                ask[url] = None
        if ask:
            part = self.spool.part()
            self.live |= dict.fromkeys(ask, part)
            batch.parts |= dict.fromkeys(ask, part)
            batch.asked = self.fetcher.ask(ask, part.add)
        for part in set(batch.parts.values()):
            part.hold()
        return batch

    def _past(self, entry: dict[str, object], reference: str, photo_id: str | None) -> _Known | None:
        """What the log and the pool know of an address; None: it is to be asked for."""
        answer = final_answer(entry)
        if answer is not None and answer.reason is not None:
            return None if self.again else _Known(why=(answer.reason, answer.detail))
        sha256 = entry["input_sha256"]
        if not isinstance(sha256, str):
            return None
        stored = self.past.photo(sha256)
        if stored is not None:
            return _Known(stored.read, facts=stored.facts)
        turned_away = None if self.again else self.past.turned_away(reference, photo_id, sha256)
        if turned_away is None:
            return None
        told = turned_away

        def load() -> bytes:
            raise told

        return _Known(load)

    def finish(self, batch: _Batch) -> Candidates:
        """The rows, once all answers are there."""
        batch.asked.result()
        loads: list[Callable[[], bytes]] = []
        facts: list[PhotoFacts] = []
        faults: list[dict[str, str | None]] = []
        told: list[Kept] = []
        good: list[int] = []
        names = zip(
            batch.urls, batch.table["reference"].to_pylist(), batch.table["photo_id"].to_pylist(), strict=True
        )
        for row, (url, reference, photo_id) in enumerate(names):
            known = batch.known.get(row)
            if row in batch.unusable:
                known = _Known(_not_asked)
            if known is None:
                kept = batch.parts[url].kept[url] if url in batch.parts else self.spool.found[url]
                told.append(kept)
                why = None if kept.answer.reason is None else (kept.answer.reason, kept.answer.detail)
                known = _Known(
                    kept.read, why, _facts(kept) if self.unplaced and why is None else PhotoFacts()
                )
            if known.why is not None:
                faults.append(fault(reference, *known.why, photo_id=photo_id, content=url))
                continue
            assert known.load is not None
            good.append(row)
            loads.append(known.load)
            facts.append(known.facts)
        table = batch.table.take(pa.array(good, pa.int64()))

        def done() -> None:
            self.log.add(told)
            gone = {part for part in set(batch.parts.values()) if part.release()}
            self.live = {url: part for url, part in self.live.items() if part not in gone}

        return Candidates(
            _with_facts(table, facts) if self.unplaced else table,
            lambda row, _: loads[row](),
            faults=fault_table(faults),
            origin=self.place,
            done=done,
        )


def _not_asked() -> bytes:
    raise Rejected(Reason.MISSING_FILE, "not asked for")


def _placed(table: pa.Table) -> NDArray[np.bool_]:
    """Rows whose coordinates may be a place: the photos of the others would be asked for in vain."""
    latitude, longitude = (
        np.asarray(table[name].to_numpy(), np.float64) for name in ("latitude", "longitude")
    )
    with np.errstate(invalid="ignore"):
        return (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180) & ~((latitude == 0) & (longitude == 0))


def _facts(kept: Kept) -> PhotoFacts:
    """What a photo itself says; nothing, where it is none."""
    try:
        return read_exif(open_image(io.BytesIO(kept.read())))
    except Rejected:
        return PhotoFacts()


def _with_facts(table: pa.Table, facts: list[PhotoFacts]) -> pa.Table:
    """The table with the coordinates, time and heading that the photos have."""
    exif = pa.array(["exif" if fact.placed else None for fact in facts], pa.string())
    made = {
        "latitude": pa.array([fact.latitude for fact in facts], pa.float64()),
        "longitude": pa.array([fact.longitude for fact in facts], pa.float64()),
        "place_source": exif,
    }
    for name, column in made.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
