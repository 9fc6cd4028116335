"""Text tables of any size, read a block at a time as raw bytes, with row numbers and the rows that are damaged."""

from __future__ import annotations

import io
from collections.abc import Iterator
from csv import reader as read_csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
from numpy.typing import NDArray

from geoloc.files import sha256_bytes
from geoloc.photos.quarantine import Reason
from geoloc.photos.sources.candidates import FAULTS, SourceError, fault, fault_table

_HEADER_BYTES = 256 * 1024
_BLOCK_BYTES = 8 * 1024 * 1024
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2"}


@dataclass(frozen=True)
class Block:
    """N rows: `rows` has binary columns, `numbers` int64 [N] (1: the first after the header), `faults` damaged rows."""

    rows: pa.RecordBatch | None
    numbers: NDArray[np.int64]
    faults: pa.Table


def compression_of(path: Path) -> str | None:
    """gzip, bz2 or None, by suffix."""
    return _COMPRESSIONS.get(path.suffix.lower())


def first_row(path: Path, delimiter: str, *, quoted: bool) -> list[str]:
    """The cells of the first row. Raises SourceError where the file cannot be read."""
    try:
        with pa.input_stream(path, compression=compression_of(path)) as stream:
            start = stream.read(_HEADER_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error}") from None
    if not quoted:
        return start.splitlines()[0].split(delimiter) if start else []
    return next(read_csv(io.StringIO(start, newline=""), delimiter=delimiter), [])


def read_blocks(
    path: Path,
    delimiter: str,
    columns: list[str],
    *,
    header: bool,
    quoted: bool,
    wanted: list[str] | None = None,
) -> Iterator[Block]:
    """The rows of a text table with `columns`, compressed or not, of which `wanted` are kept (default: all).

    A row with another number of cells is a fault; so is the rest of a file that breaks off or breaks the syntax.
    """
    bad: list[tuple[int, int, str]] = []  # number, cells, digest

    def skip(row: csv.InvalidRow) -> str:
        text = "" if row.text is None else row.text
        bad.append((row.number - header, row.actual_columns, sha256_bytes(text.encode("utf-8", "replace"))))
        return "skip"

    at, told = 1, 0
    try:
        with pa.input_stream(path, compression=compression_of(path)) as stream:
            blocks = csv.open_csv(
                stream,
                # one thread, or rows have no numbers
                read_options=csv.ReadOptions(
                    block_size=_BLOCK_BYTES,
                    use_threads=False,
                    column_names=columns,
                    skip_rows_after_names=0,
                    skip_rows=int(header),
                ),
                parse_options=csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=skip,
                ),
                convert_options=csv.ConvertOptions(
                    column_types={name: pa.binary() for name in columns},
                    include_columns=wanted or columns,
                    strings_can_be_null=False,
                ),
            )
            for rows in blocks:
                numbers = _skipping(at, rows.num_rows, [number for number, _, _ in bad])
                yield Block(rows, numbers, _faults(path, bad[told:], len(columns)))
                told, at = len(bad), int(numbers[-1]) + 1 if len(numbers) else at
    except (pa.ArrowInvalid, OSError) as error:
        broken = fault(f"{path.name}: after row {at - 1}", Reason.UNREADABLE_FILE, str(error)[:300])
        yield Block(None, np.empty(0, np.int64), fault_table([broken]))
    yield Block(None, np.empty(0, np.int64), _faults(path, bad[told:], len(columns)))


def references(path: Path, numbers: NDArray[np.int64]) -> pa.Array:
    """`photos.csv: row 12`: what quarantine calls a row."""
    return pc.binary_join_element_wise(f"{path.name}: row ", pa.array(numbers).cast(pa.string()), "")


def _skipping(first: int, count: int, skipped: list[int]) -> NDArray[np.int64]:
    """`count` row numbers from `first` on, without `skipped` (sorted)."""
    later = [number for number in skipped if number >= first]
    numbers = np.arange(first, first + count + len(later))
    return numbers[~np.isin(numbers, later)][:count]


def _faults(path: Path, bad: list[tuple[int, int, str]], expected: int) -> pa.Table:
    # The row's text stays out of quarantine: it may name the photographer.
    rows = [
        fault(
            f"{path.name}: row {number}",
            Reason.MALFORMED_RECORD,
            f"{cells} cells, not {expected}",
            content=digest,
        )
        for number, cells, digest in bad
    ]
    return fault_table(rows) if rows else FAULTS.empty_table()
