"""Promotion as Dagster shows it: an asset beside each recipe's evaluation, whose materializations are decisions."""

# No `from __future__ import annotations` here: Dagster reads the annotation of `config` and cannot resolve text.

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from orchestration.graph.assets import OWNERS, PART_TAG, asset_key
from orchestration.lineage.build import Build
from orchestration.plan.seeds import plain
from orchestration.stores.databases import dagster_instance
from orchestration.workspace import Workspace

if TYPE_CHECKING:
    from orchestration.operations.promotion import Outcome

STAGE = "promotion"


class PromotionConfig(dg.Config):
    """Options of a promotion: which version of the recipe's registered model (0: the newest); by whom and why; `force`
    promotes also against the policy, and needs a reason."""

    version: int = 0
    force: bool = False
    reason: str = ""
    by: str = "Dagster"


def promotion_key(recipe: str) -> dg.AssetKey:
    """The key of the decisions about a recipe's builds."""
    return dg.AssetKey([plain(recipe), STAGE])


def promotion_asset(build: Build) -> dg.AssetsDefinition:
    """The decisions about a recipe's registered builds. It is not in `geoloc build`, which only makes challengers."""
    workspace, recipe = build.workspace, build.recipe

    @dg.asset(
        key=promotion_key(recipe),
        deps=[asset_key(recipe, "evaluation")],
        group_name=plain(recipe),
        kinds={"mlflow"},
        owners=OWNERS,
        tags={PART_TAG: "operations"},
        description=(
            "Whether the recipe's newest registered build replaces the model in service (MLflow: geoloc@champion): "
            "both answer the same test photos, and the policy in params.yaml (promotion) decides. As `geoloc promote`."
        ),
        automation_condition=_when_evaluated() if build.settings.promotion.automatic else None,
    )
    def asset(context: dg.AssetExecutionContext, config: PromotionConfig) -> dg.MaterializeResult:
        # Only here: it imports what measures and answers, and each build loads this graph.
        from orchestration.operations.promotion import promote

        if config.force and not config.reason.strip():
            raise dg.Failure("force needs a reason: it is recorded")
        found = promote(
            workspace,
            recipe=recipe,
            number=config.version or None,
            force=config.force,
            reason=config.reason,
            by=config.by,
            say=context.log.info,
        )
        if found is None:
            context.log.info("the newest registered build is the champion already")
            return dg.MaterializeResult(metadata={"outcome": "it is the champion already"})
        for line in found.lines:
            context.log.info(line)
        return dg.MaterializeResult(metadata=_metadata(found))

    return asset


def promotion_sensors(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AutomationConditionSensorDefinition]:
    """The sensor that runs the conditions of these assets, if one has any (promotion.automatic)."""
    conditional = [one for one in assets if any(spec.automation_condition for spec in one.specs)]
    if not conditional:
        return []
    return [
        dg.AutomationConditionSensorDefinition(
            "promotions",
            target=dg.AssetSelection.assets(*(one.key for one in conditional)),
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Decides about each newly evaluated build whether it replaces the model in service.",
        )
    ]


def report(workspace: Workspace, found: "Outcome") -> None:
    """Add a decision that a command made to Dagster's history, as a materialization of the asset."""
    with dagster_instance(workspace) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(promotion_key(found.recipe), metadata=_metadata(found))
        )


def _metadata(found: "Outcome") -> Mapping[str, Any]:
    table = found.decision.table_text()
    return {
        "outcome": found.outcome,
        "challenger": found.challenger,
        "champion": "none" if found.version is None else f"{found.version} (models:/geoloc@champion)",
        "champion before": "none" if found.before is None else str(found.before),
        "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in found.decision.reasons)),
        **({"comparison": dg.MetadataValue.md(table)} if table else {}),
        **(
            {"left out": dg.MetadataValue.json(dict(found.decision.left_out))}
            if found.decision.left_out
            else {}
        ),
        "by": found.by,
        "reason": found.reason or "none",
        "lineage/MLflow run": found.run_id,
    }


def _when_evaluated() -> dg.AutomationCondition:
    """After each evaluation with another result whose checks passed."""
    return (
        dg.AutomationCondition.eager().replace("newly_updated", dg.AutomationCondition.data_version_changed())
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    )
