"""Rows at the end of a table that sum it up: means, accuracies, a second header. They are of no photo."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.external.tables import PredictionsError, Table

_WORDS = frozenset(
    {
        "accuracy",
        "acc",
        "all",
        "average",
        "avg",
        "count",
        "max",
        "mean",
        "median",
        "min",
        "overall",
        "std",
        "sum",
    }
    | {"summary", "total", "totals"}
)
"""Ids of such rows, without punctuation."""
_FRACTION = re.compile(r"[+-]?\d*\.(?!0+$)\d+%?")
"""An accuracy in the place of an id."""
_MOST = 20
_AFTER_HEADER = 3


def without_summary(
    table: Table, matched: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.bool_], list[str]]:
    """Returns which rows are of photos, bool (N,), and a note that names the rows at the end that are not.

    `matched` rows (N,) are of a known photo, however they look; None if nobody knows. A row that sums up has no
    id, a word such as `mean` or a fraction in its place, text for coordinates, another number of cells, or, where it is
    known that it is of no photo, no coordinates. Up to three rows below a second header are such rows too.
    Raises PredictionsError for a row with another number of cells elsewhere.
    """
    names = table.texts("photo_id")
    places = [table.texts(field) for field in ("latitude", "longitude")]
    columns = [table.numeric(field) for field in ("latitude", "longitude")]
    worded = np.any([bad for _, bad in columns], axis=0)
    empty = np.any([np.isnan(values) & ~bad for values, bad in columns], axis=0)
    broken, rows = dict(table.broken), {int(number): i for i, number in enumerate(table.numbers)}

    def sums_up(number: int) -> bool:
        if number in broken:
            return True
        i = rows[number]
        word = "".join(c for c in (names[i] or "").lower() if c.isalpha())
        return (
            names[i] is None
            or word in _WORDS
            or bool(worded[i] or (matched is not None and empty[i]))
            or _FRACTION.fullmatch(names[i] or "") is not None
        )

    def is_header(number: int) -> bool:
        if number in broken:
            return False
        texts = [one[rows[number]] for one in (names, *places)]
        return all(text is not None and any(c.isalpha() for c in text) for text in texts) and bool(
            all(bad[rows[number]] for _, bad in columns)
        )

    tail: list[int] = []
    for number in sorted([*rows, *broken], reverse=True)[:_MOST]:
        if number in rows and matched is not None and matched[rows[number]]:
            break
        tail.insert(0, number)
    headers = [k for k, number in enumerate(tail) if is_header(number)]
    start = len(tail)
    while start and (sums_up(tail[start - 1]) or any(k < start - 1 <= k + _AFTER_HEADER for k in headers)):
        start -= 1
    left_out = tail[start:]
    if wrong := [number for number in broken if number not in left_out]:
        raise PredictionsError(f"{table.name}: row {min(wrong)} has {broken[min(wrong)]}")
    kept = np.ones(len(table), bool)
    kept[[rows[number] for number in left_out if number in rows]] = False
    if not left_out:
        return kept, []
    shown = [
        f"row {number} ({broken[number] if number in broken else _shown(names[rows[number]])})"
        for number in left_out[:5]
    ]
    more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
    return kept, [f"rows at the end that are of no photo are left out: {', '.join(shown)}{more}"]


def _shown(name: str | None) -> str:
    return "no id" if name is None else repr(name[:40])
