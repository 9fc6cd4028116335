"""`geoloc locate`: where were these photos taken, by a saved build, with neither Dagster nor MLflow running."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.confidence.abstention import abstain_below
from geoloc.photos.decoding import UnreadablePhoto, check_and_normalise, decode_rgb
from geoloc.places import nearest_places
from geoloc.reports.region_map import region_map_html
from orchestration.assets.inputs import load_partitions
from orchestration.lineage.build import Build
from orchestration.locate.by_class import ByClass
from orchestration.locate.by_neighbour import ByNeighbour
from orchestration.locate.located import Alternative, Found, Located, PhotoLocalizer
from orchestration.locate.question import Question
from orchestration.workspace import WorkspaceError


def locate(
    build: Build,
    photos: Sequence[Path],
    question: Question | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Located]:
    """Locate photo files with what a build saved, as the question asks (None: by class, main partition).

    A file that is no readable photo gets an answer without coordinates, whose `error` says why; `say` gets lines that
    concern all photos. Raises WorkspaceError where the build lacks what the question needs, SettingsError for a wrong
    recipe.
    """
    question = question or Question()
    localizer = _open(build, question, say)
    readable, errors = _read(photos)
    found = localizer.locate(readable) if readable else None
    rows = iter(range(len(readable)))
    return [
        _located(found, next(rows), str(photo), localizer, question)
        if error is None and found is not None
        else _unanswered(str(photo), localizer, error)
        for photo, error in zip(photos, errors, strict=True)
    ]


def map_page(build: Build, places: Sequence[Located]) -> str:
    """One offline HTML page with the answers, their alternatives and their regions on the world map."""
    wanted = any(place.regions for place in places)
    partitions = load_partitions(build.folder("partition")) if wanted else {}
    described = [
        place.to_dict() | {"regions": [asdict(one) | {"text": str(one)} for one in place.regions or ()]}
        for place in places
    ]
    return region_map_html(described, partitions)


def _open(build: Build, question: Question, say: Callable[[str], None]) -> PhotoLocalizer:
    """What answers the question: one line a way of answering, and the stages whose output it reads."""
    if question.method == "class":
        _require_outputs(build, "partition", "classifier")
        return ByClass.open(build, question, say)
    _require_outputs(build, "index", "classifier")
    return ByNeighbour.open(build, question)


def _require_outputs(build: Build, *stages: str) -> None:
    missing = [name for name in stages if not build.folder(name).is_dir()]
    if missing:
        raise WorkspaceError(
            f"{build.recipe} has no {', '.join(missing)} yet; build it with: {build.command()}"
        )


def _read(photos: Sequence[Path]) -> tuple[list[NDArray[np.uint8]], list[str | None]]:
    """The readable photos, uint8 [H, W, 3], and per photo why it could not be read, or None.

    They pass the same checks and limits as photos that enter the pool.
    """
    read: list[NDArray[np.uint8]] = []
    errors: list[str | None] = []
    for photo in photos:
        try:
            read.append(decode_rgb(check_and_normalise(photo.read_bytes()).bytes))
            errors.append(None)
        except (UnreadablePhoto, OSError) as error:
            errors.append(str(error))
    return read, errors


def _unanswered(photo: str, localizer: PhotoLocalizer, error: str | None) -> Located:
    """The answer for a photo without coordinates."""
    return Located(photo, localizer.name, error=error, within_km=localizer.within_km, scaled=localizer.scaled)


def _located(found: Found, row: int, photo: str, localizer: PhotoLocalizer, question: Question) -> Located:
    """The answer for one readable photo."""
    answers, confidence = found.answers.take([row]), float(found.answers.confidence[row])
    error = None
    if question.abstain_below is not None and not answers.abstained[0]:
        answers = abstain_below(answers, question.abstain_below)
        if answers.abstained[0]:
            # Rounded down: "the confidence, 0.5, is below 0.5" would be no explanation of 0.49999.
            error = (
                f"the confidence, {math.floor(confidence * 1e4) / 1e4:g}, is below {question.abstain_below:g}"
            )
    silent = replace(_unanswered(photo, localizer, error), confidence=confidence, regions=found.regions[row])
    other = answers.alternatives
    if answers.abstained[0] or other is None:
        return silent
    known = np.flatnonzero(~np.isnan(other.latitude[0]))
    places = nearest_places(
        np.append(answers.latitude, other.latitude[0][known]),
        np.append(answers.longitude, other.longitude[0][known]),
    )
    names = [str(place) for place in places]
    alternatives = tuple(
        Alternative(
            float(other.latitude[0, i]),
            float(other.longitude[0, i]),
            name,
            float(other.weight[0, i]),
            found.reasons[row][i],
        )
        for i, name in zip(known, names[1:], strict=True)
    )
    return replace(
        silent,
        latitude=float(answers.latitude[0]),
        longitude=float(answers.longitude[0]),
        place=names[0],
        alternatives=alternatives,
    )
