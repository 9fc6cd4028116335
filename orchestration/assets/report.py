"""Stage report: everything about a build on one offline page, with its provenance in the footer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from geoloc.evaluation.cross_view import CrossViewEvaluation
from geoloc.evaluation.diagnostics import FILE as DIAGNOSTICS_FILE
from geoloc.evaluation.diagnostics import REFERENCE_SIZE, Diagnostics
from geoloc.evaluation.explaining.explanations import FILE as EXPLANATIONS_FILE
from geoloc.evaluation.explaining.explanations import FOLDER as EXPLANATIONS_FOLDER
from geoloc.evaluation.explaining.explanations import Explanations
from geoloc.evaluation.explaining.neighbourhoods import FILE as NEIGHBOURHOODS_FILE
from geoloc.evaluation.explaining.neighbourhoods import Neighbourhoods
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json, read_parquet
from geoloc.photos.catalog import CATALOG_FILE, empty_catalog, read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.quarantine import PHOTO, count_reasons, read_quarantine
from geoloc.photos.shards import ShardReader
from geoloc.photos.split_checks import check_splits
from geoloc.photos.trips import are_trips
from geoloc.places import nearest_places
from geoloc.reports.banner import banners
from geoloc.reports.embedding_figures import embedding_groups
from geoloc.reports.examples import Example, ExampleNeighbour, ExampleSet, pick_examples, thumbnail
from geoloc.reports.gallery import GALLERY_FILE, GalleryInput
from geoloc.reports.gallery_choice import gather_gallery
from geoloc.reports.overhead_figures import cross_view_group, score_table
from geoloc.reports.reference_figures import reference_group
from geoloc.reports.report import ReportInput, figure_file, write_report
from geoloc.reports.summary import bent_warnings
from geoloc.reports.thoughts import FigureGroup, gather_thoughts
from geoloc.reports.track_figures import posting_group, track_group
from orchestration.assets.inputs import load_partitions, model_names, read_photos, with_newcomers
from orchestration.lineage.checks import results_for_now
from orchestration.lineage.origin import commit_text, git_state
from orchestration.plan.chain import CITIES_FILE, STAGES, TRACKS_FILE, TRAINING_FILE, inputs_of
from orchestration.run.stage import StageResult, StageRun

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

CROSS_VIEW = "street photos and overhead tiles"
"""The title of the table of cross-view scores."""
JOINT = "photo classifier and overhead tiles together"
KNOWN = "what the classifier was trained on there"
"""The titles of the joint evaluation and of its table of cities."""
EXAMPLES = 6
"""Number of best and of worst photos shown per method."""
THOUGHTS_IN_DAGSTER = ("probabilities-1", "surest", "calibration")
"""Confidence figures that are also stored in Dagster's history. They are few, because the history keeps them for
every report; the page has all."""


def build(run: StageRun) -> StageResult:
    evaluations = {
        name: Evaluation.load(run.input("evaluation") / name)
        for name in read_json(run.input("evaluation") / "evaluations.json", list)
    }
    main = next(iter(evaluations))
    present = inputs_of(run.settings, run.stage)
    counted = with_newcomers(run)
    splits = counted[["photo_id", "split", "reason"]]
    photos = read_catalog(run.workspace.pool).merge(
        splits[["photo_id", "split"]], on="photo_id", validate="1:1"
    )
    photos = photos.set_index("photo_id")
    sources = {str(name): int(n) for name, n in photos["source"].value_counts().sort_index().items()}
    partitions = load_partitions(run.input("partition"))
    gallery = _gallery(run, photos.reset_index(), sources)
    names = model_names(len(partitions), run.settings)
    thoughts = _thoughts(run, evaluations[main], main, photos, partitions)
    thoughts += reference_group(_table(run.input("evaluation") / main, REFERENCE_SIZE))
    thoughts += _embeddings(run, main, photos, names)
    thoughts += _context(run, main, photos)
    cross_view = _cross_view(run)
    if cross_view is not None:
        thoughts += _cross_view_figures(run, cross_view, photos)
    joint = _joint(run)
    report = ReportInput(
        workspace=run.workspace.root.name,
        recipe=run.settings.recipe,
        data_version=run.tags["data_version"],
        evaluation=evaluations.pop(main),
        further=evaluations | joint,
        banner=run.settings.note,
        sources=sources,
        gallery=gallery,
        partitions=partitions,
        training={
            network: pd.DataFrame(read_json(run.input(network) / TRAINING_FILE, dict)["history"])
            for network in ("classifier", "metric", "cross_view_model")
            if network in present
        },
        splits=_sizes(photos, counted),
        warnings=bent_warnings(counted),
        checks=_checks(run, read_photos(run.input("splits"))[["photo_id", "split", "reason"]]),
        diagnostics=_diagnostics(run.input("evaluation") / main)
        | ({} if cross_view is None else {CROSS_VIEW: score_table(cross_view)}),
        further_diagnostics={name: _diagnostics(run.input("evaluation") / name) for name in evaluations}
        | {name: {KNOWN: read_parquet(run.input("joint_evaluation") / CITIES_FILE)} for name in joint},
        thoughts=thoughts,
        quarantine=count_reasons(read_quarantine(run.workspace.pool)),
        examples=_examples(run, main, photos, names),
        provenance=_provenance(run),
    )
    written = write_report(run.output, report)
    run.log(f"{len(written)} files; the page is {written[0].stat().st_size / 1e6:.1f} MB")
    return StageResult(
        {
            "gallery": run.output / GALLERY_FILE,
            "gallery facts": pd.DataFrame(gallery.facts.items(), columns=["what", "count"]),
            "accuracy": pd.read_csv(run.output / "tables" / "accuracy.csv"),
            "errors": pd.read_csv(run.output / "tables" / "errors.csv"),
            "accuracy against distance": run.output / "figures" / "accuracy.png",
            "errors of the first method": run.output / "figures" / "errors-1.png",
            "cells": run.output / "figures" / "cells-1.png",
        }
        | {
            f"{group.title}: {one.name}": run.output / "figures" / figure_file(one.name, one.data)
            for group in thoughts
            for one in group.figures
            if one.name in THOUGHTS_IN_DAGSTER
        }
    )


def _cross_view(run: StageRun) -> CrossViewEvaluation | None:
    """The evaluation of the cross-view network; None if the recipe has none."""
    if "cross_view_evaluation" not in inputs_of(run.settings, run.stage):
        return None
    return CrossViewEvaluation.load(run.input("cross_view_evaluation"))


def _joint(run: StageRun) -> dict[str, Evaluation]:
    """The evaluation of photo and overhead tiles together, by its name; empty if there is none."""
    measured = "joint_evaluation" in inputs_of(run.settings, run.stage)
    if not measured or not (run.input("joint_evaluation") / "evaluation.json").is_file():
        return {}
    return {JOINT: Evaluation.load(run.input("joint_evaluation"))}


def _cross_view_figures(
    run: StageRun, found: CrossViewEvaluation, photos: pd.DataFrame
) -> tuple[FigureGroup, ...]:
    pool = overhead_pool(run.workspace.pool)
    tiles = read_catalog(pool).set_index("photo_id")
    with ShardReader(run.workspace.pool) as street, ShardReader(pool) as overhead:
        return cross_view_group(
            found,
            lambda photo_id: _stored_bytes(photos.loc[photo_id], street),
            lambda tile_id: _stored_bytes(tiles.loc[tile_id], overhead),
        )


def _diagnostics(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a test set; empty if only leave-photographer-out was evaluated."""
    return Diagnostics.load(folder).overview() if (folder / DIAGNOSTICS_FILE).is_file() else {}


def _table(folder: Path, name: str) -> pd.DataFrame | None:
    """A table of the diagnostics of a test set, as it was measured; None if it has none of that name."""
    return Diagnostics.load(folder).tables.get(name) if (folder / DIAGNOSTICS_FILE).is_file() else None


def _thoughts(
    run: StageRun,
    evaluation: Evaluation,
    test: str,
    photos: pd.DataFrame,
    partitions: Mapping[str, Partition],
) -> tuple[FigureGroup, ...]:
    """How sure the methods are, and why. The classifier's part needs a test set."""
    folder = run.input("evaluation") / test / EXPLANATIONS_FOLDER
    found = Explanations.load(folder) if (folder / EXPLANATIONS_FILE).is_file() else None
    around = Neighbourhoods.load(folder) if (folder / NEIGHBOURHOODS_FILE).is_file() else None
    with ShardReader(run.workspace.pool) as reader:
        return gather_thoughts(
            evaluation,
            found,
            None if found is None else partitions[found.partition],
            lambda photo_id: _stored_bytes(photos.loc[photo_id], reader),
            around,
        )


def _embeddings(
    run: StageRun, test: str, photos: pd.DataFrame, models: Mapping[str, str]
) -> tuple[FigureGroup, ...]:
    """The figures of embeddings that the evaluation made tables for; none by default. `models` are names in tables."""

    def tables(kind: str) -> dict[str, pd.DataFrame]:
        files = {
            name: run.input("evaluation") / f"{kind}-{test}-{model}.parquet" for model, name in models.items()
        }
        return {name: read_parquet(file) for name, file in files.items() if file.exists()}

    places = photos[["latitude", "longitude"]]
    maps = {name: found.join(places, on="photo_id") for name, found in tables("tsne").items()}
    with ShardReader(run.workspace.pool) as reader:

        def picture(photo_id: str) -> bytes | None:
            data = _stored_bytes(photos.loc[photo_id], reader)
            return None if data is None else thumbnail(data, 160)

        return embedding_groups(maps, tables("units"), picture)


def _context(run: StageRun, test: str, photos: pd.DataFrame) -> tuple[FigureGroup, ...]:
    """Tracks of albums, and when photos are posted, for a recipe with models of albums or time."""
    file = run.input("evaluation") / TRACKS_FILE.format(test=test)
    tracks = read_parquet(file) if file.exists() else pd.DataFrame()
    groups = track_group(tracks, tracks["method"].iloc[0] if len(tracks) else "")
    if "time_model" in inputs_of(run.settings, STAGES["evaluation"]):
        groups += posting_group(photos["longitude"], photos["posted_at"])
    return groups


def _stored_bytes(photo: pd.Series, reader: ShardReader) -> bytes | None:
    if pd.isna(photo["shard"]):
        return None
    return reader.read(photo["shard"], int(photo["offset"]), int(photo["length"]))


def _gallery(run: StageRun, photos: pd.DataFrame, sources: Mapping[str, int]) -> GalleryInput:
    """The input of the page that shows the whole pool, overhead tiles included."""
    pool, tiles_pool = run.workspace.pool, overhead_pool(run.workspace.pool)
    tiles = read_catalog(tiles_pool) if (tiles_pool / CATALOG_FILE).is_file() else empty_catalog()
    turned_away = read_quarantine(pool)["severity"].eq(PHOTO).sum()
    with ShardReader(pool) as street, ShardReader(tiles_pool) as overhead:
        return gather_gallery(
            run.tags["data_version"],
            banners(run.settings.note, sources),
            photos,
            read_pairs(pool),
            tiles,
            street.read,
            overhead.read,
            turned_away=int(turned_away),
        )


def _sizes(photos: pd.DataFrame, counted: pd.DataFrame) -> pd.DataFrame:
    """Photos and photographers of each split and, where trips are held out, their number."""
    grouped = photos.groupby("split").agg(
        photos=("source", "size"), photographers=("photographer", "nunique")
    )
    if are_trips(counted["photographer"]):
        grouped["trips"] = counted.groupby("split")["photographer"].nunique()
    return grouped.reset_index()


def _checks(run: StageRun, splits: pd.DataFrame) -> pd.DataFrame:
    """What the suites found on each output, and the promises of the split, checked again on the table that was used."""
    suites = [
        {
            "name": f"{stage.name}: {found.name}",
            "passed": found.passed,
            "result": found.result,
            "count": found.critical + found.warnings,
            "detail": found.detail,
        }
        for stage in run.build.stages
        for found in results_for_now(run.build, stage.name).values()
        if found is not None
    ]
    catalog = read_catalog(run.workspace.pool)
    if "growth" in inputs_of(run.settings, run.stage):  # those that came later are not split yet
        catalog = catalog[catalog["photo_id"].isin(splits["photo_id"])].reset_index(drop=True)
    results = check_splits(catalog, splits, run.settings.splits)
    promises = [
        {
            "name": c.name,
            "passed": c.passed,
            "result": "passed" if c.passed else "failed",
            "count": c.count,
            "detail": c.detail,
        }
        for c in results
    ]
    return pd.DataFrame(suites + promises)


def _examples(
    run: StageRun, test: str, photos: pd.DataFrame, models: Mapping[str, str]
) -> tuple[ExampleSet, ...]:
    """Best and worst answers by class and by the neighbours of the trained networks, each with its nearest
    references; `models` are their names in tables."""
    evaluation = Evaluation.load(run.input("evaluation") / test)
    shown = {evaluation.methods[0]: "classifier"}
    shown |= {
        f"[{models[model]}]NN": model for model in ("classifier", "metric", "external") if model in models
    }
    sets = []
    with ShardReader(run.workspace.pool) as reader:
        for method, model in shown.items():
            if method not in evaluation.methods:
                continue
            file = run.input("evaluation") / f"neighbours-{test}-{model}.parquet"
            neighbours = read_parquet(file) if file.exists() else None
            sides = pick_examples(evaluation, method, EXAMPLES, photos["photographer"])
            sets.append(ExampleSet(method, *(_side(rows, photos, neighbours, reader) for rows in sides)))
    return tuple(sets)


def _side(
    rows: pd.DataFrame, photos: pd.DataFrame, neighbours: pd.DataFrame | None, reader: ShardReader
) -> tuple[Example, ...]:
    def picture(photo_id: str) -> bytes | None:
        data = _stored_bytes(photos.loc[photo_id], reader)
        return None if data is None else thumbnail(data)

    def near(photo_id: str) -> tuple[ExampleNeighbour, ...]:
        if neighbours is None:
            return ()
        found = neighbours[neighbours["photo_id"] == photo_id].sort_values("rank")
        places = nearest_places(found["latitude"], found["longitude"])
        return tuple(
            ExampleNeighbour(
                n.neighbour, picture(n.neighbour), n.latitude, n.longitude, n.similarity, str(place)
            )
            for n, place in zip(found.itertuples(), places, strict=True)
        )

    truths = nearest_places(rows["true_latitude"], rows["true_longitude"])
    answers = nearest_places(rows["latitude"], rows["longitude"])
    return tuple(
        Example(
            row.photo_id,
            picture(row.photo_id),
            row.true_latitude,
            row.true_longitude,
            row.latitude,
            row.longitude,
            row.error_km,
            row.confidence,
            str(truth),
            str(answer),
            near(row.photo_id),
        )
        for row, truth, answer in zip(rows.itertuples(), truths, answers, strict=True)
    )


def _provenance(run: StageRun) -> Mapping[str, str | None]:
    recorded = {
        stage.name: run.build.built(stage.name) for stage in run.build.stages if stage.name != "report"
    }
    commit, dirty = git_state(run.workspace.root)
    evaluation = recorded["evaluation"]
    return {
        "data version": run.tags["data_version"],
        "workspace commit": commit_text(commit, dirty),
        "code commit": commit_text(evaluation.code_commit, evaluation.code_dirty),
        "settings hash of the evaluation": evaluation.settings_hash,
        "code version of the evaluation": evaluation.code_version,
        **{f"content of {name}": record.content for name, record in recorded.items()},
        **{
            f"MLflow run of the {name}": recorded[stage].mlflow_run
            for stage, name in (
                ("classifier", "classifier"),
                ("metric", "metric network"),
                ("time_model", "models of time"),
                ("album_models", "models of albums"),
                ("cross_view_model", "cross-view network"),
                ("cross_view_evaluation", "cross-view evaluation"),
                ("joint_evaluation", "joint evaluation"),
            )
            if stage in recorded
        },
        "MLflow run of the evaluation": evaluation.mlflow_run,
        "Dagster run": run.dagster_run,
        "made at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
