"""`geoloc locate`: where were these photos taken, by a saved build, with neither Dagster nor MLflow running."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geoloc.localizers.base import Answers
from geoloc.localizers.by_class import class_localizers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.classifier import Classifier, load_model
from geoloc.models.preprocess import CROPS
from geoloc.photos.decoding import UnreadablePhoto, check_and_normalise, decode_rgb
from geoloc.places import nearest_places
from geoloc.reports.answer_map import answer_map_html
from geoloc.retrieval.index import ReferenceIndex
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.assets.data import cell_counts, initial_model, load_partitions, model_names
from orchestration.chain import MODEL_FILE, output_folder
from orchestration.settings import BuildSettings, load_settings
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
    """Where one photo was taken. Coordinates are None where the photo could not be read or placed."""

    photo: str
    method: str
    latitude: float | None
    longitude: float | None
    place: str | None
    confidence: float
    alternatives: tuple[Alternative, ...]
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.latitude is None or self.longitude is None:
            return f"{self.photo}\n  no answer: {self.error or 'nothing to go by'}"
        lines = [
            f"{self.photo}",
            f"  {self.latitude:.5f}, {self.longitude:.5f}  {self.place}  "
            f"(confidence {self.confidence:.2f}, {self.method})",
        ]
        lines += [
            f"  {number}. {other.latitude:9.4f}, {other.longitude:9.4f}  {other.weight:.2f}  {other.place}"
            f"  [{other.why}]"
            for number, other in enumerate(self.alternatives, start=1)
        ]
        return "\n".join(lines)


def locate(
    workspace: Workspace,
    recipe: str,
    photos: Sequence[Path],
    *,
    method: str = "class",
    model: str = "classifier",
    alternatives: int = 5,
    partition: str | None = None,
) -> list[Located]:
    """Locate photo files with what a build of `recipe` saved; by class, over the cells of `partition` (None: the main
    one).

    A file that is no readable photo gives an answer without coordinates and says why. Raises WorkspaceError
    where the build is absent or has no such partition, SettingsError for a wrong recipe.
    """
    settings = load_settings(workspace, recipe)
    _require_build(
        workspace, recipe, ("partition", "classifier") if method == "class" else ("index", "classifier")
    )
    network = _network(workspace, settings, model if method != "class" else "classifier")
    readable, errors = _read(photos)
    read = [i for i, error in enumerate(errors) if error is None]
    answers, name, tokens = _answer(
        workspace, settings, network, readable, method, model, alternatives, partition
    )
    spread = answers.spread(read, len(photos)) if read else Answers.none(len(photos))
    return [_located(spread, i, str(photo), name, tokens, errors[i]) for i, photo in enumerate(photos)]


def map_page(places: Sequence[Located]) -> str:
    """One offline HTML page with the answers and their alternatives on the world map."""
    return answer_map_html([place.to_dict() for place in places])


def _require_build(workspace: Workspace, recipe: str, stages: Sequence[str]) -> None:
    absent = [name for name in stages if not output_folder(workspace, recipe, name).is_dir()]
    if absent:
        raise WorkspaceError(
            f"{recipe} has no {', '.join(absent)} yet; build it with: geoloc build --recipe {recipe}"
        )


def _network(workspace: Workspace, settings: BuildSettings, model: str) -> Classifier:
    saved = load_model(output_folder(workspace, settings.recipe, "classifier") / MODEL_FILE)
    if model == "classifier":
        return saved
    return initial_model(
        workspace, settings, load_partitions(output_folder(workspace, settings.recipe, "partition"))
    )


def _read(photos: Sequence[Path]) -> tuple[list[np.ndarray], list[str | None]]:
    """The readable photos as uint8 [H, W, 3], and for each photo why it could not be read, or None.

    They pass the same checks and limits as photos that enter the pool.
    """
    read: list[np.ndarray] = []
    errors: list[str | None] = []
    for photo in photos:
        try:
            read.append(decode_rgb(check_and_normalise(photo.read_bytes()).bytes))
            errors.append(None)
        except (UnreadablePhoto, OSError) as error:
            errors.append(str(error))
    return read, errors


def _batches(
    network: Classifier, photos: Sequence[np.ndarray], batch_size: int, crop: str = CROPS[0]
) -> Iterator[torch.Tensor]:
    """A crop of each photo, as batches uint8 [B, 3, S, S]."""
    for start in range(0, len(photos), batch_size):
        crops = [network.preprocess.apply_uint8(photo, crop) for photo in photos[start : start + batch_size]]
        yield torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


def _probabilities(
    network: Classifier, photos: Sequence[np.ndarray], partition: str, settings: LocalizerSettings
) -> np.ndarray:
    """Probabilities of the partition's cells, float [N, C]: means over the crops that the settings want."""
    total = np.zeros((len(photos), network.heads[partition]))
    for crop in CROPS[: settings.crops]:
        batches = _batches(network, photos, settings.batch_size, crop)
        rows = [network.split(network(batch))[partition].softmax(dim=1).numpy() for batch in batches]
        total += np.concatenate(rows) if rows else 0
    return total / settings.crops


def _answer(
    workspace: Workspace,
    settings: BuildSettings,
    network: Classifier,
    photos: Sequence[np.ndarray],
    method: str,
    model: str,
    alternatives: int,
    partition: str | None,
) -> tuple[Answers, str, list[str]]:
    """The answers for the readable photos, the localizer's name, and the tokens of the cells (by class)."""
    recipe = settings.recipe
    with torch.inference_mode():
        if method == "class":
            partitions = load_partitions(output_folder(workspace, recipe, "partition"))
            network.check_heads(cell_counts(partitions))
            chosen = partition or next(iter(partitions))
            if chosen not in partitions:
                raise WorkspaceError(f"--partition must be one of {', '.join(partitions)}; got {chosen}")
            name = model_names(len(partitions))["classifier"]
            by_class = dict(
                class_localizers(partitions, settings.localizers.answers[:1], name, alternatives)
            )[chosen]
            probabilities = _probabilities(network, photos, chosen, settings.localizers)
            return by_class.locate(probabilities), by_class.name, partitions[chosen].tokens()
        index = ReferenceIndex.load(output_folder(workspace, recipe, "index") / model)
        batches = _batches(network, photos, settings.localizers.batch_size)
        rows = [torch.nn.functional.normalize(network.embed(batch)).numpy() for batch in batches]
    vectors = np.concatenate(rows) if rows else np.zeros((0, index.dimension), dtype=np.float32)
    name, limits = model_names(len(network.heads))[model], settings.localizers
    localizer: NeighbourLocalizer
    if method == "nn":
        localizer = NearestLocalizer(index, name, alternatives)
    else:
        sigma = limits.sigmas[len(limits.sigmas) // 2] if limits.sigmas else 4.0
        localizer = DensityLocalizer(
            index, limits.k, limits.m, sigma, model_name=name, alternatives=alternatives
        )
    return localizer.locate(vectors), localizer.name, []


def _located(
    answers: Answers, row: int, photo: str, method: str, tokens: Sequence[str], error: str | None
) -> Located:
    if answers.abstained[row] or answers.alternatives is None:
        return Located(photo, method, None, None, None, 0.0, (), error)
    other = answers.alternatives
    known = ~np.isnan(other.latitude[row])
    places = nearest_places(
        np.append(answers.latitude[row], other.latitude[row][known]),
        np.append(answers.longitude[row], other.longitude[row][known]),
    )
    names = [str(place) for place in places]
    return Located(
        photo,
        method,
        float(answers.latitude[row]),
        float(answers.longitude[row]),
        names[0],
        float(answers.confidence[row]),
        tuple(
            Alternative(
                float(other.latitude[row, i]),
                float(other.longitude[row, i]),
                name,
                float(other.weight[row, i]),
                _why(answers, row, int(i), tokens),
            )
            for i, name in zip(np.flatnonzero(known), names[1:], strict=True)
        ),
    )


def _why(answers: Answers, row: int, i: int, tokens: Sequence[str]) -> str:
    """What speaks for an alternative: its cell, or how many neighbours lie near it."""
    if answers.cells is not None:
        return f"cell {tokens[answers.cells.cell[row, i]]}"
    assert answers.neighbours is not None and answers.alternatives is not None  # noqa: PT018
    near = distance_km(
        answers.neighbours.latitude[row],
        answers.neighbours.longitude[row],
        answers.alternatives.latitude[row, i],
        answers.alternatives.longitude[row, i],
    )
    close = np.flatnonzero(near <= LEVELS_KM["region"])
    best = answers.neighbours.photo_ids()[row, close[0]] if len(close) else "none"
    count = f"{len(close)} of {int((answers.neighbours.row[row] >= 0).sum())} neighbours within 200 km"
    return f"{count}, most similar {best}"
