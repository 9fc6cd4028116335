"""Diagnostics of an evaluation: top-k accuracy, class bias, accuracy by place and density, risk and coverage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.class_bias import class_bias
from geoloc.evaluation.measures.groups import (
    accuracy_by_group,
    column_groups,
    continent_groups,
    country_groups,
    density_groups,
    errors_by_method,
)
from geoloc.evaluation.measures.selective import area_under_risk_coverage, best_possible_area, risk_coverage
from geoloc.evaluation.measures.top_k import top_k_accuracy
from geoloc.evaluation.result import Evaluation, table_records, write_csv
from geoloc.files import damage_named, read_json, write_json
from geoloc.localizers.base import Alternatives
from geoloc.partitions.base import Partition
from geoloc.photos.owners import photographer_keys

FILE = "diagnostics.json"
REFERENCE_SIZE, AT_RANDOM = "reference_size", "at random"
"""The table of accuracy against the number of references (measures/reference_size.py), and how most of its rows are
drawn."""
SMALLEST_COUNTRY = 20
"""Countries with fewer photos than this are grouped together."""
_MOST_ALTERNATIVES = 5
_CURVES = ("risk_coverage",)
"""Tables with a row per photo, saved as CSV only."""
_DECIMALS = 10


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Tables by name. `method` is the main method, the first of the evaluation. Shares are in [0, 1].

    - `top_k`: for each method with alternatives, the accuracy of the best of its top k.
    - `class_bias`: for each partition, how often its cells are true and answered.
    - `accuracy_by_continent`, `accuracy_by_country` (of at least SMALLEST_COUNTRY photos), `accuracy_by_density` (of
      the references), `accuracy_by_indoor` (missing if prob_indoor is unknown for all): for each method.
    - `risk_coverage`: for the main method at each level, a row per photo, most confident first.
    - `selective`: for the main method at each level, the area under that curve and the smallest possible area.
    - further tables that the caller adds.
    """

    method: str
    tables: Mapping[str, pd.DataFrame]

    def save(self, folder: Path | str) -> None:
        """Write diagnostics.json, and each table as CSV by its name; each file is written atomically."""
        folder = Path(folder)
        kept = [
            {"name": name, "columns": list(table.columns), "rows": table_records(table)}
            for name, table in self.tables.items()
            if name not in _CURVES
        ]
        write_json(folder / FILE, {"method": self.method, "tables": kept})
        for name, table in self.tables.items():
            write_csv(folder / f"{name}.csv", table)

    @classmethod
    def load(cls, folder: Path | str) -> Diagnostics:
        """Load all tables but the curves from diagnostics.json. Raises DamagedFile for another file."""
        file = Path(folder) / FILE
        values = read_json(file, dict)
        with damage_named(file):
            return cls(
                values["method"],
                # A column of nothing but None is one of NaN.
                {
                    one["name"]: pd.DataFrame(one["rows"], columns=one["columns"])
                    .fillna(np.nan)
                    .infer_objects()
                    for one in values["tables"]
                },
            )

    def overview(self) -> dict[str, pd.DataFrame]:
        """Returns the tables for people, by title: the main method only, in per cent, a column per level."""
        shown = {}
        for name, table in self.tables.items():
            if name in _CURVES:
                continue
            title = name.replace("_", " ")
            if "level" not in table:
                shown[title] = table.round(3)
                continue
            if name == REFERENCE_SIZE:
                shown[title] = _by_references(table)
                continue
            own = table[table["method"] == self.method] if "method" in table else table
            if not len(own):
                continue
            if name == "selective":
                shown[title] = own.drop(columns="method").round(3)
                continue
            by = "k" if name == "top_k" else "group"
            wide = own.pivot(index=by, columns="level", values="accuracy")
            wide = (wide.loc[list(dict.fromkeys(own[by])), list(dict.fromkeys(own["level"]))] * 100).round(1)
            photos = own.drop_duplicates(by).set_index(by)["n"]
            wide.insert(0, "photos", photos.loc[wide.index])
            shown[title] = wide.rename_axis(columns=None).reset_index()
        return shown


def _by_references(table: pd.DataFrame) -> pd.DataFrame:
    """REFERENCE_SIZE for people: a row a method and set of references, a column a level, in per cent."""
    by = ["method", "drawn", "source", "references"]
    if not table["source"].any():
        by.remove("source")
    wide = table.pivot(index=by, columns="level", values="accuracy")
    rows = table[by].drop_duplicates()
    wide = (
        wide.loc[list(rows.itertuples(index=False, name=None)), list(dict.fromkeys(table["level"]))] * 100
    ).round(1)
    return wide.rename_axis(columns=None).reset_index()


def diagnose(
    evaluation: Evaluation,
    alternatives: Mapping[str, Alternatives],
    answered_cells: Mapping[str, ArrayLike],
    queries: pd.DataFrame,
    references: pd.DataFrame,
    partitions: Mapping[str, Partition],
    *,
    unreadable: Collection[str] = (),
    leave_photographer_out: bool = False,
) -> Diagnostics:
    """Diagnose an evaluation of `queries` (its photos in its order, with the catalog's columns).

    - `alternatives`: by method, for those that have any.
    - `answered_cells`: by partition, the most probable cell of each photo, int (N,), -1 for none.
    - `references`: latitude and longitude.
    - `unreadable`: photo ids.
    - `leave_photographer_out`: the references are the queries, and those by a photo's own photographer do not count.

    Tables without input are missing. Levels and confidence are the evaluation's. Raises ValueError for photos
    that are not in the evaluation, and as the measures do.
    """
    levels_km, confidence = evaluation.levels_km, evaluation.settings["confidence"]
    latitude, longitude, owner = queries["latitude"], queries["longitude"], photographer_keys(queries)
    readable = ~queries["photo_id"].isin(set(unreadable)).to_numpy()
    errors = errors_by_method(evaluation, queries)
    tables: dict[str, pd.DataFrame] = {}

    ranked = []
    for method, places in alternatives.items():
        most = min(_MOST_ALTERNATIVES, np.asarray(places.latitude).shape[1])
        table = top_k_accuracy(
            places, queries, ks=range(1, most + 1), readable=readable, levels_km=levels_km, confidence=confidence,
        )  # fmt: skip
        table.insert(0, "method", method)
        ranked.append(table)
    if ranked:
        tables["top_k"] = pd.concat(ranked, ignore_index=True)

    biases = [
        {"partition": name, "cells": partitions[name].cell_count}
        | asdict(class_bias(partitions[name].assign(latitude, longitude), cells, partitions[name].cell_count))
        for name, cells in answered_cells.items()
    ]
    if biases:
        tables["class_bias"] = pd.DataFrame(biases).round(_DECIMALS)

    groups: dict[str, tuple[ArrayLike | pd.Categorical, int]] = {
        "continent": (continent_groups(latitude, longitude), 1),
        "country": (country_groups(latitude, longitude), SMALLEST_COUNTRY),
    }
    if len(references):
        owners = photographer_clusters(owner) if leave_photographer_out else None
        density = density_groups(
            latitude,
            longitude,
            references["latitude"],
            references["longitude"],
            owner=owners,
            reference_owner=owners,
        )
        groups["density"] = (density, 1)
    if "prob_indoor" in queries and queries["prob_indoor"].notna().any():
        groups["indoor"] = (column_groups(queries["prob_indoor"], [0.5], "prob_indoor"), 1)
    for name, (group, smallest) in groups.items():
        tables[f"accuracy_by_{name}"] = accuracy_by_group(
            errors, group, owner, smallest=smallest, levels_km=levels_km, confidence=confidence,
        )  # fmt: skip

    main = evaluation.methods[0]
    rows = evaluation.per_photo[evaluation.per_photo["method"] == main]
    sure = rows.set_index("photo_id")["confidence"].loc[list(queries["photo_id"])].to_numpy()
    curves, areas = [], []
    for level, km in levels_km.items():
        curve = risk_coverage(sure, errors[main], km)
        areas.append(
            {
                "method": main, "level": level, "km": float(km),
                "area": area_under_risk_coverage(curve),
                "least_area": best_possible_area(errors[main], km),
                "risk_of_all": float(curve["risk"].iloc[-1]), "n": len(curve),
            }
        )  # fmt: skip
        curve.insert(0, "level", level)
        curves.append(curve)
    tables["selective"] = pd.DataFrame(areas).round(_DECIMALS)
    tables["risk_coverage"] = pd.concat(curves, ignore_index=True).round(_DECIMALS)
    return Diagnostics(main, tables)
