"""Score anybody's predictions: `score`, the library's side of `geoloc score`.

result = score({"geo-clip": predictions}, truth)      # data frames, or paths of CSV, TSV and Parquet files
print(result)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.external.predictions import read_answers
from geoloc.evaluation.external.summaries import without_summary
from geoloc.evaluation.external.tables import (
    PREDICTIONS,
    REFERENCES,
    TRUTH,
    PredictionsError,
    Table,
    column_names,
    read_table,
)
from geoloc.evaluation.measures.baselines import BEST_CONSTANT, RANDOM_REFERENCE
from geoloc.evaluation.measures.scores import GEOSCORE, NLL
from geoloc.evaluation.result import Evaluation
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.settings import replace
from geoloc.sphere import is_valid

Source: TypeAlias = Path | str | pd.DataFrame
"""A file, or a data frame with the same columns."""

_PLACE = ("latitude", "longitude")
_FLICKR_OWNER = r"_(\d+@N\d\d)(?:\.\w+)?$"


@dataclass(frozen=True, eq=False, repr=False)
class Scored:
    """Predictions measured against the truth. `notes` are sentences by method, and under "" those about all.

    `photos` are the true photos (photo_id, latitude, longitude, photographer), `references` the known places, which
    may be empty; `answers`, and the number of photos `missing` from their table, are by method.
    """

    evaluation: Evaluation
    answers: Mapping[str, Answers]
    photos: pd.DataFrame
    references: pd.DataFrame
    missing: Mapping[str, int]
    notes: Mapping[str, tuple[str, ...]]

    def table(self) -> pd.DataFrame:
        """Returns a row for each method: per cent within each level, median error in km, GeoScore, per cent in the
        right country and region, NLL where there is one, and how many photos have no answer."""
        made = self.evaluation
        wide = made.accuracy.pivot(index="method", columns="level", values="accuracy") * 100
        wide = wide.loc[made.methods, list(made.levels_km)]
        errors = made.errors.set_index("method").loc[made.methods]
        wide["median km"] = errors["median_km"]
        scores = made.scores.pivot(index="method", columns="measure", values="value").loc[made.methods]
        for measure in dict.fromkeys(made.scores["measure"]):
            wide[measure] = scores[measure] * (1 if measure in (GEOSCORE, NLL) else 100)
        wide["unanswered"] = errors["abstained"]
        return wide.rename_axis(columns=None)

    def sentences(self) -> list[str]:
        """Returns the notes as lines, each with the method that it is about."""
        return [f"{name}: {note}" if name else note for name, notes in self.notes.items() for note in notes]

    def __str__(self) -> str:
        with pd.option_context("display.width", 200, "display.max_columns", None):
            return "\n".join([str(self.table().round(2)), *(f"note: {line}" for line in self.sentences())])

    def __repr__(self) -> str:
        return f"Scored({self.evaluation!r})"


def score(
    predictions: Mapping[str, Source],
    truth: Source,
    *,
    references: Source | None = None,
    columns: Mapping[str, str] | None = None,
    truth_columns: Mapping[str, str] | None = None,
    ignore_unmatched: bool | Collection[str] = False,
    settings: EvaluationSettings | None = None,
    seed: int = 0,
) -> Scored:
    """Measure predictions by the name of their method, on the photos of `truth`; all are compared with the first.

    Every true photo counts: one without a prediction is wrong. Tables are files or data frames.

    Parameters
    ----------
    predictions: photo_id, latitude, longitude; optionally confidence (higher: surer), alternatives ([[latitude,
        longitude], ...], best first), log_probability (natural, of the truth) and method (several in one table).
    truth: photo_id, latitude, longitude; optionally photographer, by whom intervals are computed, and prob_indoor.
    references: latitude, longitude; optionally photographer: known places, for the baselines.
    columns: field -> its column, in every table that has that column. `truth_columns`: the same for the truth alone.
    ignore_unmatched: leave out predictions of photos that are not in the truth, of all tables (True) or of some.

    Raises PredictionsError, with one line, for tables that cannot be used.
    """
    if not predictions:
        raise PredictionsError("there are no predictions to score")
    shared = columns or {}
    tables = [*predictions.items(), ("truth", truth)]
    tables += [] if references is None else [("references", references)]
    _check_columns(shared, {*PREDICTIONS, *TRUTH}, tables, "--column")
    _check_columns(truth_columns or {}, set(TRUTH), [("truth", truth)], "--truth-column")
    # Where one table has both, its columns of answers are not those of the truth.
    of_truth = {f: c for f, c in shared.items() if f not in _PLACE or not _is_among(truth, predictions)}
    needs = ("photo_id", *_PLACE)
    true_table = _read(truth, TRUTH, of_truth, needs, "truth", truth_columns or {})
    photos, notes = _photos(true_table)
    places = (photos["latitude"].to_numpy(np.float64), photos["longitude"].to_numpy(np.float64))
    answers: dict[str, Answers] = {}
    said_of: dict[str, tuple[str, ...]] = {}
    missing: dict[str, int] = {}
    log_probabilities = {}
    for name, source in predictions.items():
        table = _read(source, PREDICTIONS, shared, needs, name)
        lenient = ignore_unmatched if isinstance(ignore_unmatched, bool) else name in ignore_unmatched
        found = read_answers(table, list(photos["photo_id"]), *places, ignore_unmatched=lenient)
        for method, one in found.items():
            # Two methods of one file are distinguished by their names; a single one is called as its file.
            full = name if not method else method if len(predictions) == 1 else f"{name}:{method}"
            if full in (BEST_CONSTANT, RANDOM_REFERENCE):
                raise PredictionsError(f"{full!r} is a baseline; call the file something else: NAME=FILE")
            if full in answers:
                raise PredictionsError(f"two methods are called {full!r}; give each file a name: NAME=FILE")
            answers[full], said_of[full], missing[full] = one.answers, one.notes, one.missing
            if one.log_probability is not None:
                log_probabilities[full] = one.log_probability
    known = pd.DataFrame({name: [] for name in ("latitude", "longitude", "photographer")})
    if references is not None:
        table = _read(references, REFERENCES, shared, _PLACE, "references")
        known, about = _references(table, photos)
        notes += about
    else:
        notes.append(
            "no references were given, so there are no baselines: the accuracy of a constant is not known"
        )
    settings = replace(settings or EvaluationSettings(), compare_with=next(iter(answers)))
    evaluation = evaluate(
        answers,
        photos,
        known if len(known) else None,
        settings=settings,
        seed=seed,
        protocol="predictions from elsewhere",
        log_probabilities=log_probabilities,
    )
    return Scored(evaluation, answers, photos, known, missing, {"": tuple(notes), **said_of})


def _read(
    source: Source,
    fields: Mapping[str, Sequence[str]],
    shared: Mapping[str, str],
    needs: Sequence[str],
    name: str,
    own: Mapping[str, str] | None = None,
) -> Table:
    """A table with the columns of `shared` that it has. `own` columns it must have."""
    there = column_names(source, name)
    taken = {f: c for f, c in shared.items() if f in fields and c in there}
    option = "--column" if own is None else "--truth-column"
    return read_table(source, fields, taken | dict(own or {}), needs=needs, name=name, option=option)


def _is_among(truth: Source, predictions: Mapping[str, Source]) -> bool:
    if isinstance(truth, pd.DataFrame):
        return any(one is truth for one in predictions.values())
    files = [Path(one) for one in predictions.values() if not isinstance(one, pd.DataFrame)]
    return any(one.resolve() == Path(truth).resolve() for one in files)


def _check_columns(
    columns: Mapping[str, str], fields: set[str], tables: Sequence[tuple[str, Source]], option: str
) -> None:
    """Raise PredictionsError for an unknown field, and for a column that no table has."""
    if not columns:
        return
    there = {name for table, source in tables for name in column_names(source, table)}
    for field, name in columns.items():
        if field not in fields:
            raise PredictionsError(f"{option} must name one of {', '.join(sorted(fields))}; got {field!r}")
        if name not in there:
            raise PredictionsError(
                f"{option} {field}={name}: no table has that column; there are {', '.join(sorted(there))}"
            )


def _photos(table: Table) -> tuple[pd.DataFrame, list[str]]:
    """The true photos of a table, and notes about it. Raises PredictionsError for a photo without a place or named
    twice."""
    kept, notes = without_summary(table)
    notes = [f"{table.name}: {note}" for note in notes]
    table = table.take(kept)
    ids = table.texts("photo_id")
    latitude, longitude = _places(table, "every true photo needs a place")
    if not ids:
        raise PredictionsError(f"{table.name} has no photos")
    series = pd.Series(ids, dtype="str")
    for what, bad in (("no photo_id", series.isna()), ("the photo_id of another", series.duplicated())):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            shown = "" if ids[row] is None else f" ({ids[row]!r})"
            raise PredictionsError(f"{table.name}: row {table.numbers[row]} has {what}{shown}")
    photos = pd.DataFrame({"photo_id": series, "latitude": latitude, "longitude": longitude})
    if renamed := table.renamed():
        notes.append(f"columns of {table.name}: {renamed}")
    nowhere = int(((latitude == 0) & (longitude == 0)).sum())
    if nowhere:
        notes.append(
            f"{nowhere:,} true places are (0, 0), in the sea: is that where these photos were taken?"
        )
    photos["photographer"], about = _photographers(table, series)
    notes += about
    if "prob_indoor" in table.columns:
        photos["prob_indoor"] = table.numeric("prob_indoor")[0]
    return photos, notes


def _photographers(table: Table, ids: pd.Series) -> tuple[pd.Series, list[str]]:
    """Who took each true photo, null for unknown, and notes about it.

    Flickr's names of files end in the owner, such as 12345678@N00, and lists that were made from them may have more of
    the name before it.
    """
    if "photographer" not in table.columns:
        owners = ids.str.extract(_FLICKR_OWNER)[0]
        if owners.notna().all():
            return owners, ["photographers are the Flickr owners at the end of the photo ids"]
        return pd.Series([None] * len(ids), dtype="str"), [
            f"{table.name} has no column of photographers: each photo counts for itself, so intervals are too narrow"
            " where one person took several"
        ]
    who, notes = pd.Series(table.texts("photographer"), dtype="str"), []
    owners = who.str.extract(_FLICKR_OWNER)[0]
    if owners.notna().any():
        notes.append(
            f"photographers of {int(owners.notna().sum()):,} photos are the Flickr owners at the end of"
            f" {table.taken['photographer']}"
        )
        who = owners.fillna(who)
    if unknown := int(who.isna().sum()):
        notes.append(f"{unknown:,} photos have no photographer: each counts for itself")
    return who, notes


def _references(table: Table, photos: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The known places of a table, and notes: of photos and photographers that are on both sides."""
    latitude, longitude = _places(table, "every reference needs a place")
    known = pd.DataFrame({"latitude": latitude, "longitude": longitude})
    who = table.texts("photographer") if "photographer" in table.columns else [None] * len(known)
    known["photographer"] = pd.Series(who, dtype="str")
    known["photo_id"] = pd.Series(
        table.texts("photo_id") if "photo_id" in table.columns else [f"row {n}" for n in table.numbers],
        dtype="str",
    )
    notes = []
    for column, what in (("photo_id", "photos"), ("photographer", "photographers")):
        both = set(known[column].dropna()) & set(photos[column].dropna())
        if both:
            notes.append(
                f"{len(both):,} {what} are among the references too: baselines know more than they should"
            )
    return known, notes


def _places(table: Table, why: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of every row. Raises PredictionsError where one is missing or impossible."""
    found = {name: table.numeric(name) for name in ("latitude", "longitude")}
    latitude, longitude = found["latitude"][0], found["longitude"][0]
    bad = found["latitude"][1] | found["longitude"][1] | ~is_valid(latitude, longitude)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        shown = ", ".join(str(table.texts(name)[row])[:40] for name in found)
        off = ~is_valid(latitude, longitude) & np.isfinite(latitude) & np.isfinite(longitude)
        fits = (is_valid(longitude, latitude) | ~off).all() and off.any()
        hint = "; latitude and longitude look swapped" if fits else ""
        raise PredictionsError(
            f"{table.name}: row {table.numbers[row]} has the place ({shown}), {int(bad.sum()):,} rows in all have none:"
            f" {why}, latitude in [-90, 90], longitude in [-180, 180]{hint}"
        )
    return latitude, longitude
