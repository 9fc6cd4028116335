"""The risk-coverage curve: the error rate if only the most confident answers are given, and the area under it (AURC).

Geifman and El-Yaniv: Selective Classification for Deep Neural Networks, NeurIPS 2017; the area as in Geifman, Uziel,
El-Yaniv: Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, ICLR 2019, equation 3: the mean risk over all
N coverages. A confidence that ranks answers well has a small area; a useless one has the error rate.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def risk_coverage(confidence: ArrayLike, error_km: ArrayLike, km: float) -> pd.DataFrame:
    """Returns the curve, a row per number of answers given, most confident first: coverage, risk, threshold.

    `confidence` is float [N]; `error_km` float [N], infinite or NaN without an answer. Photos without an answer come
    last, whatever their confidence, and are wrong. `coverage` is the share of the N photos that are answered, `risk`
    the share of these with an error above `km`, `threshold` the lowest confidence among them. Errors of photos with
    equal confidence are spread evenly over them: the mean over all their orders. Raises ValueError
    for no photos or lengths that differ.
    """
    sure, error = np.asarray(confidence, dtype=np.float64), np.asarray(error_km, dtype=np.float64)
    if sure.shape != error.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(
            f"confidence and error_km must be one each for at least one photo, got {sure.shape} and {error.shape}"
        )
    sure = np.where(np.isfinite(error) & ~np.isnan(sure), sure, -np.inf)
    wrong = ~(error <= km)
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], wrong[order]
    _, tied = np.unique(-sure, return_inverse=True)
    share = np.bincount(tied, weights=wrong) / np.bincount(tied)
    given = np.arange(1, len(sure) + 1)
    return pd.DataFrame(
        {"coverage": given / len(sure), "risk": np.cumsum(share[tied]) / given, "threshold": sure}
    )


def area_under_risk_coverage(curve: pd.DataFrame) -> float:
    """Returns the AURC: the mean risk over all coverages, in [0, 1]; smaller is better."""
    return float(curve["risk"].mean())


def best_possible_area(error_km: ArrayLike, km: float) -> float:
    """Returns the AURC of a perfect confidence, which ranks every right answer before every wrong one."""
    error = np.asarray(error_km, dtype=np.float64)
    return area_under_risk_coverage(risk_coverage((error <= km).astype(float), error, km))
