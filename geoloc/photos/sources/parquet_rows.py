"""Rows of Parquet tables, in blocks of bounded memory: a table of a few kB may say one long text a million times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geoloc.photos.quarantine import Reason
from geoloc.photos.sources.candidates import FAULTS, SourceError, fault, fault_table
from geoloc.photos.sources.delimited import Block

MOST_CELL_BYTES = 16 * 1024
"""Longer than any address or name; a cell that is longer spoils its row."""

_MOST_BLOCK_BYTES = 64 * 1024 * 1024
_ROWS = 100_000


def parquet_names(path: Path) -> list[str]:
    """The columns of a table. Raises SourceError where it cannot be read."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a readable table: {error}") from None


def parquet_blocks(path: Path, wanted: list[str]) -> Iterator[Block]:
    """The rows with the `wanted` columns; rows with too long a cell, and the rest of a table that breaks off, are
    faults."""
    first = 1
    try:
        schema = pq.read_schema(path)
        texts = [name for name in wanted if _is_text(schema.field(name).type)]
        # each text is in memory once, however often it is said
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            for rows in file.iter_batches(_ROWS, columns=wanted):
                yield from _blocks(path, rows, first)
                first += rows.num_rows
    except (pa.ArrowException, MemoryError, OSError) as error:
        torn = fault(f"{path.name}: after row {first - 1}", Reason.UNREADABLE_FILE, str(error)[:300])
        yield Block(None, np.empty(0, np.int64), fault_table([torn]))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def _blocks(path: Path, rows: pa.RecordBatch, first: int) -> Iterator[Block]:
    size, longest = (np.zeros(rows.num_rows, np.int64) for _ in range(2))
    for column in rows.columns:
        if pa.types.is_dictionary(column.type) and _is_text(column.type):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            each = np.asarray(lengths.fill_null(0).to_numpy(zero_copy_only=False), np.int64)
            size += each
            np.maximum(longest, each, out=longest)
    numbers = np.arange(first, first + rows.num_rows)
    bad = longest > MOST_CELL_BYTES
    if bad.any():
        told = [
            fault(
                f"{path.name}: row {number}",
                Reason.MALFORMED_RECORD,
                f"a cell of {length} bytes; the limit is {MOST_CELL_BYTES}",
                content=str(length),
            )
            for number, length in zip(numbers[bad].tolist(), longest[bad].tolist(), strict=True)
        ]
        yield Block(None, np.empty(0, np.int64), fault_table(told))
        rows, numbers, size = rows.filter(pa.array(~bad)), numbers[~bad], size[~bad]
    pieces = np.cumsum(size) // _MOST_BLOCK_BYTES
    starts = [0, *(np.flatnonzero(np.diff(pieces)) + 1).tolist(), len(numbers)]
    for start, end in itertools.pairwise(starts):
        if end > start:
            plain = _plain(rows.slice(start, end - start))
            yield Block(plain, numbers[start:end], FAULTS.empty_table())


def _plain(rows: pa.RecordBatch) -> pa.RecordBatch:
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)
