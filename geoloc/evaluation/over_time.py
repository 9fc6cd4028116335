"""Accuracy by region and calibration over time: the evaluations of one build after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.measures.calibration import calibration_error, calibration_table
from geoloc.evaluation.result import Evaluation
from geoloc.files import damage_named

DRAWS = 99
REGIONS_FILE = "accuracy_by_continent.csv"
"""In an evaluation's folder: the accuracy of its main method by continent."""


@dataclass(frozen=True)
class Dated:
    """The folder of an evaluation on one test set, when it was made and of which data version."""

    folder: Path
    made: str
    data_version: str


def regions_over_time(reports: Sequence[Dated]) -> pd.DataFrame:
    """A row per report, continent and level: `made`, `data_version`, `method`, `group`, `level`, `accuracy`, `low`,
    `high`, `n`, in the order of `reports`, oldest first. Reports without regions have no rows."""
    frames = []
    for report in reports:
        file = report.folder / REGIONS_FILE
        if not file.is_file():
            continue
        with damage_named(file):
            table = pd.read_csv(file)
            table = table[["method", "group", "level", "accuracy", "low", "high", "n"]]
        frames.append(table.assign(made=report.made, data_version=report.data_version))
    columns = ["made", "data_version", "method", "group", "level", "accuracy", "low", "high", "n"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def falls(table: pd.DataFrame, bound: float) -> pd.DataFrame:
    """The regions and levels where the newest report is worse than the one before by more than `bound`, and whose
    intervals do not overlap: `group`, `level`, `before`, `now`. Methods may have other names (another partition)."""
    made = list(dict.fromkeys(table["made"]))
    if len(made) < 2:
        return pd.DataFrame(columns=["group", "level", "before", "now"])
    before, now = (table[table["made"] == one].set_index(["group", "level"]) for one in made[-2:])
    both = before.join(now, how="inner", lsuffix="_before", rsuffix="_now")
    worse = both[
        (both["accuracy_before"] - both["accuracy_now"] > bound) & (both["high_now"] < both["low_before"])
    ]
    found = worse.rename(columns={"accuracy_before": "before", "accuracy_now": "now"}).reset_index()
    return found[["group", "level", "before", "now"]]


def calibration_over_time(reports: Sequence[Dated]) -> pd.DataFrame:
    """A row per report: `made`, `data_version`, `method`, `km`, and `error`, the expected calibration error of the main
    method's confidences for being within `km`.

    `p` is how often chance alone gives as much. A confidence is about a cell, whose size is not recorded: `km` is the
    level at which the oldest report was best calibrated, and the later ones are measured at the same.
    """
    rows: list[tuple[str, str, str, float, float, float]] = []
    for report in reports:
        evaluation = Evaluation.load(report.folder)
        method = evaluation.methods[0]
        answers = evaluation.per_photo[evaluation.per_photo["method"] == method]
        answers = answers[answers["status"] == "answered"]
        if answers.empty:
            continue
        errors = {
            km: calibration_error(calibration_table(answers["confidence"], answers["error_km"].le(km)))
            for km in evaluation.levels_km.values()
        }
        km = rows[0][3] if rows and rows[0][3] in errors else min(errors, key=errors.__getitem__)
        p = _by_chance(answers["confidence"].to_numpy(), errors[km])
        rows.append((report.made, report.data_version, method, km, errors[km], p))
    return pd.DataFrame(rows, columns=["made", "data_version", "method", "km", "error", "p"])


def _by_chance(confidence: NDArray[np.float64], error: float) -> float:
    """How often answers that are right exactly as often as they say have as large an error: with few photos, often."""
    generator = np.random.default_rng(0)
    drawn = [
        calibration_error(calibration_table(confidence, generator.random(len(confidence)) < confidence))
        for _ in range(DRAWS)
    ]
    return (1 + sum(one >= error for one in drawn)) / (1 + DRAWS)
