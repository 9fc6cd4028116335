"""Location by the wanted level: the point that is most probably within so many km of the photo.

"Which street?" and "which country?" are different questions. With P(c) the classifier's probability of cell c, and
the training photos in c for the places where a photo of c may be, the probability that a point x is within r km of
the photo is

    P(within r | x) = sum over c of P(c) * share of the training photos in c that are within r km of x

and the answer is the x that maximises it: the Bayes-optimal decision for accuracy at r. At 1 km that is a street
corner with many photos; at 2500 km a point that reaches several probable cells at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from geoloc.localizers.base import Alternatives, Answers, CellEvidence, Localizer
from geoloc.localizers.by_class.probabilities import checked_probabilities, largest
from geoloc.sphere import EARTH_RADIUS_KM, group_means, unit_vectors

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

_CHUNK = 1 << 22
"""Pairs of points, or probabilities, held at once: 32 MB of float64."""
_SLACK = 1e-6
"""Radians, 6 m: cells this near to being cut are looked at photo by photo, so that rounding decides nothing."""
_TIE = 1e-6
"""Probabilities that differ by less are equal: sums of shares in another order differ in their last digits."""


class WithinLevelLocalizer(Localizer):
    """Answers with the candidate point that is most probably within `km` of the photo.

    `fit` takes training photos: candidates are the photo centroid of each cell and up to `candidates_per_cell` of its
    photos. Up to `photos_per_cell` of its photos stand in for the places where a photo of the cell may be. Larger cells
    are sampled by `seed`. Ties go to the candidate in the most probable cell, then to the first (the centroid).
    Confidence is the probability of being within `km`; it is as well calibrated as the classifier. Alternatives are
    the best candidate of each cell, so that they are apart. With many cells that are smaller than `km`,
    `candidates_per_cell` 0 (centroids only) saves time and costs little accuracy.
    """

    def __init__(
        self,
        partition: Partition,
        km: float,
        candidates_per_cell: int = 8,
        photos_per_cell: int = 200,
        seed: int = 0,
        model_name: str = "L",
        alternatives: int = 5,
    ) -> None:
        for key, value, least in (
            ("candidates_per_cell", candidates_per_cell, 0),
            ("photos_per_cell", photos_per_cell, 1),
            ("alternatives", alternatives, 1),
        ):
            if value < least:
                raise ValueError(f"{key} must be at least {least}, got {value}")
        if not 0 < km < np.inf:
            raise ValueError(f"km must be above 0 and finite, got {km}")
        self.partition, self.km, self.seed, self.model_name = partition, float(km), seed, model_name
        self.candidates_per_cell, self.photos_per_cell = candidates_per_cell, photos_per_cell
        self.alternatives = alternatives
        self._points = np.empty((0, 2))
        self._cell = np.empty(0, dtype=np.int64)
        self._shares = sparse.csr_array((partition.cell_count, 0))

    def fit(self, latitude: ArrayLike, longitude: ArrayLike) -> Self:
        """Fit on N training photos, degrees, (N,) each. Returns itself. Photos in no cell are left out.

        A cell without photos counts as having one, at the partition's centroid of it. Raises PartitionError for bad
        coordinates.
        """
        lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
        cells = np.asarray(self.partition.assign(lat, lon), dtype=np.int64)
        count = self.partition.cell_count
        centroids = np.stack(group_means(lat, lon, cells, count), axis=-1)
        centroids = np.where(np.isnan(centroids), self.partition.centroids(), centroids)
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(np.flatnonzero(cells >= 0))
        order = order[np.argsort(cells[order], kind="stable")]  # by cell, in random order within each
        rank = np.arange(len(order)) - np.searchsorted(cells[order], cells[order], side="left")
        tried, seen = order[rank < self.candidates_per_cell], order[rank < self.photos_per_cell]
        self._points = np.concatenate([centroids, np.stack([lat[tried], lon[tried]], axis=-1)])
        self._cell = np.concatenate([np.arange(count), cells[tried]])
        empty = np.setdiff1d(np.arange(count), cells[seen])
        photos = np.concatenate([np.stack([lat[seen], lon[seen]], axis=-1), centroids[empty]])
        photo_cell = np.concatenate([cells[seen], empty])
        by_cell = np.argsort(photo_cell, kind="stable")
        self._shares = _shares_within(self._points, photos[by_cell], photo_cell[by_cell], count, self.km)
        return self

    def candidates(self) -> NDArray[np.float64]:
        """Latitude, longitude of the points that may be answered, degrees, float64 (K, 2); first C centroids."""
        return self._points.copy()

    @property
    def name(self) -> str:
        """For example [L]359C for 25 km."""
        return f"[{self.model_name}]{self.partition.cell_count}C for {self.km:g} km"

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        points = f"{len(self._points):,} points" if len(self._points) else "points (not fitted)"
        return (
            f"of {points}, the one most probably within {self.km:g} km, "
            f"by {self.partition.cell_count:,} {self.partition.kind} cells and where their photos are"
        )

    def within(self, probabilities: NDArray[Any]) -> NDArray[np.float64]:
        """Probability that each candidate is within `km` of each photo, float64 [N, K], from those of cells [N, C].

        Raises ValueError for other shapes, for logits, and before `fit`.
        """
        self._need_fit()
        p, unread = checked_probabilities(probabilities, self.partition.cell_count)
        found = np.asarray(p.astype(np.float64) @ self._shares)
        found[unread] = np.nan
        return found

    def locate(self, probabilities: NDArray[Any], /) -> Answers:
        """Locate N photos from the probabilities of C cells, float [N, C]. A row with a NaN abstains."""
        self._need_fit()
        p, unread = checked_probabilities(probabilities, self.partition.cell_count)
        cell_count = self.partition.cell_count
        shown = min(self.alternatives, cell_count)
        best = np.empty((len(p), shown), dtype=np.int64)
        weight = np.empty((len(p), shown), dtype=np.float32)
        by_cell = np.argsort(self._cell, kind="stable")
        starts = np.searchsorted(self._cell[by_cell], np.arange(cell_count))
        step = max(1, _CHUNK // len(self._points))
        for start in range(0, len(p), step):
            part = slice(start, start + step)
            # Rounded, so that what is equal but for the order of a sum is equal.
            within = np.round(np.asarray(p[part].astype(np.float64) @ self._shares)[:, by_cell] / _TIE)
            top = np.maximum.reduceat(within, starts, axis=1)
            # The best candidate of each cell, then the best cells: by the probability within km, then of the cell.
            order = np.lexsort((-p[part].astype(np.float64), -top), axis=1)[:, :shown]
            is_top = within == np.repeat(top, np.diff(np.append(starts, len(by_cell))), axis=1)
            place = np.where(is_top, np.arange(len(by_cell)), len(by_cell))
            first = by_cell[np.minimum.reduceat(place, starts, axis=1)]
            best[part] = np.take_along_axis(first, order, axis=1)
            weight[part] = np.minimum(np.take_along_axis(top, order, axis=1) * _TIE, 1)
        places = self._points[best]
        places[unread], weight[unread] = np.nan, np.nan
        cells = largest(p, shown)
        evidence = np.take_along_axis(p, cells, axis=1).astype(np.float32)
        cells[unread], evidence[unread] = -1, np.nan
        return Answers(
            latitude=places[:, 0, 0].copy(),
            longitude=places[:, 0, 1].copy(),
            confidence=np.where(unread, 0, weight[:, 0]).astype(np.float32),
            alternatives=Alternatives(places[:, :, 0].copy(), places[:, :, 1].copy(), weight),
            cells=CellEvidence(cells, evidence),
        )

    def _need_fit(self) -> None:
        if not len(self._points):
            raise ValueError("this localizer is not fitted yet: call fit with the training photos first")


def _shares_within(
    points: NDArray[np.float64],
    photos: NDArray[np.float64],
    photo_cell: NDArray[np.int64],
    cell_count: int,
    km: float,
) -> sparse.csr_array:
    """Share of each cell's photos within `km` of each point, [C, K]; photos are sorted by cell, each cell has one.

    Photos are compared one by one only where the circle of `km` may cut a cell's photos: most cells lie wholly
    within or wholly without. Distances are compared as chords of the unit sphere: right to about 0.02 mm at 1 km.
    """
    here, there = unit_vectors(points[:, 0], points[:, 1]), unit_vectors(photos[:, 0], photos[:, 1])
    starts = np.searchsorted(photo_cell, np.arange(cell_count))
    ends = np.append(starts[1:], len(photos))
    # Any photo of the cell does for a middle: what matters is that no other is farther from it than the reach.
    middle = there[starts]
    apart = np.linalg.norm(there - middle[photo_cell], axis=1)
    reach = np.maximum.reduceat(2 * np.arcsin(np.minimum(apart / 2, 1)), starts)
    angle = min(km / EARTH_RADIUS_KM, np.pi)
    # 1 - cos written as 2 sin² (a / 2), which does not cancel at small angles; the allowance is for the product.
    limit = 2 * np.sin(angle / 2) ** 2 + 4e-16
    cells, candidates, shares = [], [], []
    step = max(1, _CHUNK // len(points))
    for start in range(0, cell_count, step):
        to_middle = np.arccos(np.clip(here @ middle[start : start + step].T, -1, 1))
        most, least = to_middle + reach[start : start + step], to_middle - reach[start : start + step]
        wholly = most <= angle - _SLACK
        inside, inside_of = np.nonzero(wholly)
        cells.append(inside_of + start)
        candidates.append(inside)
        shares.append(np.ones(len(inside)))
        cut = ~wholly & (least <= angle + _SLACK)
        for cell in start + np.flatnonzero(cut.any(axis=0)):
            tried = np.flatnonzero(cut[:, cell - start])
            own = there[starts[cell] : ends[cell]]
            rows = max(1, _CHUNK // len(own))
            for first in range(0, len(tried), rows):
                some = tried[first : first + rows]
                share = (1 - here[some] @ own.T <= limit).mean(axis=1)
                cells.append(np.full(int((share > 0).sum()), cell))
                candidates.append(some[share > 0])
                shares.append(share[share > 0])
    where = (np.concatenate(cells), np.concatenate(candidates))
    return sparse.csr_array((np.concatenate(shares), where), shape=(cell_count, len(points)))
