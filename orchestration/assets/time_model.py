"""Stage time_model: what corrects the classifier by the time of posting, and by daylight, logged to MLflow."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

from geoloc.files import write_json
from geoloc.localizers.by_album.context import DAYLIGHT_FILE, M2_FILE, PRIOR_FILE, SeenPhotos
from geoloc.models.context_inputs import top_cells
from geoloc.models.daylight import DaylightModel
from geoloc.models.posting_time import TimePrior
from geoloc.models.time_network import build_time_network, save_time_network
from geoloc.photos.validation_parts import SELECTION, TEMPERATURE
from geoloc.settings import SettingsError
from geoloc.training.context import ContextPhotos
from geoloc.training.posting_time import train_time_network
from orchestration.assets.context_photos import ContextInput
from orchestration.assets.progress import teller
from orchestration.assets.trained import CHECKPOINTS, training_run
from orchestration.plan.chain import TRAINING_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import Tracker

CURVES = ("loss", "learning_rate", "validation_loss", "accuracy", "accuracy_25km", "accuracy_750km")
TOLD = {"validation_loss": "validation {:.3f}", "accuracy_25km": "25 km {:.1%}"}


def build(run: StageRun) -> StageResult:
    settings = run.settings.time
    if settings is None:
        raise SettingsError(f"time must be a section, which {run.settings.recipe} does not have")
    given = ContextInput(run)
    partition, learnt = given.partition, given.to_learn()
    facts: dict[str, Any] = {"photos to learn from": len(learnt.photos)}
    history: dict[str, Any] = {}
    with training_run(run, "time") as tracker:
        if settings.network is not None:
            history = _train(run, given, learnt, tracker)
            facts |= {key: history[key] for key in ("epochs", "best_epoch", "steps")}
        if settings.prior is not None:
            cells = partition.assign(learnt.photos["latitude"], learnt.photos["longitude"])
            points = partition.answers()
            prior = TimePrior.count(cells, learnt.photos["posted_at"], points, settings.prior)
            held_out = given.validation(TEMPERATURE)
            true = partition.assign(held_out.photos["latitude"], held_out.photos["longitude"])
            prior = prior.calibrated(held_out.single, held_out.photos["posted_at"], true)
            prior.save(run.output / PRIOR_FILE)
            run.log(f"p(cell | time): power {prior.power:.2f}, fitted on {len(true)} validation photos")
            facts["power of p(cell | time)"] = prior.power
        if settings.daylight:
            assert learnt.vectors is not None  # a rule of the settings
            sun = DaylightModel.fit(learnt.vectors, learnt.photos["taken_at"], learnt.photos["latitude"])
            sun.save(run.output / DAYLIGHT_FILE)
            facts["share by day"] = sun.share
        write_json(run.output / TRAINING_FILE, history)
        tracker.artefacts(run.output)
    shutil.rmtree(run.scratch / CHECKPOINTS, ignore_errors=True)
    return StageResult(facts, mlflow_run=tracker.run_id)


def _train(run: StageRun, given: ContextInput, learnt: SeenPhotos, tracker: Tracker) -> dict[str, Any]:
    """Train M2, save it, and return the facts of its training."""
    settings, partition = run.settings.time, given.partition
    assert settings is not None
    assert settings.network is not None
    top = settings.network.top

    def context(seen: SeenPhotos) -> ContextPhotos:
        return seen.to_learn(top_cells(seen.single, seen.photos["posted_at"], top), partition)

    model = build_time_network(partition.cell_count, settings.network, run.settings.time_seed)
    result = train_time_network(
        model,
        context(learnt),
        context(given.validation(SELECTION)),
        partition.answers(),
        settings,
        run.settings.time_seed,
        run.scratch / CHECKPOINTS,
        teller(run, tracker, CURVES, TOLD),
    )
    save_time_network(run.output / M2_FILE, model.cpu())
    facts = dataclasses.asdict(result)
    del facts["resumed_at_step"]
    return facts
