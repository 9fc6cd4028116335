"""Stage metric: a network whose embeddings of photos of one place are near each other, logged to MLflow."""

from __future__ import annotations

import dataclasses
import shutil

import pandas as pd
import torch

from geoloc.files import sha256_bytes, write_json
from geoloc.models.embedder import example_input
from geoloc.models.metric import ServedEmbeddings, save_metric_network
from geoloc.photos.validation_parts import SELECTION, of_part
from geoloc.training.metric import train_metric
from orchestration.assets.exporting import export_to_output
from orchestration.assets.inputs import (
    initial_metric,
    load_partitions,
    metric_settings,
    read_photos,
    stored,
    with_pixels,
)
from orchestration.assets.progress import teller
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.plan.chain import MODEL_FILE, TRAINING_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import log_served_model, tracked_run

CURVES = ("loss", "learning_rate", "recall_at_1", "accuracy_25km")
TOLD = {"recall_at_1": "R@1 {:.1%}", "accuracy_25km": "25 km {:.1%}"}


def build(run: StageRun) -> StageResult:
    refuse_seen_tests(run.build, run.stage.name)
    settings = metric_settings(run.build)
    photos = with_pixels(run.workspace.pool, stored(read_photos(run.input("splits"))))
    train = photos[photos["split"] == "train"]
    partitions = load_partitions(run.input("partition")) if settings.positives.kind == "cell" else {}
    model = initial_metric(run.build)
    run.log(f"training {model!r}, from {model.initial_weights}")
    with tracked_run(
        run.workspace,
        f"{run.settings.recipe} metric",
        settings=run.build.used(run.stage),
        tags=run.tags,
        data_version=run.tags["data_version"],
        resume_file=run.scratch / "mlflow.json",
    ) as tracker:
        result = train_metric(
            model,
            run.workspace.pool,
            train,
            of_part(photos[photos["split"] == "validation"], SELECTION),
            partitions,
            settings,
            run.settings.metric_seed,
            run.scratch / "checkpoints",
            teller(run, tracker, CURVES, TOLD),
        )
        # No speeds in these files: equal trainings must give equal bytes.
        model.cpu()
        save_metric_network(run.output / MODEL_FILE, model)
        exported = export_to_output(run, model, train, sha256_bytes((run.output / MODEL_FILE).read_bytes()))
        facts = dataclasses.asdict(result)
        del facts["resumed_at_step"]
        write_json(run.output / TRAINING_FILE, facts)
        tracker.artefacts(run.output)
    # torch.export warns of filters that are not contiguous.
    model.to(memory_format=torch.contiguous_format)
    log_served_model(run.workspace, tracker.run_id, ServedEmbeddings(model).eval(), example_input(model))
    shutil.rmtree(run.scratch / "checkpoints")
    history = pd.DataFrame(result.history)
    return StageResult(
        {
            "epochs": result.epochs,
            "best epoch": result.best_epoch,
            "steps": result.steps,
            "resumed at step": result.resumed_at_step or 0,
            "initial weights": model.initial_weights,
            **exported,
            **{f"left out/{reason}": count for reason, count in result.left_out.items()},
            "curves": history[["epoch", *(name for name in history if name in CURVES)]],
        },
        mlflow_run=tracker.run_id,
    )
