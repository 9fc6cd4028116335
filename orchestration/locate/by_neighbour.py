"""By neighbour, for `geoloc locate`: the nearest reference photo, or the densest spot among the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer
from geoloc.models.photo_network import PhotoNetwork, open_photo_network
from geoloc.models.preprocess import Preprocess
from geoloc.retrieval.index import ReferenceIndex
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.assets.inputs import model_names, model_settings
from orchestration.lineage.build import Build
from orchestration.locate.located import Found
from orchestration.locate.question import Question
from orchestration.plan.chain import GRAPH_FILE, MODEL_FILE
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.models.embedder import Embedder


@dataclass(frozen=True)
class ByNeighbour:
    """A build's network, and a localizer over the index of its embeddings. Make it with `open`."""

    network: PhotoNetwork
    localizer: NeighbourLocalizer
    batch_size: int
    within_km: float | None = None
    scaled: bool = False

    @classmethod
    def open(cls, build: Build, question: Question) -> ByNeighbour:
        """The localizer that the question asks for, over what the build saved.

        Raises WorkspaceError where the settings' model cannot be made.
        """
        limits = build.settings.localizers
        precision = build.settings.embeddings.precision
        folder = build.folder("features" if question.model == "backbone" else question.model)
        graph, file = folder / GRAPH_FILE, folder / MODEL_FILE
        weights = None if question.model == "backbone" else file
        network = open_photo_network(
            graph, lambda: _load(build, question.model, file), weights, precision, accelerated=question.many
        )
        heads = len(network.heads) if question.model == "classifier" else 1
        name = model_names(heads, build.settings)[question.model]
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
        """The method's name, as in tables."""
        return self.localizer.name

    @property
    def preprocess(self) -> Preprocess:
        """How the network gets a photo."""
        return self.network.preprocess

    def locate(self, photos: Sequence[NDArray[np.uint8]]) -> Found:
        """Locate N photos, uint8 [H, W, 3] each. Neighbours have no regions."""
        answers = self.localizer.locate(self.network.unit_embeddings(photos, self.batch_size))
        reasons = [_reasons(answers, row) for row in range(len(photos))]
        return Found(answers, reasons, [None] * len(photos))


def _load(build: Build, model: str, file: Path) -> Embedder:
    """A network for torch to run; the backbone with its first weights is made from the settings. Raises WorkspaceError
    if it cannot be made."""
    # Only here: torch takes seconds to import, and an exported graph needs none of it.
    from geoloc.models.classifier import load_model
    from geoloc.models.embedder import build_embedder
    from geoloc.models.metric import load_metric_network

    if model == "classifier":
        return load_model(file)
    if model == "metric":
        return load_metric_network(file)
    try:
        return build_embedder(model_settings(build), build.settings.seed).eval()
    except ValueError as error:
        raise WorkspaceError(f"the model of {build.recipe}'s settings cannot be made: {error}") from None


def _reasons(answers: Answers, row: int) -> list[str]:
    """The evidence for each alternative of a photo: how many neighbours are near it, and the most similar of them."""
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
