"""By neighbour, for `geoloc locate`: the nearest reference photo, or the densest spot among the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer
from geoloc.models.embedder import Embedder
from geoloc.models.engine import ExportedNetwork
from geoloc.models.layers import LayerEmbedder
from geoloc.models.prediction import unit_embeddings_of_pixels
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.pca import Pca
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.assets.inputs import embedding_network, model_names
from orchestration.lineage.build import Build
from orchestration.locate.located import Found
from orchestration.locate.question import Question


@dataclass(frozen=True)
class ByNeighbour:
    """A build's network, and a localizer over the index of its embeddings. Make it with `open`."""

    network: Embedder | LayerEmbedder | ExportedNetwork
    localizer: NeighbourLocalizer
    batch_size: int
    pca: Pca | None = None
    within_km: float | None = None
    scaled: bool = False

    @classmethod
    def open(cls, build: Build, question: Question) -> ByNeighbour:
        """The localizer that the question asks for, over what the build saved.

        Raises WorkspaceError where the settings' model cannot be made.
        """
        limits = build.settings.localizers
        network, pca = embedding_network(build, question.model)
        heads = getattr(network, "heads", None) or build.settings.partitions  # a layer has no heads
        name = model_names(len(heads), build.settings)[question.model]
        index = ReferenceIndex.load(build.folder("index") / question.model)
        localizer: NeighbourLocalizer
        if question.method == "nn":
            localizer = NearestLocalizer(index, name, question.alternatives)
        else:
            sigma = limits.sigmas[len(limits.sigmas) // 2] if limits.sigmas else 4.0
            localizer = DensityLocalizer(
                index, limits.k, limits.m, sigma, model_name=name, alternatives=question.alternatives
            )
        return cls(network, localizer, limits.batch_size, pca)

    @property
    def name(self) -> str:
        """The method's name, as in tables."""
        return self.localizer.name

    def locate(self, photos: Sequence[NDArray[np.uint8]]) -> Found:
        """Locate N photos, uint8 [H, W, 3] each. Neighbours have no regions."""
        vectors = unit_embeddings_of_pixels(self.network, photos, self.batch_size)
        answers = self.localizer.locate(vectors if self.pca is None else self.pca.transform(vectors))
        reasons = [_reasons(answers, row) for row in range(len(photos))]
        return Found(answers, reasons, [None] * len(photos))


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
