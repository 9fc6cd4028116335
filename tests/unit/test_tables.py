"""Markdown tables: they line up, and no cell can break out of its row."""

from __future__ import annotations

from orchestration.tables import markdown


def test_columns_line_up():
    head, line, first = markdown([["σ=4", "1"]], ["a", "long"]).split("\n")
    assert [cell.strip() for cell in first.strip("|").split("|")] == ["σ=4", "1"]
    assert len(head) == len(line) == len(first)
    assert set(line) == {"|", "-"}


def test_a_cell_cannot_end_its_cell_or_its_row():
    table = markdown([["a|b\n| c\r|", "second"]], ["one|two", "three"])
    head, line, row = table.split("\n")
    assert head.replace(r"\|", "").count("|") == line.count("|") == row.replace(r"\|", "").count("|") == 3
    assert r"a\|b \| c \|" in row


def test_text_stays_text_and_floats_are_rounded():
    row = markdown([["1e3", "007", 0.123456, 12, None]], list("abcde")).split("\n")[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["1e3", "007", "0.1235", "12", "None"]


def test_a_table_without_rows_has_its_header():
    assert markdown([], ["a", "b"]).count("\n") == 1
