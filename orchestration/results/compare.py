"""`geoloc compare`: methods of several recipes side by side on the same test photos, with paired differences.

An example: which partition is best? For recipes that differ only in their partitions it gives the accuracies, the
paired differences from the first, and the ceiling: what a perfect classifier would reach with the same cells. All
numbers come from `evaluate`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.claims.evaluated import Built, Choice, by_class, trainings_of
from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.comparison import compare as paired
from geoloc.evaluation.measures.groups import errors_by_method
from geoloc.evaluation.measures.trainings import Luck, pooled_luck
from geoloc.evaluation.result import Evaluation, make_table, table_records
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.photos.owners import photographer_keys
from geoloc.settings import parse, replace
from orchestration.results.gather import gather
from orchestration.results.shown import level_rows, score_table
from orchestration.tables import markdown
from orchestration.workspace import Workspace, WorkspaceError

PARTITIONS = {
    "method": "str", "partition": "str", "kind": "str", "cells": "int64", "answer": "str", "level": "str",
    "km": "float64", "ceiling": "float64",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """Methods side by side; the others are compared with the first. Shares are in [0, 1].

    `measured` is the evaluation of every training on the photos of `test`, with methods named RECIPE:METHOD; its
    `comparisons` are those of `trainings`, the recipes of each compared method, with the first. `knows_luck` says
    whether these include the luck of one training, known if any recipe was trained twice.
    `partitions` (columns PARTITIONS) has one row per method by class and level: the method's
    partition, and the accuracy of a perfect classifier over it. `unlike` are recipes that differ from the first one in
    more than their partitions: in seed, splits, model, training or crops.
    """

    test: str
    measured: Evaluation
    partitions: pd.DataFrame
    unlike: tuple[str, ...]
    trainings: Mapping[str, tuple[str, ...]]
    knows_luck: bool

    @property
    def first(self) -> str:
        """The method that the others are compared with."""
        return self.measured.methods[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "test": self.test,
            "photos": self.measured.queries,
            "photographers": self.measured.query_photographers,
            "confidence": self.measured.settings["confidence"],
            "resamples": self.measured.settings["resamples"],
            "methods": self.measured.methods,
            "compared_with": self.first,
            "trainings": {name: list(runs) for name, runs in self.trainings.items()},
            "knows_luck": self.knows_luck,
            "unlike": list(self.unlike),
            "accuracy": table_records(self.measured.accuracy),
            "scores": table_records(self.measured.scores),
            "differences": table_records(self.measured.comparisons),
            "partitions": table_records(self.partitions),
        }

    def _luck(self) -> str:
        """What the differences know of the luck of one training."""
        if not self.knows_luck:
            return (
                "each recipe was trained once: the intervals hold for these networks and do not know the luck of one "
                "training (geoloc build --recipe NAME@SEED trains one again)"
            )
        told = "; ".join(f"{name} of {', '.join(runs)}" for name, runs in self.trainings.items())
        return f"means over trainings, intervals over photographers and trainings together: {told}"

    def __str__(self) -> str:
        """Markdown that lines up in a terminal: accuracies, differences, cells and ceilings."""
        made, levels = self.measured, [f"{name} {km:g} km" for name, km in self.measured.levels_km.items()]
        share = f"{100 * made.settings['confidence']:g} %"
        lines = [
            f"accuracy in per cent on the {made.queries:,} photos of {self.test!r}, {made.whose} "
            f"[{share} interval by {made.unit[:-1]}]",
            "",
            markdown(level_rows(made.accuracy, "accuracy", made.methods), ["method", *levels]),
            "",
            *score_table(made),
        ]
        if len(self.trainings) > 1:
            lines += [
                "",
                f"difference from {self.first}, in points, on the same photos; better and worse are corrected for "
                f"{len(made.comparisons)} comparisons (Holm)",
                "",
            ]
            lines.append(
                markdown(
                    level_rows(made.comparisons, "difference", list(self.trainings)[1:]), ["method", *levels]
                )
            )
            lines += ["", self._luck()]
        if len(self.partitions):
            wide = self.partitions.pivot(index="method", columns="level", values="ceiling")
            about = self.partitions.drop_duplicates("method").set_index("method")
            rows = [
                [method, str(row.partition), row.kind, f"{row.cells:,}", row.answer]
                + [f"{100 * wide.loc[method, level]:.1f}" for level in made.levels_km]
                for method, row in zip(about.index, about.itertuples(), strict=True)
            ]
            lines += [
                "",
                "the cells they answer over, and the ceiling: a perfect classifier over these cells",
                "",
            ]
            lines.append(markdown(rows, ["method", "partition", "kind", "cells", "answer", *levels]))
        if self.unlike:
            lines += ["", f"note: {', '.join(self.unlike)} differ in more than partitions from the first recipe "
                      "(seed, splits, model, training or crops)"]  # fmt: skip
        return "\n".join(lines)


def compare(workspace: Workspace, methods: Sequence[str], test: str = "test") -> Comparison:
    """Measure `methods` side by side on the test set `test`; the others are compared with the first.

    Each is RECIPE:METHOD, or RECIPE for that recipe's first method by class. A recipe stands for all its trainings that
    are built (fine, fine@8, ...), without those that are named apart: differences are of their mean accuracy, with
    intervals over photographers and trainings together. Seed, resamples and confidence are those
    of the first recipe's evaluation, so its numbers equal those in its report. Raises WorkspaceError for an unknown
    recipe, method or test set, for a method named twice, and for recipes with different test photos.
    """
    wanted = [tuple(part.strip() for part in text.partition(":")[::2]) for text in methods]
    built = {one.recipe: one for one in gather(workspace, test, [recipe for recipe, _ in wanted])}
    chosen = [Choice(recipe, method_named(built[recipe], name)) for recipe, name in wanted]
    names = [str(choice) for choice in chosen]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise WorkspaceError(f"methods must differ; {twice[0]} is named twice")
    first = built[chosen[0].recipe]
    for one in built.values():
        _check_same_photos(test, first, one)
    named = {choice.recipe for choice in chosen}
    groups = {
        str(choice): [
            Choice(one.recipe, choice.method)
            for one in trainings_of(list(built.values()), choice.recipe, named)
            if choice.method in one.evaluation.methods
        ]
        for choice in chosen
    }
    measured = evaluate(
        {
            str(run): _answers(built[run.recipe], run.method, first)
            for runs in groups.values()
            for run in runs
        },
        first.photos,
        settings=replace(parse(EvaluationSettings, first.evaluation.settings), compare_with=names[0]),
        seed=first.evaluation.seed,
        protocol=first.evaluation.protocol,
        unit=first.evaluation.unit,
    )
    luck = None
    if len(measured.methods) > 1:
        measured, luck = _over_trainings(measured, first.photos, groups, built)
    tables = [_partition(built[choice.recipe], choice) for choice in chosen]
    return Comparison(
        test,
        measured,
        pd.concat([pd.DataFrame(columns=list(PARTITIONS)), *tables])[list(PARTITIONS)].astype(PARTITIONS),
        tuple(one.recipe for one in built.values() if one.setup != first.setup),
        {name: tuple(run.recipe for run in runs) for name, runs in groups.items()},
        luck is not None,
    )


def _over_trainings(
    measured: Evaluation,
    photos: pd.DataFrame,
    groups: Mapping[str, Sequence[Choice]],
    built: Mapping[str, Built],
) -> tuple[Evaluation, Luck | None]:
    """The evaluation with the differences of the groups from the first one, and the luck of one training, None if no
    recipe was trained twice."""
    errors = errors_by_method(measured, photos)
    hits = {name: within(error, measured.levels_km).astype(np.float64) for name, error in errors.items()}
    runs: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
    for choices in groups.values():
        for run in choices:
            one = built[run.recipe]
            if one.trained(run.method):
                of_recipe = runs.setdefault((one.same_as or one.recipe, run.method), {})
                of_recipe[run.recipe] = hits[str(run)].mean(axis=0)
    luck = pooled_luck(np.stack(list(of_recipe.values())) for of_recipe in runs.values())
    names = list(groups)
    table = paired(
        [(name, names[0]) for name in names[1:]],
        names,
        np.stack(
            [np.mean([hits[str(run)] for run in choices], axis=0) for choices in groups.values()], axis=1
        ),
        photographer_clusters(photographer_keys(photos)),
        measured.levels_km,
        confidence=measured.settings["confidence"],
        luck=luck,
        trainings={
            name: len(choices) * built[choices[0].recipe].trained(choices[0].method)
            for name, choices in groups.items()
        },
    )
    rounded = make_table("comparisons", table.to_dict(orient="records")).round(10)
    return dataclasses.replace(measured, comparisons=rounded), luck


def method_named(one: Built, name: str) -> str:
    """The method called `name`; if `name` is empty, the recipe's first method by class."""
    known = one.evaluation.methods
    if name in known:
        return name
    if name:
        raise WorkspaceError(f"method of {one.recipe} must be one of {', '.join(known)}; got {name!r}")
    found = next(iter(by_class(one)), None)
    if found is None:
        raise WorkspaceError(
            f"{one.recipe} has no method by class here; name one: {', '.join(f'{one.recipe}:{m}' for m in known)}"
        )
    return found


def _check_same_photos(test: str, first: Built, other: Built) -> None:
    """Raise WorkspaceError if the test photos of the two recipes, or their locations, differ."""
    mine, its = (one.photos.set_index("photo_id")[["latitude", "longitude"]] for one in (first, other))
    common = mine.index.intersection(its.index)
    who = f"{first.recipe} and {other.recipe}"
    if not len(common) == len(mine) == len(its):
        raise WorkspaceError(
            f"{who} cannot be compared: the photos of {test!r} are not the same ({len(mine):,} and {len(its):,}, "
            f"{len(common):,} of them in common); recipes of equal seed and splits have the same"
        )
    if not np.array_equal(mine.loc[common], its.loc[common]):
        raise WorkspaceError(
            f"{who} cannot be compared: places of photos of {test!r} have changed between their evaluations; build the "
            "older one again"
        )


def _answers(one: Built, method: str, first: Built) -> Answers:
    """The method's answers from its evaluation, in the order of the first recipe's photos."""
    rows = one.evaluation.per_photo
    rows = rows[rows["method"] == method].set_index("photo_id").loc[list(first.photos["photo_id"])]
    return Answers(
        rows["latitude"].to_numpy(np.float64),
        rows["longitude"].to_numpy(np.float64),
        rows["confidence"].fillna(0).to_numpy(np.float32),
    )


def _partition(one: Built, choice: Choice) -> pd.DataFrame:
    """The partition of a method by class, one row per level; no rows for other methods."""
    found = by_class(one).get(choice.method)
    if found is None:
        return pd.DataFrame(columns=list(PARTITIONS))
    name, answer = found
    partition, ceilings = one.partitions[name], one.evaluation.ceilings
    rows = ceilings[(ceilings["partition"] == name) & (ceilings["answer"] == answer)]
    return rows.rename(columns={"accuracy": "ceiling"}).assign(
        method=str(choice), kind=partition.kind, cells=partition.cell_count
    )
