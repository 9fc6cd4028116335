"""Evaluate localizers: from their answers to the tables that a report prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.countries import Areas, areas_of
from geoloc.evaluation.measures import baselines as baseline_module
from geoloc.evaluation.measures.accuracy import (
    accuracy_curve,
    curve_distances,
    error_km,
    summarise_errors,
    within,
)
from geoloc.evaluation.measures.baselines import BEST_CONSTANT, Baseline
from geoloc.evaluation.measures.bootstrap import (
    interval,
    photographer_clusters,
    resampled_medians,
)
from geoloc.evaluation.measures.comparison import compare, pairs_to_compare
from geoloc.evaluation.measures.intervals import shares
from geoloc.evaluation.measures.scores import answer_values, constant_values, score_rows
from geoloc.evaluation.result import PER_PHOTO, TABLES, Evaluation, make_table
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.partitions.base import Answer, Partition
from geoloc.photos.owners import photographer_keys
from geoloc.settings import to_dict
from geoloc.sphere import LEVELS_KM, is_valid

DISJOINT_PROTOCOL = "photographer-disjoint split"
TRIP_PROTOCOL = "trip-disjoint split of the same people's photos"
LEAVE_TRIP_OUT_PROTOCOL = "each photo against all photos of other trips"
LEAVE_PHOTOGRAPHER_OUT_PROTOCOL = "each photo against all photos by other photographers"

_DECIMALS = 10
"""Tables are rounded to this many decimals, so that the order of a sum cannot change the bytes."""
_CEILINGS: tuple[Answer, ...] = ("centroid", "centre")


@dataclass(frozen=True)
class _Method:
    """One method's answers and errors on the queries."""

    name: str
    answers: Answers
    error: NDArray[np.float64]


def evaluate(
    answers_by_method: Mapping[str, Answers],
    queries: pd.DataFrame,
    references: pd.DataFrame | None = None,
    partitions: Mapping[str, Partition] | None = None,
    settings: EvaluationSettings | None = None,
    *,
    seed: int,
    protocol: str = DISJOINT_PROTOCOL,
    unit: str = "photographers",
    unreadable: Collection[str] = (),
    leave_photographer_out: bool = False,
    descriptions: Mapping[str, str] | None = None,
    log_probabilities: Mapping[str, ArrayLike] | None = None,
    levels_km: Mapping[str, float] = LEVELS_KM,
) -> Evaluation:
    """Measure every method on the same queries.

    The denominator of every accuracy is `len(queries)`: abstentions (NaN) and the photos named in `unreadable`
    are wrong, and counted. Baselines never look at a photo, so they answer unreadable ones too.

    Parameters
    ----------
    answers_by_method: answers in the order of `queries`, one row per query.
    queries: photo_id (unique), latitude, longitude, photographer (null: unknown; then album and source, if they are
        there, decide: see photos/owners.py); further columns are left alone.
    references: latitude, longitude, photographer of the references, for the baselines that choose or draw a place
        among them; None leaves those baselines out.
    partitions: fitted partitions by name, for the densest cell and the ceilings.
    unit: what the column photographer holds, in the words of a page: photographers or trips.
    leave_photographer_out: the random reference is never by the query's own photographer, nor one of its
        near-duplicates where queries and references have a column of that name.
    descriptions: what each method does, in a sentence, for the report.
    log_probabilities: by method, the logarithm of the probability given to the truth, float (N,), NaN for none; for the
        negative log-likelihood.

    Raises ValueError for no methods or queries, a repeated or unknown photo_id, coordinates out of range, or a number
    of answers other than that of the queries; the message names the method.
    """
    settings = settings or EvaluationSettings()
    _check(answers_by_method, queries, references, unreadable, leave_photographer_out)
    latitude, longitude = (queries[c].to_numpy(dtype=np.float64) for c in ("latitude", "longitude"))
    readable = ~queries["photo_id"].isin(set(unreadable)).to_numpy()
    clusters = photographer_clusters(photographer_keys(queries))
    methods = [
        _Method(name, answers, _errors(name, answers, latitude, longitude, readable))
        for name, answers in answers_by_method.items()
    ]
    named = partitions or {}
    baselines = _baselines(
        queries, references, named, settings, seed, levels_km, leave_photographer_out=leave_photographer_out
    )
    taken = {m.name for m in methods} & {b.name for b in baselines}
    if taken:
        raise ValueError(f"a method cannot have the name of a baseline: {', '.join(sorted(taken))}")

    names = [m.name for m in methods] + [b.name for b in baselines]
    hits = np.stack(
        [within(m.error, levels_km) for m in methods] + [b.hits for b in baselines], axis=1
    ).astype(np.float64)
    observed = hits.mean(axis=0)
    low, high = (
        bound.reshape(observed.shape)
        for bound in shares(hits.reshape(len(queries), -1), clusters).interval(settings.confidence)
    )
    has_interval = len(np.unique(clusters)) > 1

    rows = [
        {"level": level, "km": km, "accuracy": observed[i, j], "low": low[i, j], "high": high[i, j]}
        | ({"method": name} if i < len(methods) else {"baseline": name})
        | _point(baselines[i - len(methods)] if i >= len(methods) else None, j)
        | {"n": len(queries)}
        for i, name in enumerate(names)
        for j, (level, km) in enumerate(levels_km.items())
    ]
    pairs = pairs_to_compare([m.name for m in methods], [b.name for b in baselines], settings.compare_with)
    comparisons = compare(
        pairs,
        names,
        hits.astype(np.float64),
        clusters,
        levels_km,
        baselines=[b.name for b in baselines],
        confidence=settings.confidence,
    )
    per_level = len(levels_km)
    truth = areas_of(latitude, longitude)
    scores = score_rows(
        _score_values(methods, baselines, truth, latitude, longitude, references, seed),
        truth,
        clusters,
        log_probabilities or {},
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=seed,
    )
    tables = {
        "accuracy": rows[: len(methods) * per_level],
        "baselines": rows[len(methods) * per_level :],
        "comparisons": comparisons.to_dict(orient="records"),
        "errors": [_error_row(m, readable, clusters, settings, seed, has_interval) for m in methods],
        "ceilings": _ceilings(named, latitude, longitude, levels_km),
        "curve": _curve(methods, baselines, named, latitude, longitude, settings.curve_points),
        "scores": scores,
    }
    return Evaluation(
        protocol=protocol,
        queries=len(queries),
        query_photographers=len(np.unique(clusters)),
        unit=unit,
        references=0 if references is None else len(references),
        levels_km={level: float(km) for level, km in levels_km.items()},
        settings=to_dict(settings),
        seed=seed,
        descriptions=dict(descriptions or {}),
        per_photo=_per_photo(methods, queries, readable),
        **{name: make_table(name, tables[name]).round(_DECIMALS) for name in TABLES},
    )


def _check(
    answers_by_method: Mapping[str, Answers],
    queries: pd.DataFrame,
    references: pd.DataFrame | None,
    unreadable: Collection[str],
    leave_photographer_out: bool,
) -> None:
    if not answers_by_method:
        raise ValueError("answers_by_method must name at least one method, got none")
    if len(queries) == 0:
        raise ValueError("queries must have at least one photo, got none")
    ids = queries["photo_id"]
    if ids.isna().any() or ids.duplicated().any():
        first = ids[ids.isna() | ids.duplicated()].iloc[0]
        raise ValueError(f"queries must have unique photo_ids; {first!r} is repeated or missing")
    for name, frame in (("queries", queries), ("references", references)):
        if frame is not None and not is_valid(frame["latitude"], frame["longitude"]).all():
            raise ValueError(f"{name} must have finite coordinates, latitude in [-90, 90]")
    unknown = set(unreadable) - set(ids)
    if unknown:
        raise ValueError(f"unreadable names photos that are no queries: {', '.join(sorted(unknown)[:5])}")
    if leave_photographer_out and references is None:
        raise ValueError("leave_photographer_out needs references")


def _errors(
    name: str,
    answers: Answers,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    readable: NDArray[np.bool_],
) -> NDArray[np.float64]:
    if len(answers.latitude) != len(latitude) or len(answers.longitude) != len(latitude):
        raise ValueError(f"{name}: {len(answers.latitude)} answers for {len(latitude)} queries")
    try:
        return error_km(latitude, longitude, answers.latitude, answers.longitude, readable)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _score_values(
    methods: Sequence[_Method],
    baselines: Sequence[Baseline],
    truth: Areas,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    references: pd.DataFrame | None,
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """What scores are made of, by method, and by baseline where it has one answer for all levels or can choose one."""
    values = {}
    for method in methods:
        answered = np.isfinite(method.error)  # an unreadable photo has no answer, whatever was answered
        lat, lon = (
            np.where(answered, x, np.nan) for x in (method.answers.latitude, method.answers.longitude)
        )
        values[method.name] = answer_values(lat, lon, method.error, truth)
    for baseline in baselines:
        if baseline.error_km is not None:
            lat, lon = (np.full(len(latitude), x[0]) for x in (baseline.latitude, baseline.longitude))
            values[baseline.name] = answer_values(lat, lon, baseline.error_km, truth)
        elif baseline.name == BEST_CONSTANT and references is not None:
            known = (references["latitude"], references["longitude"])
            values[baseline.name] = constant_values(*known, latitude, longitude, truth, seed=seed)
    return values


def _baselines(
    queries: pd.DataFrame,
    references: pd.DataFrame | None,
    partitions: Mapping[str, Partition],
    settings: EvaluationSettings,
    seed: int,
    levels_km: Mapping[str, float],
    *,
    leave_photographer_out: bool,
) -> list[Baseline]:
    truth = (queries["latitude"].to_numpy(np.float64), queries["longitude"].to_numpy(np.float64))
    made = []
    for name, partition in partitions.items():
        baseline = baseline_module.densest_cell(partition, *truth, levels_km)
        title = baseline.name if len(partitions) == 1 else f"{baseline.name} ({name})"
        made.append(Baseline(title, baseline.hits, baseline.latitude, baseline.longitude, baseline.error_km))
    if references is None or len(references) == 0:
        return made
    known = (references["latitude"].to_numpy(np.float64), references["longitude"].to_numpy(np.float64))
    made.append(
        baseline_module.best_constant(
            *known,
            *truth,
            levels_km,
            seed=seed,
            max_candidates=settings.max_candidates,
            max_references=settings.max_references,
        )
    )
    cluster: Any = None
    reference_cluster: Any = None
    if leave_photographer_out:
        # One numbering for both sides; a photo that counts for itself is the same on both.
        cluster, reference_cluster = _shared_clusters(queries, references)
    made.append(
        baseline_module.random_reference(
            *known,
            *truth,
            levels_km,
            seed=seed,
            reference_cluster=reference_cluster,
            cluster=cluster,
            max_references=settings.max_references,
        )
    )
    return made


def _shared_clusters(queries: pd.DataFrame, references: pd.DataFrame) -> tuple[NDArray, NDArray]:
    """The photographer and, where both have that column, the group of near-duplicates of each photo: int64 (N, 1 or 2)
    and (M, 1 or 2)."""
    columns = [pd.factorize(pd.concat([photographer_keys(queries), photographer_keys(references)]))[0]]
    if "near_duplicates" in queries and "near_duplicates" in references:
        groups = pd.factorize(pd.concat([queries["near_duplicates"], references["near_duplicates"]]))[0]
        # A photo in no group is alone: -1 here, -2 there, which are not equal.
        columns.append(np.where((groups < 0) & (np.arange(len(groups)) >= len(queries)), -2, groups))
    codes = np.stack(columns, axis=1)
    return codes[: len(queries)], codes[len(queries) :]


def _point(baseline: Baseline | None, level: int) -> dict[str, float]:
    if baseline is None:
        return {}
    return {"latitude": baseline.latitude[level], "longitude": baseline.longitude[level]}


def _error_row(
    method: _Method,
    readable: NDArray[np.bool_],
    clusters: NDArray[np.int64],
    settings: EvaluationSettings,
    seed: int,
    has_interval: bool,
) -> dict[str, Any]:
    summary = summarise_errors(method.error, readable)
    low, high = np.nan, np.nan
    if has_interval:
        medians = resampled_medians(method.error, clusters, resamples=settings.resamples, seed=seed)
        low, high = (float(x) for x in interval(medians, settings.confidence))
    return {
        "method": method.name,
        "mean_km": summary.mean_km,
        "median_km": summary.median_km,
        "median_low": low,
        "median_high": high,
        "median_answered_km": summary.median_answered_km,
        "answered": summary.answered,
        "abstained": summary.abstained,
        "unreadable": summary.unreadable,
        "n": len(method.error),
    }


def _ceilings(
    partitions: Mapping[str, Partition],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    levels_km: Mapping[str, float],
) -> list[dict[str, Any]]:
    return [
        {
            "partition": name,
            "answer": answer,
            "level": level,
            "km": km,
            "accuracy": share[level],
            "n": len(latitude),
        }
        for name, partition in partitions.items()
        for answer in _CEILINGS
        for share in [partition.ceiling(latitude, longitude, levels_km, answer)]
        for level, km in levels_km.items()
    ]


def _curve(
    methods: Sequence[_Method],
    baselines: Sequence[Baseline],
    partitions: Mapping[str, Partition],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    points: int,
) -> list[dict[str, Any]]:
    km = curve_distances(points)
    lines = [("method", m.name, accuracy_curve(m.error, km)) for m in methods]
    lines += [
        ("baseline", b.name, accuracy_curve(b.error_km, km)) for b in baselines if b.error_km is not None
    ]
    for name, partition in partitions.items():
        levels = {str(i): float(x) for i, x in enumerate(km)}
        share = partition.ceiling(latitude, longitude, levels, "centroid")
        lines.append(("ceiling", f"ceiling of {name}", np.array([share[level] for level in levels])))
    return [
        {"kind": kind, "name": name, "km": x, "accuracy": y}
        for kind, name, line in lines
        for x, y in zip(km, line, strict=True)
    ]


def _per_photo(
    methods: Sequence[_Method], queries: pd.DataFrame, readable: NDArray[np.bool_]
) -> pd.DataFrame:
    frames = []
    for method in methods:
        answered = np.isfinite(method.error)
        frames.append(
            pd.DataFrame(
                {
                    "photo_id": queries["photo_id"].to_numpy(dtype=object),
                    "method": method.name,
                    "true_latitude": queries["latitude"].to_numpy(np.float64),
                    "true_longitude": queries["longitude"].to_numpy(np.float64),
                    "latitude": np.where(answered, method.answers.latitude, np.nan),
                    "longitude": np.where(answered, method.answers.longitude, np.nan),
                    "confidence": np.where(answered, method.answers.confidence, np.nan),
                    "error_km": np.where(answered, method.error, np.nan),
                    "status": np.where(answered, "answered", np.where(readable, "abstained", "unreadable")),
                },
                columns=list(PER_PHOTO),
            )
        )
    return pd.concat(frames, ignore_index=True).astype(PER_PHOTO)
