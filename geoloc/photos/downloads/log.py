"""data/downloads.parquet: every address that was asked for a photo, what it answered and when."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from geoloc.files import read_arrow
from geoloc.photos.catalog import durable_path
from geoloc.photos.downloads.answer import Answer
from geoloc.photos.downloads.spool import Kept
from geoloc.photos.quarantine import Reason

DOWNLOADS_FILE = "downloads.parquet"

SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("status", pa.int16()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("later", pa.bool_(), nullable=False),
        pa.field("tries", pa.int32(), nullable=False),
        pa.field("asked_at", pa.timestamp("s")),
        pa.field("etag", pa.string()),
        pa.field("content_type", pa.string()),
        pa.field("input_sha256", pa.string()),
    ]
)
"""One row an address, of the last run that asked for it. status: of the last answer; null: there was none. reason: why
there is no photo; null: there is. later: asked for again at the next ingest. tries: requests, of all runs. asked_at:
UTC. input_sha256: of the photo as it came."""


class DownloadLog:
    """The log of a pool. Raises DamagedFile where its file is no such table."""

    def __init__(self, pool: Path) -> None:
        self._path = Path(pool) / DOWNLOADS_FILE
        table = read_arrow(self._path, SCHEMA) if self._path.is_file() else SCHEMA.empty_table()
        self._table = table
        self._urls = pd.Index(table["url"].to_pandas())

    def rows(self, urls: list[str]) -> list[dict[str, object] | None]:
        """The row of each address; None: never asked for."""
        at = self._urls.get_indexer(pd.Index(urls, dtype=self._urls.dtype)) if len(self._urls) else None
        if at is None:
            return [None] * len(urls)
        known = np.flatnonzero(at >= 0)
        found: list[dict[str, object] | None] = [None] * len(urls)
        for position, row in zip(
            known.tolist(), self._table.take(pa.array(at[known])).to_pylist(), strict=True
        ):
            found[position] = row
        return found

    def add(self, answers: Iterable[Kept]) -> None:
        """Write these answers, each in place of what was known of its address, atomically and durably."""
        new = [kept for kept in {kept.answer.url: kept for kept in answers}.values() if kept.answer.tries]
        if not new:
            return
        before = self.rows([kept.answer.url for kept in new])
        rows = [_row(kept, old) for kept, old in zip(new, before, strict=True)]
        stay = ~self._urls.isin([row["url"] for row in rows])
        self._table = pa.concat_tables(
            [self._table.filter(pa.array(np.asarray(stay, bool))), pa.Table.from_pylist(rows, schema=SCHEMA)]
        )
        self._urls = pd.Index(self._table["url"].to_pandas())
        with durable_path(self._path) as temporary:
            pq.write_table(self._table.combine_chunks(), temporary, compression="zstd")


def _row(kept: Kept, old: dict[str, object] | None) -> dict[str, object]:
    answer = kept.answer
    before = old["tries"] if old and old["asked_at"] != answer.asked_at else 0  # told twice: after a kill
    assert isinstance(before, int)
    return {
        "url": answer.url,
        "status": answer.status,
        "reason": None if answer.reason is None else str(answer.reason),
        "detail": answer.detail,
        "later": answer.later,
        "tries": before + answer.tries,
        "asked_at": answer.asked_at,
        "etag": answer.etag,
        "content_type": answer.content_type,
        "input_sha256": kept.sha256,
    }


def final_answer(row: dict[str, object]) -> Answer | None:
    """The answer of a row that need not be asked for again; None where it has the photo, or may have it later."""
    if row["reason"] is None or row["later"]:
        return None
    return Answer(str(row["url"]), Reason(str(row["reason"])), str(row["detail"]))
