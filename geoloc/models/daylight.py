"""Daylight in a photo against the sun at the hour that its camera showed: where it cannot have been taken.

A photo in daylight at 22:30 in June is from the far north. The camera's clock is that of the place, more or less, so
the hour tells of the latitude and the hemisphere, not of the longitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from geoloc.files import atomic_path
from geoloc.sun import DAY_SECONDS, sun_coordinates

FloatArray = NDArray[np.float64]

_CLOCK_ERROR_HOURS = 1.0  # standard deviation of a clock against the sun: width of zones, daylight saving
_DUSK_DEGREES, _SOFT_DEGREES = (
    -3.0,
    1.5,
)  # the elevation of the sun at which half of the photos are light; by how much


def chance_of_daylight(taken_at: pd.Series, latitude: ArrayLike) -> FloatArray:
    """The chance that it is light when a local clock shows N times, float64 (N, C) for C latitudes, or (N, 1) for one
    latitude a photo, (N, 1); degrees. NaN for no time.

    The sun's elevation for clocks from two hours slow to two hours fast, weighted as errors of an hour are.
    """
    times = pd.to_datetime(taken_at).to_numpy().astype("datetime64[s]")[:, None]
    unknown = np.isnat(times)
    times = np.where(unknown, np.datetime64(0, "s"), times)
    seconds, declination = times.astype(np.int64) % DAY_SECONDS, np.radians(sun_coordinates(times)[0])
    lat = np.radians(np.asarray(latitude, dtype=np.float64))
    errors = np.arange(-2.0, 2.5, 0.5)
    weights = np.exp(-((errors / _CLOCK_ERROR_HOURS) ** 2) / 2)
    light: FloatArray = np.zeros(np.broadcast_shapes(times.shape, lat.shape))
    for error, weight in zip(errors, weights / weights.sum(), strict=True):
        angle = np.radians((seconds / 3600 + error - 12) * 15)
        up = np.sin(lat) * np.sin(declination) + np.cos(lat) * np.cos(declination) * np.cos(angle)
        elevation = np.degrees(np.arcsin(np.clip(up, -1, 1)))
        light += weight / (1 + np.exp(-(elevation - _DUSK_DEGREES) / _SOFT_DEGREES))
    return np.where(unknown, np.nan, light)


@dataclass(frozen=True, eq=False)
class DaylightModel:
    """A logistic regression on embeddings of D dimensions: whether it was light. `weights` float64 (D,), `bias`;
    `share` is the share of light photos among those that it was fitted on."""

    weights: FloatArray
    bias: float
    share: float

    @classmethod
    def fit(
        cls, embeddings: NDArray[Any], taken_at: pd.Series, latitude: ArrayLike, penalty: float = 1.0
    ) -> DaylightModel:
        """Fit on N training photos with their embeddings (N, D), camera times and true latitudes (N,).

        Photos without a time, and those that could not be read, do not count. Raises ValueError if the others were
        taken in one kind of light only: then there is nothing to learn.
        """
        from sklearn.linear_model import LogisticRegression  # imported here: it takes a second

        x = np.asarray(embeddings, dtype=np.float64)
        light = chance_of_daylight(taken_at, np.asarray(latitude, dtype=np.float64)[:, None])[:, 0]
        used = np.isfinite(light) & np.isfinite(x).all(axis=1)
        target = light[used] > 0.5
        if not target.any() or target.all():
            raise ValueError(
                f"a model of daylight needs photos by day and by night with a time: of {int(used.sum())}, "
                f"{int(target.sum())} are by day"
            )
        fitted = LogisticRegression(C=penalty, max_iter=1000).fit(x[used], target)
        return cls(fitted.coef_[0].copy(), float(fitted.intercept_[0]), float(target.mean()))

    def chances(self, embeddings: NDArray[Any]) -> FloatArray:
        """The chance that each photo was taken in daylight, from its embedding alone, float64 (N,)."""
        scores = np.asarray(embeddings, dtype=np.float64) @ self.weights + self.bias
        return np.asarray(1 / (1 + np.exp(-scores)))

    def apply(
        self, probabilities: NDArray[Any], embeddings: NDArray[Any], taken_at: pd.Series, latitude: ArrayLike
    ) -> NDArray[np.float32]:
        """p(cell | photo, clock) by Bayes' rule, float32 [N, C], from the probabilities of photos alone.

        With d the chance of daylight in the photo, s the share of all photos in daylight and u the chance that the sun
        is up over the cell: p(cell) · (d / s · u + (1 - d) / (1 - s) · (1 - u)). `latitude` (C,) is that of the cells.
        A photo without a time, or an embedding, keeps its probabilities.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        up, light = chance_of_daylight(taken_at, latitude), self.chances(embeddings)[:, None]
        factor = light / self.share * up + (1 - light) / (1 - self.share) * (1 - up)
        factor[~np.isfinite(factor)] = 1.0
        weighted = p * factor
        return (weighted / weighted.sum(axis=1, keepdims=True)).astype(np.float32)

    def save(self, path: Path | str) -> None:
        """Write the model to one safetensors file, atomically."""
        with atomic_path(path) as temporary:
            save_file(
                {"weights": self.weights, "bias": np.array([self.bias]), "share": np.array([self.share])},
                temporary,
            )

    @classmethod
    def load(cls, path: Path | str) -> DaylightModel:
        """The model that `save` wrote."""
        arrays = load_file(path)
        return cls(arrays["weights"], float(arrays["bias"][0]), float(arrays["share"][0]))
