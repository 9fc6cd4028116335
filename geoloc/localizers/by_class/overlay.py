"""Location by several partitions that need not nest: where their cells overlap is a finer place than any cell.

Revisiting IM2GPS, section 3.1: "classification results at multiple coarse partitionings can be combined to produce
a more fine grained prediction". CPlaNet (Seo, Weyand, Sim, Han, ECCV 2018, section 3) does the same: overlay
cells are intersections of the cells of all partitions, and a place scores the sum of the log-probabilities of the
cells that hold it. Only overlay cells that hold training photos are candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.localizers.base import Alternatives, Answers, Localizer
from geoloc.localizers.by_class.probabilities import checked_groups, largest
from geoloc.sphere import group_means

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

_CHUNK = 1 << 22
"""Scores held at once: 32 MB of float64."""


class OverlayLocalizer(Localizer):
    """Answers with the overlay cell of `partitions` whose cells have the largest product of probabilities.

    `fit` finds the overlay cells of training photos; the answer is the mean of their unit vectors. Confidence is the
    product, normalised over the overlay cells. It is overconfident if the partitions make the same errors. With
    calibration, each partition's probabilities are scaled by its own temperature (temperature.py); the product is not
    scaled again. Alternatives are the next overlay cells. There is no CellEvidence, because an overlay cell is not a
    cell of any one partition; `cells` lists its cells by partition.
    """

    def __init__(self, partitions: Sequence[Partition], model_name: str = "M", alternatives: int = 5) -> None:
        if len(partitions) < 2:
            raise ValueError(f"an overlay needs at least 2 partitions, got {len(partitions)}")
        if alternatives < 1:
            raise ValueError(f"alternatives must be at least 1, got {alternatives}")
        self.partitions, self.model_name, self.alternatives = tuple(partitions), model_name, alternatives
        self.cells = np.empty((0, len(partitions)), dtype=np.int32)
        """[K, P] for each overlay cell, the cell of each partition that contains it."""
        self.photo_counts = np.empty(0, dtype=np.int64)
        """[K] training photos in each overlay cell."""
        self.left_out = 0
        """Training photos in no cell of at least one partition: they make no overlay cell."""
        self._points = np.empty((0, 2))

    def fit(self, latitude: ArrayLike, longitude: ArrayLike) -> Self:
        """Find the overlay cells of N training photos, degrees, (N,) each; returns itself.

        Raises PartitionError for bad coordinates, ValueError where no photo is in a cell of every partition.
        """
        lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
        assigned = np.stack([partition.assign(lat, lon) for partition in self.partitions], axis=1)
        inside = (assigned >= 0).all(axis=1)
        if not inside.any():
            raise ValueError(
                f"no overlay cell is left: none of {len(lat):,} photos is in a cell of every partition"
            )
        self.left_out = int((~inside).sum())
        self.cells, overlay = np.unique(assigned[inside], axis=0, return_inverse=True)
        overlay = overlay.ravel()
        self.photo_counts = np.bincount(overlay, minlength=len(self.cells)).astype(np.int64)
        points = np.stack(group_means(lat[inside], lon[inside], overlay, len(self.cells)), axis=-1)
        # Photos that cancel out on the sphere have no mean: use the first of them.
        first = np.flatnonzero(inside)[np.unique(overlay, return_index=True)[1]]
        lost = np.isnan(points).any(axis=1)
        points[lost] = np.stack([lat[first], lon[first]], axis=-1)[lost]
        self._points = points
        return self

    def points(self) -> NDArray[np.float64]:
        """Returns the answer of each overlay cell: latitude, longitude in degrees, float64 (K, 2)."""
        return self._points.copy()

    @property
    def name(self) -> str:
        """For example [M]10+80+359C."""
        return f"[{self.model_name}]{'+'.join(str(p.cell_count) for p in self.partitions)}C"

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        parts = " and ".join(f"{p.cell_count:,} {p.kind}" for p in self.partitions)
        if not len(self.cells):
            return f"overlay of {parts} cells, not fitted"
        lost = f"; {self.left_out:,} training photos in no common cell" if self.left_out else ""
        return (
            f"best of {len(self.cells):,} overlay cells of {parts} cells, at the centroid of its photos{lost}"
        )

    def scores(self, probabilities: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Sum of log-probabilities of each overlay cell, float64 [N, K]; NaN for a photo unread in any partition.

        `probabilities` are float [N, C_i], one array a partition in the order of `partitions`, each summing to 1 a
        photo. Raises ValueError for other shapes, for logits, and before `fit`.
        """
        self._need_fit()
        logs, unread = checked_groups(probabilities, [p.cell_count for p in self.partitions])
        scores = self._sum(logs)
        scores[unread] = np.nan
        return scores

    def locate(self, probabilities: Any, /) -> Answers:
        """Locate N photos; arguments as `scores`. A photo unread in any partition abstains."""
        self._need_fit()
        logs, unread = checked_groups(probabilities, [p.cell_count for p in self.partitions])
        count = min(self.alternatives, len(self.cells))
        best = np.empty((len(unread), count), dtype=np.int64)
        weight = np.empty((len(unread), count), dtype=np.float32)
        step = max(1, _CHUNK // len(self.cells))
        for start in range(0, len(unread), step):
            part = slice(start, start + step)
            scores = self._sum([log[part] for log in logs])
            best[part] = largest(scores, count)
            top = np.take_along_axis(scores, best[part], axis=1)
            weight[part] = np.exp(top - top[:, :1]) / np.exp(scores - top[:, :1]).sum(axis=1, keepdims=True)
        places = self._points[best]
        places[unread], weight[unread] = np.nan, np.nan
        return Answers(
            latitude=places[:, 0, 0].copy(),
            longitude=places[:, 0, 1].copy(),
            confidence=np.where(unread, 0, weight[:, 0]).astype(np.float32),
            alternatives=Alternatives(places[:, :, 0].copy(), places[:, :, 1].copy(), weight),
        )

    def _sum(self, logs: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        total = logs[0][:, self.cells[:, 0]]
        for position, log in enumerate(logs[1:], start=1):
            total += log[:, self.cells[:, position]]
        return total

    def _need_fit(self) -> None:
        if not len(self.cells):
            raise ValueError("this overlay is not fitted yet: call fit with the training photos first")
