"""Stage classifier: a network over the cells of the partitions, trained on the training photos, logged to MLflow."""

from __future__ import annotations

import dataclasses
import shutil

import pandas as pd
import torch

from geoloc.files import sha256_bytes, write_json
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
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.plan.chain import MODEL_FILE, TRAINING_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import tracked_run

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
    with tracked_run(
        run.workspace,
        f"{run.settings.recipe} classifier",
        settings=run.build.used(run.stage),
        tags=run.tags,
        data_version=run.tags["data_version"],
        resume_file=run.scratch / "mlflow.json",
    ) as tracker:
        result = train_classifier(
            model,
            run.workspace.pool,
            photos[photos["split"] == "train"],
            of_part(photos[photos["split"] == "validation"], SELECTION),
            partitions,
            run.settings.training,
            run.settings.training_seed,
            run.scratch / "checkpoints",
            teller(run, tracker, CURVES, TOLD),
            teacher=teacher_embeddings(run, photos[photos["split"] == "train"]),
            frozen_engine=_frozen_engine(run, model, photos[photos["split"] == "train"]),
        )
        # No speeds in these files: equal trainings must give equal bytes.
        model.cpu()
        save_model(run.output / MODEL_FILE, model)
        exported = export_to_output(
            run,
            model,
            photos[photos["split"] == "train"],
            sha256_bytes((run.output / MODEL_FILE).read_bytes()),
        )
        facts = dataclasses.asdict(result)
        del facts["resumed_at_step"]
        write_json(run.output / TRAINING_FILE, facts)
        tracker.artefacts(run.output)
    shutil.rmtree(run.scratch / "checkpoints")
    history = pd.DataFrame(result.history)
    return StageResult(
        {
            "epochs": result.epochs,
            "best epoch": result.best_epoch,
            "steps": result.steps,
            "resumed at step": result.resumed_at_step or 0,
            **exported,
            **{f"left out/{reason}": count for reason, count in result.left_out.items()},
            "curves": history[["epoch", *(name for name in history if name.endswith(CURVES))]],
        },
        mlflow_run=tracker.run_id,
    )


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
