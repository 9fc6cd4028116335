"""A choice of k, σ and the way to use classes, made on validation photos, and the answers by it.

"If the system is allowed to produce different outputs at different levels" (Revisiting IM2GPS, section 4), each level
has its own k and σ. Neighbours and classes are combined in two ways: `product`, the density of equation 1 times the
probability of the cell to a power, at the neighbours; and `cells`, the density of the neighbours in the most probable
cells (Kordopatis-Zilos et al., Leveraging EfficientNet and Contrastive Learning for Accurate Global-scale Location
Estimation, 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.files import damage_named, read_json, write_json
from geoloc.localizers.base import Alternatives, Answers
from geoloc.localizers.confidence.scaling import ScoreScaling
from geoloc.localizers.settings import LocalizerSettings
from geoloc.retrieval.density import kernel_density, neighbour_weights, peaks
from geoloc.retrieval.modes import Modes, modes_of
from geoloc.retrieval.neighbours import Neighbours
from geoloc.retrieval.settings import DensitySettings
from geoloc.sphere import LEVELS_KM, distance_km

ALONE, PRODUCT, CELLS = "alone", "product", "cells"
EVERY_LEVEL = "region"
"""A choice for all levels together has a confidence of being right at this one, the middle of the five."""
_TRIALS = ["way", "k", "sigma", "weight", "cells", *LEVELS_KM, "mean", "log_error"]


@dataclass(frozen=True)
class Evidence:
    """What N photos are answered from: the neighbours [N, k]; the logarithm of the class probability of each
    neighbour's cell, float64 [N, k]; and the neighbours in the n most probable cells, by n. None or empty where no way
    needs it."""

    neighbours: Neighbours
    log_class: NDArray[np.float64] | None = None
    within: Mapping[int, Neighbours] = field(default_factory=dict)

    def of(self, choice: Choice) -> Neighbours:
        """The neighbours that a choice uses, not yet cut to its k."""
        return self.within[choice.cells] if choice.way == CELLS else self.neighbours


@dataclass(frozen=True)
class Choice:
    """How to answer: k, m and σ (degrees) of equation 1; `weight` is the product's power, `cells` the number of cells
    searched. `level` is what it was chosen for (None: the mean over all levels), `accuracy` the share of right ones
    among `photos` validation photos (0 photos: not chosen). `scaling` makes confidences probabilities, if fitted."""

    way: str = ALONE
    level: str | None = None
    k: int = 100
    m: float = 10.0
    sigma: float = 4.0
    weight: float = 0.0
    cells: int = 0
    accuracy: float = 0.0
    photos: int = 0
    scaling: ScoreScaling | None = None

    @property
    def km(self) -> float:
        """The distance that its confidences are about: the probability of being within it."""
        return LEVELS_KM[self.level or EVERY_LEVEL]

    def name(self, neighbours: str, by_class: str = "") -> str:
        """For example [L]kNN, [L]kNN for 25 km; combined [L]70C+kNN, or [L]70C+[R]kNN by two models.

        `neighbours` is the name of the model, without brackets, and `by_class` that of the method by class.
        """
        level = f" for {self.km:g} km" if self.level else ""
        if self.way == ALONE:
            return f"[{neighbours}]kNN{level}"
        own = by_class.startswith(f"[{neighbours}]")
        return f"{by_class}+{'' if own else f'[{neighbours}]'}kNN{level}"

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        where = {
            ALONE: "",
            PRODUCT: f", density times the probability of the cell to the power {self.weight:g}",
            CELLS: f" in the {self.cells} most probable cells"
            if self.cells > 1
            else " in the most probable cell",
        }[self.way]
        chosen = (
            f"; chosen on {self.photos:,} validation photos"
            if self.photos
            else "; not chosen on validation photos"
        )
        return f"densest of {self.k} nearest references{where}, σ = {self.sigma:g}°{chosen}"

    def density(self, alternatives: int = 1) -> DensitySettings:
        """Its parameters of equation 1."""
        return DensitySettings(k=self.k, m=self.m, sigma=self.sigma, alternatives=alternatives)

    def answer(self, evidence: Evidence, alternatives: int = 5) -> Answers:
        """Returns answers for N photos, with the neighbours used as evidence.

        Alternatives are further peaks, weighted by the confidence times their density relative to the answer's. A photo
        without neighbours abstains.
        """
        found, weights, density = self._weighed(evidence)
        peak = peaks(found.latitude, found.longitude, density, self.density(alternatives))
        near = distance_km(peak.latitude[:, None], peak.longitude[:, None], found.latitude, found.longitude)
        score = np.where(near <= self.km, weights, 0.0).sum(axis=1).clip(0, 1)
        sure = score if self.scaling is None else self.scaling.predict(score)
        sure = np.where(np.isnan(peak.latitude), 0.0, sure)
        top = np.maximum(peak.peak_share[:, :1], np.finfo(float).tiny)
        relative = np.where(np.isnan(peak.peak_latitude), np.nan, sure[:, None] * peak.peak_share / top)
        return Answers(
            peak.latitude,
            peak.longitude,
            sure.astype(np.float32),
            Alternatives(peak.peak_latitude, peak.peak_longitude, relative.astype(np.float32)),
            neighbours=found,
        )

    def modes(self, evidence: Evidence) -> Modes:
        """Returns all modes of the density of N photos with their mass: what else the neighbours speak for."""
        found, weights, _ = self._weighed(evidence)
        return modes_of(found.latitude, found.longitude, weights, self.sigma)

    def _weighed(self, evidence: Evidence) -> tuple[Neighbours, NDArray[np.float64], NDArray[np.float64]]:
        """The k neighbours of each photo, their weights (which sum to 1), and the score of each as an answer."""
        found = first(evidence.of(self), self.k)
        weights, density = _density(found, self)
        if self.way == PRODUCT:
            assert evidence.log_class is not None
            power = _power(evidence.log_class[:, : self.k], self.weight)
            density = density * power
            weights = weights * power
            weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return found, weights, density

    def scaled_on(self, evidence: Evidence, latitude: ArrayLike, longitude: ArrayLike) -> Self:
        """Returns the choice with confidences scaled on N validation photos that it was not chosen on: degrees, (N,)
        each. Photos without an answer do not count; without any answer it stays as it is."""
        raw = replace(self, scaling=None).answer(evidence, 1)
        known = ~raw.abstained
        if not known.any():
            return self
        error = distance_km(latitude, longitude, raw.latitude, raw.longitude)[known]
        return replace(self, scaling=ScoreScaling().fit(raw.confidence[known], error <= self.km))


def choose(
    evidence: Evidence, latitude: ArrayLike, longitude: ArrayLike, settings: LocalizerSettings
) -> tuple[list[Choice], pd.DataFrame]:
    """Choose on N validation photos, degrees (N,) each, among the values of `settings.neighbours`.

    Returns the choices: kNN for all levels together, kNN for each level, then, if the settings name ways to combine,
    the better of them for all levels together. And all trials: a row each, with its accuracy at each level, their mean,
    and the mean of log(1 + error in km), which decides among equals; then the first trial wins. Photos without an
    answer are wrong. Raises ValueError for no photos.
    """
    lat, lon = np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64)
    if not len(lat):
        raise ValueError("k and sigma cannot be chosen on no photos")
    rows, tried = [], []
    for choice, place in _trials(evidence, settings):
        error = distance_km(lat, lon, *place)
        error = np.where(np.isnan(error), np.inf, error)
        right = [float((error <= km).mean()) for km in LEVELS_KM.values()]
        lost = float(np.log1p(np.minimum(error, 20_038.0)).mean())
        values = (
            choice.way,
            choice.k,
            choice.sigma,
            choice.weight,
            choice.cells,
            *right,
            float(np.mean(right)),
            lost,
        )
        rows.append(values)
        tried.append(choice)
    table = pd.DataFrame(rows, columns=_TRIALS).round(9)

    def best(among: NDArray[np.bool_], level: str | None) -> Choice:
        column = level or "mean"
        order = table[among].sort_values([column, "log_error"], ascending=[False, True], kind="stable")
        accuracy = float(order[column].iloc[0])
        return replace(tried[int(order.index[0])], level=level, accuracy=accuracy, photos=len(lat))

    alone = (table["way"] == ALONE).to_numpy()
    chosen = [best(alone, None), *(best(alone, level) for level in LEVELS_KM)]
    if settings.neighbours.ways:
        chosen.append(best(~alone, None))
    return chosen, table


def default_choice(settings: LocalizerSettings, way: str = ALONE, level: str | None = None) -> Choice:
    """What answers where nothing was chosen: localizers.k and m, and the middle of localizers.sigmas; the product with
    the power 1."""
    sigma = settings.sigmas[len(settings.sigmas) // 2] if settings.sigmas else DensitySettings().sigma
    return Choice(way, level, settings.k, settings.m, sigma, weight=1.0 if way == PRODUCT else 0.0)


def save_choices(path: Path | str, choices: Sequence[Choice]) -> None:
    """Write choices as JSON, atomically."""
    rows = [
        asdict(replace(one, scaling=None)) | {"scaling": one.scaling and one.scaling.to_dict()}
        for one in choices
    ]
    write_json(path, rows)


def load_choices(path: Path | str) -> list[Choice]:
    """Load what `save_choices` wrote. Raises FileNotFoundError, and DamagedFile for another file."""
    rows = read_json(path, list)
    with damage_named(path):
        return [
            Choice(**{**row, "scaling": row["scaling"] and ScoreScaling.from_dict(row["scaling"])})
            for row in rows
        ]


def choice_table(choices: Sequence[Choice], names: Sequence[str]) -> pd.DataFrame:
    """Returns what was chosen as people read it, a row per choice."""
    return pd.DataFrame(
        [
            {
                "method": name,
                "chosen for": one.level or "all levels",
                "way": one.way,
                "k": one.k,
                "sigma": one.sigma,
                "weight": one.weight if one.way == PRODUCT else np.nan,
                "cells": one.cells if one.way == CELLS else np.nan,
                "validation accuracy": one.accuracy,
                "photos": one.photos,
            }
            for one, name in zip(choices, names, strict=True)
        ]
    )


def first(neighbours: Neighbours, k: int) -> Neighbours:
    """Returns the first k neighbours of each query."""
    n = neighbours
    return Neighbours(
        n.row[:, :k], n.id[:, :k], n.similarity[:, :k], n.latitude[:, :k], n.longitude[:, :k],
        n.reference_photo_ids, n.left_out,
    )  # fmt: skip


def _density(found: Neighbours, choice: Choice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    absent = np.isnan(found.latitude)
    weights = neighbour_weights(np.where(absent, np.nan, found.similarity), choice.m)
    return weights, kernel_density(found.latitude, found.longitude, weights, choice.sigma)


def _power(log_class: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """The probabilities of the neighbours' cells to a power, relative to each photo's most probable: in (0, 1]."""
    return np.asarray(np.exp(weight * (log_class - log_class.max(axis=1, keepdims=True, initial=-np.inf))))


def _trials(
    evidence: Evidence, settings: LocalizerSettings
) -> Iterator[tuple[Choice, tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """Each trial with its answers: latitude, longitude [N]. A density serves all powers of the product."""
    wanted = settings.neighbours
    grid = [
        Choice(k=k, m=settings.m, sigma=sigma) for k in sorted(wanted.ks) for sigma in sorted(wanted.sigmas)
    ]
    for choice in grid:
        found = first(evidence.neighbours, choice.k)
        _, density = _density(found, choice)
        trials = [(choice, density)]
        if PRODUCT in wanted.ways:
            assert evidence.log_class is not None
            log_class = evidence.log_class[:, : choice.k]
            trials += [
                (replace(choice, way=PRODUCT, weight=weight), density * _power(log_class, weight))
                for weight in wanted.weights
            ]
        for trial, values in trials:
            peak = peaks(found.latitude, found.longitude, values, trial.density())
            yield trial, (peak.latitude, peak.longitude)
    for cells in wanted.cells if CELLS in wanted.ways else ():
        for choice in grid:
            trial = replace(choice, way=CELLS, cells=cells)
            found = first(evidence.within[cells], choice.k)
            peak = peaks(found.latitude, found.longitude, _density(found, trial)[1], trial.density())
            yield trial, (peak.latitude, peak.longitude)
