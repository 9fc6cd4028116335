"""Temperature scaling: probabilities made as confident as the classifier is right.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 4.2. All logits are
divided by one number T, chosen on validation photos by the likelihood of their true cells. Divided logits are
powers of probabilities, softmax(z / T) = p^(1/T) / sum of p^(1/T), so nothing but probabilities is needed. The order
of the cells stays, and with it every answer by argmax; T above 1 makes them less sure.

Where every validation photo is right, the likelihood grows without end as T falls to 0: it says only that a mistake is
rarer than one in N. Targets are then those of Platt (Probabilistic outputs for support vector machines, 1999): the true
cell has (N + 1) / (N + 2) of a photo, the others share the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.files import damage_named, read_json, write_json
from geoloc.localizers.by_class.probabilities import (
    checked_probabilities,
    log_probabilities,
    normalised,
    photo_parts,
)

_LIMITS = (0.01, 100.0)
"""Bounds of the search; at either end a classifier is as good as certain, or uniform."""


class TemperatureScaling:
    """Scales probabilities of cells by one temperature, fitted on validation photos.

    `temperature` is NaN before `fit`; `photos` is how many it was fitted on, `left_out` how many had no true cell or
    could not be read.
    """

    def __init__(self) -> None:
        self.temperature = float("nan")
        self.photos = self.left_out = 0

    def fit(self, probabilities: NDArray[Any], true_cells: ArrayLike) -> Self:
        """Choose the temperature with the largest likelihood of the true cells; returns itself.

        `probabilities` are float [N, C], a row of NaN for an unreadable photo; `true_cells` int [N], -1 where the
        photo is in no cell: both are left out. Raises ValueError for logits, for true cells that are not N numbers
        below C, and where no photo is left.
        """
        # Here, because `geoloc locate` loads temperatures and need not wait for what fits them.
        from scipy.optimize import minimize_scalar

        p = np.asarray(probabilities)
        p, unread = checked_probabilities(p, p.shape[1] if p.ndim == 2 else 0)
        cells = checked_true_cells(true_cells, *p.shape)
        used = ~unread & (cells >= 0)
        if not used.any():
            raise ValueError(f"temperature scaling needs photos in cells, got none among {len(p)}")
        p, truth = p[used], cells[used]
        rows = np.arange(len(p))
        all_right = p.shape[1] > 1 and bool((p[rows, truth] >= p.max(axis=1)).all())
        doubt = 1 / (len(rows) + 2) if all_right else 0.0

        def loss(log_temperature: float) -> float:
            hit, others = np.zeros(len(p)), np.zeros(len(p))
            for part in photo_parts(len(p), p.shape[1]):
                scaled = log_probabilities(p[part]) / np.exp(log_temperature)
                top = scaled.max(axis=1)
                total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
                of_true = scaled[np.arange(len(scaled)), truth[part]]
                hit[part] = total - of_true
                if doubt:
                    others[part] = total - (scaled.sum(axis=1) - of_true) / (scaled.shape[1] - 1)
            return float((1 - doubt) * hit.mean() + doubt * others.mean())

        # Convex in 1 / T, so there is one lowest point, in the logarithm too.
        found = minimize_scalar(loss, bounds=np.log(_LIMITS), method="bounded", options={"xatol": 1e-6})
        self.temperature = float(np.exp(found.x))
        self.photos, self.left_out = int(used.sum()), int((~used).sum())
        return self

    def predict(self, probabilities: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled probabilities, float32 [N, C]; rows of NaN stay. Raises ValueError for logits and before `fit`."""
        if np.isnan(self.temperature):
            raise ValueError("temperature scaling is not fitted yet: call fit with validation photos first")
        p = np.asarray(probabilities)
        p, unread = checked_probabilities(p, p.shape[1] if p.ndim == 2 else 0)
        scaled = normalised(log_probabilities(p) / self.temperature).astype(np.float32)
        scaled[unread] = np.nan
        return scaled

    def save(self, path: Path | str) -> None:
        """Write the temperature as JSON, atomically."""
        write_json(path, {"temperature": self.temperature, "photos": self.photos, "left_out": self.left_out})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load what `save` wrote. Raises DamagedFile for another file."""
        made, values = cls(), read_json(path, dict)
        with damage_named(path):
            made.temperature = float(values["temperature"])
            made.photos, made.left_out = int(values["photos"]), int(values["left_out"])
        return made

    def __repr__(self) -> str:
        if np.isnan(self.temperature):
            return "TemperatureScaling(), not fitted"
        return f"TemperatureScaling(temperature={self.temperature:.4g}, fitted on {self.photos:,} photos)"


def checked_true_cells(true_cells: ArrayLike, photos: int, cell_count: int) -> NDArray[np.int64]:
    """True cells as int64 [N], -1 where in none. Raises ValueError for another length or a cell that is not there."""
    cells = np.asarray(true_cells, dtype=np.int64)
    if cells.shape != (photos,):
        raise ValueError(f"true_cells must be {photos} numbers, one a photo, got shape {cells.shape}")
    if len(cells) and (cells.min() < -1 or cells.max() >= cell_count):
        raise ValueError(
            f"true_cells must be from -1 (in none) to {cell_count - 1}, got {cells.min()} to {cells.max()}"
        )
    return cells
