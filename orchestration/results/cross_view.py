"""`geoloc claims --cross-view`: scores of the cross-view recipes that are built, and the dissertation's findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from geoloc.evaluation.claims.cross_view import CROSS_VIEW_CLAIMS, evaluate_cross_view_claims
from geoloc.evaluation.cross_view import CrossViewEvaluation
from geoloc.evaluation.joint import CITY_COLUMNS
from geoloc.evaluation.measures.overhead import (
    ALL,
    FIXED_THRESHOLD,
    LAST,
    MEDIAN_ERROR,
    PENULTIMATE,
    TOP_PERCENT,
)
from geoloc.evaluation.result import Evaluation, table_records
from geoloc.files import read_parquet
from orchestration.lineage.build import Build
from orchestration.plan.chain import CITIES_FILE
from orchestration.plan.seeds import without_seed
from orchestration.plan.settings import known_recipes
from orchestration.run.reuse import built_recipes
from orchestration.tables import markdown, p_text, with_interval
from orchestration.workspace import Workspace, WorkspaceError

PREFIX, POLAR = "cross_view_", "polar"
SHOWN = (TOP_PERCENT, "R@1", "R@10", FIXED_THRESHOLD, MEDIAN_ERROR)
WITHIN = {"25 m": 0.025, "100 m": 0.1, "1 km": 1.0, "25 km": 25.0, "200 km": 200.0}
NOT_BUILT = "not built"


@dataclass(frozen=True, eq=False)
class Joint:
    """The joint evaluation of one training: how far the answers are, and what the classifier knows of the cities
    (geoloc.evaluation.joint.CITY_COLUMNS)."""

    recipe: str
    evaluation: Evaluation
    cities: pd.DataFrame

    def rows(self) -> Iterator[list[str]]:
        """A row a method: the shares within each distance of WITHIN, and the median error."""
        found = self.evaluation.accuracy.set_index(["method", "km"])
        for error in self.evaluation.errors.to_dict(orient="records"):
            shares = (found.loc[(error["method"], km)] for km in WITHIN.values())
            yield [
                self.recipe,
                error["method"],
                *(with_interval(one["accuracy"], one["low"], one["high"]) for one in shares),
                with_interval(error["median_km"], error["median_low"], error["median_high"], scale=1),
            ]

    @property
    def known(self) -> str:
        """What the classifier knows of the photos and their cities."""
        asked, left, tiles, photos = (self.cities[name].sum() for name in CITY_COLUMNS[1:5])
        return (
            f"{asked:,} photos that the photo classifier does not know; {left:,} are left out. It was trained on "
            f"{photos:,} photos by others within 25 km of the {tiles:,} tiles"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        tables = ("accuracy", "errors", "comparisons")
        return {"recipe": self.recipe, "cities": table_records(self.cities)} | {
            name: table_records(getattr(self.evaluation, name)) for name in tables
        }


@dataclass(frozen=True, eq=False)
class CrossViewReport:
    """Scores of all trainings (columns recipe, method, and those of measures.overhead), what the towers of each
    recipe share, their joint evaluations, and the tested claims."""

    scores: pd.DataFrame
    towers: Mapping[str, str]
    joint: Sequence[Joint]
    claims: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "scores": table_records(self.scores),
            "joint": [one.to_dict() for one in self.joint],
            "claims": table_records(self.claims),
        }

    def __str__(self) -> str:
        every = self.scores[self.scores["group"] == ALL].set_index(["recipe", "method", "measure"])
        rows = [
            [recipe, method, *(_shown(every, recipe, method, measure) for measure in SHOWN)]
            for recipe, method in dict.fromkeys((key[0], key[1]) for key in every.index)
            if method != PENULTIMATE
        ]
        first = every.xs(FIXED_THRESHOLD, level="measure") if len(every) else every
        pairs = int(first["n"].max()) if len(first) else 0
        chance = every.xs(TOP_PERCENT, level="measure")["chance"].max() if rows else float("nan")
        lines = [
            f"{pairs:,} test pairs; shares in per cent, the heading's error in degrees, with 95 % intervals by "
            f"photographer; by chance {100 * chance:.1f} % are in the top 1 %, and 50 % are verified",
            "",
            markdown(rows, ["recipe", "test rotations", *SHOWN]),
            "",
            *self._layer_lines(every),
            *self._joint_lines(),
            markdown(
                [_cells(row) for row in self.claims.to_dict(orient="records")],
                ["claim", "source", "compared", "measure", "difference, points", "p", "verdict"],
            ),
            "",
            f"{int(self.claims['p'].notna().sum())} claims were asked; p and verdicts are corrected for that (Holm)",
        ]
        return "\n".join(lines)

    def _layer_lines(self, every: pd.DataFrame) -> list[str]:
        """The last layer against the penultimate one; nothing where no network has both."""
        rows = [
            [
                recipe,
                self.towers[recipe],
                *(_shown(every, recipe, layer, TOP_PERCENT) for layer in (LAST, PENULTIMATE)),
            ]
            for recipe, method in dict.fromkeys((key[0], key[1]) for key in every.index)
            if method == PENULTIMATE
        ]
        if not rows:
            return []
        return [
            f"By layer, as in figure 4.11: {TOP_PERCENT} in per cent, with north at the top of each tile",
            "",
            markdown(rows, ["recipe", "towers", "last layer", "penultimate layer"]),
            "",
        ]

    def _joint_lines(self) -> list[str]:
        """Photo and tiles together; nothing where no recipe has measured that."""
        if not self.joint:
            return []
        told = {one.known: one.recipe for one in reversed(self.joint)}
        return [
            "Photo classifier and overhead tiles together: shares within a distance in per cent, and the median error "
            "in km, with 95 % intervals by photographer",
            *(f"{recipe}: {known}" for known, recipe in reversed(told.items())),
            "",
            markdown(
                [row for one in self.joint for row in one.rows()],
                ["recipe", "answers", *(f"within {name}" for name in WITHIN), "median, km"],
            ),
            "",
        ]


def cross_view_report(workspace: Workspace) -> CrossViewReport:
    """The evaluations and claims of the cross-view recipes that are built. Several trainings of a recipe (NAME@SEED)
    count together in its claims. Raises WorkspaceError if none is built."""
    known = known_recipes(workspace)
    seeded = [recipe for recipe in built_recipes(workspace) if without_seed(recipe) in known]
    scores: list[pd.DataFrame] = []
    pairs: dict[str, list[pd.DataFrame]] = {}
    together: list[Joint] = []
    towers: dict[str, str] = {}
    for recipe in dict.fromkeys([*known, *seeded]):
        build = Build(workspace, recipe)
        if build.record("cross_view_evaluation") is None:
            continue
        found = CrossViewEvaluation.load(build.folder("cross_view_evaluation"))
        scores.append(found.scores.assign(recipe=recipe))
        section = build.settings.cross_view  # none if it was taken out of the recipe since
        towers[recipe] = "" if section is None else section.towers
        answered = found.pairs
        if (joint := _joint(build)) is not None:
            together.append(joint)
            whose = answered[["photo_id", "pair_id", "photographer"]].drop_duplicates("photo_id")
            rows = joint.evaluation.per_photo[["photo_id", "method", "error_km"]].merge(whose, on="photo_id")
            answered = pd.concat([answered, rows], ignore_index=True)
        plain = without_seed(recipe)
        pairs.setdefault(plain.removeprefix(PREFIX) if plain != PREFIX[:-1] else POLAR, []).append(answered)
    if not scores:
        raise WorkspaceError(
            "no recipe with a section cross_view is built; build one with: geoloc build --recipe cross_view"
        )
    return CrossViewReport(
        pd.concat(scores, ignore_index=True),
        towers,
        together,
        evaluate_cross_view_claims(pairs, CROSS_VIEW_CLAIMS),
    )


def _joint(build: Build) -> Joint | None:
    """The joint evaluation of a build; None if it is not built, or had no photo to ask about."""
    folder = build.folder("joint_evaluation")
    if build.record("joint_evaluation") is None or not (folder / "evaluation.json").is_file():
        return None
    return Joint(build.recipe, Evaluation.load(folder), read_parquet(folder / CITIES_FILE, CITY_COLUMNS))


def _shown(every: pd.DataFrame, recipe: str, method: str, measure: str) -> str:
    if (recipe, method, measure) not in every.index:
        return ""
    row = every.loc[(recipe, method, measure)]
    return with_interval(row["value"], row["low"], row["high"], scale=1 if measure == MEDIAN_ERROR else 100)


def _cells(row: dict[str, Any]) -> list[str]:
    told = [row["claim"], row["source"], row["compared"], row["measure"]]
    if str(row["note"]).startswith("not measured"):
        return [*told, "", "", NOT_BUILT]
    difference = with_interval(row["difference"], row["low"], row["high"], sign="+")
    verdict = row["verdict"] + (f" ({row['note']})" if row["note"] else "")
    return [*told, difference, p_text(row["p_corrected"]), verdict]
