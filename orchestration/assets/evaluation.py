"""Stage evaluation: every localizer of the build on the test photos, measured side by side."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.diagnostics import Diagnostics, diagnose
from geoloc.evaluation.evaluate import (
    DISJOINT_PROTOCOL,
    LEAVE_PHOTOGRAPHER_OUT_PROTOCOL,
    LEAVE_TRIP_OUT_PROTOCOL,
    TRIP_PROTOCOL,
    evaluate,
)
from geoloc.evaluation.explaining.embedding_maps import exciting_photos, tsne_map
from geoloc.evaluation.explaining.explanations import FOLDER as EXPLANATIONS_FOLDER
from geoloc.evaluation.explaining.explanations import explain
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.intervals import shares
from geoloc.evaluation.result import Evaluation
from geoloc.files import write_json, write_parquet
from geoloc.localizers.by_neighbour import locate_by_neighbours
from geoloc.localizers.frozen.localizer import frozen_table
from geoloc.localizers.served import References, pack
from geoloc.models.engine import engine_name
from geoloc.photos.owners import photographer_keys
from geoloc.photos.splits import CONTEXT, TRAIN, UNUSED, VALIDATION
from geoloc.photos.trips import are_trips
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import NEAR_DUPLICATES, ReferenceIndex
from geoloc.retrieval.pca import PCA_FILE
from orchestration.assets.answers import (
    Answered,
    ByClass,
    ClassAnswers,
    Way,
    by_frozen,
    by_neighbour,
    frozen_localizers,
)
from orchestration.assets.chosen import Collector, chosen_methods, explain_neighbours
from orchestration.assets.chosen_tables import chosen_tables
from orchestration.assets.context_answers import context_ways
from orchestration.assets.inputs import (
    SOURCE,
    embedding_folders,
    load_partitions,
    model_names,
    read_photos,
    stored,
    with_newcomers,
    with_pixels,
)
from orchestration.assets.subsets import references_among
from orchestration.plan.chain import GRAPH_FILE
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.serving import log_served_build, registered_name
from orchestration.stores.tracking import tracked_run

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

EVERYONE = "leave-photographer-out"
WITH_NEAR_DUPLICATES = "with near-duplicates"
"""Added to the names of methods whose references hold near-duplicates of the query by other photographers."""


def build(run: StageRun) -> StageResult:
    photos = with_pixels(run.workspace.pool, read_photos(run.input("splits")))
    by_split = dict(list(photos.groupby("split")))
    references, validation = (stored(by_split.get(split, photos[:0])) for split in ("train", "validation"))
    partitions = load_partitions(run.input("partition"))
    by_class = ByClass.open(run, partitions, references, validation)
    frozen = frozen_localizers(run, partitions, references, validation)
    known = with_newcomers(run)
    sources = known.set_index("photo_id")[SOURCE] if SOURCE in known else None
    ways: list[Way] = [
        by_neighbour(run, model, partitions, sources) for model in embedding_folders(run.build)
    ]
    if frozen:
        ways.append(by_frozen(run, frozen))
    ways += context_ways(run, len(partitions))
    chosen = chosen_methods(run, by_class, validation)

    made, behind = {}, {}
    tests = [name for name in sorted(by_split) if name not in (TRAIN, VALIDATION, CONTEXT, UNUSED)]
    for name in tests:
        queries = by_split[name].reset_index(drop=True)
        collectors = [one.collector(queries) for one in chosen]
        answered = by_class.answer(name, queries, collectors)
        log_probabilities = _log_probabilities(by_class, answered)
        every = [*ways, *(_collected(one) for one in collectors)]
        made[name], behind[name] = _measure(
            run, name, queries, references, partitions, answered, every, log_probabilities
        )
        further = _regions(by_class, answered, queries) | chosen_tables(made[name], collectors)
        if further:
            behind[name] = Diagnostics(behind[name].method, {**behind[name].tables, **further})
        if name == tests[0]:
            _explain(run, name, made[name], queries, by_class, answered)
            explain_neighbours(run, name, made[name], queries, len(partitions))
            _picture_embeddings(run, name, queries)
        behind[name].save(run.output / name)
    if run.settings.evaluation.leave_photographer_out:
        made[EVERYONE], behind[EVERYONE] = _leave_photographer_out(run, stored(photos))
        behind[EVERYONE].save(run.output / EVERYONE)
    for name, evaluation in made.items():
        evaluation.save(run.output / name)
    write_json(run.output / "evaluations.json", list(made))
    metadata: dict[str, Any] = {"engine": engine_name(by_class.model)}
    metadata |= {name: _headline(evaluation) for name, evaluation in made.items()}
    metadata |= {f"{name}: scores": evaluation.scores.round(3) for name, evaluation in made.items()}
    if frozen:
        metadata["classifiers on frozen features"] = frozen_table(frozen)
    metadata |= {
        f"{name}: {title}": table
        for name, diagnostics in behind.items()
        for title, table in diagnostics.overview().items()
    }
    run_id = _log_to_mlflow(run, made)
    metadata |= _log_model(run, run_id, by_class)
    return StageResult(metadata, run_id)


def _measure(
    run: StageRun,
    test: str,
    queries: pd.DataFrame,
    references: pd.DataFrame,
    partitions: Mapping[str, Partition],
    by_class: ClassAnswers,
    ways: Sequence[Way],
    log_probabilities: Mapping[str, NDArray[np.float64]],
) -> tuple[Evaluation, Diagnostics]:
    """Evaluate the answers by class and by all other ways side by side; with the diagnostics of the first method."""
    everything: Answered = by_class
    for answer in ways:
        everything = everything | answer(test, queries)
    missed = list(queries["photo_id"].iloc[by_class.unreadable])
    by_trip = are_trips(queries["photographer"])
    evaluation = evaluate(
        everything.answers,
        queries,
        references,
        partitions,
        run.settings.evaluation,
        seed=run.settings.seed,
        protocol=TRIP_PROTOCOL if by_trip else DISJOINT_PROTOCOL,
        unit="trips" if by_trip else "photographers",
        unreadable=missed,
        descriptions=everything.descriptions,
        log_probabilities=log_probabilities,
    )
    diagnostics = diagnose(
        evaluation,
        {
            name: found.alternatives
            for name, found in everything.answers.items()
            if found.alternatives is not None
        },
        {partition: facts.cell for partition, facts in by_class.facts.items()},
        queries,
        references,
        partitions,
        unreadable=missed,
    )
    return evaluation, Diagnostics(diagnostics.method, {**diagnostics.tables, **everything.tables})


def _collected(collector: Collector) -> Way:
    return lambda test, queries: collector.answered()


def _log_probabilities(by_class: ByClass, answered: ClassAnswers) -> dict[str, NDArray[np.float64]]:
    """The log probability of each photo's true cell, by method over the cells of one partition."""
    return {
        method.localizer.name: answered.facts[method.partitions[0]].log_true
        for method in by_class.methods
        if len(method.partitions) == 1
    }


def _regions(by_class: ByClass, answered: ClassAnswers, queries: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The measured coverage of the conformal regions, as a table; empty if the build has no regions."""
    owners = photographer_keys(queries)
    clusters = photographer_clusters(owners)

    def interval(covered: NDArray[np.bool_]) -> tuple[float, float]:
        low, high = shares(covered[:, None], clusters).interval()
        return float(low[0]), float(high[0])

    table = by_class.calibration.region_table(
        answered.facts,
        owners,
        interval,
    )
    for note in table.loc[table["note"] != "", "note"].unique() if len(table) else ():
        by_class.run.log(f"regions: {note}")
    return {"regions": table} if len(table) else {}


def _explain(
    run: StageRun,
    test: str,
    evaluation: Evaluation,
    queries: pd.DataFrame,
    by_class: ByClass,
    answered: ClassAnswers,
) -> None:
    """Write what the report shows about how the classifier reaches its answers."""
    main, partition = next(iter(by_class.partitions.items()))
    places = answered.answers[evaluation.methods[0]].alternatives
    assert places is not None  # the first method is by class, and those have alternatives
    wanted = run.settings.evaluation.explained
    run.log(f"{test}: occlusion maps of {wanted} photos" if wanted else f"{test}: no photo is explained")
    scaling = by_class.calibration.temperatures.get(main)
    explain(
        evaluation,
        queries,
        places,
        by_class.model,
        (main, partition),
        answered.facts[main],
        lambda position: by_class.calibration.scaled(by_class.predict(queries.iloc[position])[0])[main],
        run.workspace.pool,
        run.settings.evaluation,
        temperature=np.nan if scaling is None else scaling.temperature,
        crops=run.settings.localizers.crops,
        batch_size=run.settings.localizers.batch_size,
    ).save(run.output / test / EXPLANATIONS_FOLDER)


def _picture_embeddings(run: StageRun, test: str, queries: pd.DataFrame) -> None:
    """Write what the report draws of each model's embeddings of the test photos, as far as the settings ask for it."""
    settings = run.settings.evaluation
    if not settings.tsne and not settings.exciting_units:
        return
    for model, folder in embedding_folders(run.build).items():
        embeddings = Embeddings.load(folder)
        position = embeddings.positions(queries["photo_id"])
        asked = queries.iloc[(position >= 0).nonzero()[0]]
        vectors = embeddings.vectors[position[position >= 0]]
        if settings.tsne:
            found = tsne_map(vectors, asked["photo_id"], settings.tsne, run.settings.seed)
            write_parquet(run.output / f"tsne-{test}-{model}.parquet", found)
        if settings.exciting_units:
            owners = photographer_keys(asked)
            found = exciting_photos(vectors, asked["photo_id"], owners, settings.exciting_units)
            write_parquet(run.output / f"units-{test}-{model}.parquet", found)


def _leave_photographer_out(run: StageRun, photos: pd.DataFrame) -> tuple[Evaluation, Diagnostics]:
    """Each stored photo is a query against all photos by other photographers that are no near-duplicates of it; and,
    for comparison, against those too.

    Only embeddings of the initial backbone are fair here: the classifier was trained on these photos.
    """
    settings = run.settings
    embeddings = Embeddings.load(run.input("features"))
    index = ReferenceIndex.build(embeddings, photos, settings.index, settings.seed)
    position = embeddings.positions(photos["photo_id"])
    readable = (position >= 0).nonzero()[0]
    asked = photos.iloc[readable]
    run.log(f"leave-photographer-out: {len(asked)} photos against {index!r}")
    vectors = embeddings.vectors[position[readable]]
    who, which, copies = (
        asked[column].to_numpy(dtype=object) for column in ("photographer", "photo_id", NEAR_DUPLICATES)
    )
    model, wanted = model_names(1)["backbone"], settings.localizers
    found, descriptions, _ = locate_by_neighbours(index, vectors, model, wanted, who, which, copies)
    # Beside them what reposts by somebody else are worth, which is no skill.
    kept, about, _ = locate_by_neighbours(index, vectors, model, wanted, who, which)
    found |= {f"{name} {WITH_NEAR_DUPLICATES}": answers for name, answers in kept.items()}
    descriptions |= {
        f"{name} {WITH_NEAR_DUPLICATES}": f"{text}; near-duplicates by other photographers are among them"
        for name, text in about.items()
    }
    by_trip = are_trips(photos["photographer"])
    missed = list(photos["photo_id"].iloc[(position < 0).nonzero()[0]])
    evaluation = evaluate(
        {key: value.spread(readable, len(photos)) for key, value in found.items()},
        photos,
        photos,
        None,
        settings.evaluation,
        seed=settings.seed,
        protocol=f"{LEAVE_TRIP_OUT_PROTOCOL if by_trip else LEAVE_PHOTOGRAPHER_OUT_PROTOCOL}, near-duplicates left out",
        unit="trips" if by_trip else "photographers",
        unreadable=missed,
        leave_photographer_out=True,
        descriptions=descriptions,
    )
    return evaluation, diagnose(
        evaluation, {}, {}, photos, photos, {}, unreadable=missed, leave_photographer_out=True
    )


def _headline(evaluation: Evaluation) -> pd.DataFrame:
    """Accuracy in per cent, one row per method and one column per level."""
    table = pd.concat([evaluation.accuracy, evaluation.baselines.rename(columns={"baseline": "method"})])
    order = list(dict.fromkeys(table["method"]))
    wide = table.pivot(index="method", columns="level", values="accuracy").loc[
        order, list(evaluation.levels_km)
    ]
    return (wide * 100).round(2).reset_index()


def _log_to_mlflow(run: StageRun, made: dict[str, Evaluation]) -> str:
    with tracked_run(
        run.workspace,
        f"{run.settings.recipe} evaluation",
        settings=run.build.used(run.stage),
        tags=run.tags,
        data_version=run.tags["data_version"],
    ) as tracker:
        for name, evaluation in made.items():
            tracker.metrics(
                {
                    _metric_name(f"{name}/{row.method}/{row.level}"): row.accuracy
                    for row in evaluation.accuracy.itertuples()
                }
                | {
                    _metric_name(f"{name}/{row.method}/{row.measure}"): row.value
                    for row in evaluation.scores.itertuples()
                },
                step=0,
            )
        tracker.artefacts(run.output)
    return tracker.run_id


def _log_model(run: StageRun, run_id: str, by_class: ByClass) -> dict[str, str]:
    """Log what answers (network, partitions, calibration, index) as one model of the run that has its metrics, and
    register it. Returns facts for people: without an exported network there is no such model."""
    graph = run.input("classifier") / GRAPH_FILE
    if not graph.is_file():
        run.log("no model is registered: the classifier has no exported network")
        return {"registered model": "none: the classifier has no exported network"}
    packed = run.scratch / "served"
    shutil.rmtree(packed, ignore_errors=True)
    pack(
        packed,
        graph=graph,
        partitions={name: run.input("partition") / name for name in by_class.partitions},
        calibration=by_class.calibration,
        references=_served_references(run),
        settings=run.settings.localizers,
        model_name=model_names(len(by_class.partitions))["classifier"],
    )
    model = log_served_build(run.workspace, run_id, run.settings.recipe, packed)
    shutil.rmtree(packed)
    return {"registered model": f"{registered_name(run.settings.recipe)} ({model})"}


def _served_references(run: StageRun) -> References | None:
    """What the registered model finds neighbours with; None where it answers by class only."""
    folder = embedding_folders(run.build).get("classifier")
    if folder is None:
        return None
    layer, pca = folder / GRAPH_FILE, folder / PCA_FILE
    of_layer = run.settings.embeddings.layer is not None
    if of_layer and not layer.is_file():
        run.log("the registered model answers by class only: the layer that embeds has no exported network")
        return None
    saved, wanted = run.input("index") / "classifier", run.settings.localizers.references
    index = None if wanted is None else ReferenceIndex.load(saved, mapped=True)
    return References(
        saved,
        layer if of_layer else None,
        pca if pca.is_file() else None,
        None if index is None else references_among(run.workspace, index, wanted),
    )


def _metric_name(name: str) -> str:
    """`name` without the characters that MLflow does not allow in the names of metrics."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name.replace("σ", "sigma"))
