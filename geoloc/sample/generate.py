"""Writes a sample of the sample planet: pictures, drawn by several processes, and their tables."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from geoloc.files import atomic_folder
from geoloc.sample import drawing
from geoloc.sample.copies import NEAR
from geoloc.sample.dirt import DIRT, NOT_KEPT, near_copy, soiled, spoil_picture
from geoloc.sample.people import make_shots
from geoloc.sample.records import (
    PAIR_COLUMNS,
    PHOTO_COLUMNS,
    TILE_COLUMNS,
    TRUTH_COLUMNS,
    photo_records,
    subjects_of,
    tile_records,
    truth_records,
    write_table,
)
from geoloc.sample.settings import SampleSettings
from geoloc.settings import parse

PHOTOS_FILE, OVERHEAD_FILE, PAIRS_FILE, TRUTH_FILE = "photos.csv", "overhead.csv", "pairs.csv", "truth.csv"

_CHUNK = 64  # rows that a worker draws at a time
_AHEAD = 3  # chunks a worker may have waiting
_TILE_QUALITY = 85
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

Progress = Callable[[int, int], None]
Job = Callable[[pd.DataFrame], list[bytes]]


@dataclass(frozen=True)
class SampleSummary:
    """What was written.

    photos: rows that ingest keeps, with or without dirt. faulty: extra rows, which ingest rejects. tiles: from above,
    each with its pair. bursts: photos that repeat the one before. subjects, dirt: rows by kind. jpeg_bytes: of all
    pictures.
    """

    photos: int
    faulty: int
    photographers: int
    cities: int
    albums: int
    tiles: int
    bursts: int
    subjects: Mapping[str, int]
    dirt: Mapping[str, int]
    jpeg_bytes: int


def make_sample(
    folder: Path | str,
    photos: int = 3500,
    seed: int = 0,
    settings: SampleSettings | None = None,
    version: int = 1,
    processes: int | None = None,
    progress: Progress | None = None,
) -> SampleSummary:
    """Write `photos` photos of a version and a few faulty rows into `folder`, replacing what is there.

    - photos.csv: photo_id, file (relative to the folder), latitude, longitude (degrees), photographer, taken_at
      (local), posted_at (UTC), album, heading (degrees), prob_indoor; unknown is empty. The pictures: photos/.
    - overhead.csv: photo_id, file, latitude, longitude of the tiles from above, which are in overhead/.
    - pairs.csv: photo_id, overhead_id, heading (true), city.
    - truth.csv: the truth of each row of photos.csv, in its order (see `records.truth_records`). For measuring; it
      enters no pool.

    The bytes depend on photos, seed, settings and version, not on `processes` (None: one per core). `progress` is
    called with (pictures drawn, pictures in all). A run that fails leaves nothing behind. Raises ValueError for
    fewer than 2 photos, a version below 1 or processes below 1.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    settings = parse(SampleSettings, {}) if settings is None else settings
    shots = make_shots(photos, seed, settings, version)
    table = soiled(shots, settings.dirt, seed, version)
    tiles = tile_records(table)
    with atomic_folder(folder) as temporary:
        written = _write_pictures(temporary, table, tiles, seed, settings, processes, progress)
        write_table(
            temporary / PHOTOS_FILE, photo_records(table, settings.heading_share)[list(PHOTO_COLUMNS)]
        )
        as_photos = tiles.assign(photo_id=tiles["overhead_id"])
        write_table(temporary / OVERHEAD_FILE, as_photos[list(TILE_COLUMNS)])
        write_table(temporary / PAIRS_FILE, tiles[list(PAIR_COLUMNS)])
        write_table(temporary / TRUTH_FILE, truth_records(table)[list(TRUTH_COLUMNS)])
    return _summary(table.iloc[:photos], table, len(tiles), written)


def _summary(good: pd.DataFrame, table: pd.DataFrame, tiles: int, written: int) -> SampleSummary:
    dirt = table["kind"].value_counts()
    return SampleSummary(
        photos=len(good),
        faulty=int(table["kind"].isin(NOT_KEPT).sum()),
        photographers=int(good["photographer"].nunique()),
        cities=int(good["city"].nunique()),
        albums=int(good.loc[good["album"] != "", "album"].nunique()),
        tiles=tiles,
        bursts=int((good["scene"].duplicated() & (good["copy_of"] < 0)).sum()),
        subjects=subjects_of(good),
        dirt={kind: int(dirt.get(kind, 0)) for kind in DIRT},
        jpeg_bytes=written,
    )


def _write_pictures(
    folder: Path,
    table: pd.DataFrame,
    tiles: pd.DataFrame,
    seed: int,
    settings: SampleSettings,
    processes: int | None,
    progress: Progress | None,
) -> int:
    """Draw and write all pictures; returns their size in bytes."""
    for parent in sorted({str(Path(file).parent) for file in [*table["file"], *tiles["file"]]}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
    drawn = table[(table["copy_of"] < 0) & (table["kind"] != "no such file")]
    above = table.loc[tiles.index]
    photos = functools.partial(photo_jpegs, size=settings.size)
    from_above = functools.partial(
        tile_jpegs, seed=seed, size=settings.tile_size, metres_per_pixel=settings.metres_per_pixel
    )
    jobs: list[tuple[Job, pd.DataFrame]] = [(photos, chunk) for chunk in _chunks(drawn)]
    jobs += [(from_above, chunk) for chunk in _chunks(above)]
    total, done, written = len(drawn) + len(above), 0, 0
    with _drawers(processes, len(jobs)) as draw:
        for (job, chunk), pictures in zip(jobs, draw(jobs), strict=True):
            for row, kind, data in zip(chunk.index, chunk["kind"], pictures, strict=True):
                if job is photos:
                    written += (folder / table["file"].at[row]).write_bytes(spoil_picture(data, kind, row))
                else:
                    written += (folder / tiles["file"].at[row]).write_bytes(data)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
    for row, original, kind in table.loc[table["copy_of"] >= 0, ["copy_of", "copy_kind"]].itertuples():
        data = (folder / table["file"].at[original]).read_bytes()
        copy = near_copy(data, row) if kind == NEAR else data
        written += (folder / table["file"].at[row]).write_bytes(copy)
    return written


def _chunks(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [rows.iloc[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def photo_jpegs(shots: pd.DataFrame, size: int) -> list[bytes]:
    """Returns the ground photos of shots (rows of `people.make_shots`), `size` pixels each way, as JPEG files."""
    return [_jpeg(drawing.draw_photo(shot, size), shot.quality) for shot in shots.itertuples(name="Shot")]


def tile_jpegs(shots: pd.DataFrame, seed: int, size: int, metres_per_pixel: float) -> list[bytes]:
    """Returns the tiles of shots from above, `size` pixels each way, as JPEG files."""
    return [
        _jpeg(drawing.draw_tile(shot, seed, size, metres_per_pixel), _TILE_QUALITY)
        for shot in shots.itertuples(name="Shot")
    ]


def _jpeg(picture: Any, quality: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=int(quality))
    return stream.getvalue()


@contextmanager
def _drawers(
    processes: int | None, jobs: int
) -> Iterator[Callable[[list[tuple[Job, pd.DataFrame]]], Iterator[list[bytes]]]]:
    """Yields a function that runs jobs, in this process or in several others, and gives their results in order."""
    # A worker takes a second to start: not worth it for a few pictures.
    workers = min(os.cpu_count() or 1, jobs // 4) if processes is None else min(processes, jobs)
    if workers <= 1:
        yield lambda todo: (job(chunk) for job, chunk in todo)
        return
    # spawn: safe whatever threads this process has, and the same on every system
    context = multiprocessing.get_context("spawn")
    with (
        _environment(_ONE_THREAD),  # inherited by workers, which start on demand
        ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_main) as pool,
    ):
        try:
            yield lambda todo: _in_order(pool, todo, _AHEAD * workers)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _in_order(
    pool: ProcessPoolExecutor, jobs: list[tuple[Job, pd.DataFrame]], window: int
) -> Iterator[list[bytes]]:
    """Results in the order of jobs. At most `window` are running or waiting, so memory stays bounded."""
    waiting: deque[Future[list[bytes]]] = deque()
    for job, chunk in jobs:
        waiting.append(pool.submit(job, chunk))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _follow_main() -> None:
    """Ignore Ctrl-C, which goes to all processes: the main process ends the workers. End when it was killed: an idle
    worker would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is not None:
        threading.Thread(target=_end_after, args=(main,), daemon=True).start()


def _end_after(main: BaseProcess) -> None:
    main.join()
    os._exit(1)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
