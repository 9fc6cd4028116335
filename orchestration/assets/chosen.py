"""Methods by neighbour that are chosen on validation photos, alone and with classes: for the evaluation stage.

Validation photographers are dealt to uses (photos/validation_parts.py): k, σ and the way are chosen on those of the
epoch, confidences and temperatures fitted on those of the temperatures, regions on those of the regions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.explaining.explanations import FOLDER
from geoloc.evaluation.explaining.neighbourhoods import neighbourhoods
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.intervals import shares
from geoloc.evaluation.result import Evaluation
from geoloc.localizers.base import Answers
from geoloc.localizers.by_neighbour import DensityLocalizer
from geoloc.localizers.chosen.choice import (
    ALONE,
    CELLS,
    Choice,
    Evidence,
    choice_table,
    choose,
    save_choices,
)
from geoloc.localizers.chosen.neighbourhood import COMBINED, Neighbourhood
from geoloc.localizers.confidence.calibration import Calibration, sample_of_photographers
from geoloc.localizers.confidence.kept import CellFacts, cell_facts
from geoloc.photos.owners import photographer_keys
from geoloc.photos.validation_parts import REGIONS, SELECTION, SHARED, TEMPERATURE, of_part
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.neighbours import Neighbours
from geoloc.settings import SettingsError
from orchestration.assets.answers import Answered, ByClass
from orchestration.assets.inputs import embedding_folders, model_names
from orchestration.assets.subsets import references_among
from orchestration.plan.chain import CHOICES_FILE
from orchestration.run.stage import StageRun

_ROWS = 4096  # queries whose neighbours are held at once
Interval = Callable[[NDArray[np.bool_]], tuple[float, float]]


@dataclass(frozen=True)
class ChosenMethods:
    """The methods by the neighbours of one model. Make them with `open`.

    `calibrations` has the temperature and regions of the neighbours (ALONE) and of the combination (COMBINED), each
    over the cells of the main partition, where the settings ask for any.
    """

    run: StageRun
    model: str
    neighbourhood: Neighbourhood
    embeddings: Embeddings
    main: str
    choices: list[Choice]
    names: list[str]
    calibrations: Mapping[str, Calibration]

    @classmethod
    def open(
        cls, run: StageRun, model: str, by_class: ByClass, validation: pd.DataFrame
    ) -> ChosenMethods | None:
        """Choose and calibrate on validation photos, and save both in the output.

        None where another program's embeddings have no validation photo: its file may be of training and test photos.
        Raises SettingsError if a network's have none.
        """
        settings = run.settings.localizers
        main, partition = next(iter(by_class.partitions.items()))
        index = ReferenceIndex.load(run.input("index") / model, mapped=True)
        embeddings = Embeddings.load(embedding_folders(run.build)[model])
        index.require_model(embeddings)
        among = references_among(run.workspace, index, settings.references)
        neighbourhood = Neighbourhood.over(index, partition, among)
        made = cls(run, model, neighbourhood, embeddings, main, [], [], {})
        seen = made._seen(of_part(validation, SELECTION))
        if seen.empty and model == "external":
            run.log("external: no embedding of a validation photo, so no methods are chosen")
            return None
        if seen.empty:
            raise SettingsError(
                "localizers.neighbours needs photos with embeddings in the validation split, got none"
            )
        used, _ = made._evidence_of(seen, by_class, settings.neighbours.cells)
        chosen, trials = choose(used, seen["latitude"], seen["longitude"], settings)
        run.log(f"{model}: k, σ and the way of {len(chosen)} methods chosen among {len(trials)} trials")
        made = replace(made, choices=chosen)
        if settings.calibrate:
            made = replace(made, choices=made._scaled(made._seen(of_part(validation, TEMPERATURE)), by_class))
        names = model_names(len(by_class.partitions), run.settings)
        classes = by_class.methods[0].localizer.name
        made = replace(made, names=[one.name(names[model], classes) for one in made.choices])
        save_choices(run.output / CHOICES_FILE.format(model=model), made.choices)
        if Calibration.wanted(settings):
            made = replace(made, calibrations=made._calibrated(validation, by_class))
        return made

    @property
    def shown(self) -> list[tuple[str, Choice]]:
        """The methods that the settings ask for, by name: each is a row of the evaluation."""
        wanted = self.run.settings.localizers.neighbours.methods
        return [
            (name, one)
            for name, one in zip(self.names, self.choices, strict=True)
            if one.way != ALONE or "levels" in wanted
        ]

    def table(self) -> pd.DataFrame:
        """What was chosen, as people read it."""
        return choice_table([one for _, one in self.shown], [name for name, _ in self.shown])

    def collector(self, queries: pd.DataFrame) -> Collector:
        """Answers a test set while its class probabilities pass by."""
        return Collector(self, queries)

    def _combined(self) -> Choice | None:
        return next((one for one in self.choices if one.way != ALONE), None)

    def _most(self) -> int:
        return max(self.run.settings.localizers.neighbours.ks)

    def _seen(self, photos: pd.DataFrame) -> pd.DataFrame:
        """The photos that have embeddings; of very many, those of some photographers."""
        photos = photos[self.embeddings.positions(photos["photo_id"]) >= 0]
        owners = pd.factorize(photographer_keys(photos))[0]
        settings = self.run.settings
        kept = sample_of_photographers(owners, settings.localizers.neighbours.photos, settings.seed)
        return photos.iloc[kept].reset_index(drop=True)

    def _evidence_of(
        self, photos: pd.DataFrame, by_class: ByClass, numbers: tuple[int, ...]
    ) -> tuple[Evidence, NDArray[np.float32] | None]:
        """The evidence for photos with embeddings, and their class probabilities where a way needs them."""
        ways = self.run.settings.localizers.neighbours.ways
        vectors = self.embeddings.vectors[self.embeddings.positions(photos["photo_id"])]
        p = by_class.scaled_of(photos)[self.main] if ways else None
        return self.neighbourhood.evidence(vectors, self._most(), p, numbers if CELLS in ways else ()), p

    def _scaled(self, photos: pd.DataFrame, by_class: ByClass) -> list[Choice]:
        if photos.empty:
            return self.choices
        evidence, _ = self._evidence_of(photos, by_class, self._numbers())
        return [one.scaled_on(evidence, photos["latitude"], photos["longitude"]) for one in self.choices]

    def _numbers(self) -> tuple[int, ...]:
        return tuple({one.cells for one in self.choices if one.way == CELLS})

    def _calibrated(self, validation: pd.DataFrame, by_class: ByClass) -> dict[str, Calibration]:
        used = self._seen(validation[validation["validation_part"].isin([TEMPERATURE, REGIONS, SHARED])])
        if used.empty:
            return {}
        evidence, by_cells = self._evidence_of(used, by_class, ())
        part = used["validation_part"]
        made = {}
        for kind, p in self._probabilities(evidence, by_cells).items():
            made[kind] = Calibration.fit(
                {self.main: self.neighbourhood.partition},
                lambda positions, p=p: {self.main: p[positions]},  # type: ignore[misc]
                used["latitude"],
                used["longitude"],
                self.run.settings.localizers,
                photographer_keys(used),
                part.isin([TEMPERATURE, SHARED]),
                part.isin([REGIONS, SHARED]),
                seed=self.run.settings.seed,
            )
            made[kind].save(self.run.output / f"{kind}-{self.model}")
        return made

    def _probabilities(
        self, evidence: Evidence, by_cells: NDArray[Any] | None
    ) -> dict[str, NDArray[np.float32]]:
        found = {ALONE: self.neighbourhood.probabilities(evidence, self.choices[0])}
        combined = self._combined()
        if combined is not None and by_cells is not None:
            found[COMBINED] = self.neighbourhood.probabilities(evidence, combined, by_cells)
        return found


@dataclass(frozen=True)
class Collector:
    """The answers of one model's chosen methods on a test set. Call it with each part of the photos, in order, and
    their scaled class probabilities by partition; then read `answered` and `regions`."""

    methods: ChosenMethods
    queries: pd.DataFrame
    _answers: dict[str, list[Answers]] = field(default_factory=dict)
    _facts: dict[str, list[CellFacts]] = field(default_factory=dict)

    def __call__(self, part: slice, scaled: Mapping[str, NDArray[Any]]) -> None:
        for start in range(part.start, part.stop, _ROWS):
            rows = slice(start, min(start + _ROWS, part.stop))
            self._some(rows, scaled[self.methods.main][rows.start - part.start : rows.stop - part.start])

    def _some(self, rows: slice, by_cells: NDArray[Any]) -> None:
        own, photos = self.methods, self.queries.iloc[rows]
        position = own.embeddings.positions(photos["photo_id"])
        readable = np.flatnonzero(position >= 0)
        p = by_cells[readable] if own._combined() is not None else None
        vectors = own.embeddings.vectors[position[readable]]
        evidence = own.neighbourhood.evidence(vectors, own._most(), p, own._numbers())
        for name, choice in own.shown:
            found = replace(choice.answer(evidence), neighbours=None)  # many; locate shows them
            self._answers.setdefault(name, []).append(found.spread(readable, len(photos)))
        partition = own.neighbourhood.partition
        truth = partition.assign(photos["latitude"], photos["longitude"]).astype(np.int64)
        for kind, raw in own._probabilities(evidence, p).items():
            if kind not in own.calibrations:
                continue
            whole = np.full((len(photos), partition.cell_count), np.nan, dtype=np.float32)
            whole[readable] = raw
            calibration = own.calibrations[kind]
            facts = cell_facts(
                calibration, {own.main: whole}, calibration.scaled({own.main: whole}), {own.main: truth},
                {own.main: partition.areas_km2()},
            )  # fmt: skip
            self._facts.setdefault(kind, []).append(facts[own.main])

    def answered(self) -> Answered:
        """The answers of all methods."""
        return Answered(
            {name: Answers.joined(parts) for name, parts in self._answers.items()},
            {name: choice.describe() for name, choice in self.methods.shown},
        )

    def regions(self) -> pd.DataFrame:
        """How well the regions of the neighbours and of the combination cover the photos; empty without regions."""
        owners = photographer_keys(self.queries)
        clusters = photographer_clusters(owners)

        def interval(covered: NDArray[np.bool_]) -> tuple[float, float]:
            low, high = shares(covered[:, None], clusters).interval()
            return float(low[0]), float(high[0])

        tables = []
        for kind, facts in self._facts.items():
            table = self.methods.calibrations[kind].region_table(
                {self.methods.main: CellFacts.joined(facts)}, owners, interval
            )
            if len(table):
                table.insert(0, "method", next(name for name, _ in self._of(kind)))
                tables.append(table)
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def _of(self, kind: str) -> list[tuple[str, Choice]]:
        named = zip(self.methods.names, self.methods.choices, strict=True)
        return [(name, one) for name, one in named if (one.way == ALONE) == (kind == ALONE)]


def chosen_methods(run: StageRun, by_class: ByClass, validation: pd.DataFrame) -> list[ChosenMethods]:
    """The chosen methods of each trained model and of another program's embeddings (of the backbone where there is no
    other); none unless localizers.neighbours names any."""
    if not run.settings.localizers.neighbours.methods:
        return []
    models = list(embedding_folders(run.build))
    trained = [model for model in models if model != "backbone"] or models
    found = [ChosenMethods.open(run, model, by_class, validation) for model in trained]
    return [one for one in found if one is not None]


def explain_neighbours(
    run: StageRun, test: str, evaluation: Evaluation, queries: pd.DataFrame, partitions: int
) -> None:
    """Write what the report shows of the neighbours of a few photos, by the trained network and the middle σ; nothing
    where that is no row of the evaluation."""
    settings = run.settings.localizers
    models = list(embedding_folders(run.build))
    if not run.settings.evaluation.explained or not settings.sigmas or not models:
        return
    model = next((one for one in models if one != "backbone"), models[0])
    index = ReferenceIndex.load(run.input("index") / model, mapped=True)
    sigma = settings.sigmas[len(settings.sigmas) // 2]
    name = model_names(partitions, run.settings)[model]
    density = DensityLocalizer(index, settings.k, settings.m, sigma, model_name=name)
    if density.name not in evaluation.methods:
        return
    embeddings = Embeddings.load(embedding_folders(run.build)[model])

    def search(positions: NDArray[np.int64]) -> Neighbours:
        own = embeddings.positions(queries["photo_id"].iloc[positions])  # answered, so each has one
        return index.search(embeddings.vectors[own], settings.k)

    count = run.settings.evaluation.explained
    found = neighbourhoods(evaluation, density.name, density.settings, queries, count, search)
    found.save(run.output / test / FOLDER)
