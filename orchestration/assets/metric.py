"""Stage metric: a network whose embeddings of photos of one place are near each other, logged to MLflow."""

from __future__ import annotations

import shutil

import torch

from geoloc.files import sha256_bytes
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
from orchestration.assets.trained import CHECKPOINTS, keep_training, training_facts, training_run
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import log_served_model

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
    with training_run(run, "metric") as tracker:
        result = train_metric(
            model,
            run.workspace.pool,
            train,
            of_part(photos[photos["split"] == "validation"], SELECTION),
            partitions,
            settings,
            run.settings.metric_seed,
            run.scratch / CHECKPOINTS,
            teller(run, tracker, CURVES, TOLD),
        )
        model.cpu()
        save_metric_network(run.output / MODEL_FILE, model)
        exported = export_to_output(run, model, train, sha256_bytes((run.output / MODEL_FILE).read_bytes()))
        keep_training(run, result, tracker)
    # torch.export warns of filters that are not contiguous.
    model.to(memory_format=torch.contiguous_format)
    log_served_model(run.workspace, tracker.run_id, ServedEmbeddings(model).eval(), example_input(model))
    shutil.rmtree(run.scratch / CHECKPOINTS)
    return StageResult(
        training_facts(result, CURVES, {"initial weights": model.initial_weights, **exported}),
        mlflow_run=tracker.run_id,
    )
