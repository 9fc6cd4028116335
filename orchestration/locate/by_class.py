"""By class, for `geoloc locate`: which localizer answers, its confidence, and regions of given coverage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.localizers.by_class.methods import (
    ClassMethod,
    overlay_method,
    product_method,
    within_level_method,
)
from geoloc.localizers.by_class.overlay import OverlayLocalizer
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.regions import regions_of
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.photo_network import PhotoNetwork
from geoloc.models.preprocess import Preprocess
from geoloc.sphere import LEVELS_KM
from orchestration.assets.inputs import load_partitions, model_names, open_trained, read_photos, stored
from orchestration.lineage.build import Build
from orchestration.locate.located import Found
from orchestration.locate.question import Question
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


@dataclass(frozen=True)
class ByClass:
    """A build's classifier, and a localizer over its probabilities. Make it with `open`."""

    network: PhotoNetwork
    partitions: Mapping[str, Partition]
    method: ClassMethod
    calibration: Calibration
    settings: LocalizerSettings
    level: str | None

    @classmethod
    def open(cls, build: Build, question: Question, say: Callable[[str], None]) -> ByClass:
        """The localizer that the question asks for, over what the build saved.

        `say` gets a line if confidences cannot be scaled. Raises WorkspaceError where the build has no such partition,
        only one where several are to be combined, or none of the photos that a localizer is fitted on.
        """
        partitions = load_partitions(build.folder("partition"))
        method = _method(build, question, partitions)  # first: it needs no network
        network = open_trained(build, partitions, accelerated=question.many)
        calibration = _calibration(build, partitions, say)
        return cls(network, partitions, method, calibration, build.settings.localizers, question.level)

    @property
    def name(self) -> str:
        """The method's name, as in tables."""
        return self.method.localizer.name

    @property
    def preprocess(self) -> Preprocess:
        """How the network gets a photo."""
        return self.network.preprocess

    @property
    def within_km(self) -> float | None:
        """The distance that confidences are about; None where they are probabilities of cells."""
        return LEVELS_KM[self.level] if self.level else None

    @property
    def scaled(self) -> bool:
        """Whether a fitted temperature scales the confidences; there is none for a combination of partitions."""
        return len(self.method.partitions) == 1 and self.method.partitions[0] in self.calibration.temperatures

    def locate(self, photos: Sequence[NDArray[np.uint8]]) -> Found:
        """Locate N photos, uint8 [H, W, 3] each.

        Regions are of the partition that answers, the main one where several do; None where the build fitted none.
        """
        probabilities, main = self.probabilities(photos), self.method.partitions[0]
        answers = self.method.locate(probabilities)
        regions = regions_of(self.calibration, main, self.partitions[main], probabilities)
        return Found(answers, self._reasons(answers, probabilities), regions)

    def probabilities(
        self, photos: Sequence[NDArray[np.uint8]], *, scaled: bool = True
    ) -> dict[str, NDArray[np.float32]]:
        """By partition, float32 [N, C]; as the network says them unless `scaled`."""
        found = self._probabilities(photos)
        return self.calibration.scaled(found) if scaled else found

    def _probabilities(self, photos: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
        """By partition, float32 [N, C]: means over the crops that the settings want, as in evaluation."""
        return self.network.probabilities(photos, self.settings.batch_size, self.settings.crops)

    def _reasons(self, answers: Answers, probabilities: Mapping[str, NDArray[np.float32]]) -> list[list[str]]:
        """The evidence for each alternative of each photo: its cell, or its cells in all partitions."""
        assert answers.alternatives is not None
        places = np.stack([answers.alternatives.latitude, answers.alternatives.longitude], axis=-1)
        localizer = self.method.localizer
        if isinstance(localizer, OverlayLocalizer):
            tokens = [self.partitions[name].tokens() for name in self.method.partitions]
            # An overlay cell is found by its point, which the answer repeats bit for bit.
            at = {
                tuple(point): cells for point, cells in zip(localizer.points(), localizer.cells, strict=True)
            }

            def overlap(point: NDArray[np.float64]) -> str:
                return " + ".join(of[cell] for of, cell in zip(tokens, at[tuple(point)], strict=True))

            return [[f"cells {overlap(point)}" for point in row] for row in places]
        name = self.method.partitions[0]
        if self.level:
            # The probability is that of all cells around the point; shown is the cell that it is in.
            partition = self.partitions[name]
            found = partition.assign(places[..., 0].ravel(), places[..., 1].ravel()).reshape(places.shape[:2])
            of = partition.tokens()
            return [
                [
                    f"in cell {of[cell]}, probability {p[cell]:.2f}" if cell >= 0 else "between cells"
                    for cell in row
                ]
                for row, p in zip(found, probabilities[name], strict=True)
            ]
        assert answers.cells is not None
        finest = max(self.method.partitions, key=lambda one: self.partitions[one].cell_count)
        of = self.partitions[finest].tokens()
        return [[f"cell {of[cell]}" for cell in row] for row in answers.cells.cell]


def _method(build: Build, question: Question, partitions: Mapping[str, Partition]) -> ClassMethod:
    chosen = question.partition or next(iter(partitions))
    if chosen not in partitions:
        raise WorkspaceError(f"--partition must be one of {', '.join(partitions)}; got {chosen}")
    name, shown = model_names(len(partitions))["classifier"], question.alternatives
    settings = build.settings
    answer = settings.localizers.answers[0]
    if question.level:
        train = _training_photos(build, f"--level {question.level}")
        return within_level_method(
            partitions,
            chosen,
            question.level,
            train["latitude"],
            train["longitude"],
            name,
            settings.seed,
            shown,
        )
    if not question.combine:
        return ClassMethod(dict(class_localizers(partitions, (answer,), name, shown))[chosen], (chosen,))
    if len(partitions) < 2:
        raise WorkspaceError(
            f"--combine {question.combine} needs a build with at least two partitions; "
            f"{settings.recipe} has one: {chosen}"
        )
    try:
        if question.combine == "product":
            return product_method(partitions, answer, name, shown)
        train = _training_photos(build, "--combine overlay")
        return overlay_method(partitions, train["latitude"], train["longitude"], name, shown)
    except ValueError as error:
        if isinstance(error, WorkspaceError):
            raise
        raise WorkspaceError(
            f"--combine {question.combine} cannot be made of the partitions {', '.join(partitions)} of "
            f"{settings.recipe}: {error}"
        ) from None


def _training_photos(build: Build, option: str) -> pd.DataFrame:
    """The stored training photos, as in the evaluation. Raises WorkspaceError if there are none."""
    photos = stored(read_photos(build.folder("splits")))
    train = photos[photos["split"] == "train"]
    if train.empty:
        raise WorkspaceError(
            f"{option} needs the places of the training photos, and the splits of {build.recipe} have none; "
            f"build it again with: {build.command()}"
        )
    return train


def _calibration(
    build: Build, partitions: Mapping[str, Partition], say: Callable[[str], None]
) -> Calibration:
    """The calibration that the evaluation fitted on this classifier; an empty one (no-op) if there is none."""
    folder = build.folder("evaluation")
    try:
        found = Calibration.load(folder, partitions)
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"a temperature or region in {folder} is damaged ({error}); build it again with: "
            f"{build.command('evaluation')} --force"
        ) from None
    if not (found.temperatures or found.regions):
        return found
    record = build.record("evaluation")
    of_now = {stage: build.record(stage) for stage in ("partition", "classifier")}
    fitting = (
        record is not None
        and all(made and record.inputs.get(stage) == made.content for stage, made in of_now.items())
        and record.settings["localizers"]["crops"] == build.settings.localizers.crops
    )
    if fitting:
        return found
    say(
        f"confidences are not scaled and there are no regions: the evaluation of {build.recipe} used another "
        f"classifier, partition or number of crops; build it again with: {build.command()}"
    )
    return Calibration.none()
