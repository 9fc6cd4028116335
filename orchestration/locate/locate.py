"""`geoloc locate`: where were these photos taken, by a saved build, with neither Dagster nor MLflow running."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer
from geoloc.localizers.confidence.abstention import abstain_below
from geoloc.models.classifier import load_model
from geoloc.models.embedder import Embedder, build_embedder
from geoloc.models.prediction import unit_embeddings_of_pixels
from geoloc.photos.decoding import UnreadablePhoto, check_and_normalise, decode_rgb
from geoloc.places import nearest_places
from geoloc.reports.region_map import region_map_html
from geoloc.retrieval.index import ReferenceIndex
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.assets.inputs import load_partitions, model_names, model_settings
from orchestration.lineage.build import Build
from orchestration.locate.by_class import ByClass, Region
from orchestration.locate.question import Question
from orchestration.plan.chain import MODEL_FILE
from orchestration.workspace import Workspace, WorkspaceError


@dataclass(frozen=True)
class Alternative:
    """One place of an answer: coordinates in degrees, a name, its weight, and what speaks for it."""

    latitude: float
    longitude: float
    place: str
    weight: float
    why: str


@dataclass(frozen=True)
class Located:
    """Where one photo was taken. Coordinates are None where the photo could not be read or placed, `error` says why.

    `confidence` is the probability of being within `within_km` where a level was asked for; it is told of an answer
    that is not given for being below the wanted confidence as well, and 0 where there was nothing to be sure of.
    `scaled` tells whether a fitted temperature scales the confidences of this question. `regions` are of rising
    coverage, None where the build fitted none.
    """

    photo: str
    method: str
    latitude: float | None = None
    longitude: float | None = None
    place: str | None = None
    confidence: float = 0.0
    alternatives: tuple[Alternative, ...] = ()
    error: str | None = None
    within_km: float | None = None
    scaled: bool = False
    regions: tuple[Region, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        regions = [f"  {region}" for region in self.regions or ()]
        if self.latitude is None or self.longitude is None:
            return "\n".join([self.photo, f"  no answer: {self.error or 'nothing to go by'}", *regions])
        of = f" of being within {self.within_km:g} km" if self.within_km else ""
        lines = [
            f"{self.photo}",
            f"  {self.latitude:.5f}, {self.longitude:.5f}  {self.place}  "
            f"(confidence {self.confidence:.2f}{of}, {self.method})",
            *regions,
        ]
        lines += [
            f"  {number}. {other.latitude:9.4f}, {other.longitude:9.4f}  {other.weight:.2f}  {other.place}"
            f"  [{other.why}]"
            for number, other in enumerate(self.alternatives, start=1)
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Found:
    """Of N readable photos: answers, what speaks for each alternative, and regions where there are any."""

    answers: Answers
    reasons: list[list[str]]
    regions: list[tuple[Region, ...] | None]


def locate(
    workspace: Workspace,
    recipe: str,
    photos: Sequence[Path],
    question: Question | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Located]:
    """Locate photo files with what a build of `recipe` saved, as the question says (None: by class, main partition).

    A file that is no readable photo gives an answer without coordinates and says why; `say` is told what concerns
    all of them. Raises WorkspaceError where the build lacks what the question needs, SettingsError for a wrong recipe.
    """
    question = question or Question()
    build = Build(workspace, recipe)
    by_class = question.method == "class"
    _require_build(build, ("partition" if by_class else "index", "classifier"))
    asked: ByClass | _ByNeighbour
    asked = ByClass.open(build, question, say) if by_class else _ByNeighbour.open(build, question)
    readable, errors = _read(photos)
    found = _Found(*asked.locate(readable)) if readable else None
    rows = iter(range(len(readable)))
    return [
        _located(found, next(rows), str(photo), asked, question)
        if error is None and found is not None
        else Located(str(photo), asked.name, error=error, within_km=asked.within_km, scaled=asked.scaled)
        for photo, error in zip(photos, errors, strict=True)
    ]


def map_page(workspace: Workspace, recipe: str, places: Sequence[Located]) -> str:
    """One offline HTML page with the answers, their alternatives and their regions on the world map."""
    wanted = any(place.regions for place in places)
    partitions = load_partitions(Build(workspace, recipe).folder("partition")) if wanted else {}
    described = [
        place.to_dict() | {"regions": [asdict(one) | {"text": str(one)} for one in place.regions or ()]}
        for place in places
    ]
    return region_map_html(described, partitions)


def _require_build(build: Build, stages: Sequence[str]) -> None:
    missing = [name for name in stages if not build.folder(name).is_dir()]
    if missing:
        raise WorkspaceError(
            f"{build.recipe} has no {', '.join(missing)} yet; build it with: {build.command()}"
        )


def _read(photos: Sequence[Path]) -> tuple[list[NDArray[np.uint8]], list[str | None]]:
    """The readable photos as uint8 [H, W, 3], and for each photo why it could not be read, or None.

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


@dataclass(frozen=True)
class _ByNeighbour:
    """A network and an index over its embeddings of the training photos, and what answers by them."""

    network: Embedder
    localizer: NeighbourLocalizer
    batch_size: int
    within_km: float | None = None
    scaled: bool = False

    @classmethod
    def open(cls, build: Build, question: Question) -> _ByNeighbour:
        limits = build.settings.localizers
        classifier = load_model(build.folder("classifier") / MODEL_FILE)
        name = model_names(len(classifier.heads))[question.model]
        network: Embedder = classifier
        if question.model != "classifier":
            try:
                network = build_embedder(model_settings(build), build.settings.seed).eval()
            except ValueError as error:  # settings that were changed since the build
                raise WorkspaceError(
                    f"the model of {build.recipe}'s settings cannot be made: {error}"
                ) from None
        index = ReferenceIndex.load(build.folder("index") / question.model)
        localizer: NeighbourLocalizer
        if question.method == "nn":
            localizer = NearestLocalizer(index, name, question.alternatives)
        else:
            sigma = limits.sigmas[len(limits.sigmas) // 2] if limits.sigmas else 4.0
            localizer = DensityLocalizer(
                index, limits.k, limits.m, sigma, model_name=name, alternatives=question.alternatives
            )
        return cls(network, localizer, limits.batch_size)

    @property
    def name(self) -> str:
        return self.localizer.name

    def locate(
        self, photos: Sequence[NDArray[np.uint8]]
    ) -> tuple[Answers, list[list[str]], list[tuple[Region, ...] | None]]:
        """As ByClass.locate; neighbours have no regions."""
        answers = self.localizer.locate(unit_embeddings_of_pixels(self.network, photos, self.batch_size))
        reasons = [_reasons(answers, row) for row in range(len(photos))]
        return answers, reasons, [None] * len(photos)


def _located(
    found: _Found, row: int, photo: str, asked: ByClass | _ByNeighbour, question: Question
) -> Located:
    """The answer for one readable photo."""
    answers, sure = found.answers.take([row]), float(found.answers.confidence[row])
    error = None
    if question.abstain_below is not None and not answers.abstained[0]:
        answers = abstain_below(answers, question.abstain_below)
        if answers.abstained[0]:
            # Rounded down, so that 0.4999 is not told to be 0.5 and below it.
            error = f"the confidence, {math.floor(sure * 1e4) / 1e4:g}, is below {question.abstain_below:g}"
    silent = Located(
        photo,
        asked.name,
        confidence=sure,
        error=error,
        within_km=asked.within_km,
        scaled=asked.scaled,
        regions=found.regions[row],
    )
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


def _reasons(answers: Answers, row: int) -> list[str]:
    """What speaks for each alternative of a photo: how many neighbours lie near it, and the most similar of them."""
    assert answers.neighbours is not None and answers.alternatives is not None  # noqa: PT018
    ids, reasons = answers.neighbours.photo_ids()[row], []
    places = zip(answers.alternatives.latitude[row], answers.alternatives.longitude[row], strict=True)
    for latitude, longitude in places:
        near = distance_km(
            answers.neighbours.latitude[row], answers.neighbours.longitude[row], latitude, longitude
        )
        close = np.flatnonzero(near <= LEVELS_KM["region"])
        best = ids[close[0]] if len(close) else "none"
        count = f"{len(close)} of {int((answers.neighbours.row[row] >= 0).sum())} neighbours within 200 km"
        reasons.append(f"{count}, most similar {best}")
    return reasons
