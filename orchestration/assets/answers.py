"""The ways in which a build answers "where?", one function each: the evaluation stage measures them side by side.

A function loads and fits what its way needs, once; the `Way` that it returns then answers each test set. A new
localizer is a function here and a line in evaluation.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.files import write_parquet
from geoloc.localizers.base import Answers
from geoloc.localizers.by_class.methods import ClassMethod, class_methods
from geoloc.localizers.by_class.probabilities import photo_parts
from geoloc.localizers.by_neighbour import locate_among_fewer, locate_by_neighbours, neighbour_table
from geoloc.localizers.confidence.calibration import Calibration
from geoloc.localizers.confidence.kept import CellFacts, cell_facts
from geoloc.localizers.frozen.localizer import FrozenLocalizer, fit_frozen, vectors_of
from geoloc.localizers.quantised import QuantisedLocalizer
from geoloc.models.classifier import Classifier
from geoloc.models.engine import ExportedNetwork
from geoloc.models.prediction import predict_probabilities
from geoloc.photos.owners import photographer_keys
from geoloc.photos.validation_parts import REGIONS, SHARED, TEMPERATURE, of_part
from geoloc.retrieval.embeddings import Embeddings
from geoloc.retrieval.index import ReferenceIndex
from orchestration.assets.inputs import embedding_folders, load_trained, model_names
from orchestration.assets.subsets import reference_tables, references_among
from orchestration.run.stage import StageRun

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

NEIGHBOURS_SHOWN = 5


@dataclass(frozen=True)
class Answered:
    """Answers on a test set and descriptions, by name of the method, and tables of diagnostics by theirs."""

    answers: dict[str, Answers] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict, kw_only=True)

    def __or__(self, other: Answered) -> Answered:
        tables = {
            name: pd.concat(
                [one.tables[name] for one in (self, other) if name in one.tables], ignore_index=True
            )
            for name in (self.tables | other.tables)
        }
        return Answered(self.answers | other.answers, self.descriptions | other.descriptions, tables=tables)


Way = Callable[[str, pd.DataFrame], Answered]
"""Takes the name of a test set and its photos, one row per photo; returns the answers."""

Watch = Callable[[slice, Mapping[str, NDArray[Any]]], None]
"""Takes a part of a test set and the scaled class probabilities of its photos by partition, while they are there."""


@dataclass(frozen=True)
class ClassAnswers(Answered):
    """Answers by class; by partition, what is kept of the probabilities; and the positions of unreadable photos."""

    facts: dict[str, CellFacts] = field(default_factory=dict)
    unreadable: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class ByClass:
    """The trained classifier, its partitions by name, and all methods that answer by class. Create it with `open`."""

    run: StageRun
    partitions: Mapping[str, Partition]
    methods: list[ClassMethod]
    model: Classifier | ExportedNetwork
    calibration: Calibration

    @classmethod
    def open(
        cls,
        run: StageRun,
        partitions: Mapping[str, Partition],
        references: pd.DataFrame,
        validation: pd.DataFrame,
    ) -> ByClass:
        """Load the classifier and fit the calibration, which depends on no test set, on the parts of `validation` for
        it. A fitted calibration is saved in the output."""
        settings = run.settings
        # First, so that partitions that cannot be combined stop the stage before any photo is read.
        methods = class_methods(
            partitions,
            settings.localizers,
            references["latitude"],
            references["longitude"],
            model_name=model_names(len(partitions))["classifier"],
            seed=settings.seed,
        )
        model = load_trained(run.build, partitions)
        by_class = cls(run, partitions, methods, model, Calibration.none())
        if not Calibration.wanted(settings.localizers):
            return by_class
        use = validation["validation_part"]
        used = validation[use.isin([TEMPERATURE, REGIONS, SHARED])].reset_index(drop=True)
        run.log(f"calibration: class probabilities of {len(used)} validation photos")
        use = used["validation_part"]
        calibration = Calibration.fit(
            partitions,
            lambda positions: by_class.predict(used.iloc[positions])[0],
            used["latitude"],
            used["longitude"],
            settings.localizers,
            photographer_keys(used),
            use.isin([TEMPERATURE, SHARED]),
            use.isin([REGIONS, SHARED]),
            batch=settings.localizers.batch_size,
            seed=settings.seed,
        )
        calibration.save(run.output)
        return cls(run, partitions, methods, model, calibration)

    def predict(self, photos: pd.DataFrame) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.int64]]:
        """Probabilities by partition (NaN for photos that are unreadable or not stored), and the positions of those
        photos."""
        limits = self.run.settings.localizers
        return predict_probabilities(
            self.model, self.run.workspace.pool, photos, limits.batch_size, crops=limits.crops
        )

    def scaled_of(self, photos: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """Scaled probabilities by partition of photos that are few enough to hold at once."""
        return self.calibration.scaled(self.predict(photos)[0])

    def answer(self, test: str, queries: pd.DataFrame, watch: Sequence[Watch] = ()) -> ClassAnswers:
        """The answers of every method. Photos without probabilities get no answer. Each of `watch` sees every part.

        The probabilities of all photos are never held at once: a part is predicted, answered, summarised and dropped.
        """
        self.run.log(f"{test}: class probabilities of {len(queries)} photos")
        truth = {
            name: one.assign(queries["latitude"], queries["longitude"]).astype(np.int64)
            for name, one in self.partitions.items()
        }
        areas = {name: self.partitions[name].areas_km2() for name in self.calibration.regions}
        cells = sum(one.cell_count for one in self.partitions.values())
        answers: list[list[Answers]] = []
        facts: list[dict[str, CellFacts]] = []
        unreadable = []
        for part in photo_parts(len(queries), cells, self.run.settings.localizers.batch_size):
            raw, missed = self.predict(queries.iloc[part])
            scaled = self.calibration.scaled(raw)
            answers.append([method.locate(scaled) for method in self.methods])
            true_cells = {name: some[part] for name, some in truth.items()}
            facts.append(cell_facts(self.calibration, raw, scaled, true_cells, areas))
            unreadable.append(missed + part.start)
            for see in watch:
                see(part, scaled)
        return ClassAnswers(
            {
                method.localizer.name: Answers.joined(parts)
                for method, parts in zip(self.methods, zip(*answers, strict=True), strict=True)
            },
            {method.localizer.name: method.localizer.describe() for method in self.methods},
            {name: CellFacts.joined([one[name] for one in facts]) for name in self.partitions},
            np.concatenate(unreadable),
        )


def by_neighbour(
    run: StageRun, model: str, partitions: Mapping[str, Partition], sources: pd.Series | None = None
) -> Way:
    """Nearest reference and densest spot among the nearest, by the embeddings of `model`. Also writes each photo's
    neighbours. `sources` names the source of each photo by its id, where there are several.

    Raises RetrievalError for an index by another model, an empty one, and where nothing may be found.
    """
    index = ReferenceIndex.load(run.input("index") / model)
    embeddings = Embeddings.load(embedding_folders(run.build)[model])
    index.require_model(embeddings)
    limits = run.settings.localizers
    among = references_among(run.workspace, index, limits.references)
    name = model_names(len(partitions), run.settings)[model]
    quantised = QuantisedLocalizer(index, next(iter(partitions.values())), name)

    def answer(test: str, queries: pd.DataFrame) -> Answered:
        position = embeddings.positions(queries["photo_id"])
        readable = (position >= 0).nonzero()[0]
        run.log(f"{test}: neighbours in {index!r}")
        found, described, neighbours = locate_by_neighbours(
            index,
            embeddings.vectors[position[readable]],
            name,
            limits,
            among=among,
        )
        if limits.reference_share is not None:
            few, answers, text = locate_among_fewer(
                index,
                embeddings.vectors[position[readable]],
                name,
                limits.reference_share,
                run.settings.seed,
                among,
            )
            found[few], described[few] = answers, text
        if limits.quantised:
            found[quantised.name] = quantised.locate_neighbours(neighbours)
            described[quantised.name] = quantised.describe()
        if among is not None:
            described = {
                one: f"{text}; {among.sum():,} of these may be found" for one, text in described.items()
            }
        write_parquet(
            run.output / f"neighbours-{test}-{model}.parquet",
            neighbour_table(queries["photo_id"].iloc[readable], neighbours, NEIGHBOURS_SHOWN),
        )
        return Answered(
            {one: some.spread(readable, len(queries)) for one, some in found.items()},
            described,
            tables=reference_tables(run, name, index, embeddings, queries, among, sources),
        )

    return answer


def frozen_localizers(
    run: StageRun, partitions: Mapping[str, Partition], references: pd.DataFrame, validation: pd.DataFrame
) -> list[FrozenLocalizer]:
    """Classifiers on features of the network's first weights, fitted and saved; empty if the settings name none."""
    if not run.settings.localizers.frozen.kinds:
        return []
    made = fit_frozen(
        partitions,
        run.settings.localizers,
        Embeddings.load(run.input("features")),
        references,
        of_part(validation, TEMPERATURE),
        model_name=model_names(len(partitions))["backbone"],
        seed=run.settings.seed,
        log=run.log,
    )
    for one in made:
        one.save(run.output)
    return made


def by_frozen(run: StageRun, frozen: list[FrozenLocalizer]) -> Way:
    """Answers of the classifiers on frozen features."""
    features = Embeddings.load(run.input("features"))

    def answer(test: str, queries: pd.DataFrame) -> Answered:
        vectors = vectors_of(features, queries["photo_id"])
        return Answered(
            {one.name: one.locate(vectors) for one in frozen}, {one.name: one.describe() for one in frozen}
        )

    return answer
