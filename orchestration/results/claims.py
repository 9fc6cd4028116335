"""`geoloc claims`: the published findings, tested on whatever recipes of this workspace are built."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from geoloc.evaluation.claims.claim import evaluate_claims
from geoloc.evaluation.claims.evaluated import Built, Choice
from geoloc.evaluation.claims.published import PUBLISHED_CLAIMS
from geoloc.evaluation.claims.roles import (
    CEILINGS,
    ROLES,
    bind_roles,
    measure_roles,
    parse_roles,
)
from geoloc.evaluation.result import Evaluation, table_records
from geoloc.files import read_json
from geoloc.models.settings import RECIPE
from geoloc.photos.catalog import read_catalog
from orchestration.assets.inputs import load_partitions, model_names
from orchestration.lineage.record import Lineage
from orchestration.plan.chain import artefact, lineage_path, output_folder
from orchestration.plan.settings import known_recipes, load_settings
from orchestration.tables import markdown, with_interval
from orchestration.workspace import Workspace, WorkspaceError

NOT_BUILT = "not built"


@dataclass(frozen=True, eq=False)
class ClaimsReport:
    """The claims as tested: `table` has evaluate_claims' columns and `methods`, who was compared; a claim of which
    a role is empty has the verdict "not built", and its note names the role."""

    test: str
    recipes: tuple[str, ...]
    roles: Mapping[str, Choice]
    table: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "test": self.test,
            "recipes": list(self.recipes),
            "roles": {role: {"recipe": c.recipe, "method": c.method} for role, c in self.roles.items()},
            "empty_roles": {role: text for role, text in ROLES.items() if role not in self.roles},
            "claims": table_records(self.table),
        }

    def __str__(self) -> str:
        """The roles, the table (Markdown, so it can stand in a document as it is), and what the empty roles need."""
        lines = [f"claims on the photos of {self.test!r}, by what is built of {', '.join(self.recipes)}", ""]
        lines.append(markdown([[r, _player(r, c)] for r, c in self.roles.items()], ["role", "played by"]))
        header = ["claim", "source", "level", "compared", "n", "difference, points", "verdict", "note"]
        lines += ["", markdown([_cells(row) for row in self.table.to_dict(orient="records")], header)]
        empty = {role: text for role, text in ROLES.items() if role not in self.roles}
        if empty:
            lines += ["", "not built (or name another method with --role NAME=RECIPE:METHOD):"]
            lines += [f"  {role}: {text}" for role, text in empty.items()]
        return "\n".join(lines)


def claims(workspace: Workspace, test: str = "test", roles: Sequence[str] = ()) -> ClaimsReport:
    """Test each published claim on the recipes that have an evaluation on the test set `test`.

    `roles` are NAME=RECIPE:METHOD, in place of defaults. Raises WorkspaceError where nothing is built, or no recipe
    has this test set; ClaimRoleError for an unknown role, recipe or method.
    """
    given = parse_roles(roles)
    built = gather(workspace, test)
    bound = bind_roles(built, given)
    table = evaluate_claims(PUBLISHED_CLAIMS, measure_roles(built, bound), seed=load_settings(workspace).seed)
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


def gather(workspace: Workspace, test: str, recipes: Collection[str] = ()) -> list[Built]:
    """The recipes with an evaluation on `test`, as the library takes them; only those named, where some are.

    Raises WorkspaceError where there is none, one that is named has none, or a recipe's test photos are no longer in
    the pool.
    """
    found = {}
    for recipe in known_recipes(workspace):
        file = output_folder(workspace, recipe, "evaluation") / "evaluations.json"
        if file.is_file():
            found[recipe] = list(read_json(file))
    if not found:
        raise WorkspaceError(
            f"no recipe of {workspace.root} has an evaluation yet; build one with: geoloc build"
        )
    known = list(dict.fromkeys(name for names in found.values() for name in names))
    if test not in known:
        raise WorkspaceError(f"--test must be one of {', '.join(known)}; got {test!r}")
    able = [recipe for recipe, names in found.items() if test in names]
    for recipe in recipes:
        if recipe not in able:
            raise WorkspaceError(
                f"recipe must be one of {', '.join(able)}, which are evaluated on {test!r}; got {recipe!r}"
            )
    catalog = read_catalog(workspace.pool).set_index("photo_id")
    return [_built(workspace, recipe, test, catalog) for recipe in able if not recipes or recipe in recipes]


def _built(workspace: Workspace, recipe: str, test: str, catalog: pd.DataFrame) -> Built:
    evaluation = Evaluation.load(output_folder(workspace, recipe, "evaluation") / test)
    partitions = load_partitions(output_folder(workspace, recipe, "partition"))
    setup = _setup(workspace, recipe)
    first_weights = str(setup["model"]["weights"])
    return Built(
        recipe,
        evaluation,
        _queries(evaluation, catalog, recipe),
        partitions,
        model=model_names(len(partitions))["classifier"],
        setup=json.dumps(setup, sort_keys=True, default=str),
        starts_from=first_weights.removeprefix(RECIPE) if first_weights.startswith(RECIPE) else "",
        fine_tuned=setup["training"]["mode"] == "fine_tune",
        pretrained=first_weights != "none",
        backbone=model_names(len(partitions))["backbone"],
    )


def _setup(workspace: Workspace, recipe: str) -> dict[str, Any]:
    """The settings in which networks must agree to be compared, as they were when these were built: those in
    params.yaml and recipes/ may have changed since."""

    def used(stage: str) -> dict[str, Any]:
        record = Lineage.read(lineage_path(workspace, recipe, stage))
        if record is None:
            raise WorkspaceError(
                f"{artefact(recipe, stage)} has no record of what made it; build it again with: "
                f"geoloc build --recipe {recipe}"
            )
        return record.settings

    setup = {**used("splits"), **used("classifier"), "crops": used("evaluation")["localizers"]["crops"]}
    # How heads are weighted is no difference between a network with one and a network with several.
    setup["training"] = {name: v for name, v in setup["training"].items() if name != "head_weights"}
    return setup


def _queries(evaluation: Evaluation, catalog: pd.DataFrame, recipe: str) -> pd.DataFrame:
    """The evaluation's photos with what the catalog knows of them; the places are those that were measured against."""
    photos = evaluation.per_photo.drop_duplicates("photo_id")
    gone = ~photos["photo_id"].isin(catalog.index)
    if gone.any():
        raise WorkspaceError(
            f"{recipe}/evaluation has {int(gone.sum())} photos that are no longer in the pool; "
            f"build it again with: geoloc build --recipe {recipe}"
        )
    known = catalog.loc[photos["photo_id"], ["photographer", "prob_indoor"]].reset_index()
    known["latitude"] = photos["true_latitude"].to_numpy()
    known["longitude"] = photos["true_longitude"].to_numpy()
    return known


def _player(role: str, choice: Choice) -> str:
    """Who plays a role, as tables show it."""
    if role in CEILINGS:
        return f"{choice} ceiling" + (" centre" if CEILINGS[role] == "centre" else "")
    return f"{choice} outdoor" if role == "outdoor" else str(choice)


def _cells(row: Mapping[str, Any]) -> list[str]:
    told = [row["claim"], row["source"], row["level"], row["methods"]]
    if row["verdict"] == NOT_BUILT:
        return [*told, "", "", f"{NOT_BUILT}: {row['note']}", ""]
    difference = with_interval(row["difference"], row["low"], row["high"], sign="+")
    return [*told, f"{row['n']:,}", difference, row["verdict"], row["note"]]
