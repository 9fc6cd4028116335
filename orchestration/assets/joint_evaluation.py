"""Stage joint_evaluation: photo classifier, overhead tiles, and both together, on the photos of test pairs."""

from __future__ import annotations

import dataclasses

import numpy as np

from geoloc.evaluation.joint import evaluate_joint, joint_answers, known_of_cities, unknown_to_classifier
from geoloc.files import write_parquet
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.localizers.by_overhead.embedding import CrossViewEmbedder
from geoloc.localizers.by_overhead.index import OverheadIndex
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.models.cross_view_prediction import embed_photos
from geoloc.models.prediction import predict_probabilities
from geoloc.photos.splits import TEST
from orchestration.assets.inputs import (
    cross_view_settings,
    load_partitions,
    load_trained,
    model_names,
    pair_sources,
    read_photos,
)
from orchestration.plan.chain import CITIES_FILE, MODEL_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import tracked_run


def build(run: StageRun) -> StageResult:
    settings, limits = cross_view_settings(run.build), run.settings.localizers
    batch = settings.search.batch_size
    embedder = CrossViewEmbedder.open(run.input("cross_view_model") / MODEL_FILE, batch)
    index = OverheadIndex.open(run.input("overhead_index"))
    (source,) = pair_sources(run.build, embedder.network, (TEST,))
    splits = read_photos(run.input("splits"))
    # A photo may be in several pairs, and is asked about once.
    photos_of_pairs = source.pairs.rows.drop_duplicates("photo_id")
    unknown = unknown_to_classifier(photos_of_pairs, splits)
    cities = known_of_cities(photos_of_pairs, unknown, index.tiles, splits)
    write_parquet(run.output / CITIES_FILE, cities)
    asked = photos_of_pairs.index.to_numpy()[unknown]
    facts: dict[str, object] = {"photos": len(asked), "cities": cities}
    if (why := _why_not(len(asked), index)) is not None:
        run.log(f"nothing is measured: {why}")
        return StageResult(facts)

    source = dataclasses.replace(source, pairs=source.pairs.only(asked))
    partitions = load_partitions(run.input("partition"))
    main, localizer = class_localizers(
        partitions, limits.answers[:1], model_names(len(partitions))["classifier"]
    )[0]
    calibration = Calibration.load(run.input("evaluation"), partitions)
    classifier = load_trained(run.build, partitions)
    pool = run.workspace.pool
    probabilities = calibration.scaled(
        predict_probabilities(classifier, pool, source.pairs.photos, limits.batch_size, crops=limits.crops)[0]
    )[main]
    photos = embed_photos(
        embedder.network,
        source.photos(np.arange(len(source)), batch, 0),
        len(source),
        settings.precision,
    )
    answers = joint_answers(
        index, embedder, photos, probabilities, partitions[main], localizer.locate(probabilities)
    )
    wanted = run.settings.evaluation
    made = evaluate_joint(
        answers,
        source.pairs.rows,
        resamples=wanted.resamples,
        confidence=wanted.confidence,
        seed=run.settings.seed,
    )
    made.save(run.output)
    with tracked_run(
        run.workspace,
        f"{run.settings.recipe} joint evaluation",
        settings=run.build.used(run.stage),
        tags=run.tags,
        data_version=run.tags["data_version"],
    ) as tracker:
        tracker.metrics(
            {f"{row.method}/within {row.km:g} km": row.accuracy for row in made.accuracy.itertuples()}, step=0
        )
        tracker.artefacts(run.output)
    facts |= {
        "accuracy": made.accuracy.round(4),
        "errors": made.errors.round(3),
        "comparisons": made.comparisons.round(4),
    }
    return StageResult(facts, mlflow_run=tracker.run_id)


def _why_not(asked: int, index: OverheadIndex) -> str | None:
    """Why nothing can be measured with so many photos to ask about; None if it can."""
    if not asked:
        return "no photo of the test pairs is a test photo of the classifier"
    if not len(index):
        return "the overhead index has no tile, as none could be read"
    if index.calibration is None:
        return "the overhead index is not calibrated, as no validation pair could be read"
    return None
