"""Text tables of any size, read a block at a time as raw bytes, with row numbers and the rows that are damaged."""

from __future__ import annotations

import io
from collections.abc import Iterator
from csv import Error as CsvError
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
from geoloc.photos.sources.csv_rows import MOST_ROW_BYTES, Grammar, Rows

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
    try:
        return next(read_csv(io.StringIO(start, newline=""), delimiter=delimiter), [])
    except CsvError as error:
        raise SourceError(f"{path} has no readable first row: {error}") from None


def delimiter_of(path: Path) -> str:
    """Comma or tab, by suffix. Raises SourceError for another."""
    kind = Path(path.stem).suffix if compression_of(path) else path.suffix
    if kind.lower() not in (".csv", ".tsv"):
        raise SourceError(f"{path} must end in .parquet, .csv or .tsv (these two also with .gz or .bz2)")
    return "," if kind.lower() == ".csv" else "\t"


def read_blocks(
    path: Path,
    delimiter: str,
    columns: list[str],
    *,
    header: bool,
    quoted: bool,
    wanted: list[str] | None = None,
    numeric: tuple[str, ...] = (),
) -> Iterator[Block]:
    """The rows of a text table with `columns`, compressed or not, of which `wanted` are kept (default: all).

    A row with another number of cells is a fault; so is a row whose quote does not end, and the rest of a file that
    breaks off. `numeric` columns tell a row that such a quote would swallow from a text of several lines.
    """
    grammar = Grammar(delimiter, len(columns), quoted, tuple(columns.index(name) for name in numeric))
    at, rest = 1 - header, b""
    try:
        with pa.input_stream(path, compression=compression_of(path)) as stream:
            start, ended, whole = True, False, True
            while not (ended and whole):
                more = stream.read(_BLOCK_BYTES) if whole else b""
                ended = ended or (whole and not more)
                text = rest + more
                if start:
                    text, start = text.removeprefix(b"\xef\xbb\xbf"), False
                if ended and not text.endswith((b"\n", b"\r")):
                    text += b"\n"
                rows = grammar.rows(text if ended else text[: _last_line(text)], at, final=ended)
                rest, whole = text[rows.used :], rows.whole
                if whole and len(rest) > _BLOCK_BYTES + 2 * MOST_ROW_BYTES:
                    raise OSError(f"a row of over {_BLOCK_BYTES} bytes")
                yield _block(path, rows, delimiter, columns, quoted, wanted)
                at += len(rows.numbers) + len(rows.spoilt)
    except (pa.ArrowInvalid, OSError) as error:
        broken = fault(f"{path.name}: after row {at - 1}", Reason.UNREADABLE_FILE, str(error)[:300])
        yield Block(None, np.empty(0, np.int64), fault_table([broken]))


def _last_line(text: bytes) -> int:
    """Where the last line that is surely whole ends: a `\\r` at the end may be half of a newline."""
    return max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - 1)) + 1


def _block(
    path: Path, rows: Rows, delimiter: str, columns: list[str], quoted: bool, wanted: list[str] | None
) -> Block:
    """Rows as columns of bytes; those with another number of cells, and the spoilt ones, as faults. Number 0 is the
    header."""
    faults = [
        _fault(path, number, "a quote that does not end", text) for number, text in rows.spoilt if number
    ]
    skipped: list[int] = []

    def skip(row: csv.InvalidRow) -> str:
        skipped.append(row.number - 1)
        number = int(rows.numbers[row.number - 1])
        what = f"{row.actual_columns} cells, not {len(columns)}"
        text = row.text or ""
        faults.append(_fault(path, number, what, text.encode("utf-8" if decodable else "latin-1", "replace")))
        return "skip"

    if not len(rows.numbers):
        return Block(None, rows.numbers, _table(faults))
    # Arrow cannot tell of a bad row that is no UTF-8, so such bytes travel as Latin-1, which every byte is.
    decodable = _is_utf8(rows.good)
    good = rows.good if decodable else rows.good.decode("latin-1").encode("utf-8")
    table = csv.read_csv(
        pa.BufferReader(good),
        # one block and one thread, or rows have no numbers
        read_options=csv.ReadOptions(block_size=len(good) + 1, use_threads=False, column_names=columns),
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
    numbers = np.delete(rows.numbers, skipped)
    if table.num_rows != len(numbers):
        raise OSError(f"{table.num_rows} rows were read where {len(numbers)} are")
    body = int(len(numbers) > 0 and numbers[0] == 0)
    if not decodable:
        columns_back = [_from_latin1(column) for column in table.columns]
        table = pa.table(columns_back, names=table.column_names)
    batches = table.slice(body).combine_chunks().to_batches()
    return Block(batches[0] if batches else None, numbers[body:], _table(faults))


def references(path: Path, numbers: NDArray[np.int64]) -> pa.Array:
    """`photos.csv: row 12`: what quarantine calls a row."""
    return pc.binary_join_element_wise(f"{path.name}: row ", pa.array(numbers).cast(pa.string()), "")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _from_latin1(column: pa.ChunkedArray) -> pa.Array:
    values = (value.decode("utf-8").encode("latin-1") for value in column.to_pylist())
    return pa.array(list(values), pa.binary())


def _fault(path: Path, number: int, what: str, text: bytes) -> dict[str, str | None]:
    # The row's text stays out of quarantine: it may name the photographer.
    return fault(f"{path.name}: row {number}", Reason.MALFORMED_RECORD, what, content=sha256_bytes(text))


def _table(faults: list[dict[str, str | None]]) -> pa.Table:
    return fault_table(faults) if faults else FAULTS.empty_table()
