"""Stage classifier: a network over the cells of the partitions, trained on the training photos, logged to MLflow."""

from __future__ import annotations

import shutil

import pandas as pd
import torch

from geoloc.files import sha256_bytes
from geoloc.models.classifier import Classifier, save_model
from geoloc.models.engine import ExportedNetwork, ready_network
from geoloc.photos.validation_parts import SELECTION, of_part
from geoloc.training.classification import train_classifier
from orchestration.assets.exporting import export_to, export_to_output
from orchestration.assets.inputs import (
    initial_model,
    load_partitions,
    read_photos,
    stored,
    teacher_embeddings,
    with_pixels,
)
from orchestration.assets.progress import teller
from orchestration.assets.trained import CHECKPOINTS, keep_training, training_facts, training_run
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun

CURVES = ("loss", "learning_rate", "validation_loss", "accuracy", "accuracy_25km", "accuracy_750km")
GRAPH_FROM = 10_000
"""Training photos from which the time of an export, 10 to 50 s, is less than the graph saves, 2 to 5 ms a photo."""
FROZEN_FILE = "frozen.onnx"
TOLD = {
    "validation_loss": "validation {:.3f}",
    "accuracy_25km": "25 km {:.1%}",
    "accuracy_750km": "750 km {:.1%}",
}


def build(run: StageRun) -> StageResult:
    refuse_seen_tests(run.build)
    photos = with_pixels(run.workspace.pool, stored(read_photos(run.input("splits"))))
    partitions = load_partitions(run.input("partition"))
    model = initial_model(run.build, partitions)
    run.log(f"training {model!r}")
    with training_run(run, "classifier") as tracker:
        result = train_classifier(
            model,
            run.workspace.pool,
            photos[photos["split"] == "train"],
            of_part(photos[photos["split"] == "validation"], SELECTION),
            partitions,
            run.settings.training,
            run.settings.training_seed,
            run.scratch / CHECKPOINTS,
            teller(run, tracker, CURVES, TOLD),
            teacher=teacher_embeddings(run, photos[photos["split"] == "train"]),
            frozen_engine=_frozen_engine(run, model, photos[photos["split"] == "train"]),
        )
        model.cpu()
        save_model(run.output / MODEL_FILE, model)
        exported = export_to_output(
            run,
            model,
            photos[photos["split"] == "train"],
            sha256_bytes((run.output / MODEL_FILE).read_bytes()),
        )
        keep_training(run, result, tracker)
    shutil.rmtree(run.scratch / CHECKPOINTS)
    return StageResult(training_facts(result, CURVES, exported), mlflow_run=tracker.run_id)


def _frozen_engine(run: StageRun, model: Classifier, photos: pd.DataFrame) -> ExportedNetwork | None:
    """The network as a graph, for the features of a frozen training; None where torch computes them."""
    training = run.settings.training
    by_torch = training.mode != "frozen" or training.precision != "float32" or torch.cuda.is_available()
    if by_torch or len(photos) < GRAPH_FROM:
        return None
    file = run.scratch / FROZEN_FILE
    file.unlink(missing_ok=True)  # of a killed run, perhaps with other settings
    export_to(run, model, photos, file)
    network = ready_network(file, lambda: model)
    return network if isinstance(network, ExportedNetwork) else None
