"""Markdown tables that line up in a terminal and can be pasted into a document."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from tabulate import tabulate


def markdown(rows: Iterable[Iterable[object]], headers: Iterable[object]) -> str:
    """A Markdown table. Floats are rounded to four significant digits; pipes and line breaks in cells are escaped."""
    cells = [[_cell(value) for value in row] for row in rows]
    # disable_numparse: text that looks like a number stays as it is, and all columns are aligned left.
    return tabulate(cells, [_cell(header) for header in headers], tablefmt="github", disable_numparse=True)


def with_interval(
    value: float, low: float, high: float, *, sign: str = "", digits: int = 1, scale: float = 100.0
) -> str:
    """A share in per cent with its interval, such as 12.3 [10.1, 14.5]; no interval if its bounds are NaN.

    Returns "" if `value` is NaN. With sign "+" it is a difference, in points: +1.2 [-0.4, +2.7]. Numbers are
    multiplied by `scale`.
    """
    if pd.isna(value):
        return ""
    shown = [f"{scale * number:{sign},.{digits}f}" for number in (value, low, high)]
    return shown[0] if pd.isna(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def p_text(p: float) -> str:
    """A p-value, such as 0.03 or <0.001; "" if it is NaN."""
    if pd.isna(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ").replace("\r", " ")
