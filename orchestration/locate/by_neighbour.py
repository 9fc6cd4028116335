"""By neighbour, for `geoloc locate`: the nearest reference photo, or the one where the density of the nearest is
highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer, NeighbourLocalizer
from geoloc.models.preprocess import Preprocess
from geoloc.retrieval.modes import find_modes
from geoloc.sphere import LEVELS_KM, distance_km
from orchestration.assets.inputs import model_names
from orchestration.assets.photo_embedder import PhotoEmbedder
from orchestration.lineage.build import Build
from orchestration.locate.located import Found
from orchestration.locate.nearby import nearby
from orchestration.locate.question import Question
from orchestration.locate.references import may_be_found, open_index, voting


@dataclass(frozen=True)
class ByNeighbour:
    """What embeds photos as a build does, and a localizer over the index of its embeddings. Make it with `open`."""

    embedder: PhotoEmbedder
    localizer: NeighbourLocalizer
    batch_size: int
    among: NDArray[np.bool_] | None = None
    asked: str = ""
    within_km: float | None = None
    scaled: bool = False

    @classmethod
    def open(cls, build: Build, question: Question) -> ByNeighbour:
        """The localizer that the question asks for, over what the build saved.

        Raises WorkspaceError where the settings' model cannot be made, or the index is of another network or empty,
        and UsageError for options that it cannot fulfil.
        """
        limits = build.settings.localizers
        embedder = PhotoEmbedder.open(build, question.model, accelerated=question.many)
        heads = embedder.network.heads or build.settings.partitions  # a layer has no heads
        name = model_names(len(heads), build.settings)[question.model]
        index = open_index(build, question.model, embedder)
        among = may_be_found(build, question, index)
        localizer: NeighbourLocalizer
        if question.method == "nn":
            localizer = NearestLocalizer(index, name, question.alternatives)
        else:
            k = voting(question, limits, len(index) if among is None else int(among.sum()))
            sigma = limits.sigmas[len(limits.sigmas) // 2] if limits.sigmas else 4.0
            localizer = DensityLocalizer(
                index, k, limits.m, sigma, model_name=name, alternatives=question.alternatives
            )
        asked = f" among {' '.join(question.references)}" if question.references else ""
        return cls(embedder, localizer, limits.batch_size, among, asked)

    @property
    def name(self) -> str:
        """The method's name, as in tables; with other references than the evaluation's it is no method of those."""
        return self.localizer.name + self.asked

    @property
    def preprocess(self) -> Preprocess:
        """How the network gets a photo."""
        return self.embedder.network.preprocess

    def embed(self, photos: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embeddings of N photos, uint8 [H, W, 3] each: float32 [N, D], as the index has them."""
        return self.embedder.embed(photos, self.batch_size)

    def locate(self, photos: Sequence[NDArray[np.uint8]]) -> Found:
        """Locate N photos, uint8 [H, W, 3] each. Neighbours have no regions."""
        answers = self.localizer.locate(self.embed(photos), among=self.among)
        found = answers.neighbours
        assert found is not None
        modes, sigma = None, None
        if isinstance(self.localizer, DensityLocalizer):
            modes = find_modes(found.latitude, found.longitude, found.similarity, self.localizer.settings)
            sigma = self.localizer.settings.sigma
        near = nearby(self.localizer.index.references, found, modes, sigma)
        why = [reasons(answers, row, LEVELS_KM["region"]) for row in range(len(photos))]
        return Found(answers, why, [None] * len(photos), near)


def reasons(answers: Answers, row: int, km: float) -> list[str]:
    """The evidence for each alternative of a photo: how many neighbours are within `km`, and the most similar one."""
    assert answers.neighbours is not None and answers.alternatives is not None  # noqa: PT018
    ids, texts = answers.neighbours.photo_ids()[row], []
    places = zip(answers.alternatives.latitude[row], answers.alternatives.longitude[row], strict=True)
    for latitude, longitude in places:
        near = distance_km(
            answers.neighbours.latitude[row], answers.neighbours.longitude[row], latitude, longitude
        )
        close = np.flatnonzero(near <= km)
        best = ids[close[0]] if len(close) else "none"
        count = f"{len(close)} of {int((answers.neighbours.row[row] >= 0).sum())} neighbours within {km:g} km"
        texts.append(f"{count}, most similar {best}")
    return texts
