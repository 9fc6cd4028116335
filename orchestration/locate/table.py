"""`geoloc locate --table`: where the photos of a table were taken, written to a Parquet file; resumes after a kill."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.files import (
    DamagedFile,
    atomic_path,
    damage_named,
    read_json,
    remove_temporary,
    sha256_bytes,
    write_json,
)
from geoloc.photos.quarantine import Reason
from geoloc.processors import processors
from geoloc.settings import settings_hash
from orchestration.lineage.answered import MADE_BY
from orchestration.lineage.build import Build
from orchestration.locate.locate import Opened, open_source
from orchestration.locate.located import Located
from orchestration.locate.photos import ReadPhoto, read_photo
from orchestration.locate.question import Question
from orchestration.plan.chain import STAGES
from orchestration.stores.data_version import data_version
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    import pandas as pd

    from orchestration.locate.by_champion import Champion

FILE, PHOTO_ID = "file", "photo_id"
PART_PHOTOS = 4096
"""Photos of one part of the output: what a kill loses at most."""
_AT_ONCE = 256
"""Photos in memory, twice: those that are located and those that are read ahead."""
_TASK = 8
LOW_CONFIDENCE, NO_ANSWER = "low_confidence", "no_answer"
"""Reasons of photos that were read and got no answer; the others are those of quarantine."""

_REGION = pa.struct(
    [
        ("coverage", pa.float64()), ("partition", pa.string()), ("cells", pa.int64()), ("area_km2", pa.float64()),
        ("anywhere", pa.bool_()), ("tokens", pa.list_(pa.string())),
    ]
)  # fmt: skip
_ALTERNATIVE = pa.struct(
    [
        ("latitude", pa.float64()), ("longitude", pa.float64()), ("place", pa.string()), ("weight", pa.float64()),
        ("why", pa.string()),
    ]
)  # fmt: skip
SCHEMA = pa.schema(
    [
        ("row", pa.int64()), (FILE, pa.string()), (PHOTO_ID, pa.string()), ("method", pa.string()),
        ("latitude", pa.float64()), ("longitude", pa.float64()), ("place", pa.string()),
        ("confidence", pa.float64()), ("scaled", pa.bool_()), ("within_km", pa.float64()),
        ("regions", pa.list_(_REGION)), ("alternatives", pa.list_(_ALTERNATIVE)),
        ("error", pa.string()), ("reason", pa.string()),
    ]
)  # fmt: skip
"""A row for each row of the table, in order, from 0. `reason` is a code, for counting; `error` is for people."""


@dataclass(frozen=True)
class Summary:
    """What became of the photos of a table: how many were located, and how many not, by reason."""

    photos: int
    located: int
    reasons: dict[str, int]

    def __str__(self) -> str:
        text = f"{self.photos:,} photo{'s' * (self.photos != 1)}: {self.located:,} located"
        if missed := self.photos - self.located:
            text += (
                f", {missed:,} not ({', '.join(f'{count:,} {name}' for name, count in self.reasons.items())})"
            )
        return text


def locate_table(
    source: Build | Champion,
    table: Path,
    output: Path,
    question: Question,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda photos: None,
) -> Summary:
    """Locate the photos that a CSV or Parquet table names in its column `file`, relative to the table's folder.

    Writes `output`, a Parquet file of SCHEMA, when all are located. Until then finished parts of 4,096 photos are in a
    folder beside it, and the same call goes on after them; a call with another table, question or build starts anew.
    `progress` gets numbers of photos. A bad photo gets a row with its reason. Raises as `locate`, DamagedFile for a
    damaged table, WorkspaceError for one without photos.
    """
    rows = _read_table(table)
    opened = open_source(source, replace(question, many=True), say)
    parts = output.with_name(f".{output.name}.parts")
    done = _begin(parts, _plan(source, table, question, opened), say)
    starts = range(0, len(rows), PART_PHOTOS)
    with ThreadPoolExecutor(processors(), "photos") as threads:
        for start in starts:
            part = parts / f"part-{start // PART_PHOTOS:06d}.parquet"
            some = rows.iloc[start : start + PART_PHOTOS]
            if part.name in done:
                progress(len(some))
                continue
            with (
                atomic_path(part) as temporary,
                pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer,
            ):
                for read in _read_ahead(some, table.parent, opened, threads):
                    located = opened.locate(read)
                    writer.write_table(_rows(some.iloc[: len(read)], read, located))
                    some = some.iloc[len(read) :]
                    progress(len(read))
    names = [parts / f"part-{start // PART_PHOTOS:06d}.parquet" for start in starts]
    summary = _join(names, output, SCHEMA.with_metadata({MADE_BY: json.dumps(dict(opened.made_by))}))
    shutil.rmtree(parts)
    return summary


def _read_table(table: Path) -> pd.DataFrame:
    """The columns `file` and `photo_id` (null without one) of a table, as text, and its `row` numbers."""
    import pandas as pd

    if not table.is_file():
        raise WorkspaceError(f"--table must name a CSV or Parquet file; {table} is missing or no file")
    with damage_named(table):
        if table.suffix.lower() == ".parquet":
            frame = pd.read_parquet(table)
        else:
            separator = "\t" if table.suffix.lower() == ".tsv" else ","
            frame = pd.read_csv(table, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if FILE not in frame:
        raise DamagedFile(table, f"it lacks the column {FILE}; it has {', '.join(map(str, frame.columns))}")
    if frame.empty:
        raise WorkspaceError(f"{table} has no rows: nothing to locate")
    ids = frame[PHOTO_ID].map(lambda one: None if pd.isna(one) else str(one)) if PHOTO_ID in frame else None
    files = frame[FILE].map(lambda one: "" if pd.isna(one) else str(one))
    return pd.DataFrame({"row": range(len(frame)), FILE: files, PHOTO_ID: ids})


def _plan(source: Build | Champion, table: Path, question: Question, opened: Opened) -> dict[str, Any]:
    """What the answers depend on: a part made from anything else is not gone on with."""
    plan = {
        "table": sha256_bytes(table.read_bytes()),
        "question": asdict(question) | {"references": list(question.references)},  # JSON has no tuples
        "method": opened.localizer.name,
        "part_photos": PART_PHOTOS,
    }
    if isinstance(source, Build):
        return plan | _of_build(source, question)
    return plan | {"champion": source.version.content()}


def _of_build(build: Build, question: Question) -> dict[str, Any]:
    """What of a build its answers depend on."""
    records = {name: build.record(name) for name in STAGES}
    localizers = build.settings.localizers
    limited = bool(question.references or localizers.references)  # by the facts of the pool
    return {
        "build": {name: record.content for name, record in records.items() if record is not None},
        "localizers": settings_hash(localizers),
        "data": data_version(build.workspace) if limited else None,
    }


def _begin(parts: Path, plan: dict[str, Any], say: Callable[[str], None]) -> set[str]:
    """Make the folder of parts ready; returns the names of those that are finished."""
    file = parts / "plan.json"
    try:
        same = read_json(file) == plan
    except (OSError, ValueError):
        same = False
    if same:
        remove_temporary(parts)
        done = {part.name for part in parts.glob("part-*.parquet")}
        if done:
            say(f"going on after {len(done)} finished part{'s' * (len(done) > 1)} of {PART_PHOTOS:,} photos")
        return done
    if parts.exists():
        say("the table, the question or the build changed since the last call: starting anew")
        shutil.rmtree(parts)
    parts.mkdir(parents=True)
    write_json(file, plan)
    return set()


def _read_ahead(
    rows: pd.DataFrame, folder: Path, opened: Opened, threads: ThreadPoolExecutor
) -> Iterator[list[ReadPhoto]]:
    """The photos of `rows` in order, some at a time; the next are read while the caller locates these."""
    # A photo is kept as large as the network gets it: of some cameras, 256 would fill the memory.
    preprocess, files = opened.localizer.preprocess, rows[FILE].tolist()
    prepare = None if preprocess is None else preprocess.resized

    def read(names: Sequence[str]) -> list[ReadPhoto]:
        return [
            read_photo(folder / name, prepare)
            if name
            else ReadPhoto("", None, "the table names no file", Reason.MISSING_FILE)
            for name in names
        ]

    def ask(start: int) -> list[Future[list[ReadPhoto]]]:
        some = files[start : start + _AT_ONCE]
        return [threads.submit(read, some[at : at + _TASK]) for at in range(0, len(some), _TASK)]

    waiting = ask(0)
    for start in range(0, len(files), _AT_ONCE):
        following = ask(start + _AT_ONCE)
        yield [photo for task in waiting for photo in task.result()]
        waiting = following


def _rows(rows: pd.DataFrame, read: Sequence[ReadPhoto], located: Sequence[Located]) -> pa.Table:
    values = []
    for of, photo, answer in zip(rows.itertuples(), read, located, strict=True):
        reason = None if photo.reason is None else str(photo.reason)
        if reason is None and not answer.answered:
            reason = LOW_CONFIDENCE if answer.error else NO_ANSWER
        # Not asdict, which copies deeply and would take half of the time.
        nested: dict[str, Any] = {
            name: [vars(one) for one in getattr(answer, name) or ()] for name in ("regions", "alternatives")
        }
        if answer.regions is None:
            nested["regions"] = None
        own = {"row": of.row, FILE: of.file, PHOTO_ID: of.photo_id, "reason": reason}
        values.append(vars(answer) | nested | own)
    return pa.Table.from_pylist(values, schema=SCHEMA)


def _join(parts: Sequence[Path], output: Path, schema: pa.Schema) -> Summary:
    """Write the parts to one file, and count their rows."""
    photos, located, reasons = 0, 0, Counter[str]()
    with atomic_path(output) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
                    missed = [reason for reason in batch["reason"].to_pylist() if reason is not None]
                    photos, located = photos + len(batch), located + len(batch) - len(missed)
                    reasons.update(missed)
    return Summary(photos, located, dict(reasons.most_common()))
