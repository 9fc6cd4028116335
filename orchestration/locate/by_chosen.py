"""By neighbours, alone or with classes, for `geoloc locate`: as the evaluation chose on validation photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.chosen.choice import ALONE, CELLS, PRODUCT, Choice, default_choice, load_choices
from geoloc.localizers.chosen.neighbourhood import COMBINED, Neighbourhood
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.regions import regions_of
from geoloc.models.preprocess import Preprocess
from orchestration.assets.inputs import load_partitions
from orchestration.lineage.build import Build
from orchestration.locate.by_class import ByClass
from orchestration.locate.by_neighbour import ByNeighbour, reasons
from orchestration.locate.located import Found
from orchestration.locate.nearby import nearby
from orchestration.locate.question import Question
from orchestration.plan.chain import CHOICES_FILE
from orchestration.workspace import WorkspaceError


@dataclass(frozen=True)
class ByChosen:
    """A build's embeddings and index, its classifier where classes count too, and how to answer from them. Make it with
    `open`."""

    opened: ByNeighbour
    by_class: ByClass | None
    neighbourhood: Neighbourhood
    choice: Choice
    main: str
    regions: Choice
    calibration: Calibration
    alternatives: int
    name: str

    @classmethod
    def open(cls, build: Build, question: Question, say: Callable[[str], None]) -> ByChosen:
        """The localizer that the question asks for, over what the build saved.

        `say` gets a line if nothing was chosen on validation photos for it. Raises WorkspaceError as ByClass and
        ByNeighbour do, and for damaged choices.
        """
        combined = question.method == "combined"
        partitions = load_partitions(build.folder("partition"))
        main, partition = next(iter(partitions.items()))
        opened = ByNeighbour.open(build, replace(question, method="knn", level=None))
        by_class = ByClass.open(build, Question(many=question.many), say) if combined else None
        choices, calibration = _chosen(build, question, main, say)
        wanted = [one for one in choices if (one.way != ALONE) == combined and one.level == question.level]
        settings = build.settings.localizers
        choice = (
            wanted[0] if wanted else default_choice(settings, PRODUCT if combined else ALONE, question.level)
        )
        whole = next((one for one in choices if (one.way != ALONE) == combined and one.level is None), choice)
        return cls(
            opened,
            by_class,
            Neighbourhood.over(opened.localizer.index, partition, opened.among),
            choice,
            main,
            whole,
            calibration,
            question.alternatives,
            choice.name(opened.localizer.model_name, "" if by_class is None else by_class.name),
        )

    @property
    def within_km(self) -> float | None:
        """The distance that confidences are about; None where they are not scaled, and no probabilities."""
        return self.choice.km if self.scaled else None

    @property
    def scaled(self) -> bool:
        """Whether confidences were made probabilities on validation photos."""
        return self.choice.scaling is not None

    @property
    def preprocess(self) -> Preprocess | None:
        """How its networks get a photo; None if the one for classes gets it another way."""
        own = self.opened.preprocess
        return own if self.by_class is None or self.by_class.preprocess == own else None

    def locate(self, photos: Sequence[NDArray[np.uint8]]) -> Found:
        """Locate N photos, uint8 [H, W, 3] each. Regions are of the main partition; None where the build has none."""
        vectors = self.opened.embed(photos)
        p = None if self.by_class is None else self.by_class.probabilities(photos)[self.main]
        numbers = (self.choice.cells,) if self.choice.way == CELLS else ()
        most = max(self.choice.k, self.regions.k)
        evidence = self.neighbourhood.evidence(vectors, most, p, numbers)
        answers = self.choice.answer(evidence, self.alternatives)
        assert answers.neighbours is not None
        near = nearby(
            self.neighbourhood.index.references,
            answers.neighbours,
            self.choice.modes(evidence),
            self.choice.sigma,
        )
        raw = self.neighbourhood.probabilities(evidence, self.regions, p)
        scaled = self.calibration.scaled({self.main: raw})
        regions = regions_of(self.calibration, self.main, self.neighbourhood.partition, scaled)
        return Found(
            answers, [reasons(answers, row, self.choice.km) for row in range(len(photos))], regions, near
        )


def _chosen(
    build: Build, question: Question, main: str, say: Callable[[str], None]
) -> tuple[list[Choice], Calibration]:
    """What the evaluation chose and calibrated on this index and classifier; empty where it did not, which is said."""
    folder, none = build.folder("evaluation"), (list[Choice](), Calibration.none())
    file = folder / CHOICES_FILE.format(model=question.model)
    if not file.is_file():
        say(
            f"k and sigma are those of localizers, not chosen on validation photos, and confidences are not scaled: "
            f"the evaluation of {build.recipe} chose none for --model {question.model} (localizers.neighbours.methods)"
        )
        return none
    record = build.record("evaluation")
    links = [name for name in ("partition", "index", "classifier") if build.record(name) is not None]
    if record is None or any(
        record.inputs.get(name) != made.content for name in links if (made := build.record(name)) is not None
    ):
        say(
            f"k and sigma are those of localizers: the evaluation of {build.recipe} chose others on another index, "
            f"classifier or partition; build it again with: {build.command()}"
        )
        return none
    try:
        kind = COMBINED if question.method == "combined" else ALONE
        return load_choices(file), Calibration.load(folder / f"{kind}-{question.model}", [main])
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            f"what was chosen in {folder} is damaged ({error}); build it again with: "
            f"{build.command('evaluation')} --force"
        ) from None
