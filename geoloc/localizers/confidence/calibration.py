"""Calibration: the temperatures and conformal regions that validation photos give a classifier's probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.localizers.by_class.probabilities import Probabilities
from geoloc.localizers.confidence.conformal import ConformalRegions
from geoloc.localizers.confidence.temperature import TemperatureScaling
from geoloc.localizers.settings import LocalizerSettings
from geoloc.settings import SettingsError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


@dataclass(frozen=True)
class Calibration:
    """Temperatures and conformal regions by partition; both are empty where the settings ask for none.

    Each temperature is of one partition's own probabilities. The product and the overlay of several partitions have
    none: they multiply probabilities that are scaled already, and their confidences are not scaled again.
    """

    temperatures: Mapping[str, TemperatureScaling]
    regions: Mapping[str, tuple[ConformalRegions, ...]]

    @staticmethod
    def wanted(settings: LocalizerSettings) -> bool:
        """True where the settings ask for anything that needs validation photos."""
        return settings.calibrate or bool(settings.coverages)

    @classmethod
    def none(cls) -> Calibration:
        """What changes and measures nothing."""
        return cls({}, {})

    @classmethod
    def fit(
        cls,
        partitions: Mapping[str, Partition],
        probabilities: Probabilities,
        latitude: ArrayLike,
        longitude: ArrayLike,
        settings: LocalizerSettings,
    ) -> Calibration:
        """Learn from N validation photos, degrees, (N,) each.

        Where probabilities are scaled, regions are those of the scaled ones. Raises SettingsError for no photos,
        and where temperatures are wanted but no photo is in a cell.
        """
        keys = ["calibrate"] * settings.calibrate + ["coverages"] * bool(settings.coverages)
        if not len(np.asarray(latitude)):
            raise SettingsError(f"localizers.{keys[0]} needs photos in the validation split, got none")
        truth = {name: p.assign(latitude, longitude) for name, p in partitions.items()}
        temperatures = {}
        for name in partitions if settings.calibrate else ():
            try:
                temperatures[name] = TemperatureScaling().fit(probabilities[name], truth[name])
            except ValueError as error:
                raise SettingsError(
                    f"localizers.calibrate cannot be done for partition {name}: {error}"
                ) from None
        scaled = cls(temperatures, {}).scaled(probabilities)
        regions = {
            name: tuple(ConformalRegions(one).fit(scaled[name], truth[name]) for one in settings.coverages)
            for name in partitions
        }
        return cls(temperatures, regions if settings.coverages else {})

    def scaled(self, probabilities: Probabilities) -> dict[str, NDArray[Any]]:
        """The probabilities at the fitted temperatures; as they are for a partition without one."""
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
    ) -> pd.DataFrame:
        """What the regions hold on N photos, from `scaled` probabilities: a row a partition and coverage, with the
        share of photos whose region holds the true cell (`covered`), the median cells and area in km² of a region, and
        the photos it was fitted on. A photo in no cell is not covered; an unreadable one has every cell.
        """
        rows = []
        for name, fitted in self.regions.items():
            partition = partitions[name]
            truth, areas = partition.assign(latitude, longitude), partition.areas_km2()
            for one in fitted:
                found = one.predict(probabilities[name], areas)
                rows.append(
                    {
                        "partition": name,
                        "coverage": one.coverage,
                        "covered": float(found.covered(truth).mean()),
                        "median_cells": float(np.median(found.size)),
                        "median_area_km2": float(np.median(found.area_km2)),
                        "n": len(found),
                        "fitted_on": one.photos,
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
        """What `save` wrote to `folder` for partitions of these names; regions by rising coverage.

        Nothing for a partition that has no files there. Raises ValueError or KeyError for files that are damaged.
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
