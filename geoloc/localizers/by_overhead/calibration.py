"""What validation pairs tell of distances: which photo is outside of an index, and how sure an answer is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoloc.files import DamagedFile, read_json, write_json
from geoloc.models.matching import best_threshold

ACCEPTED = 0.95
"""Share of validation photos whose own tile is within `reach`."""
_TEMPERATURES = np.geomspace(1e-3, 1e3, 121)


@dataclass(frozen=True)
class Calibration:
    """Measured on validation pairs.

    `threshold`: a pair at most this far apart is a match (the threshold with the best accuracy; squared distances).
    `reach`: ACCEPTED of the photos have their own tile within it; a photo without any tile within it is outside of the
    index. `temperature`: exp(-distance / temperature) is in proportion to a tile's probability. `heading_error` and
    `heading_error_90`: median and 90th percentile of the error of headings at the true tile, degrees; None without a
    known heading. `pairs`: how many pairs these are of.
    """

    threshold: float
    reach: float
    temperature: float
    heading_error: float | None
    heading_error_90: float | None
    pairs: int

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """What `save` wrote. Raises DamagedFile for any other file, FileNotFoundError if it is missing."""
        values = read_json(path, dict)
        try:
            return cls(**values)
        except TypeError:
            raise DamagedFile(path, "it has no calibration of an overhead index") from None


def calibrate(
    apart: NDArray[np.float32],
    unmatched: NDArray[np.float32],
    heading_errors: NDArray[np.float64],
) -> Calibration | None:
    """The calibration by squared distances (N, N) of N validation photos to the tiles of all (their own on the
    diagonal), distances (U,) of unmatched pairs, and errors of headings (N,) in degrees, NaN if unknown. None without a
    readable pair."""
    own = np.diagonal(apart)
    readable = np.isfinite(own)
    if not readable.any() or not len(unmatched):
        return None
    kept = apart[np.ix_(readable, readable)].astype(np.float64)
    known = np.abs(heading_errors[np.isfinite(heading_errors)])
    return Calibration(
        threshold=best_threshold(own, unmatched)[0],
        reach=float(np.quantile(np.diagonal(kept), ACCEPTED)),
        temperature=_temperature(kept),
        heading_error=float(np.median(known)) if len(known) else None,
        heading_error_90=float(np.quantile(known, 0.9)) if len(known) else None,
        pairs=int(readable.sum()),
    )


def _temperature(apart: NDArray[np.float64]) -> float:
    """The temperature with the least mean negative log-likelihood of the tiles on the diagonal."""
    own = np.diagonal(apart)
    losses = []
    for temperature in _TEMPERATURES * max(float(np.median(apart)), 1e-9):
        scores = -apart / temperature
        highest = scores.max(axis=1, keepdims=True)
        total = highest[:, 0] + np.log(np.exp(scores - highest).sum(axis=1))
        losses.append(float((total + own / temperature).mean()))
    return float(_TEMPERATURES[int(np.argmin(losses))] * max(float(np.median(apart)), 1e-9))
