"""Calibration: the temperatures and conformal regions that validation photos give a classifier's probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.localizers.by_class.probabilities import Probabilities
from geoloc.localizers.confidence.conformal import LEAST_PHOTOGRAPHERS, ConformalRegions
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.localizers.settings import LocalizerSettings
from geoloc.settings import SettingsError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


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
        probabilities: Probabilities,
        latitude: ArrayLike,
        longitude: ArrayLike,
        settings: LocalizerSettings,
        photographers: ArrayLike | None = None,
        for_temperature: ArrayLike | None = None,
        for_regions: ArrayLike | None = None,
    ) -> Calibration:
        """Fit temperatures and regions on N validation photos: degrees, (N,) each.

        `photographers` [N] are whom the photos count for. `for_temperature` and `for_regions` bool [N] are the photos
        for each use, all by default. With temperatures, regions are fitted on the scaled probabilities. Raises
        SettingsError for no photos, and if temperatures are wanted but no photo is in a cell.
        """
        keys = ["calibrate"] * settings.calibrate + ["coverages"] * bool(settings.coverages)
        if not len(np.asarray(latitude)):
            raise SettingsError(f"localizers.{keys[0]} needs photos in the validation split, got none")
        truth = {name: p.assign(latitude, longitude) for name, p in partitions.items()}
        every = np.ones(len(np.asarray(latitude)), dtype=bool)
        first, second = (
            every if some is None else np.asarray(some) for some in (for_temperature, for_regions)
        )
        owners = None if photographers is None else np.asarray(photographers, dtype=object)[second]
        temperatures = {}
        for name in partitions if settings.calibrate else ():
            try:
                temperatures[name] = TemperatureScaling().fit(probabilities[name][first], truth[name][first])
            except ValueError as error:
                raise SettingsError(
                    f"localizers.calibrate cannot be done for partition {name}: {error}"
                ) from None
        scaled = cls(temperatures, {}).scaled(probabilities)
        regions = {
            name: tuple(
                ConformalRegions(one).fit(scaled[name][second], truth[name][second], owners)
                for one in settings.coverages
            )
            for name in partitions
        }
        return cls(temperatures, regions if settings.coverages else {})

    def scaled(self, probabilities: Probabilities) -> dict[str, NDArray[Any]]:
        """Returns the probabilities scaled by the fitted temperatures; unchanged for a partition without one."""
        return {
            name: self.temperatures[name].predict(p) if name in self.temperatures else p
            for name, p in probabilities.items()
        }

    def region_table(
        self,
        partitions: Mapping[str, Partition],
        probabilities: Probabilities,
        latitude: ArrayLike,
        longitude: ArrayLike,
        photographers: ArrayLike | None = None,
        interval: Callable[[NDArray[np.bool_]], tuple[float, float]] | None = None,
    ) -> pd.DataFrame:
        """Returns how well the regions cover N photos, from `scaled` probabilities: a row per partition and coverage.

        `covered` is the share of photos whose region holds the true cell, and `by_photographer` its mean over
        `photographers` [N], of which the coverage is promised; further columns are the median cells and area in km² of
        a region, and the photos and photographers it was fitted on. `plausible_low` and `plausible_high` bound the
        coverage that so few photographers can promise. `interval` gives the bounds `low` and `high` of the share of a
        bool [N], NaN without it. A photo in no cell is not covered; the region of an unreadable photo is all cells.
        `note` says of regions that are all cells why they are.
        """
        owners = (
            np.arange(len(np.asarray(latitude))) if photographers is None else pd.factorize(photographers)[0]
        )
        rows = []
        for name, fitted in self.regions.items():
            partition = partitions[name]
            truth, areas = partition.assign(latitude, longitude), partition.areas_km2()
            for one in fitted:
                found = one.predict(probabilities[name], areas)
                inside = found.covered(truth)
                low, high = (np.nan, np.nan) if interval is None else interval(inside)
                covered = inside.astype(float)
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
                        "n": len(found),
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
