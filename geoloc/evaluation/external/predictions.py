"""The answers in a table of predictions, one for each true photo, and what was noticed about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.external.matching import match
from geoloc.evaluation.external.summaries import without_summary
from geoloc.evaluation.external.tables import PredictionsError, Table
from geoloc.evaluation.measures.scores import geoscore
from geoloc.localizers.base import Alternatives, Answers
from geoloc.sphere import distance_km, is_valid

_SHOWN = 5
_MOST_ALTERNATIVES = 20
_SWAPPED_SHARE = 0.1
"""With so many answers off the map, coordinates that look swapped are an error; with fewer, a note."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """The answers of one method to the N true photos. `log_probability` float (N,) if the table has any. `missing`
    photos have no row. `notes` are sentences about what was found."""

    answers: Answers
    log_probability: NDArray[np.float64] | None
    missing: int
    notes: tuple[str, ...]


def read_answers(
    table: Table,
    ids: Sequence[str],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    *,
    ignore_unmatched: bool = False,
) -> dict[str, Predicted]:
    """Returns the answers of each method of a table, by method; the method is "" if the table has no such column.

    `ids` (unique), `latitude` and `longitude` are those of the N true photos. Photos without a row, with empty
    coordinates or with impossible ones have no answer. `ignore_unmatched` leaves out rows of other photos.

    Raises PredictionsError for ids that match no photo, two predictions for one, text in place of a number, and
    coordinates that are swapped beyond doubt.
    """
    written = table.texts("photo_id")
    found = match(written, ids)
    kept, notes = without_summary(table, found.position >= 0)
    strangers = kept & (found.position < 0)
    _check_ids(table, written, ids, found.position, kept, strangers, ignore_unmatched)
    if strangers.any():
        notes.append(f"{int(strangers.sum()):,} rows of photos that are not in the truth are left out")
    kept &= ~strangers
    if found.rule != "as written":
        notes.append(f"ids are compared {found.rule}")
    if renamed := table.renamed():
        notes.append(f"columns: {renamed}")
    if "method" not in table.columns:
        return {
            "": _answers_of(table, np.flatnonzero(kept), found.position, written, latitude, longitude, notes)
        }
    methods = pd.Series(table.texts("method"), dtype="str")[kept]
    if methods.isna().any():
        row = table.numbers[methods.index[methods.isna()][0]]
        raise PredictionsError(f"{table.name} has no method in row {row}")
    return {
        str(name): _answers_of(
            table, mine.index.to_numpy(), found.position, written, latitude, longitude, notes
        )
        for name, mine in methods.groupby(methods, sort=False)
    }


def _check_ids(
    table: Table,
    written: Sequence[str | None],
    ids: Sequence[str],
    position: NDArray[np.int64],
    kept: NDArray[np.bool_],
    strangers: NDArray[np.bool_],
    ignore_unmatched: bool,
) -> None:
    if not kept.any():
        raise PredictionsError(f"{table.name} has no predictions")
    lost = np.flatnonzero(strangers)
    if len(lost) == kept.sum():
        raise PredictionsError(
            f"{table.name}: none of its {len(lost):,} ids is a photo of the truth: "
            f"{_listed([repr(written[int(i)]) for i in lost])} against {_listed([repr(one) for one in ids])}; say which"
            " column has them with --column photo_id=NAME"
        )
    if len(lost) and not ignore_unmatched:
        shown = _listed([f"{written[int(i)]!r} (row {table.numbers[int(i)]})" for i in lost])
        raise PredictionsError(
            f"{table.name}: {len(lost):,} of its {int(kept.sum()):,} ids are no photos of the truth: {shown};"
            " leave such rows out with --ignore-unmatched"
        )


def _answers_of(
    table: Table,
    rows: NDArray[np.int64],
    position: NDArray[np.int64],
    written: Sequence[str | None],
    true_latitude: NDArray[np.float64],
    true_longitude: NDArray[np.float64],
    shared: Sequence[str],
) -> Predicted:
    """The answers in some rows of a table, all of different photos."""
    notes, mine = list(shared), position[rows]
    _, first, times = np.unique(mine, return_index=True, return_counts=True)
    if (times > 1).any():
        twice = [f"{written[rows[i]]!r} ({n} times)" for i, n in zip(first, times, strict=True) if n > 1]
        raise PredictionsError(
            f"{table.name} has several predictions for {len(twice):,} photos: {_listed(twice)}; further guesses go in a"
            " column `alternatives`, several methods are distinguished by a column `method`"
        )
    count = len(true_latitude)
    whole = {
        name: np.full(count, np.nan) for name in ("latitude", "longitude", "confidence", "log_probability")
    }
    for field, values in whole.items():
        found, bad = table.numeric(field)
        if (wrong := rows[bad[rows]]).size:
            shown = str(table.texts(field)[wrong[0]])[:40]
            raise PredictionsError(
                f"{table.name}: row {table.numbers[wrong[0]]} has the {field} {shown!r}, which is no number; leave it"
                " empty where there is none"
            )
        values[mine] = found[rows]
    latitude, longitude = whole["latitude"], whole["longitude"]
    notes += _swapped(table.name, latitude, longitude, true_latitude, true_longitude)
    for what, wrong in (
        ("with one coordinate only", np.isnan(latitude) != np.isnan(longitude)),
        (
            "off the map (latitude beyond 90 or longitude beyond 180 degrees)",
            ~is_valid(latitude, longitude) & ~np.isnan(latitude) & ~np.isnan(longitude),
        ),
    ):
        if wrong.any():
            example = table.numbers[rows[np.flatnonzero(wrong[mine])[0]]]
            notes.append(
                f"{int(wrong.sum()):,} answers {what}, such as in row {example}, count as unanswered"
            )
            latitude[wrong] = longitude[wrong] = np.nan
    if (nowhere := (latitude == 0) & (longitude == 0)).any():
        notes.append(
            f"{int(nowhere.sum()):,} answers are (0, 0), in the sea, which programs write where they have no answer;"
            " they are measured as they are"
        )
    silent, missing = int(np.isnan(latitude).sum()), count - len(rows)
    if silent:
        missing = count - len(rows)
        notes.append(
            f"{silent:,} of {count:,} photos are unanswered and count as wrong ({missing:,} have no row)"
        )
    error = distance_km(true_latitude, true_longitude, latitude, longitude)
    if count - silent > 1 and np.nanmax(error) == 0:
        notes.append("every answer is exactly the true place: are these columns the answers?")
    log_probability = whole["log_probability"]
    if (log_probability > 0).any():
        raise PredictionsError(
            f"{table.name}: log_probability must be at most 0, got {np.nanmax(log_probability):g}; it is the natural"
            " logarithm"
        )
    sure = np.where(np.isnan(latitude), 0.0, whole["confidence"]).astype(np.float32)
    return Predicted(
        Answers(latitude, longitude, sure, _alternatives(table, rows, mine, latitude, longitude)),
        log_probability if "log_probability" in table.columns else None,
        missing,
        tuple(notes),
    )


def _swapped(
    name: str,
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
    true_latitude: NDArray[np.float64],
    true_longitude: NDArray[np.float64],
) -> list[str]:
    """A note if the answers are much nearer with latitude and longitude exchanged: for most photos, and twice the
    GeoScore. Raises PredictionsError if they are off the map besides."""

    def errors(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
        good = is_valid(lat, lon)
        error = distance_km(true_latitude, true_longitude, np.where(good, lat, 0), np.where(good, lon, 0))
        return np.where(good, error, np.inf)

    answered = ~(np.isnan(latitude) | np.isnan(longitude))
    if not answered.any():
        return []
    given, other = (errors(*pair)[answered] for pair in ((latitude, longitude), (longitude, latitude)))
    if (other < given).mean() <= 0.5 or geoscore(other).mean() < 2 * geoscore(given).mean():
        return []
    suspicion = (
        f"latitude and longitude look swapped: exchanged, {int((other < given).sum()):,} of {len(given):,} answers are"
        " nearer to the true places"
    )
    if np.isinf(given).mean() >= _SWAPPED_SHARE:
        raise PredictionsError(
            f"{name}: {suspicion}, and {int(np.isinf(given).sum()):,} are off the map as they are; name the columns"
            " with --column latitude=NAME --column longitude=NAME"
        )
    return [f"{suspicion} (in the predictions or in the truth)"]


def _alternatives(
    table: Table,
    rows: NDArray[np.int64],
    mine: NDArray[np.int64],
    latitude: NDArray[np.float64],
    longitude: NDArray[np.float64],
) -> Alternatives | None:
    """The answer and then the further places of each photo, best first."""
    if "alternatives" not in table.columns:
        return None
    cells = table.columns["alternatives"].to_pylist()
    found = {int(photo): _places(table, int(row), cells[row]) for row, photo in zip(rows, mine, strict=True)}
    count = len(latitude)
    made = np.full((3, count, _MOST_ALTERNATIVES), np.nan)
    for photo, places in found.items():
        if np.isnan(latitude[photo]):
            continue
        answer = (float(latitude[photo]), float(longitude[photo]), float("nan"))
        first = places and float(distance_km(*answer[:2], *places[0][:2])) < 1e-3
        for k, place in enumerate((places if first else [answer, *places])[:_MOST_ALTERNATIVES]):
            made[:, photo, k] = place
    most = int(np.isfinite(made[0]).sum(axis=1).max(initial=1))
    lat, lon, weight = made[:, :, : max(most, 1)]
    return Alternatives(lat, lon, weight.astype(np.float32))


def _places(table: Table, row: int, cell: Any) -> list[tuple[float, float, float]]:
    """The places in one cell: [[latitude, longitude], ...] or with a weight each, as JSON or as lists."""
    try:
        if isinstance(cell, bytes | str):
            cell = json.loads(cell) if cell.strip() else []
        made = [
            (float(one[0]), float(one[1]), float(one[2]) if len(one) > 2 else np.nan) for one in cell or ()
        ]
        fits = all(2 <= len(one) <= 3 for one in cell or ()) and all(
            is_valid(lat, lon) for lat, lon, _ in made
        )
    except (ValueError, TypeError, IndexError, KeyError):
        fits = False
    if not fits:
        raise PredictionsError(
            f"{table.name}: alternatives in row {table.numbers[row]} must be [[latitude, longitude], ...] or"
            f" [[latitude, longitude, weight], ...], best first; got {str(cell)[:60]!r}"
        )
    return made


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown
