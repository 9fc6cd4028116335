"""Where the rows of a text table begin and end, so that a quote that does not end spoils one row and not the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOST_ROW_BYTES = 1024 * 1024
"""A cell of several lines that is longer is a quote that does not end."""

MOST_ROWS = 100_000
"""Rows of a piece: of lines of a byte or two, a few MB would be millions of faults."""

_NEWLINE = rb"(?:\r\n|\n|\r)"


@dataclass
class Rows:
    """Rows of a piece of a table. good: their bytes; numbers: int64 of each; spoilt: number and bytes of those whose
    quote does not end; used: how many bytes were read; the rest begins a row that the piece breaks off, or a further
    one where it has MOST_ROWS rows. whole: whether all rows that end in it were read."""

    good: bytes
    numbers: NDArray[np.int64]
    spoilt: list[tuple[int, bytes]] = field(default_factory=list)
    used: int = 0
    whole: bool = True


class Grammar:
    """How rows of `cells` cells are written. numeric: cells that hold numbers in every row.

    RFC 4180, as Arrow reads it: a quote opens a cell only at its beginning; what follows its end belongs to the cell.
    """

    def __init__(self, delimiter: str, cells: int, quoted: bool, numeric: tuple[int, ...]) -> None:
        sign = re.escape(delimiter.encode())
        self._cells, self._numeric = cells, numeric
        line_cell, cell = rb"[^%b\r\n]*+" % sign, rb""
        if quoted:
            plain = rb'[^"%b\r\n][^%b\r\n]*+' % (sign, sign)
            line_cell = rb'(?:"(?:[^"\r\n]|"")*+"[^%b\r\n]*+|%b)?+' % (sign, plain)
            cell = rb'(?:"(?:[^"]|"")*+"(?=[%b\r\n])|%b)?+' % (sign, plain)
        line = rb"(?![\r\n])%b(?:%b%b)*+%b" % (line_cell, sign, line_cell, _NEWLINE)
        self._lines = re.compile(rb"(?:%b){0,%d}+" % (line, MOST_ROWS))
        self._empty = re.compile(rb"[\r\n]++")
        self._row = re.compile(rb"%b(?:%b%b)*+%b" % (cell, sign, cell, _NEWLINE))
        self._cell = re.compile(rb"%b(?:%b|%b)" % (cell, sign, _NEWLINE))
        self._open = re.compile(rb'(?:%b%b)*+"(?:[^"]|"")*+\Z' % (cell, sign))
        self._line_cell = re.compile(rb"(%b)(?:%b|\Z)" % (line_cell, sign))
        self._newline = re.compile(_NEWLINE)

    def rows(self, text: bytes, first: int, final: bool) -> Rows:
        """Rows of `text`, numbered from `first` on. Not `final`: more text follows. Empty lines are no rows."""
        good: list[bytes] = []
        numbers: list[NDArray[np.int64]] = []
        spoilt: list[tuple[int, bytes]] = []
        at, last = 0, first + MOST_ROWS
        while at < len(text) and first < last:
            lines = self._lines.match(text, at)
            end = at if lines is None else lines.end()
            if end > at:
                part = text[at:end]
                count = part.count(b"\n") + part.count(b"\r") - part.count(b"\r\n")
                good.append(part)
                numbers.append(np.arange(first, first + count))
                first, at = first + count, end
                continue
            newline = self._newline.search(text, at)
            if newline is None:
                break
            if empty := self._empty.match(text, at):
                at = empty.end()
                continue
            row = self._row.match(text, at)
            if row is None and not final and len(text) - at < MOST_ROW_BYTES and self._open.match(text, at):
                break  # the quote may end in what follows
            if row is not None and row.end() - at <= MOST_ROW_BYTES and self._is_one(row[0]):
                good.append(row[0])
                numbers.append(np.array([first]))
                at = row.end()
            else:
                spoilt.append((first, text[at : newline.end()]))
                at = newline.end()
            first += 1
        made = np.concatenate([np.empty(0, np.int64), *numbers])
        return Rows(b"".join(good), made, spoilt, at, whole=first < last)

    def _is_one(self, row: bytes) -> bool:
        """Whether lines in a cell of this row are text, and not rows of their own."""
        cells = [cell.rstrip(b"\r\n") for cell in self._cell.findall(row)]
        if len(cells) != self._cells:
            return False
        lines = self._newline.split(row)[1:-1]  # behind the last newline is nothing
        broken = [position for position, cell in enumerate(cells) if self._newline.search(cell)]
        if broken and broken[-1] == 0:
            lines = lines[:-1]  # the end of a first cell and all others: as many cells as a row
        return not any(self._is_row(line) for line in lines)

    def _is_row(self, line: bytes) -> bool:
        """Whether a line alone would be a row: so many cells, and numbers where numbers are."""
        cells, at = [], 0
        while at <= len(line) and (match := self._line_cell.match(line, at)):
            cells.append(match[1])
            at = match.end() + (match.end(1) == len(line))
        return (
            at > len(line) and len(cells) == self._cells and all(_is_number(cells[i]) for i in self._numeric)
        )


def _is_number(cell: bytes) -> bool:
    try:
        float(cell.strip(b'" '))
    except ValueError:
        return False
    return True
