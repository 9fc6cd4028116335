"""The time of posting as the input of a network, and as a prior over cells in closed form.

Multi-modal Geolocation, section 3.2: people post when they are awake, so the hour in UTC tells something of the
longitude, and the month something of the hemisphere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar

from geoloc.files import atomic_path
from geoloc.models.time_settings import TimePriorSettings

FloatArray = NDArray[np.float64]

HOURS, WEEKDAYS, MONTHS = 24, 7, 12
_BAND_DEGREES = {"hour": 15.0, "month": 30.0}  # of longitude, and of latitude
_LARGEST_POWER = 3.0


def time_parts(posted_at: pd.Series) -> NDArray[np.int64]:
    """Hour (0 to 23), weekday (1 to 7, Sunday is 1) and month (1 to 12) in UTC, int64 (N, 3); -1 for no time."""
    times = pd.to_datetime(posted_at, utc=True).dt
    parts = np.stack([times.hour, (times.dayofweek + 1) % 7 + 1, times.month], axis=1)
    return np.nan_to_num(parts.astype(np.float64), nan=-1).astype(np.int64)


def time_features(posted_at: pd.Series) -> NDArray[np.float32]:
    """The time as the paper scales it, float32 (N, 3): (hour - 11.5) / 24, (weekday - 3.5) / 7, (month - 6.5) / 12, in
    UTC; a row of NaN for no time. (The mean of weekdays from 1 to 7 is 4; 3.5 is the paper's.)"""
    parts = time_parts(posted_at)
    scaled = (parts - [11.5, 3.5, 6.5]) / [HOURS, WEEKDAYS, MONTHS]
    return np.where(parts < 0, np.nan, scaled).astype(np.float32)


@dataclass(frozen=True, eq=False)
class TimePrior:
    """log p(time | cell) of C cells, as tables: `hour` float64 (C, 24), `weekday` (C, 7), `month` (C, 12), which are
    taken as independent in a cell. `power` is what of it counts: 1 would be right if they were, and counts exact; 0 is
    a no-op."""

    hour: FloatArray
    weekday: FloatArray
    month: FloatArray
    power: float = 1.0

    @classmethod
    def count(
        cls,
        cells: NDArray[Any],
        posted_at: pd.Series,
        points: ArrayLike,
        settings: TimePriorSettings,
        power: float = 1.0,
    ) -> TimePrior:
        """Count the times at which N photos of each cell were posted.

        `cells` int (N,), -1 for none; `points` (C, 2), latitude and longitude of each cell. A cell has few photos, so
        its shares are drawn to those of its band (cells of like longitude for hours, of like latitude for months), and
        the band's to those of all, with settings.smoothing photos each. Photos without cell or time do not count.
        """
        cells, parts = np.asarray(cells, dtype=np.int64), time_parts(posted_at)
        used = (cells >= 0) & (parts[:, 0] >= 0)
        cells, parts, where = cells[used], parts[used], np.asarray(points, dtype=np.float64)
        bands = [
            np.floor((where[:, 1] + 180) / _BAND_DEGREES["hour"]).astype(np.int64),
            np.zeros(len(where), dtype=np.int64),
            np.floor((where[:, 0] + 90) / _BAND_DEGREES["month"]).astype(np.int64),
        ]
        first = (0, 1, 1)
        tables = [
            np.log(_shares(cells, parts[:, i] - first[i], size, bands[i], settings.smoothing))
            for i, size in enumerate((HOURS, WEEKDAYS, MONTHS))
        ]
        return cls(tables[0], tables[1], tables[2], power)

    def log_ratios(self, posted_at: pd.Series) -> FloatArray:
        """log p(time | cell), up to a constant of the photo, float64 (N, C); 0 for a photo without a time."""
        parts = time_parts(posted_at)
        known = parts[:, 0] >= 0
        found = np.zeros((len(parts), len(self.hour)))
        hour, weekday, month = parts[known].T
        found[known] = self.hour.T[hour] + self.weekday.T[weekday - 1] + self.month.T[month - 1]
        return found

    def apply(self, probabilities: NDArray[Any], posted_at: pd.Series) -> NDArray[np.float32]:
        """p(cell | photo, time) ∝ p(cell | photo) p(time | cell)^power, float32 [N, C], by Bayes' rule if the time
        depends on the cell alone. Rows of NaN stay; a photo without a time keeps its probabilities."""
        p = np.asarray(probabilities, dtype=np.float64)
        ratios = self.power * self.log_ratios(posted_at)
        weighted = p * np.exp(ratios - ratios.max(axis=1, keepdims=True))
        return (weighted / weighted.sum(axis=1, keepdims=True)).astype(np.float32)

    def calibrated(self, probabilities: NDArray[Any], posted_at: pd.Series, cells: NDArray[Any]) -> TimePrior:
        """The same with the power, from 0 to 3, that makes the true cells of other photos most probable.

        Arguments are those of N photos whose times were not counted; without a photo of known cell and time the power
        is 0.
        """
        p, cells = np.asarray(probabilities), np.asarray(cells, dtype=np.int64)
        ratios = self.log_ratios(posted_at)
        used = (cells >= 0) & ~np.isnan(p).any(axis=1) & (time_parts(posted_at)[:, 0] >= 0)
        if not used.any():
            return TimePrior(self.hour, self.weekday, self.month, 0.0)
        scores = np.log(np.maximum(p[used], np.finfo(np.float32).tiny), dtype=np.float64)
        ratios, rows = ratios[used], np.arange(int(used.sum()))

        def loss(power: float) -> float:
            weighted = scores + power * ratios
            highest = weighted.max(axis=1)
            total = highest + np.log(np.exp(weighted - highest[:, None]).sum(axis=1))
            return float((total - weighted[rows, cells[used]]).mean())

        best = minimize_scalar(loss, bounds=(0.0, _LARGEST_POWER), method="bounded")
        power = float(best.x) if best.fun < loss(0.0) else 0.0
        return TimePrior(self.hour, self.weekday, self.month, power)

    def save(self, path: Path | str) -> None:
        """Write the tables to one safetensors file, atomically."""
        arrays = {"hour": self.hour, "weekday": self.weekday, "month": self.month}
        with atomic_path(path) as temporary:
            save_file(arrays | {"power": np.array([self.power])}, temporary)

    @classmethod
    def load(cls, path: Path | str) -> TimePrior:
        """The prior that `save` wrote."""
        arrays = load_file(path)
        return cls(arrays["hour"], arrays["weekday"], arrays["month"], float(arrays["power"][0]))


def _shares(
    cells: NDArray[np.int64], values: NDArray[np.int64], size: int, band: NDArray[np.int64], smoothing: float
) -> FloatArray:
    """The shares of `size` values in each cell, float64 (C, size), drawn to its band's, and these to all photos'."""

    def counts(of: NDArray[np.int64], groups: int) -> FloatArray:
        table = np.bincount(of * size + values, minlength=groups * size).reshape(groups, size)
        return table.astype(np.float64)

    def drawn(table: FloatArray, towards: FloatArray) -> FloatArray:
        return (table + smoothing * towards) / (table.sum(axis=1, keepdims=True) + smoothing)

    every = drawn(counts(np.zeros_like(cells), 1), np.full((1, size), 1 / size))
    bands = drawn(counts(band[cells], int(band.max()) + 1), every)
    return drawn(counts(cells, len(band)), bands[band])
