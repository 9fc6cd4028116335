"""`geoloc claims --cross-view`: scores of the cross-view recipes that are built, and the dissertation's findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from geoloc.evaluation.claims.cross_view import CROSS_VIEW_CLAIMS, evaluate_cross_view_claims
from geoloc.evaluation.cross_view import CrossViewEvaluation
from geoloc.evaluation.measures.overhead import (
    ALL,
    FIXED_THRESHOLD,
    MEDIAN_ERROR,
    TOP_PERCENT,
)
from geoloc.evaluation.result import table_records
from orchestration.lineage.build import Build
from orchestration.plan.seeds import without_seed
from orchestration.plan.settings import known_recipes
from orchestration.run.reuse import built_recipes
from orchestration.tables import markdown, p_text, with_interval
from orchestration.workspace import Workspace, WorkspaceError

PREFIX, POLAR = "cross_view_", "polar"
SHOWN = (TOP_PERCENT, "R@1", "R@10", FIXED_THRESHOLD, MEDIAN_ERROR)
NOT_BUILT = "not built"


@dataclass(frozen=True, eq=False)
class CrossViewReport:
    """Scores of all trainings (columns recipe, method, and those of measures.overhead), and the tested claims."""

    scores: pd.DataFrame
    claims: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"scores": table_records(self.scores), "claims": table_records(self.claims)}

    def __str__(self) -> str:
        every = self.scores[self.scores["group"] == ALL].set_index(["recipe", "method", "measure"])
        rows = [
            [recipe, method, *(_shown(every, recipe, method, measure) for measure in SHOWN)]
            for recipe, method in dict.fromkeys((key[0], key[1]) for key in every.index)
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
            markdown(
                [_cells(row) for row in self.claims.to_dict(orient="records")],
                ["claim", "source", "compared", "measure", "difference, points", "p", "verdict"],
            ),
            "",
            f"{int(self.claims['p'].notna().sum())} claims were asked; p and verdicts are corrected for that (Holm)",
        ]
        return "\n".join(lines)


def cross_view_report(workspace: Workspace) -> CrossViewReport:
    """The evaluations and claims of the cross-view recipes that are built. Several trainings of a recipe (NAME@SEED)
    count together in its claims. Raises WorkspaceError if none is built."""
    known = known_recipes(workspace)
    seeded = [recipe for recipe in built_recipes(workspace) if without_seed(recipe) in known]
    scores: list[pd.DataFrame] = []
    pairs: dict[str, list[pd.DataFrame]] = {}
    for recipe in dict.fromkeys([*known, *seeded]):
        build = Build(workspace, recipe)
        if build.record("cross_view_evaluation") is None:
            continue
        found = CrossViewEvaluation.load(build.folder("cross_view_evaluation"))
        scores.append(found.scores.assign(recipe=recipe))
        plain = without_seed(recipe)
        pairs.setdefault(plain.removeprefix(PREFIX) if plain != PREFIX[:-1] else POLAR, []).append(
            found.pairs
        )
    if not scores:
        raise WorkspaceError(
            "no recipe with a section cross_view is built; build one with: geoloc build --recipe cross_view"
        )
    return CrossViewReport(
        pd.concat(scores, ignore_index=True), evaluate_cross_view_claims(pairs, CROSS_VIEW_CLAIMS)
    )


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
