"""Calibration: the temperatures and conformal regions that validation photos give a classifier's probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.localizers.by_class.probabilities import Probabilities, photo_parts
from geoloc.localizers.confidence.conformal import LEAST_PHOTOGRAPHERS, ConformalRegions
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.localizers.settings import LocalizerSettings
from geoloc.settings import SettingsError

if TYPE_CHECKING:
    from geoloc.localizers.confidence.kept import CellFacts
    from geoloc.partitions.base import Partition

Predict = Callable[[NDArray[np.int64]], Probabilities]
"""Gives the probabilities of the photos at some positions, int64 [N], by partition."""
TEMPERATURE_CELLS = 1 << 27
"""Probabilities that temperatures are fitted on: 0.5 GB, 19,000 photos of 7,011 cells. One number needs no more."""


@dataclass(frozen=True)
class Calibration:
    """Temperatures and conformal regions by partition; both are empty if the settings ask for none.

    Each temperature scales the probabilities of one partition. The product and the overlay of several partitions have
    no temperature: they multiply probabilities that are scaled already.
    """

    temperatures: Mapping[str, TemperatureScaling]
    regions: Mapping[str, tuple[ConformalRegions, ...]]

    @staticmethod
    def wanted(settings: LocalizerSettings) -> bool:
        """Returns whether the settings ask for anything that is fitted on validation photos."""
        return settings.calibrate or bool(settings.coverages)

    @classmethod
    def none(cls) -> Calibration:
        """Returns an empty calibration (no-op)."""
        return cls({}, {})

    @classmethod
    def fit(
        cls,
        partitions: Mapping[str, Partition],
        predict: Predict,
        latitude: ArrayLike,
        longitude: ArrayLike,
        settings: LocalizerSettings,
        photographers: ArrayLike | None = None,
        for_temperature: ArrayLike | None = None,
        for_regions: ArrayLike | None = None,
        *,
        batch: int = 1,
        seed: int = 0,
    ) -> Calibration:
        """Fit temperatures and regions on N validation photos: degrees, (N,) each.

        `predict` gives the probabilities of photos by position. It is asked for as many at a time as fit into memory,
        in multiples of `batch`. Regions are fitted on all photos; temperatures on as many as fit into memory at once
        (TEMPERATURE_CELLS), by photographers that `seed` draws. `photographers` [N] are whom the photos count for.
        `for_temperature` and `for_regions` bool [N] are the photos for each use, all by default. With temperatures,
        regions are fitted on the scaled probabilities. Raises SettingsError for no photos, and if temperatures are
        wanted but no photo is in a cell.
        """
        keys = ["calibrate"] * settings.calibrate + ["coverages"] * bool(settings.coverages)
        count = len(np.asarray(latitude))
        if not count:
            raise SettingsError(f"localizers.{keys[0]} needs photos in the validation split, got none")
        truth = {name: p.assign(latitude, longitude) for name, p in partitions.items()}
        owners = (
            np.arange(count) if photographers is None else pd.factorize(np.asarray(photographers, object))[0]
        )
        first, second = (
            np.arange(count) if some is None else np.flatnonzero(np.asarray(some))
            for some in (for_temperature, for_regions)
        )
        cells = sum(p.cell_count for p in partitions.values())
        kept, temperatures = None, {}
        if settings.calibrate:
            first = first[sample_of_photographers(owners[first], TEMPERATURE_CELLS // cells, seed)]
            kept = predict(first)
            for name in partitions:
                try:
                    temperatures[name] = TemperatureScaling().fit(kept[name], truth[name][first])
                except ValueError as error:
                    raise SettingsError(
                        f"localizers.calibrate cannot be done for partition {name}: {error}"
                    ) from None
        made = cls(temperatures, {})
        if not settings.coverages:
            return made
        if not np.array_equal(first, second):
            kept = None
        scoring = ConformalRegions()  # scores do not depend on the coverage
        scores: dict[str, list[NDArray[np.float64]]] = {name: [] for name in partitions}
        for part in photo_parts(len(second), cells, batch):
            asked = second[part]
            some = predict(asked) if kept is None else {name: p[part] for name, p in kept.items()}
            for name, p in made.scaled(some).items():
                scores[name].append(scoring.scores_of(p, truth[name][asked]))
        who = None if photographers is None else owners[second]
        regions = {
            name: tuple(
                ConformalRegions(one).fit_scores(np.concatenate(of_photos), who) for one in settings.coverages
            )
            for name, of_photos in scores.items()
        }
        return cls(temperatures, regions)

    def scaled(self, probabilities: Probabilities) -> dict[str, NDArray[Any]]:
        """Returns the probabilities scaled by the fitted temperatures; unchanged for a partition without one."""
        return {
            name: self.temperatures[name].predict(p) if name in self.temperatures else p
            for name, p in probabilities.items()
        }

    def region_table(
        self,
        facts: Mapping[str, CellFacts],
        photographers: ArrayLike | None = None,
        interval: Callable[[NDArray[np.bool_]], tuple[float, float]] | None = None,
    ) -> pd.DataFrame:
        """Returns how well the regions cover N photos, from their `facts`: a row per partition and coverage.

        `covered` is the share of photos whose region holds the true cell, and `by_photographer` its mean over
        `photographers` [N], of which the coverage is promised; further columns are the median cells and area in km² of
        a region, and the photos and photographers it was fitted on. `plausible_low` and `plausible_high` bound the
        coverage that so few photographers can promise. `interval` gives the bounds `low` and `high` of the share of a
        bool [N], NaN without it. A photo in no cell is not covered; the region of an unreadable photo is all cells.
        `note` says of regions that are all cells why they are.
        """
        rows = []
        for name, fitted in self.regions.items():
            owners = np.arange(len(facts[name])) if photographers is None else pd.factorize(photographers)[0]
            for one, found in zip(fitted, facts[name].regions, strict=True):
                low, high = (np.nan, np.nan) if interval is None else interval(found.covered)
                covered = found.covered.astype(float)
                plausible = one.plausible()
                rows.append(
                    {
                        "partition": name,
                        "coverage": one.coverage,
                        "covered": float(covered.mean()),
                        "low": low,
                        "high": high,
                        "by_photographer": float(pd.Series(covered).groupby(owners).mean().mean()),
                        "plausible_low": plausible[0],
                        "plausible_high": plausible[1],
                        "median_cells": float(np.median(found.size)),
                        "median_area_km2": float(np.median(found.area_km2)),
                        "n": len(found.size),
                        "fitted_on": one.photos,
                        "fitted_on_photographers": one.photographers,
                        "note": _why_everything(one),
                    }
                )
        return pd.DataFrame(rows).round(10)

    def save(self, folder: Path | str) -> list[Path]:
        """Write temperature-<partition>.json and conformal-<partition>-<coverage>.json; returns what was written."""
        written = []
        for name, temperature in self.temperatures.items():
            written.append(Path(folder) / f"temperature-{name}.json")
            temperature.save(written[-1])
        for name, regions in self.regions.items():
            for one in regions:
                written.append(Path(folder) / f"conformal-{name}-{one.coverage}.json")
                one.save(written[-1])
        return written

    @classmethod
    def load(cls, folder: Path | str, partitions: Iterable[str]) -> Calibration:
        """Load what `save` wrote to `folder` for partitions of these names; regions by rising coverage.

        A partition without files has no temperature and no regions. Raises ValueError or KeyError for damaged files.
        """
        temperatures, regions = {}, {}
        for name in partitions:
            file = Path(folder) / f"temperature-{name}.json"
            if file.is_file():
                temperatures[name] = TemperatureScaling.load(file)
            # A name has no hyphen (see settings.NAME), so no other partition's files are among these.
            found = [ConformalRegions.load(file) for file in Path(folder).glob(f"conformal-{name}-*.json")]
            if found:
                regions[name] = tuple(sorted(found, key=lambda one: one.coverage))
        return cls(temperatures, regions)


def sample_of_photographers(owners: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most `most` photos (at least one), in order: all photos of each photographer that is drawn.

    `owners` [N] numbers the photographer of each photo, from 0.
    """
    if len(owners) <= most:
        return np.arange(len(owners))
    rng = np.random.default_rng(seed)
    turn = rng.permutation(owners.max() + 1)[owners]
    return np.sort(np.lexsort((rng.permutation(len(owners)), turn))[: max(most, 1)])


def _why_everything(regions: ConformalRegions) -> str:
    """Returns why regions are all cells, "" if they are not."""
    if not np.isinf(regions.threshold):
        return ""
    if regions.too_few:
        return (
            f"undefined: fitted on {regions.photographers} photographers, fewer than {LEAST_PHOTOGRAPHERS}; every "
            "region is all cells"
        )
    return "cannot be reached: every region is all cells"
