"""The answers of models of time and albums, for the evaluation stage, and what they are worth beside single photos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.explaining.tracks import pick_tracks
from geoloc.evaluation.measures.accuracy import error_km
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.class_bias import class_bias
from geoloc.evaluation.measures.signed_rank import FURTHEST_KM, paired_errors
from geoloc.files import write_parquet
from geoloc.localizers.base import Answers
from geoloc.localizers.by_album.context import AlbumModels, ContextMethods, TimeModels, by_person
from geoloc.localizers.by_class.probabilities import CELLS_AT_ONCE
from geoloc.photos.owners import photographer_keys
from geoloc.photos.sequences import make_sequences
from orchestration.assets.answers import Answered, Way
from orchestration.assets.context_photos import ContextInput
from orchestration.assets.inputs import model_names
from orchestration.plan.chain import TRACKS_FILE
from orchestration.run.stage import StageRun

COMPARED, ALONE = "less_single_photos", "answered_as_single_photos"
INDOOR = 0.5


def context_ways(run: StageRun, partitions: int) -> list[Way]:
    """The answers of models of time and albums; none for a recipe without."""
    return [by_context(run, partitions)] if run.settings.context else []


def by_context(run: StageRun, partitions: int) -> Way:
    """Answers for photos with their times, and for all photos of an album or person together.

    Photos are answered in parts, all those of a person in one, so that the probabilities of all are never held.
    """
    given, settings = ContextInput(run), run.settings
    methods = ContextMethods(
        given.partition,
        None if settings.time is None else TimeModels.load(run.input("time_model"), settings.time),
        None if settings.albums is None else AlbumModels.load(run.input("album_models"), settings.albums),
        settings.localizers.answers[0],
        model_names(partitions)["classifier"],
    )
    known = given.stored.photos.set_index("photo_id", drop=False)

    def answer(test: str, queries: pd.DataFrame) -> Answered:
        here = np.flatnonzero(queries["photo_id"].isin(known.index))
        photos = known.loc[queries["photo_id"].iloc[here]].reset_index(drop=True)
        run.log(f"{test}: models of time and albums over {len(photos)} photos")
        single, found, about, alone = _in_parts(methods, given, photos)
        _save_tracks(run, test, methods, photos, single, found)
        count = len(queries)
        spread = {name: one.spread(here, count) for name, one in found.items()}
        return Answered(
            spread,
            about,
            tables={
                COMPARED: compared(single.spread(here, count), spread, queries, methods),
                ALONE: _alone(alone),
            },
        )

    return answer


def _in_parts(
    methods: ContextMethods, given: ContextInput, photos: pd.DataFrame
) -> tuple[Answers, dict[str, Answers], dict[str, str], dict[str, NDArray[np.object_]]]:
    """The single photos' answers, and by method the answers, what it is, and why photos are answered alone."""
    parts = by_person(photos, max(CELLS_AT_ONCE // max(given.stored.cells, 1), 1))
    single: list[Answers] = []
    answers: dict[str, list[Answers]] = {}
    about: dict[str, str] = {}
    alone: dict[str, list[Any]] = {}
    for rows in parts:
        seen = given.seen(photos.iloc[rows])
        single.append(methods.single().locate(seen.single))
        for name, one in methods.answers(seen).items():
            answers.setdefault(name, []).append(one.answers)
            alone.setdefault(name, []).append(one.alone)
            about[name] = one.description
    back = np.argsort(np.concatenate(parts), kind="stable")
    return (
        Answers.joined(single).take(back),
        {name: Answers.joined(some).take(back) for name, some in answers.items()},
        about,
        {name: np.concatenate(some)[back] for name, some in alone.items()},
    )


def _save_tracks(
    run: StageRun,
    test: str,
    methods: ContextMethods,
    photos: pd.DataFrame,
    single: Answers,
    found: dict[str, Answers],
) -> None:
    """Write what the report draws of some albums, by the method with the least mean error; nothing without albums."""
    if methods.albums is None or not found:
        return
    truth = photos["latitude"], photos["longitude"]
    errors = {name: _errors(one, truth) for name, one in found.items()}
    best = min(errors, key=lambda name: float(np.minimum(errors[name], FURTHEST_KM).mean()))
    taken = photos["taken_at"].astype("str").fillna("")
    table = pd.DataFrame(
        {
            "photo_id": photos["photo_id"], "taken_at": taken, "true_latitude": truth[0], "true_longitude": truth[1],
            "alone_latitude": single.latitude, "alone_longitude": single.longitude, "latitude": found[best].latitude,
            "longitude": found[best].longitude, "alone_km": _errors(single, truth), "error_km": errors[best],
        }
    )  # fmt: skip
    tracks = pick_tracks(table, make_sequences(photos, methods.albums.settings.sequences))
    write_parquet(run.output / TRACKS_FILE.format(test=test), tracks.assign(method=best))


def compared(
    single: Answers, found: dict[str, Answers], queries: pd.DataFrame, methods: ContextMethods
) -> pd.DataFrame:
    """Each method's errors less those of single photos, on all photos and on outdoor ones, and the bias of its cells.

    `low` and `high` bound the mean difference by photographer; `wilcoxon_p` takes photos as independent of each other,
    which those of one photographer are not. KL divergence and entropies are of answered cells, in nats.
    """
    truth = queries["latitude"], queries["longitude"]
    cells = methods.partition.assign(*truth).astype(np.int64)
    owners = photographer_keys(queries)
    outdoor = queries["prob_indoor"].to_numpy(np.float64) < INDOOR if "prob_indoor" in queries else None
    groups = {"all": np.ones(len(queries), dtype=bool)}
    if outdoor is not None and outdoor.any() and not outdoor.all():
        groups["outdoor"] = outdoor
    first = _errors(single, truth)
    rows = []
    for name, one in {methods.single().name: single, **found}.items():
        errors = _errors(one, truth)
        for group, inside in groups.items():
            assert one.cells is not None
            paired = paired_errors(errors[inside], first[inside], photographer_clusters(owners[inside]))
            bias = class_bias(cells[inside], one.cells.cell[inside, 0], methods.partition.cell_count)
            rows.append(
                {
                    "method": name, "photos": group, "n": int(inside.sum()),
                    "mean_km": float(np.minimum(errors[inside], FURTHEST_KM).mean()),
                    "mean_km_less_single": paired.mean_km, "low": paired.low, "high": paired.high,
                    "nearer": paired.nearer, "further": paired.further,
                    "wilcoxon_p": f"{paired.wilcoxon_p:.1e}", "kl_divergence": bias.kl_divergence,
                    "entropy_answered": bias.entropy_answered, "entropy_true": bias.entropy_true,
                }
            )  # fmt: skip
    return pd.DataFrame(rows).round(10)


def _errors(answers: Answers, truth: tuple[pd.Series, pd.Series]) -> NDArray[np.float64]:
    return error_km(*truth, answers.latitude, answers.longitude)


def _alone(alone: dict[str, NDArray[np.object_]]) -> pd.DataFrame:
    """How many photos each method answered as single photos, by reason; 0 without a reason where it did for none."""
    rows = []
    for name, reasons in alone.items():
        counts = pd.Series(reasons, dtype=object).value_counts()
        rows += [
            {"method": name, "photos": int(count), "of": len(reasons), "reason": str(why)}
            for why, count in counts.items()
        ] or [{"method": name, "photos": 0, "of": len(reasons), "reason": ""}]
    return pd.DataFrame(rows)
