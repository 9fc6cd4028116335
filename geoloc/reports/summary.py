"""The report's sentences and table rows: the headline, and the warning if no method beats a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geoloc.evaluation.measures.scores import COUNTRY, GEOSCORE, NLL, REGION
from geoloc.evaluation.result import Evaluation
from geoloc.reports.pages import count, kilometres, percent

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

HEADLINE_LEVEL = "city"


TRIP_WARNING = (
    "Held out by trip, not by photographer: test photos are by people whose other trips were trained on, with the same "
    "cameras and habits, and places that they visit again, such as home, are on both sides. These numbers show how "
    "well further photos of the same people are located, and nothing about photos by other people. Intervals are by "
    "trip."
)


def warnings(evaluation: Evaluation) -> tuple[str, ...]:
    """What an evaluation cannot show, for the top of the page."""
    return (TRIP_WARNING,) if evaluation.unit == "trips" else ()


def bent_warnings(splits: pd.DataFrame) -> tuple[str, ...]:
    """What says that test or validation photos are not of the population they were drawn from, in one sentence.

    `splits` has a row a photo: split, weight (the design weight; null where nothing was drawn).
    """
    drawn = splits.dropna(subset="weight").groupby("split")["weight"].agg(["min", "max"])
    bent = drawn[drawn["max"] > drawn["min"] * (1 + 1e-9)].sort_index()
    if bent.empty:
        return ()
    each = [
        f"a {row.Index} photo represents {row.min:.3g} to {row.max:.3g} photos" for row in bent.itertuples()
    ]
    return (
        f"Crowded places are rarer among the {' and '.join(bent.index)} photos than in the collection "
        f"(splits.max_share_per_stratum, splits.NAME.sample): {', '.join(each)} (column weight of the splits). "
        "Accuracies count each photo once.",
    )


def headline(evaluation: Evaluation) -> tuple[str, pd.Series]:
    """The level of the headline (city, or the middle one where there is none) and the best method's row there."""
    levels = list(evaluation.levels_km)
    level = HEADLINE_LEVEL if HEADLINE_LEVEL in levels else levels[len(levels) // 2]
    at = evaluation.accuracy[evaluation.accuracy["level"] == level]
    return level, at.loc[at["accuracy"].idxmax()]


def digits(evaluation: Evaluation) -> int:
    """Returns the decimals of percentages: a second one means nothing for fewer than a thousand photos."""
    return 2 if evaluation.queries >= 1000 else 1


def sentences(evaluation: Evaluation) -> list[str]:
    """The result in a few plain sentences."""
    level, best = headline(evaluation)
    decimals = digits(evaluation)
    methods = len(evaluation.methods)
    said = [
        f"{'The best of ' + str(methods) + ' methods' if methods > 1 else 'The method'}, {best['method']}, places "
        f"{percent(best['accuracy'], decimals)} % of {count(evaluation.queries)} photos {evaluation.whose} "
        f"within {best['km']:g} km of where they were taken"
        f"{_interval_text(evaluation, best, decimals)}."
    ]
    at = evaluation.baselines[evaluation.baselines["level"] == level]
    if len(at):
        top = at.loc[at["accuracy"].idxmax()]
        said.append(
            f"Without looking at the photo, the best baseline ({top['baseline']}) gets "
            f"{percent(top['accuracy'], decimals)} %."
        )
        lost = unbeaten_levels(evaluation)
        if lost:
            said.append(
                f"At {_listed(lost)} no method is shown to be better than the best baseline: "
                "these photos do not show that looking at the photo helps there."
            )
    silent = evaluation.errors[(evaluation.errors["abstained"] + evaluation.errors["unreadable"]) > 0]
    if len(silent):
        worst = silent.loc[(silent["abstained"] + silent["unreadable"]).idxmax()]
        said.append(
            f"Photos without an answer count as wrong: up to {count(int(worst['abstained']))} abstentions and "
            f"{count(int(worst['unreadable']))} unreadable photos ({worst['method']})."
        )
    return said


def unbeaten_levels(evaluation: Evaluation) -> list[str]:
    """Levels at which no method's paired interval lies above the best baseline there."""
    lost = []
    for level in evaluation.levels_km:
        at = evaluation.baselines[evaluation.baselines["level"] == level]
        if at.empty:
            continue
        top = at.loc[at["accuracy"].idxmax(), "baseline"]
        rows = evaluation.comparisons
        rows = rows[(rows["level"] == level) & (rows["other"] == top)]
        if not (rows["verdict"] == "better").any():
            lost.append(level)
    return lost


def tiles(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """A few numbers to see first: value, unit, what it is."""
    level, best = headline(evaluation)
    errors = evaluation.errors.set_index("method").loc[best["method"]]
    decimals = digits(evaluation)
    return [
        (percent(best["accuracy"], decimals), "%", f"within {best['km']:g} km ({level}), {best['method']}"),
        (kilometres(errors["median_km"]), "km", "median error of the same method, over all photos"),
        (
            count(evaluation.queries),
            "",
            f"query photos {evaluation.whose}",
        ),
        (count(evaluation.references), "", "reference photos with known places"),
    ]


def accuracy_rows(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Rows of the accuracy table, by group: methods, baselines, ceilings. A cell a level, best method marked."""
    best = evaluation.accuracy.groupby("level")["accuracy"].max()
    errors = evaluation.errors.set_index("method")
    groups: dict[str, list[dict[str, Any]]] = {"methods": [], "baselines": [], "ceilings": []}
    for name, at in evaluation.accuracy.groupby("method", sort=False):
        cells = _cells(at)
        for cell in cells:
            cell["best"] = (
                len(errors) > 1 and cell["accuracy"] == best[cell["level"]] and cell["accuracy"] > 0
            )
        row = errors.loc[name]
        groups["methods"].append(
            {
                "name": name,
                "about": evaluation.descriptions.get(str(name), ""),
                "cells": cells,
                "median_km": row["median_km"],
                "median_low": row["median_low"],
                "median_high": row["median_high"],
                "mean_km": row["mean_km"],
                "abstained": int(row["abstained"]),
                "unreadable": int(row["unreadable"]),
            }
        )
    for name, at in evaluation.baselines.groupby("baseline", sort=False):
        groups["baselines"].append(
            {"name": name, "about": _BASELINE_NOTES.get(str(name), ""), "cells": _cells(at)}
        )
    for (name, answer), at in evaluation.ceilings.groupby(["partition", "answer"], sort=False):
        point = _ANSWERS.get(str(answer), str(answer))
        groups["ceilings"].append(
            {
                "name": f"perfect classifier, {name} cells",
                "about": f"every photo put in its true cell, answered by the cell's {point}",
                "cells": [{**cell, "low": np.nan, "high": np.nan} for cell in _cells(at)],
            }
        )
    return groups


def comparison_rows(evaluation: Evaluation) -> dict[str, list[dict[str, Any]]]:
    """Rows of the comparison tables: methods with each other, and methods with baselines."""
    methods = set(evaluation.methods)
    groups: dict[str, list[dict[str, Any]]] = {"methods": [], "baselines": []}
    for (method, other), at in evaluation.comparisons.groupby(["method", "other"], sort=False):
        group = "methods" if other in methods else "baselines"
        groups[group].append({"method": method, "other": other, "cells": at.to_dict(orient="records")})
    return groups


def score_rows(evaluation: Evaluation) -> dict[str, Any]:
    """The table of what other projects print: `measures`, and `rows` of a name and cells by measure, as the evaluation
    has them, of methods and then (`aside`) of baselines; `at_sea` photos are in no known country. No rows for
    evaluations of earlier versions."""
    scores = evaluation.scores
    return {
        "measures": [name for name in _MEASURES if (scores["measure"] == name).any()],
        "rows": [
            {
                "name": name,
                "aside": name not in evaluation.methods,
                "cells": {row["measure"]: row for row in at.to_dict(orient="records")},
            }
            for name, at in scores.groupby("method", sort=False)
        ],
        "at_sea": int(scores.loc[scores["measure"] == COUNTRY, "unknown"].max()) if len(scores) else 0,
    }


def partition_facts(partition: Partition) -> str:
    """A sentence on a partition."""
    counts = partition.photo_counts()
    inside = int(counts.sum())
    return (
        f"{count(partition.cell_count)} cells hold {count(inside)} photos: "
        f"{count(int(np.median(counts)))} in the median cell, {count(int(counts.max()))} in the fullest. "
        f"{count(partition.fitted_photos - inside)} of the {count(partition.fitted_photos)} training photos are in "
        "no cell, and do not train its head."
    )


_MEASURES = (GEOSCORE, COUNTRY, REGION, NLL)
_ANSWERS = {"centroid": "photo centroid", "centre": "centre"}
_BASELINE_NOTES = {
    "densest cell": "always the photo centroid of the cell with most photos",
    "best constant point": "always one point, the best for each level, chosen on the references",
    "random reference": "the place of a reference photo drawn at random, in expectation",
}


def _cells(at: pd.DataFrame) -> list[dict[str, Any]]:
    return [{"best": False, **record} for record in at.to_dict(orient="records")]


def _interval_text(evaluation: Evaluation, row: pd.Series, digits: int) -> str:
    if np.isnan(row["low"]):
        return f" (no interval: one {evaluation.unit[:-1]} only)"
    share = f"{100 * evaluation.settings['confidence']:g} %"
    return f" ({share} interval {percent(row['low'], digits)} to {percent(row['high'], digits)} %)"


def _listed(names: list[str]) -> str:
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return f"{text} level"
