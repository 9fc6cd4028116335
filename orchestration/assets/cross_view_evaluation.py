"""Stage cross_view_evaluation: recall, verification and orientation on test pairs, by rotations at test time."""

from __future__ import annotations

import pandas as pd

from geoloc.evaluation.cross_view import evaluate_cross_view
from geoloc.evaluation.measures.overhead import ALL
from geoloc.models.cross_view import load_cross_view
from geoloc.photos.splits import TEST, VALIDATION
from orchestration.assets.inputs import cross_view_settings, pair_sources
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import tracked_run


def build(run: StageRun) -> StageResult:
    model = load_cross_view(run.input("cross_view_model") / MODEL_FILE)
    test, validation = pair_sources(run.build, model, (TEST, VALIDATION))
    made = evaluate_cross_view(test, validation, cross_view_settings(run.build), run.settings.seed)
    made.save(run.output)
    with tracked_run(
        run.workspace,
        f"{run.settings.recipe} cross-view evaluation",
        settings=run.build.used(run.stage),
        tags=run.tags,
        data_version=run.tags["data_version"],
    ) as tracker:
        tracker.metrics(
            {_metric_name(row): row.value for row in made.scores.itertuples() if pd.notna(row.value)}, step=0
        )
        tracker.artefacts(run.output)
    every = made.scores[made.scores["group"] == ALL]
    wide = every.pivot(index="method", columns="measure", values="value")
    order = list(dict.fromkeys(every["method"])), list(dict.fromkeys(every["measure"]))
    return StageResult(
        {
            "pairs": len(test),
            "cities": int(test.pairs.rows["city"].nunique()),
            "scores": wide.loc[order[0], order[1]].round(4).reset_index(),
            "scores by city": made.scores.round(4),
        },
        mlflow_run=tracker.run_id,
    )


def _metric_name(row: object) -> str:
    """The name of a measure in MLflow, which takes it for a path, without the characters that it does not allow."""
    measure = str(row.measure).replace("//", "div").replace("@", " at ")  # type: ignore[attr-defined]
    name = f"{row.group}/{row.method}/{measure}"  # type: ignore[attr-defined]
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
