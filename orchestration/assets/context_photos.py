"""The photos that models of time and albums learn from, are chosen on, and answer: shared by their stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from geoloc.localizers.by_album.context import SeenPhotos
from geoloc.models.stored_probabilities import StoredProbabilities
from geoloc.photos.splits import CONTEXT, TRAIN, VALIDATION
from geoloc.photos.validation_parts import of_part
from geoloc.retrieval.embeddings import Embeddings
from orchestration.assets.inputs import load_partitions
from orchestration.plan.chain import inputs_of
from orchestration.run.stage import StageRun

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


class ContextInput:
    """What a stage of time or albums reads: the stored probabilities, and the embeddings where its settings ask for
    them."""

    def __init__(self, run: StageRun) -> None:
        self.run = run
        self.stored = StoredProbabilities.load(run.input("class_probabilities"))
        wanted = "embeddings" in inputs_of(run.settings, run.stage)
        self.embeddings = Embeddings.load(run.input("embeddings")) if wanted else None

    @property
    def partition(self) -> Partition:
        """The main partition."""
        return next(iter(load_partitions(self.run.input("partition")).values()))

    def seen(self, photos: pd.DataFrame) -> SeenPhotos:
        """Some of the stored photos, as models see them."""
        vectors = None
        if self.embeddings is not None:
            position = self.embeddings.positions(photos["photo_id"])
            vectors = self.embeddings.vectors[position.clip(0)].astype("float32")
            vectors[position < 0] = float("nan")
        return SeenPhotos(photos.reset_index(drop=True), self.stored.of(photos), vectors)

    def of_split(self, *splits: str) -> pd.DataFrame:
        """The photos of these splits."""
        return self.stored.photos[self.stored.photos["split"].isin(splits)].reset_index(drop=True)

    def to_learn(self, all_photos: bool = False) -> SeenPhotos:
        """The photos to learn from: the split context, or where there is none, train; with `all_photos` both, those of
        train without probabilities."""
        found = self.of_split(CONTEXT)
        if all_photos or not len(found):
            found = self.of_split(TRAIN, CONTEXT)
        return self.seen(found)

    def validation(self, part: str) -> SeenPhotos:
        """The validation photos of one use, see photos/validation_parts.py."""
        return self.seen(of_part(self.of_split(VALIDATION), part))
