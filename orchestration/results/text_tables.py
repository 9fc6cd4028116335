"""Tables that people read in a terminal, and that stand in a document as they are."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table whose columns line up in a terminal too."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in table]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]


def with_interval(value: float, low: float, high: float, *, sign: str = "") -> str:
    """A share in per cent with its interval, 12.3 [10.1, 14.5]; without one where it is NaN, empty where all are.

    With sign "+" it is a difference, in points: +1.2 [-0.4, +2.7].
    """
    if pd.isna(value):
        return ""
    shown = [f"{100 * number:{sign}.1f}" for number in (value, low, high)]
    return shown[0] if pd.isna(low) else f"{shown[0]} [{shown[1]}, {shown[2]}]"
