"""The result of an evaluation: tidy tables, saved as JSON, CSV and Parquet with equal bytes for equal values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geoloc.files import atomic_path, damage_named, read_json, read_parquet, write_json, write_parquet

TABLES: dict[str, dict[str, str]] = {
    "accuracy": {
        "method": "str", "level": "str", "km": "float64", "accuracy": "float64", "low": "float64",
        "high": "float64", "n": "int64",
    },
    "errors": {
        "method": "str", "mean_km": "float64", "median_km": "float64", "median_low": "float64",
        "median_high": "float64", "median_answered_km": "float64", "answered": "int64", "abstained": "int64",
        "unreadable": "int64", "n": "int64",
    },
    "comparisons": {
        "method": "str", "other": "str", "level": "str", "km": "float64", "difference": "float64",
        "low": "float64", "high": "float64", "p": "float64", "p_corrected": "float64", "asked": "int64",
        "verdict": "str", "n": "int64",
    },
    "baselines": {
        "baseline": "str", "level": "str", "km": "float64", "accuracy": "float64", "low": "float64",
        "high": "float64", "latitude": "float64", "longitude": "float64", "n": "int64",
    },
    "ceilings": {
        "partition": "str", "answer": "str", "level": "str", "km": "float64", "accuracy": "float64", "n": "int64",
    },
    "curve": {"kind": "str", "name": "str", "km": "float64", "accuracy": "float64"},
    "scores": {
        "method": "str", "measure": "str", "value": "float64", "low": "float64", "high": "float64", "n": "int64",
        "unknown": "int64",
    },
}  # fmt: skip
"""The tables and the dtype of each column, also of an empty table."""

PER_PHOTO = {
    "photo_id": "str", "method": "str", "true_latitude": "float64", "true_longitude": "float64",
    "latitude": "float64", "longitude": "float64", "confidence": "float64", "error_km": "float64",
    "status": "str",
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The accuracies and errors of methods on one set of queries, with the settings used.

    Shares are in [0, 1]; distances in km. `low` and `high` bound an interval by photographer, NaN for a single one:
    measures/intervals.py for shares and their differences, a percentile bootstrap for medians. Tables (columns in
    `TABLES`):

    - `accuracy`: method, level: share of all `n` queries within `km` (<=).
    - `errors`: per method, the mean over answered queries, the median over all (abstentions infinitely far) with its
      interval, the median over answered queries, and the counts.
    - `comparisons`: accuracy of `method` less that of `other` (a method or a baseline), on the same photos; verdicts
      are corrected for the number of comparisons asked (measures/comparison.py).
    - `baselines`: as accuracy, with the point answered where there is one.
    - `ceilings`: the best that a perfect classifier could do with the partition, at centroids or centres.
    - `curve`: accuracy against distance; `kind` is method, baseline or ceiling.
    - `scores`: GeoScore, shares in the right country and region, and negative log-likelihood (measures/scores.py)
      of methods and of baselines that are one point; empty in the files of earlier versions.
    - `per_photo` (columns `PER_PHOTO`): each answer of each method; `error_km` is NaN without an answer, and
      `status` is answered, abstained or unreadable.
    """

    protocol: str
    queries: int
    query_photographers: int
    references: int
    levels_km: Mapping[str, float]
    settings: Mapping[str, Any]
    seed: int
    descriptions: Mapping[str, str]
    accuracy: pd.DataFrame
    errors: pd.DataFrame
    comparisons: pd.DataFrame
    baselines: pd.DataFrame
    ceilings: pd.DataFrame
    curve: pd.DataFrame
    scores: pd.DataFrame
    per_photo: pd.DataFrame
    unit: str = "photographers"
    """What `query_photographers` counts: whole photographers, or trips (geoloc/photos/trips.py)."""

    def __repr__(self) -> str:
        return (
            f"Evaluation({len(self.methods)} methods on {self.queries:,} queries by "
            f"{self.query_photographers:,} {self.unit}: {self.protocol})"
        )

    @property
    def whose(self) -> str:
        """Whose the queries are, such as "by 35 photographers" or "of 12 trips"."""
        return f"{'of' if self.unit == 'trips' else 'by'} {self.query_photographers:,} {self.unit}"

    @property
    def methods(self) -> list[str]:
        """The methods' names, in the order in which they were given."""
        return list(self.errors["method"])

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but `per_photo` as JSON values: NaN is None, infinity is "inf"."""
        values: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in TABLES and field.name != "per_photo"
        }
        values = {name: dict(v) if isinstance(v, Mapping) else v for name, v in values.items()}
        return values | {name: table_records(getattr(self, name)) for name in TABLES}

    def save(self, folder: Path | str) -> None:
        """Write evaluation.json, a CSV of each table, and per_photo.parquet; each file is written atomically."""
        folder = Path(folder)
        write_json(folder / "evaluation.json", self.to_dict())
        for name in TABLES:
            write_csv(folder / f"{name}.csv", getattr(self, name))
        write_parquet(folder / "per_photo.parquet", self.per_photo)

    @classmethod
    def load(cls, folder: Path | str) -> Evaluation:
        """Load what `save` wrote. Raises FileNotFoundError for a missing file, DamagedFile for another one."""
        folder = Path(folder)
        file = folder / "evaluation.json"
        values = read_json(file, dict)
        with damage_named(file):
            for name in TABLES:
                # Files of earlier versions have no scores.
                records = values.get(name, []) if name == "scores" else values[name]
                values[name] = make_table(name, records)
            # JSON is written with sorted keys; levels go from fine to coarse, as in every table.
            values["levels_km"] = dict(sorted(values["levels_km"].items(), key=lambda level: level[1]))
        with damage_named(folder / "per_photo.parquet"):
            per_photo = read_parquet(folder / "per_photo.parquet", PER_PHOTO).astype(PER_PHOTO)
        with damage_named(file):
            return cls(**values, per_photo=per_photo)


def make_table(name: str, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns table `name` from records, with its columns and dtypes; "inf" and None become numbers again."""
    columns = TABLES[name]
    return pd.DataFrame(records, columns=list(columns)).astype(columns)


def table_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a table as JSON values, one mapping per row: NaN is None, infinities are "inf" and "-inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, float | np.floating):
            if np.isnan(value):
                return None
            return float(value) if np.isfinite(value) else str(float(value))
        return value.item() if isinstance(value, np.generic) else value

    return [{k: plain(v) for k, v in record.items()} for record in table.to_dict(orient="records")]


def write_csv(path: Path | str, table: pd.DataFrame) -> None:
    """Write a table as CSV atomically, with the same line ends on every system."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
