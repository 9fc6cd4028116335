"""What the stages that train share: their run in MLflow, the record of a training, and its facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pandas as pd

from geoloc.files import write_json
from geoloc.training.loop import TrainingResult
from orchestration.plan.chain import TRAINING_FILE
from orchestration.run.stage import StageRun
from orchestration.stores.tracking import Tracker, tracked_run

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints in the scratch folder. A stage removes it last: until then it need not train again."""


def training_run(run: StageRun, name: str) -> AbstractContextManager[Tracker]:
    """The MLflow run of a stage that trains. A training that was killed continues in the same run."""
    return tracked_run(
        run.workspace,
        f"{run.settings.recipe} {name}",
        settings=run.build.used(run.stage),
        tags=run.tags,
        data_version=run.tags["data_version"],
        resume_file=run.scratch / "mlflow.json",
    )


def keep_training(run: StageRun, result: TrainingResult, tracker: Tracker) -> None:
    """Write the record of a training beside its network, and log both.

    The record has no speeds, nor the step of a resumption: equal trainings must give equal bytes.
    """
    facts = dataclasses.asdict(result)
    del facts["resumed_at_step"]
    write_json(run.output / TRAINING_FILE, facts)
    tracker.artefacts(run.output)


def training_facts(
    result: TrainingResult, curves: Collection[str], others: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of a training for people, with those of `others`; the columns of the history that end in one of
    `curves` are its curves."""
    history = pd.DataFrame(result.history)
    return {
        "epochs": result.epochs,
        "best epoch": result.best_epoch,
        "steps": result.steps,
        "resumed at step": result.resumed_at_step or 0,
        **others,
        **{f"left out/{reason}": count for reason, count in result.left_out.items()},
        "curves": history[["epoch", *(name for name in history if name.endswith(tuple(curves)))]],
    }
