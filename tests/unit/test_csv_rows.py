"""A quote that does not end spoils its own row; texts of several lines stay whole."""

import csv
import io

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from geoloc.photos.sources.csv_rows import Grammar


def split(text: str, cells: int = 4, *, final: bool = True) -> tuple[list[list[str]], list[int], list[int]]:
    rows = Grammar(",", cells, True, (1, 2)).rows(text.encode(), 1, final)
    good = list(csv.reader(io.StringIO(rows.good.decode(), newline="")))
    return good, rows.numbers.tolist(), [number for number, _ in rows.spoilt]


def test_rows_behind_an_open_quote_are_not_swallowed():
    for tail in ('9,1,2,"fine"\n', '9,1,2,end"\n', "9,1,2,plain\n", '9,1,2,""\n'):
        good, numbers, spoilt = split('1,10,20,a\n2,11,21,"open\n3,12,22,b\n' + tail)
        assert spoilt == [2]
        assert numbers == [1, 3, 4]
        assert [row[0] for row in good] == ["1", "3", "9"]


def test_a_text_of_several_lines_is_one_row():
    text = '1,10,20,"a\nb, with Ann, Bob, and Eve\n""c"""\n2,11,21,d\n'
    good, numbers, spoilt = split(text)
    assert good == [["1", "10", "20", 'a\nb, with Ann, Bob, and Eve\n"c"'], ["2", "11", "21", "d"]]
    assert (numbers, spoilt) == ([1, 2], [])


def test_a_row_that_goes_on_in_the_next_piece_waits_for_it():
    rows = Grammar(",", 4, True, (1, 2)).rows(b'1,10,20,a\n2,11,21,"open\nmore\n', 1, False)
    assert rows.used == len(b"1,10,20,a\n")
    assert not rows.spoilt


cells = st.text(st.sampled_from('ab",\n é'), max_size=5)


@given(st.lists(st.tuples(cells, st.integers(0, 9), st.integers(0, 9), cells), max_size=8))
@example([("", 0, 0, "\n")])
def test_what_a_writer_of_csv_writes_is_read_as_it_was(rows):
    stream = io.StringIO(newline="")
    csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    good, numbers, spoilt = split(stream.getvalue())
    assert good == [[str(cell) for cell in row] for row in rows]
    assert (numbers, spoilt) == (list(range(1, len(rows) + 1)), [])


@given(st.text(st.sampled_from('ab",\n\r01'), max_size=200), st.booleans())
def test_every_line_is_read_or_spoilt_once(text, final):
    text += "\n"
    rows = Grammar(",", 4, True, (1, 2)).rows(text.encode(), 1, final)
    numbers = np.concatenate([rows.numbers, [number for number, _ in rows.spoilt]])
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    kept = rows.good + b"".join(data for _, data in rows.spoilt)
    left = text.encode()[rows.used :]
    bare = lambda data: sorted(data.replace(b"\n", b"").replace(b"\r", b""))  # noqa: E731
    assert bare(kept + left) == bare(text.encode())
    assert not (final and left)
