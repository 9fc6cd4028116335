"""Stage cross_view_model: a network that matches street photos with overhead tiles, logged to MLflow."""

from __future__ import annotations

import shutil

import torch

from geoloc.models.cross_view import ServedPhotos, save_cross_view
from geoloc.models.embedder import Embedder, example_input
from geoloc.photos.splits import TEST, TRAIN, VALIDATION
from geoloc.settings import SettingsError
from geoloc.training.cross_view import train_cross_view
from orchestration.assets.inputs import (
    cross_view_settings,
    initial_cross_view,
    pair_photos,
    pair_sources,
    read_pair_table,
)
from orchestration.assets.progress import teller
from orchestration.assets.trained import CHECKPOINTS, keep_training, training_facts, training_run
from orchestration.assets.unseen import refuse_seen_tests
from orchestration.plan.chain import MODEL_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import log_served_model

CURVES = ("loss", "learning_rate", "reciprocal_rank", "recall_at_1", "verification_accuracy")
TOLD = {
    "reciprocal_rank": "1/rank {:.3f}",
    "recall_at_1": "R@1 {:.1%}",
    "verification_accuracy": "verification {:.1%}",
}


def build(run: StageRun) -> StageResult:
    settings = cross_view_settings(run.build)
    _refuse_seen_pairs(run)
    try:
        model = initial_cross_view(run.build)
    except ValueError as error:
        raise SettingsError(f"cross_view.model.backbone: {error}") from None
    train, validation = pair_sources(run.build, model, (TRAIN, VALIDATION))
    run.log(f"training {model!r} on {len(train)} pairs, from {model.initial_weights}")
    with training_run(run, "cross-view") as tracker:
        result = train_cross_view(
            model,
            (train.pool, train.tile_pool),
            train.pairs,
            validation.pairs,
            settings,
            run.settings.cross_view_seed,
            run.scratch / CHECKPOINTS,
            teller(run, tracker, CURVES, TOLD),
        )
        model.cpu()
        save_cross_view(run.output / MODEL_FILE, model)
        keep_training(run, result, tracker)
    if settings.indexed:
        # torch.export warns of filters that are not contiguous.
        model.to(memory_format=torch.contiguous_format)
        tower = model.towers[0]
        assert isinstance(tower, Embedder)
        log_served_model(run.workspace, tracker.run_id, ServedPhotos(model).eval(), example_input(tower))
    shutil.rmtree(run.scratch / CHECKPOINTS)
    return StageResult(
        training_facts(
            result,
            CURVES,
            {
                "initial weights": model.initial_weights,
                "pairs/training": len(train),
                "pairs/validation": len(validation),
            },
        ),
        mlflow_run=tracker.run_id,
    )


def _refuse_seen_pairs(run: StageRun) -> None:
    """Raise SettingsError if the network that this one starts from was trained on photos of the test pairs."""
    folder = run.input("pairs")
    table = read_pair_table(folder)
    photos, _ = pair_photos(run.workspace.pool, folder)
    tests = photos[photos["photo_id"].isin(table.loc[table["split"] == TEST, "photo_id"])]
    refuse_seen_tests(run.build, run.stage.name, tests)
