"""Tables about the methods that are chosen on validation photos: what was chosen, what it is worth, how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from geoloc.evaluation.measures.calibration import calibration_error, calibration_table
from geoloc.evaluation.result import Evaluation
from geoloc.localizers.chosen.choice import ALONE
from orchestration.assets.chosen import ChosenMethods, Collector


def combined_against_alone(evaluation: Evaluation, methods: ChosenMethods) -> pd.DataFrame:
    """Whether the combination beats classes and neighbours alone: a row per method that it was compared with, a column
    per level with the paired difference in points and its verdict. Empty without a combination or these comparisons."""
    combined = next((name for name, one in methods.shown if one.way != ALONE), None)
    name = next(name for name, one in zip(methods.names, methods.choices, strict=True) if one.way == ALONE)
    by_neighbour = [
        one
        for one in evaluation.methods
        if one.startswith((name, name.replace("]kNN", "]NN"))) and " km" not in one
    ]
    rows = []
    for other in [evaluation.methods[0], *by_neighbour] if combined else []:
        table = evaluation.comparisons
        pair = table[table["method"].isin([combined, other]) & table["other"].isin([combined, other])]
        if pair.empty:
            continue
        cells: dict[str, str | None] = {}
        for at in pair.itertuples():
            gain = at.difference if at.method == combined else -at.difference
            points = round(100 * gain, 1) + 0.0  # never -0.0
            sure = "undecided" if at.verdict == "undecided" else "better" if gain > 0 else "worse"
            cells[str(at.level)] = f"{points:+.1f} {sure}"
        rows.append({"method": combined, "other": other, **cells})
    return pd.DataFrame(rows)


def chosen_tables(evaluation: Evaluation, collectors: Sequence[Collector]) -> dict[str, pd.DataFrame]:
    """What was chosen, whether combinations beat what they combine, how sure the methods are and how well their regions
    cover, as diagnostics by title; empty if nothing was chosen."""
    tables = {
        "combined_against_alone": [combined_against_alone(evaluation, one.methods) for one in collectors],
        "chosen_on_validation": [one.methods.table() for one in collectors],
        "confidences_by_neighbour": [confidences(evaluation, one.methods) for one in collectors],
        "regions_by_neighbour": [one.regions() for one in collectors],
    }
    return {name: pd.concat(some, ignore_index=True) for name, some in tables.items() if any(map(len, some))}


def confidences(evaluation: Evaluation, methods: ChosenMethods) -> pd.DataFrame:
    """Whether confidences are what they say: for each method the distance that they are about, their mean, the share of
    answers within that distance, and the expected calibration error. Photos without an answer do not count."""
    rows = []
    for name, choice in methods.shown:
        found = evaluation.per_photo
        found = found[(found["method"] == name) & (found["status"] == "answered")]
        if choice.scaling is None or found.empty:
            continue
        right = found["error_km"].to_numpy() <= choice.km
        sure = found["confidence"].to_numpy(dtype=float).clip(0, 1)
        rows.append(
            {
                "method": name,
                "within km": choice.km,
                "mean confidence": float(sure.mean()),
                "right": float(right.mean()),
                "calibration error": calibration_error(calibration_table(sure, right)),
                "photos": len(found),
                "fitted on": choice.scaling.photos,
            }
        )
    return pd.DataFrame(rows).round(10)
