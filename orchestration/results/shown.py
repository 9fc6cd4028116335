"""Tables of an evaluation as text: accuracy or differences by level, and what other projects print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from geoloc.evaluation.measures.scores import COUNTRY, GEOSCORE, NLL, REGION
from geoloc.evaluation.result import Evaluation
from orchestration.tables import markdown, with_interval

_SCALES = {GEOSCORE: (1.0, 0), COUNTRY: (100.0, 1), REGION: (100.0, 1), NLL: (1.0, 3)}
"""What each measure is multiplied by, and the decimals that it is shown with."""
_TITLES = {
    GEOSCORE: "GeoScore, 0 to 5000",
    COUNTRY: "right country, %",
    REGION: "right region (admin-1), %",
    NLL: "NLL, nats",
}


def level_rows(
    table: pd.DataFrame, value: str, methods: Sequence[str], *, by: str = "method", digits: int = 1
) -> list[list[str]]:
    """One row per method, one cell per level: the value with its interval and, for a difference, the verdict."""
    cells: Mapping[tuple[str, str], str] = {
        (row[by], row["level"]): with_interval(
            row[value], row["low"], row["high"], sign="+" if value == "difference" else "", digits=digits
        )
        + (f" {row['verdict']}" if row.get("verdict") in ("better", "worse") else "")
        for row in table.to_dict(orient="records")
    }
    levels = list(dict.fromkeys(table["level"]))
    return [[method, *(cells[method, level] for level in levels)] for method in methods]


def score_table(evaluation: Evaluation, *, digits: int = 1) -> list[str]:
    """What other projects print, as lines: a table with a row a method, and what its numbers leave out. `digits` are
    those of percentages."""
    scores, errors = evaluation.scores, evaluation.errors.set_index("method")
    measures = [name for name in _TITLES if name in set(scores["measure"])]
    cells = {
        (row.method, row.measure): with_interval(
            row.value,
            row.low,
            row.high,
            scale=_SCALES[row.measure][0],
            digits=digits if row.measure in (COUNTRY, REGION) else _SCALES[row.measure][1],
        )
        for row in scores.itertuples()
    }
    baselines = [name for name in dict.fromkeys(scores["method"]) if name not in errors.index]
    rows = [
        [
            method,
            *(cells.get((method, measure), "") for measure in measures),
            _median(errors.loc[method, "median_km"]),
            f"{errors.loc[method, 'abstained'] + errors.loc[method, 'unreadable']:,}",
        ]
        for method in evaluation.methods
    ]
    rows += [[f"({name})", *(cells.get((name, one), "") for one in measures), "", ""] for name in baselines]
    table = markdown(rows, ["method", *(_TITLES[one] for one in measures), "median km", "no answer"])
    lines = []
    at_sea = scores.loc[scores["measure"] == COUNTRY, "unknown"].max() if len(scores) else 0
    if at_sea:
        lines.append(f"{at_sea:,} photos are in no known country, and count as wrong there")
    without = scores[(scores["measure"] == NLL) & (scores["unknown"] > 0)]
    if len(without):
        told = ", ".join(f"{row.unknown:,} ({row.method})" for row in without.itertuples())
        lines.append(f"NLL leaves out photos without a probability: {told}")
    # Markdown takes a line right below a table for a row of it.
    return [table, *(["", *lines] if lines else [])]


def _median(km: float) -> str:
    return "beyond all" if np.isinf(km) else f"{km:,.1f}"
