"""Compares partitions: their ceilings, the balance of their classes, and the photos in no cell.

Answers a question that Revisiting IM2GPS leaves open (section 5: what is the best way to partition?) as far as it
can be answered without training: by the ceiling, the accuracy of a classifier that always finds the right cell
("best possible" in Multi-modal Geolocation, table 6). Ceilings are measured on photographers who were not fitted on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.partitions import partition_of
from geoloc.partitions.base import Partition
from geoloc.partitions.settings import KindSettings
from geoloc.sphere import LEVELS_KM

__all__ = ["compare", "held_out"]

Points = tuple[ArrayLike, ArrayLike]


def held_out(photographer: ArrayLike, share: float, seed: int) -> NDArray[np.bool_]:
    """Returns True for the photos of a random share of the photographers (at least one), bool (N,).

    Raises ValueError for fewer than two photographers, or a share that leaves none of them to fit on.
    """
    names, number = np.unique(np.asarray(photographer), return_inverse=True)
    drawn = max(1, round(share * len(names)))
    if drawn >= len(names):
        raise ValueError(f"a share of {share} of {len(names)} photographers leaves none to fit on")
    out = np.zeros(len(names), dtype=bool)
    out[np.random.default_rng(seed).choice(len(names), drawn, replace=False)] = True
    return out[number]


def compare(
    settings: Iterable[KindSettings],
    fit_on: Points,
    measure_on: Points,
    levels_km: Mapping[str, float] = LEVELS_KM,
) -> pd.DataFrame:
    """Returns a row per setting: fitted on one set of photos, measured on another; degrees, (N,) and (M,).

    Columns kind, cells, fit_s (seconds of this run), effective_classes and largest_share of the fitted photos,
    fit_no_cell (the share of fitted photos in no cell), no_cell (of the measured photos; they count as wrong in every
    ceiling), and for each level centroid_<level> and centre_<level>, the ceilings.
    """
    rows = []
    for some in settings:
        start = time.perf_counter()
        partition = partition_of(some).fit(*fit_on)
        rows.append(measured(partition, time.perf_counter() - start, measure_on, levels_km))
    return pd.DataFrame(rows)


def measured(
    partition: Partition, fit_s: float, measure_on: Points, levels_km: Mapping[str, float] = LEVELS_KM
) -> dict[str, object]:
    """One row of `compare` for a fitted partition."""
    counts = partition.photo_counts()
    row: dict[str, object] = {
        "kind": partition.kind,
        "cells": partition.cell_count,
        "fit_s": fit_s,
        "effective_classes": partition.effective_classes(),
        "largest_share": float(counts.max() / max(counts.sum(), 1)),
        "fit_no_cell": 1 - float(counts.sum()) / partition.fitted_photos,
        "no_cell": float((partition.assign(*measure_on) < 0).mean()),
    }
    for answer in ("centroid", "centre"):
        ceiling = partition.ceiling(*measure_on, levels_km, "centroid" if answer == "centroid" else "centre")
        row.update({f"{answer}_{level}": share for level, share in ceiling.items()})
    return row
