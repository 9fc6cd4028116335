"""Stage evaluation: every localizer of the build on the test photos, measured side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from geoloc.evaluation.diagnostics import Diagnostics, diagnose
from geoloc.evaluation.evaluate import LEAVE_PHOTOGRAPHER_OUT_PROTOCOL, evaluate
from geoloc.evaluation.explaining.explanations import FOLDER as EXPLANATIONS_FOLDER
from geoloc.evaluation.explaining.explanations import explain
from geoloc.evaluation.result import Evaluation
from geoloc.files import write_json, write_parquet
from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.methods import ClassMethod, class_methods
from geoloc.localizers.by_class.probabilities import Probabilities
from geoloc.localizers.by_neighbour import locate_by_neighbours, neighbour_table
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.frozen.localizer import FrozenLocalizer, fit_frozen, frozen_table, vectors_of
from geoloc.models.classifier import Classifier
from geoloc.models.prediction import predict_probabilities
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from orchestration.assets.inputs import load_partitions, model_names, photos_with_split, stored
from orchestration.assets.trained import load_trained
from orchestration.run.stage import StageResult, StageRun
from orchestration.stores.tracking import tracked_run

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

NEIGHBOURS_SHOWN = 5
EVERYONE = "leave-photographer-out"


@dataclass(frozen=True)
class ByClass:
    """The trained classifier, its partitions by name, and all that answers by them, fitted."""

    model: Classifier
    partitions: Mapping[str, Partition]
    methods: list[ClassMethod]
    calibration: Calibration
    frozen: list[FrozenLocalizer]


def build(run: StageRun) -> StageResult:
    photos = photos_with_split(run.workspace.pool, run.input("splits"))
    references = photos[(photos["split"] == "train") & photos["shard"].notna()]
    tests = [
        name for name in sorted(photos["split"].unique()) if name not in ("train", "validation", "unused")
    ]
    by_class = _by_class(run, references, photos[photos["split"] == "validation"])
    made, behind = {}, {}
    for name in tests:
        queries = photos[photos["split"] == name].reset_index(drop=True)
        made[name], behind[name] = _evaluate_test_set(
            run, name, queries, references, by_class, main=name == tests[0]
        )
        behind[name].save(run.output / name)
    if run.settings.evaluation.leave_photographer_out:
        everyone = photos[photos["shard"].notna()].reset_index(drop=True)
        made[EVERYONE], behind[EVERYONE] = _leave_photographer_out(run, everyone)
        behind[EVERYONE].save(run.output / EVERYONE)
    for name, evaluation in made.items():
        evaluation.save(run.output / name)
    write_json(run.output / "evaluations.json", list(made))
    metadata: dict[str, Any] = {name: _headline(evaluation) for name, evaluation in made.items()}
    if by_class.frozen:
        metadata["classifiers on frozen features"] = frozen_table(by_class.frozen)
    metadata |= {
        f"{name}: {title}": table
        for name, diagnostics in behind.items()
        for title, table in diagnostics.overview().items()
    }
    return StageResult(metadata, _log_to_mlflow(run, made))


def _by_class(run: StageRun, references: pd.DataFrame, validation: pd.DataFrame) -> ByClass:
    """Everything by class that does not depend on the test set; what validation photos taught is written."""
    settings = run.settings
    partitions = load_partitions(run.input("partition"))
    # First of all, because partitions that cannot be combined should stop the stage before a photo is read.
    methods = class_methods(
        partitions,
        settings.localizers,
        references["latitude"],
        references["longitude"],
        model_name=model_names(len(partitions))["classifier"],
        seed=settings.seed,
    )
    model = load_trained(run.workspace, settings.recipe, partitions)
    model.to(memory_format=torch.channels_last)
    frozen = _frozen(run, partitions, references, validation)
    if not Calibration.wanted(settings.localizers):
        return ByClass(model, partitions, methods, Calibration.none(), frozen)
    seen = stored(validation)
    run.log(f"calibration: class probabilities of {len(seen)} validation photos")
    probabilities, _ = _probabilities(run, model, seen)
    calibration = Calibration.fit(
        partitions, probabilities, seen["latitude"], seen["longitude"], settings.localizers
    )
    calibration.save(run.output)
    return ByClass(model, partitions, methods, calibration, frozen)


def _frozen(
    run: StageRun, partitions: Mapping[str, Partition], references: pd.DataFrame, validation: pd.DataFrame
) -> list[FrozenLocalizer]:
    """Classifiers on features of the network's first weights, fitted and written; none where none are asked for."""
    if not run.settings.localizers.frozen.kinds:
        return []
    made = fit_frozen(
        partitions,
        run.settings.localizers,
        Embeddings.load(run.input("embeddings") / "backbone"),
        references,
        validation,
        model_name=model_names(len(partitions))["backbone"],
        seed=run.settings.seed,
        log=run.log,
    )
    for one in made:
        one.save(run.output)
    return made


def _probabilities(
    run: StageRun, model: Classifier, photos: pd.DataFrame
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
    """Probabilities by partition, and the positions of photos that cannot be read, or were never stored: NaN."""
    limits = run.settings.localizers
    return predict_probabilities(model, run.workspace.pool, photos, limits.batch_size, crops=limits.crops)


def _evaluate_test_set(
    run: StageRun,
    name: str,
    queries: pd.DataFrame,
    references: pd.DataFrame,
    by_class: ByClass,
    *,
    main: bool,
) -> tuple[Evaluation, Diagnostics]:
    settings = run.settings
    names = model_names(len(by_class.partitions))
    run.log(f"{name}: class probabilities of {len(queries)} photos")
    # A photo that cannot be read, or was never stored, has NaN probabilities and so abstains.
    raw, unreadable = _probabilities(run, by_class.model, queries)
    probabilities = by_class.calibration.scaled(raw)
    answers: dict[str, Answers] = {}
    descriptions: dict[str, str] = {}
    for method in by_class.methods:
        answers[method.localizer.name] = method.locate(probabilities)
        descriptions[method.localizer.name] = method.localizer.describe()
    for model_folder in sorted(p for p in run.input("index").iterdir() if p.is_dir()):
        index = ReferenceIndex.load(model_folder)
        embeddings = Embeddings.load(run.input("embeddings") / model_folder.name)
        position = embeddings.positions(queries["photo_id"])
        run.log(f"{name}: neighbours in {index!r}")
        found, described, neighbours = locate_by_neighbours(
            index,
            embeddings.vectors[position[position >= 0]],
            names[model_folder.name],
            settings.localizers,
        )
        readable = (position >= 0).nonzero()[0]
        answers |= {key: value.spread(readable, len(queries)) for key, value in found.items()}
        descriptions |= described
        write_parquet(
            run.output / f"neighbours-{name}-{model_folder.name}.parquet",
            neighbour_table(queries["photo_id"].iloc[readable], neighbours, NEIGHBOURS_SHOWN),
        )
    if by_class.frozen:
        vectors = vectors_of(Embeddings.load(run.input("embeddings") / "backbone"), queries["photo_id"])
        answers |= {one.name: one.locate(vectors) for one in by_class.frozen}
        descriptions |= {one.name: one.describe() for one in by_class.frozen}
    missed = list(queries["photo_id"].iloc[unreadable])
    evaluation = evaluate(
        answers,
        queries,
        references,
        by_class.partitions,
        settings.evaluation,
        seed=settings.seed,
        unreadable=missed,
        descriptions=descriptions,
    )
    diagnostics = diagnose(
        evaluation,
        {key: found.alternatives for key, found in answers.items() if found.alternatives is not None},
        {partition: _most_probable(p) for partition, p in probabilities.items()},
        queries,
        references,
        by_class.partitions,
        unreadable=missed,
    )
    if main:
        _explain(run, name, evaluation, queries, by_class, (raw, probabilities), answers)
    regions = by_class.calibration.region_table(
        by_class.partitions, probabilities, queries["latitude"], queries["longitude"]
    )
    if len(regions):
        diagnostics = Diagnostics(diagnostics.method, {**diagnostics.tables, "regions": regions})
    return evaluation, diagnostics


def _explain(
    run: StageRun,
    test: str,
    evaluation: Evaluation,
    queries: pd.DataFrame,
    by_class: ByClass,
    probabilities: tuple[Probabilities, Probabilities],
    answers: Mapping[str, Answers],
) -> None:
    """What the report shows of how the classifier comes to its answers; `probabilities` before and after scaling."""
    main, partition = next(iter(by_class.partitions.items()))
    places = answers[evaluation.methods[0]].alternatives
    assert places is not None  # the first method is by class, and these have alternatives
    wanted = run.settings.evaluation.explained
    run.log(f"{test}: occlusion maps of {wanted} photos" if wanted else f"{test}: no photo is explained")
    scaling = by_class.calibration.temperatures.get(main)
    explain(
        evaluation,
        queries,
        places,
        by_class.model,
        (main, partition),
        probabilities[0][main],
        probabilities[1][main],
        run.workspace.pool,
        run.settings.evaluation,
        temperature=np.nan if scaling is None else scaling.temperature,
        crops=run.settings.localizers.crops,
        batch_size=run.settings.localizers.batch_size,
    ).save(run.output / test / EXPLANATIONS_FOLDER)


def _most_probable(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """The cell of each photo that an argmax answers with, int64 (N,); -1 for an unreadable photo."""
    cells = np.nan_to_num(probabilities).argmax(axis=1).astype(np.int64)
    cells[np.isnan(probabilities).any(axis=1)] = -1
    return cells


def _leave_photographer_out(run: StageRun, photos: pd.DataFrame) -> tuple[Evaluation, Diagnostics]:
    """Each stored photo a query against all the others by other photographers.

    Only embeddings of the initial backbone are fair here: the classifier has seen these photos and their places.
    """
    settings = run.settings
    embeddings = Embeddings.load(run.input("embeddings") / "backbone")
    index = ReferenceIndex.build(embeddings, photos, settings.index, settings.seed)
    position = embeddings.positions(photos["photo_id"])
    readable = (position >= 0).nonzero()[0]
    asked = photos.iloc[readable]
    run.log(f"leave-photographer-out: {len(asked)} photos against {index!r}")
    found, descriptions, _ = locate_by_neighbours(
        index,
        embeddings.vectors[position[readable]],
        model_names(1)["backbone"],
        settings.localizers,
        exclude_photographers=asked["photographer"].to_numpy(dtype=object),
        exclude_photos=asked["photo_id"].to_numpy(dtype=object),
    )
    missed = list(photos["photo_id"].iloc[(position < 0).nonzero()[0]])
    evaluation = evaluate(
        {key: value.spread(readable, len(photos)) for key, value in found.items()},
        photos,
        photos,
        None,
        settings.evaluation,
        seed=settings.seed,
        protocol=LEAVE_PHOTOGRAPHER_OUT_PROTOCOL,
        unreadable=missed,
        leave_photographer_out=True,
        descriptions=descriptions,
    )
    return evaluation, diagnose(
        evaluation, {}, {}, photos, photos, {}, unreadable=missed, leave_photographer_out=True
    )


def _headline(evaluation: Evaluation) -> pd.DataFrame:
    """Accuracy in per cent, a row a method and a column a level."""
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
        settings=run.settings.sections(run.stage.sections),
        tags=run.tags,
        data_version=run.tags["data_version"],
    ) as tracker:
        for name, evaluation in made.items():
            tracker.metrics(
                {
                    _metric_name(f"{name}/{row.method}/{row.level}"): row.accuracy
                    for row in evaluation.accuracy.itertuples()
                },
                step=0,
            )
        tracker.artefacts(run.output)
    return tracker.run_id


def _metric_name(name: str) -> str:
    """MLflow allows letters, digits and a few marks in the names of metrics."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name.replace("σ", "sigma"))
