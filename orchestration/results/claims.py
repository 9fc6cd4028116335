"""`geoloc claims`: published findings, tested on the recipes of this workspace that are built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from geoloc.evaluation.claims.claim import BIAS, evaluate_claims
from geoloc.evaluation.claims.evaluated import Choice
from geoloc.evaluation.claims.published import PUBLISHED_CLAIMS
from geoloc.evaluation.claims.roles import (
    CEILINGS,
    ROLES,
    bind_roles,
    measure_roles,
    parse_roles,
)
from geoloc.evaluation.result import table_records
from orchestration.plan.seeds import training_seed
from orchestration.results.gather import gather
from orchestration.tables import markdown, p_text, with_interval
from orchestration.workspace import Workspace

NOT_BUILT = "not built"


@dataclass(frozen=True, eq=False)
class ClaimsReport:
    """The tested claims: `table` has the columns of evaluate_claims and `methods`, the methods that were compared. A
    claim with an unfilled role has the verdict "not built", and its note names the role."""

    test: str
    recipes: tuple[str, ...]
    roles: Mapping[str, Choice]
    table: pd.DataFrame

    @property
    def asked(self) -> int:
        """The number of claims that could be tested."""
        return int(self.table["p"].notna().sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "test": self.test,
            "asked": self.asked,
            "recipes": list(self.recipes),
            "roles": {role: {"recipe": c.recipe, "method": c.method} for role, c in self.roles.items()},
            "empty_roles": {role: text for role, text in ROLES.items() if role not in self.roles},
            "claims": table_records(self.table),
        }

    def __str__(self) -> str:
        """Markdown: the roles, the claims that could be tested, and what the others need."""
        lines = [f"claims on the photos of {self.test!r}, by what is built of {', '.join(self.recipes)}", ""]
        lines.append(markdown([[r, _player(r, c)] for r, c in self.roles.items()], ["role", "played by"]))
        header = ["claim", "source", "level", "compared", "n", "difference, points", "p", "verdict", "note"]
        tested = self.table[self.table["verdict"] != NOT_BUILT]
        lines += ["", markdown([_cells(row) for row in tested.to_dict(orient="records")], header)]
        lines += [
            "",
            f"{self.asked} claims were asked; p and verdicts are corrected for that (Holm): the chance that any "
            "verdict is wrong is at most 5 %",
        ]
        several = [recipe for recipe in self.recipes if training_seed(recipe) is not None]
        lines.append(
            f"means over trainings, intervals over photographers and trainings together; further: {', '.join(several)}"
            if several
            else "each recipe was trained once: the intervals do not know the luck of one training (geoloc build "
            "--recipe NAME@SEED trains one again)"
        )
        empty = {role: text for role, text in ROLES.items() if role not in self.roles}
        if empty:
            lines += [
                "",
                f"{len(self.table) - len(tested)} further claims need what is not built (or name another method with "
                "--role NAME=RECIPE:METHOD):",
            ]
            lines += [f"  {role}: {text}" for role, text in empty.items()]
        return "\n".join(lines)


def claims(workspace: Workspace, test: str = "test", roles: Sequence[str] = ()) -> ClaimsReport:
    """Test each published claim on the recipes that have an evaluation on the test set `test`.

    `roles` are NAME=RECIPE:METHOD and override the defaults. Raises WorkspaceError if nothing is built or no recipe has
    this test set; ClaimRoleError for an unknown role, recipe or method.
    """
    given = parse_roles(roles)
    built = gather(workspace, test)
    bound = bind_roles(built, given)
    table = evaluate_claims(PUBLISHED_CLAIMS, measure_roles(built, bound))
    table["methods"] = [
        claim.with_names({role: _player(role, choice) for role, choice in bound.items()})
        for claim in PUBLISHED_CLAIMS
    ]
    untrained = [one.recipe for one in built if not one.pretrained]
    for row, claim in enumerate(PUBLISHED_CLAIMS):
        absent = [role for role in dict.fromkeys(claim.roles) if role not in bound]
        if absent:
            table.loc[row, ["verdict", "note"]] = [NOT_BUILT, f"needs {', '.join(absent)}"]
        elif any(bound[role].recipe in untrained for role in claim.roles if role.startswith("frozen")):
            notes = [
                str(table.loc[row, "note"]),
                "the frozen features are of random weights, not the paper's case",
            ]
            table.loc[row, "note"] = "; ".join(filter(None, notes))
    return ClaimsReport(test, tuple(one.recipe for one in built), bound, table)


def _player(role: str, choice: Choice) -> str:
    """The method that fills a role, as tables show it."""
    if role in CEILINGS:
        return f"{choice} ceiling" + (" centre" if CEILINGS[role] == "centre" else "")
    return f"{choice} outdoor" if role == "outdoor" else str(choice)


def _cells(row: Mapping[str, Any]) -> list[str]:
    told = [row["claim"], row["source"], row["level"], row["methods"]]
    scale, digits = (1.0, 3) if row["level"] == BIAS else (100.0, 1)
    difference = with_interval(
        row["difference"], row["low"], row["high"], sign="+", digits=digits, scale=scale
    )
    return [*told, f"{row['n']:,}", difference, p_text(row["p_corrected"]), row["verdict"], row["note"]]
