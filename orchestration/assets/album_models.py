"""Stage album_models: the Markov model and the networks over photos of an album or person, logged to MLflow. It reads
stored probabilities and embeddings, and no pixel."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import pandas as pd

from geoloc.files import write_json
from geoloc.localizers.by_album.context import SeenPhotos, TimeModels
from geoloc.localizers.by_album.hmm import HMM_FILE, count_transitions
from geoloc.localizers.by_album.localizers import or_single
from geoloc.localizers.settings import AlbumSettings, network_file
from geoloc.models.sequence_network import build_sequence_network, save_sequence_network
from geoloc.photos.sequences import make_sequences
from geoloc.photos.splits import CONTEXT, TRAIN
from geoloc.photos.validation_parts import SELECTION
from geoloc.settings import SettingsError
from geoloc.training.sequences import SequencePhotos, train_sequences
from orchestration.assets.context_photos import ContextInput
from orchestration.assets.progress import teller
from orchestration.assets.time_model import CURVES, TOLD
from orchestration.assets.trained import CHECKPOINTS, training_run
from orchestration.plan.chain import TRAINING_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import Tracker


def build(run: StageRun) -> StageResult:
    settings = run.settings.albums
    if settings is None:
        raise SettingsError(f"albums must be a section, which {run.settings.recipe} does not have")
    given = ContextInput(run)
    learnt, held_out = given.to_learn(), given.validation(SELECTION)
    time = None
    if run.settings.time is not None:
        time = TimeModels.load(run.input("time_model"), run.settings.time)
    facts: dict[str, Any] = {"photos to learn from": len(learnt.photos)}
    trained: dict[str, Any] = {}
    with training_run(run, "albums") as tracker:
        if settings.hmm is not None:
            facts |= _count(run, settings, given, learnt)
        for name in settings.networks:
            everything = settings.networks[name].train_on == "all"
            photos = given.to_learn(all_photos=True) if everything else learnt
            trained[name] = _train(run, name, given, photos, held_out, time, tracker)
        # No speeds in this file: equal trainings must give equal bytes.
        write_json(run.output / TRAINING_FILE, trained)
        tracker.artefacts(run.output)
    shutil.rmtree(run.scratch / CHECKPOINTS, ignore_errors=True)
    table = [
        {"network": name, **{key: one[key] for key in ("photos", "epochs", "best_epoch", "steps")}}
        for name, one in trained.items()
    ]
    return StageResult(facts | ({"networks": pd.DataFrame(table)} if table else {}), tracker.run_id)


def _count(run: StageRun, settings: AlbumSettings, given: ContextInput, learnt: SeenPhotos) -> dict[str, Any]:
    """Count the Markov model's transitions on all albums to learn from, those of train too: only places are counted.
    What the classifier's probabilities are divided by is of photos that it has not seen."""
    assert settings.hmm is not None
    photos, partition = given.of_split(TRAIN, CONTEXT), given.partition
    cells = partition.assign(photos["latitude"], photos["longitude"])
    sequences = make_sequences(photos, settings.sequences)
    counted = count_transitions(cells, sequences, partition.cell_count, settings.hmm, learnt.single)
    counted.save(run.output / HMM_FILE)
    run.log(f"Markov model: {len(photos):,} photos in {len(sequences):,} sequences")
    return {"photos counted": len(photos), "pairs of cells counted": int(counted.counted.nnz)}


def _train(
    run: StageRun,
    name: str,
    given: ContextInput,
    learnt: SeenPhotos,
    held_out: SeenPhotos,
    time: TimeModels | None,
    tracker: Tracker,
) -> dict[str, Any]:
    """Train one network, save it, and return the facts of its training."""
    assert run.settings.albums is not None
    settings, partition = run.settings.albums.networks[name], given.partition
    seed = run.settings.network_seed(name)

    def sequences(seen: SeenPhotos) -> SequencePhotos:
        timed = None if time is None else time.with_time(seen)
        if timed is not None:
            timed = or_single(timed, seen.single)
        inputs = seen.inputs(settings, timed, *([] if time is None else [time.top]))
        return SequencePhotos(
            seen.to_learn(inputs, partition), make_sequences(seen.photos, settings.sequences)
        )

    train = sequences(learnt)
    model = build_sequence_network(train.photos.inputs.size, partition.cell_count, settings.network, seed)
    run.log(f"{name}: training {model!r}")
    result = train_sequences(
        model,
        train,
        sequences(held_out),
        partition.answers(),
        settings,
        seed,
        run.scratch / CHECKPOINTS / network_file(name),
        teller(run, tracker, CURVES, TOLD, name),
    )
    save_sequence_network(run.output / network_file(name), model.cpu())
    facts = dataclasses.asdict(result) | {"photos": len(learnt.photos)}
    del facts["resumed_at_step"]
    return facts
