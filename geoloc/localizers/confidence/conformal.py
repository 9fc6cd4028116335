"""Conformal regions: the cells that hold the photo with a chosen probability (coverage), and their area in km².

Split conformal prediction (Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005; Angelopoulos and
Bates: A Gentle Introduction to Conformal Prediction, 2021, section 1). On n validation photos a score measures how
badly the classifier fits the true cell. The region of a new photo is all cells whose score is at most the
ceil((n + 1) coverage)-th smallest of these. Whatever the classifier, regions hold the true cell with at least the
coverage, on average over photos that are exchangeable with the validation photos.

Photos by one photographer are not exchangeable with those of another: photographers are. So each photographer has the
same weight, whatever the number of its photos, and the threshold is the quantile of these weights (Dunn, Wasserman,
Ramdas: Distribution-Free Prediction Sets for Two-Layer Hierarchical Models, JASA 2022; Lee, Barber, Willett:
Distribution-free inference with hierarchical data, 2023). The coverage is then that of a photo by a new photographer.

Scores: "lac", 1 - P(cell) (Sadinle, Lei, Wasserman: Least Ambiguous Set-Valued Classifiers with Bounded Error
Levels, JASA 2019), gives the smallest regions; "aps", the probability of all cells at least as probable
(Romano, Sesia, Candès: Classification with Valid and Adaptive Coverage, NeurIPS 2020, equation 4 without its random
number, so it covers somewhat more than asked), gives hard photos larger regions and easy ones smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.files import damage_named, read_json, write_json
from geoloc.localizers.by_class.probabilities import checked_probabilities
from geoloc.localizers.confidence.temperature import checked_true_cells

_SCORES = ("aps", "lac")
LEAST_PHOTOGRAPHERS = 10
"""With fewer, the coverage on others could be anything: regions are all cells."""


@dataclass(frozen=True)
class Regions:
    """Regions of N photos: `cells` bool [N, C], `size` int64 [N] cells, `area_km2` float64 [N] (NaN without areas).

    The region of an unreadable photo is all cells.
    """

    cells: NDArray[np.bool_]
    size: NDArray[np.int64]
    area_km2: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.size)

    def __repr__(self) -> str:
        if not len(self):
            return "Regions(of no photos)"
        cells, area = np.median(self.size), np.median(self.area_km2)
        return f"Regions({len(self):,} photos, median {cells:,g} cells, {area:,.0f} km²)"

    def covered(self, true_cells: ArrayLike) -> NDArray[np.bool_]:
        """Returns whether each region holds the true cell, bool [N]; False for a photo in no cell (-1)."""
        cells = checked_true_cells(true_cells, *self.cells.shape)
        return np.asarray(self.cells[np.arange(len(cells)), cells] & (cells >= 0))


class ConformalRegions:
    """Regions that hold the true cell with probability `coverage`, calibrated on validation photos.

    Validation photos must not have trained the classifier (nor chosen its temperature, though that costs little).
    Photos that are unreadable or in no cell get the worst score. If their share is above 1 - coverage, the coverage
    cannot be reached: every region is all cells, and `threshold` is infinite; so it is with fewer than
    LEAST_PHOTOGRAPHERS photographers. The coverage holds on average over draws of validation photographers, for a photo
    by a new one: `plausible` says how far that of one draw may be from it.
    """

    def __init__(self, coverage: float = 0.9, score: str = "aps") -> None:
        if not 0 < coverage < 1:
            raise ValueError(f"coverage must be above 0 and below 1, got {coverage}")
        if score not in _SCORES:
            raise ValueError(f"score must be one of {', '.join(_SCORES)}; got {score!r}")
        self.coverage, self.score = coverage, score
        self.threshold = float("nan")
        self.photos = self.photographers = 0

    def fit(
        self, probabilities: NDArray[Any], true_cells: ArrayLike, photographers: ArrayLike | None = None
    ) -> Self:
        """Calibrate on N validation photos: float [N, C] and their true cells, int [N], -1 for none; returns itself.

        `photographers` [N] are whom the photos count for; None for photos that are exchangeable as they are. Raises
        ValueError for no photos, for logits, and for true cells that are not N numbers below C.
        """
        return self.fit_scores(self.scores_of(probabilities, true_cells), photographers)

    def scores_of(self, probabilities: NDArray[Any], true_cells: ArrayLike) -> NDArray[np.float64]:
        """Returns the score of each photo's true cell, float64 [N]; infinite if it is unreadable or in no cell.

        Arguments and errors are those of `fit`. The scores do not depend on the coverage.
        """
        p = np.asarray(probabilities)
        p, unread = checked_probabilities(p, p.shape[1] if p.ndim == 2 else 0)
        cells = checked_true_cells(true_cells, *p.shape)
        scores = self._scores(p)[np.arange(len(p)), cells]
        scores[unread | (cells < 0)] = np.inf
        return scores

    def fit_scores(self, scores: NDArray[np.float64], photographers: ArrayLike | None = None) -> Self:
        """Calibrate on the scores of N photos, from `scores_of`; returns itself. Raises ValueError for no photos."""
        if not len(scores):
            raise ValueError("conformal regions need at least one validation photo, got none")
        self.threshold = _threshold(scores, self.coverage, photographers)
        self.photographers = (
            len(scores) if photographers is None else len(np.unique(np.asarray(photographers, str)))
        )
        self.photos = len(scores)
        return self

    @property
    def too_few(self) -> bool:
        """Whether there were too few photographers for a region."""
        return self.photographers < LEAST_PHOTOGRAPHERS

    def plausible(self, confidence: float = 0.95) -> tuple[float, float]:
        """Returns within what the coverage on other photographers probably is, given how many were calibrated on.

        As if each were all in or all out: the coverage of one calibration on n of them is then beta-distributed
        (Vovk, Conditional validity of inductive conformal predictors, 2012).
        """
        from scipy.special import betaincinv

        rank = int(np.ceil((self.photographers + 1) * self.coverage - 1e-9))
        if rank > self.photographers or np.isinf(self.threshold):
            return 0.0, 1.0
        tail = (1 - confidence) / 2
        low, high = (betaincinv(rank, self.photographers + 1 - rank, p) for p in (tail, 1 - tail))
        return float(low), float(high)

    def predict(self, probabilities: NDArray[Any], areas_km2: ArrayLike | None = None) -> Regions:
        """Returns the regions of N photos from probabilities float [N, C]; the most probable cell is always included.

        `areas_km2` float (C,) are the cells' areas (`Partition.areas_km2`). Raises ValueError before `fit`, for logits,
        and for areas that are not one a cell.
        """
        if np.isnan(self.threshold):
            raise ValueError("conformal regions are not fitted yet: call fit with validation photos first")
        p = np.asarray(probabilities)
        p, unread = checked_probabilities(p, p.shape[1] if p.ndim == 2 else 0)
        # Scores are sums of float64: equal probabilities must not fall on two sides by their last digit.
        chosen = self._scores(p) <= self.threshold + 1e-9
        chosen[np.arange(len(p)), p.argmax(axis=1)] = True
        chosen[unread] = True
        area = np.full(len(p), np.nan)
        if areas_km2 is not None:
            areas = np.asarray(areas_km2, float)
            if areas.shape != (p.shape[1],):
                raise ValueError(
                    f"areas_km2 must be {p.shape[1]} numbers, one a cell, got shape {areas.shape}"
                )
            area = chosen @ areas
        return Regions(chosen, chosen.sum(axis=1).astype(np.int64), area)

    def _scores(self, p: NDArray[Any]) -> NDArray[np.float64]:
        """Returns the score of each cell for each photo, float64 [N, C]; higher is a worse fit."""
        p = p.astype(np.float64)
        if self.score == "lac":
            return np.asarray(1 - p)
        order = np.argsort(-p, axis=1, kind="stable")
        ordered = np.take_along_axis(p, order, axis=1)
        upto = np.cumsum(ordered, axis=1)
        # Of equally probable cells all get the sum up to the last, so that their order does not count.
        last = np.ones_like(ordered, dtype=bool)
        last[:, :-1] = ordered[:, 1:] != ordered[:, :-1]
        backwards = np.where(last, upto, np.inf)[:, ::-1]
        upto = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
        scores = np.empty_like(p)
        np.put_along_axis(scores, order, upto, axis=1)
        return scores

    def save(self, path: Path | str) -> None:
        """Write what was fitted as JSON, atomically; raises ValueError before `fit`."""
        if np.isnan(self.threshold):
            raise ValueError("conformal regions are not fitted yet: there is nothing to save")
        threshold = None if np.isinf(self.threshold) else self.threshold
        write_json(
            path,
            {
                "coverage": self.coverage,
                "score": self.score,
                "threshold": threshold,
                "photos": self.photos,
                "photographers": self.photographers,
            },
        )

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load what `save` wrote. Raises DamagedFile for another file."""
        values = read_json(path, dict)
        with damage_named(path):
            made = cls(values["coverage"], values["score"])
            made.threshold = float("inf") if values["threshold"] is None else float(values["threshold"])
            made.photos = int(values["photos"])
            made.photographers = int(values.get("photographers", made.photos))
        return made

    def __repr__(self) -> str:
        fitted = (
            "not fitted"
            if np.isnan(self.threshold)
            else f"threshold {self.threshold:.4g} from {self.photos:,} photos"
        )
        return f"ConformalRegions(coverage={self.coverage:g}, score={self.score!r}), {fitted}"


def _threshold(scores: NDArray[np.float64], coverage: float, photographers: ArrayLike | None) -> float:
    """Returns the score up to which regions reach, from those of N validation photos; infinite for all cells.

    Photographers, and the one to come, have equal weights; those of its photos add up to its own.
    """
    owner = (
        np.arange(len(scores))
        if photographers is None
        else np.unique(np.asarray(photographers, str), return_inverse=True)[1]
    )
    photos = np.bincount(owner)
    people = len(photos)
    if photographers is not None and people < LEAST_PHOTOGRAPHERS:
        return float("inf")
    order = np.argsort(scores, kind="stable")
    within = np.cumsum(1 / photos[owner[order]])
    # 1e-9, because (n + 1) * 0.9 may come out above the whole number that it is.
    reached = np.flatnonzero(within >= (people + 1) * coverage - 1e-9)
    return float(scores[order[reached[0]]]) if len(reached) else float("inf")
