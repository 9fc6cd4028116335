"""Calibration: are answers with confidence 0.7 right 7 times in 10?

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, section 2: photos in bins by
their confidence; the expected calibration error is the mean gap between confidence and accuracy of a bin, weighted by
its photos. What counts as right is the caller's: the true cell, or within a level.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def calibration_table(confidence: ArrayLike, right: ArrayLike, bins: int = 15) -> pd.DataFrame:
    """Bins of equal width over [0, 1], a row each: low, high, n, confidence and accuracy (means; NaN where n is 0).

    `confidence` is float [N] in [0, 1], `right` bool [N]; a bin holds confidences above low up to high, the first
    0 as well (Guo et al.). Raises ValueError for confidences outside of [0, 1] or NaN, lengths that differ, no photos,
    or fewer than one bin.
    """
    sure, hit = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if sure.shape != hit.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(
            f"confidence and right must be one each for at least one photo, got {sure.shape} and {hit.shape}"
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError(f"confidences must be from 0 to 1, got {sure.min()} to {sure.max()}")
    edges = np.linspace(0, 1, bins + 1)
    slot = np.maximum(np.searchsorted(edges, sure, side="left") - 1, 0)
    count = np.bincount(slot, minlength=bins)
    sums = [np.bincount(slot, weights=x, minlength=bins) for x in (sure, hit)]
    means = [np.divide(x, count, out=np.full(bins, np.nan), where=count > 0) for x in sums]
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "n": count, "confidence": means[0], "accuracy": means[1]}
    )


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error, in [0, 1]: the mean gap between confidence and accuracy over the photos of a
    `calibration_table`."""
    seen = table[table["n"] > 0]
    return float((np.abs(seen["confidence"] - seen["accuracy"]) * seen["n"]).sum() / seen["n"].sum())
