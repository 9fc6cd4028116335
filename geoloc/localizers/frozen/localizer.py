"""Location by class from frozen features: an SVM and kNN instead of a network's head, fitted as the settings ask.

Diving Deeper into IM2GPS, section IV.A and table 1. A linear SVM and k nearest neighbours learn the cells of a
partition from the stored embeddings of the training photos (retrieval/frozen_svm.py, frozen_knn.py); their answers are
points of cells, as a network's are, so that all three are compared alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.base import Answers, Localizer
from geoloc.localizers.by_class.cells import ClassLocalizer, class_localizers
from geoloc.localizers.by_class.probabilities import photo_parts
from geoloc.localizers.confidence.calibration import TEMPERATURE_CELLS, sample_of_photographers
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.localizers.frozen.base import FROZEN_APPROACHES, FrozenClassifier
from geoloc.localizers.frozen.knn import FrozenKnn
from geoloc.localizers.frozen.svm import FrozenSvm
from geoloc.localizers.settings import FrozenSettings, LocalizerSettings
from geoloc.photos.owners import photographer_keys
from geoloc.retrieval.embeddings import Embeddings
from geoloc.settings import SettingsError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


class FrozenLocalizer(Localizer):
    """Answers with the cell that a classifier on frozen features finds most probable.

    `classifier` is fitted; `by_class` turns its probabilities into answers, over the partition named `partition`.
    Confidence is the probability of the answered cell: for kNN its share of the votes, for an SVM the softmax of the
    margins, a probability in form only unless a `temperature` was fitted on validation photos. kNN has no temperature:
    a true cell without votes has probability 0, which would drive the temperature to its limit.
    Raises ValueError if the classifier and the partition have different numbers of cells.
    """

    def __init__(
        self,
        classifier: FrozenClassifier,
        by_class: ClassLocalizer,
        partition: str,
        temperature: TemperatureScaling | None = None,
    ) -> None:
        if classifier.cell_count != by_class.partition.cell_count:
            raise ValueError(
                f"a classifier over {classifier.cell_count} cells does not fit partition {partition} of "
                f"{by_class.partition.cell_count}"
            )
        self.classifier, self.by_class, self.partition = classifier, by_class, partition
        self.temperature = temperature

    @property
    def name(self) -> str:
        """For example [backbone]SVM 69C; with the partition's label and the kind of answer as ClassLocalizer has."""
        return self.by_class.name

    @property
    def converged(self) -> bool:
        """False for an SVM that did not converge within its iterations."""
        return self.classifier.converged

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        return f"{self.classifier.describe()}: {self.by_class.describe()}"

    def locate(self, vectors: NDArray[Any], /) -> Answers:
        """Locate N photos from their embeddings, float [N, D]. A row of NaN (a photo without embedding) abstains.

        Raises ValueError for vectors of another length.
        """
        found = []
        for part in photo_parts(len(vectors), self.classifier.cell_count):
            probabilities = self.classifier.predict_probabilities(vectors[part])
            if self.temperature is not None:
                probabilities = self.temperature.predict(probabilities)
            found.append(self.by_class.locate(probabilities))
        return Answers.joined(found)

    def save(self, folder: Path | str) -> list[Path]:
        """Write frozen-<partition>-<kind>.safetensors and, where there is a temperature, the same with
        -temperature.json. Returns the files written: none for kNN, which is all in the stored embeddings."""
        if isinstance(self.classifier, FrozenKnn):
            return []
        stem = Path(folder) / f"frozen-{self.partition}-{self.classifier.kind}"
        written = [stem.with_name(f"{stem.name}.safetensors")]
        self.classifier.save(written[0])
        if self.temperature is not None:
            written.append(stem.with_name(f"{stem.name}-temperature.json"))
            self.temperature.save(written[1])
        return written


def fit_frozen(
    partitions: Mapping[str, Partition],
    settings: LocalizerSettings,
    embeddings: Embeddings,
    training: pd.DataFrame,
    validation: pd.DataFrame,
    *,
    model_name: str = "backbone",
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> list[FrozenLocalizer]:
    """Returns a fitted localizer for each partition and each of `settings.frozen.kinds`, in order.

    They answer as settings.answers[0]. They are fitted on the `training` photos (photo_id, latitude, longitude;
    degrees) that have embeddings and are in a cell. With settings.calibrate each SVM gets a temperature from the
    `validation` photos, which have the same columns. `log` is called with lines of progress.

    Raises SettingsError if fewer than two cells have training photos, or no validation photo can be used.
    """
    found = embeddings.positions(training["photo_id"])
    known, vectors = training[found >= 0], embeddings.vectors[found[found >= 0]]
    made = []
    for kind in settings.frozen.kinds:
        approach = FROZEN_APPROACHES[kind]
        for name, by_class in class_localizers(
            partitions, settings.answers[:1], model_name, approach=approach
        ):
            log(f"frozen features: {approach} over the {by_class.partition.cell_count} cells of {name}")
            classifier = _classifier(kind, settings.frozen, by_class.partition.cell_count, seed)
            cells = by_class.partition.assign(known["latitude"], known["longitude"])
            try:
                classifier.fit(vectors, cells)
            except ValueError as error:
                raise SettingsError(
                    f"localizers.frozen.kinds {kind} cannot be done for partition {name}: {error}"
                ) from None
            temperature = None
            if settings.calibrate and kind != "knn":
                temperature = _temperature(classifier, by_class.partition, name, embeddings, validation, seed)
            made.append(FrozenLocalizer(classifier, by_class, name, temperature))
            log(f"frozen features: {classifier!r}")
            if not made[-1].converged:
                log(
                    f"frozen features: {made[-1].name} has not converged in {settings.frozen.max_iterations:,} "
                    "iterations; raise localizers.frozen.max_iterations, or lower localizers.frozen.c"
                )
    return made


def vectors_of(embeddings: Embeddings, photo_ids: pd.Series) -> NDArray[Any]:
    """Returns the embedding of each of N photos, [N, D] in the stored dtype; a row of NaN for a photo without one."""
    position = embeddings.positions(photo_ids)
    vectors = np.full((len(position), embeddings.vectors.shape[1]), np.nan, dtype=embeddings.vectors.dtype)
    vectors[position >= 0] = embeddings.vectors[position[position >= 0]]
    return vectors


def frozen_table(localizers: list[FrozenLocalizer]) -> pd.DataFrame:
    """Returns a row per method: its partition, the number of photos it was fitted on, whether it converged, and its
    temperature (NaN for none)."""
    return pd.DataFrame(
        [
            {
                "method": one.name,
                "partition": one.partition,
                "photos": one.classifier.photos,
                "in no cell": one.classifier.outside,
                "converged": "yes" if one.converged else "no",
                "temperature": np.nan if one.temperature is None else one.temperature.temperature,
            }
            for one in localizers
        ]
    )


def _classifier(kind: str, settings: FrozenSettings, cell_count: int, seed: int) -> FrozenClassifier:
    if kind == "knn":
        return FrozenKnn(cell_count, settings.k)
    return FrozenSvm(cell_count, settings.c, settings.max_iterations, seed)


def _temperature(
    classifier: FrozenClassifier,
    partition: Partition,
    name: str,
    embeddings: Embeddings,
    validation: pd.DataFrame,
    seed: int,
) -> TemperatureScaling:
    owners = pd.factorize(photographer_keys(validation))[0]
    most = TEMPERATURE_CELLS // partition.cell_count
    validation = validation.iloc[sample_of_photographers(owners, most, seed)]
    probabilities = classifier.predict_probabilities(vectors_of(embeddings, validation["photo_id"]))
    truth = partition.assign(validation["latitude"], validation["longitude"])
    try:
        return TemperatureScaling().fit(probabilities, truth)
    except ValueError as error:
        raise SettingsError(
            f"localizers.calibrate cannot be done for a frozen {classifier.kind} of partition {name}: {error}"
        ) from None
