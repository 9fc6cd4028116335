"""Location by class: the most probable cell of a partition, answered with one point of that cell.

Revisiting IM2GPS section 3.1, and PlaNet: a network gives each cell a probability, and the answer is the cell
with the highest. The point is the centroid of the training photos in the cell (mean of unit vectors), which
beats the cell's centre, or that centre, as PlaNet answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.base import Alternatives, Answers, CellEvidence, Localizer
from geoloc.localizers.by_class.probabilities import checked_probabilities, largest

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


class ClassLocalizer(Localizer):
    """Answers with the most probable cell of `partition`.

    `answer` is "centroid" (of the photos that the partition was fitted on; the centre where a cell has none) or
    "centre". Confidence is the probability of that cell; it is as well calibrated as the classifier. The
    `alternatives` most probable cells are reported, the answer included. `label` distinguishes localizers with equal
    numbers of cells. `approach` names the classifier if it is not a network's head, for example SVM.
    """

    def __init__(
        self,
        partition: Partition,
        answer: str = "centroid",
        model_name: str = "L",
        alternatives: int = 5,
        label: str = "",
        approach: str = "",
    ) -> None:
        if answer not in ("centroid", "centre"):
            raise ValueError(f"answer must be one of centroid, centre; got {answer!r}")
        if alternatives < 1:
            raise ValueError(f"alternatives must be at least 1, got {alternatives}")
        self.partition, self.answer, self.model_name, self.label = partition, answer, model_name, label
        self.approach = approach
        self.alternatives = min(alternatives, partition.cell_count)
        points = np.asarray(partition.centres(), dtype=np.float64)
        if answer == "centroid":
            centroids = np.asarray(partition.centroids(), dtype=np.float64)
            points = np.where(np.isnan(centroids).any(axis=1, keepdims=True), points, centroids)
        self._points = points

    @property
    def name(self) -> str:
        """For example [L]359C; [L]359C centre where it answers with centres; [M]359C fine with the label fine;
        [backbone]SVM 359C with the approach SVM."""
        approach = f"{self.approach} " if self.approach else ""
        parts = [f"[{self.model_name}]{approach}{self.partition.cell_count}C", self.label]
        return " ".join([part for part in parts if part] + ["centre"] * (self.answer == "centre"))

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        where = "the centroid of its photos" if self.answer == "centroid" else "its centre"
        return f"most probable of {self.partition.cell_count:,} {self.partition.kind} cells, at {where}"

    def locate(self, probabilities: NDArray[Any], /, chosen: NDArray[np.int64] | None = None) -> Answers:
        """Locate N photos from the probabilities of C cells, float [N, C], which sum to 1 a photo.

        A row with a NaN is a photo that could not be read: its answer abstains. Of equally probable cells the
        first wins. `chosen` int [N] are cells to answer with, whatever their probability; -1: the most probable. Raises
        ValueError for another number of cells, or for rows that are not probabilities (for example logits).
        """
        p, unread = checked_probabilities(probabilities, self.partition.cell_count)
        best = largest(p, self.alternatives)
        if chosen is not None:
            best = _with_first(best, np.where(chosen < 0, best[:, 0], chosen))
        weight = np.take_along_axis(p, best, axis=1).astype(np.float32)
        places = self._points[best]
        places[unread], weight[unread], best[unread] = np.nan, np.nan, -1
        return Answers(
            latitude=places[:, 0, 0].copy(),
            longitude=places[:, 0, 1].copy(),
            confidence=np.where(unread, 0, weight[:, 0]).astype(np.float32),
            alternatives=Alternatives(places[:, :, 0].copy(), places[:, :, 1].copy(), weight),
            cells=CellEvidence(best, weight),
        )

    def probability_map(self, probabilities: NDArray[Any], smallest: float = 0.0) -> pd.DataFrame:
        """Returns one photo's cells, most probable first: cell, token, latitude, longitude (the answer's point),
        probability.

        `probabilities` is float [C]. Cells below `smallest` are left out. Draw a cell with `partition.polygon`.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        if p.shape != (self.partition.cell_count,):
            raise ValueError(f"probabilities must have shape ({self.partition.cell_count},), got {p.shape}")
        order = np.argsort(-p, kind="stable")
        order = order[p[order] >= smallest]
        return pd.DataFrame(
            {
                "cell": order,
                "token": np.asarray(self.partition.tokens(), dtype=object)[order],
                "latitude": self._points[order, 0],
                "longitude": self._points[order, 1],
                "probability": p[order],
            }
        ).astype({"token": "str"})


def _with_first(columns: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """`columns` [N, A] with `first` [N] moved, or put, in front; the others keep their order."""
    equal = columns == first[:, None]
    at = np.where(equal.any(axis=1), equal.argmax(axis=1), columns.shape[1] - 1)
    place = np.arange(columns.shape[1])
    source = np.where(place <= at[:, None], place - 1, place)
    moved = np.take_along_axis(columns, np.maximum(source, 0), axis=1)
    moved[:, 0] = first
    return moved


def class_localizers(
    partitions: Mapping[str, Partition],
    answers: Sequence[str] = ("centroid",),
    model_name: str = "L",
    alternatives: int = 5,
    approach: str = "",
) -> list[tuple[str, ClassLocalizer]]:
    """Returns (partition name, localizer) for each partition and kind of answer, in order.

    Localizer names are unique: partitions with equal numbers of cells have their names appended.
    """
    counts = [partition.cell_count for partition in partitions.values()]
    return [
        (
            name,
            ClassLocalizer(
                partition,
                answer,
                model_name,
                alternatives,
                label=name if counts.count(partition.cell_count) > 1 else "",
                approach=approach,
            ),
        )
        for name, partition in partitions.items()
        for answer in answers
    ]
