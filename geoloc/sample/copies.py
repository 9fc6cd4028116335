"""Copies: photos posted by somebody who did not take them. The same bytes, or resized, cropped or recompressed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.sample.posting import reposting_times
from geoloc.sample.settings import SampleSettings

IntArray = NDArray[np.int64]

EXACT, NEAR = "exact", "near"


def with_copies(shots: pd.DataFrame, settings: SampleSettings, seed: int, version: int) -> pd.DataFrame:
    """Returns the shots with some replaced by copies of earlier rows by other photographers.

    Adds copy_of (row of the original, or -1) and copy_kind. A copy keeps its own id, photographer and shot_key, has no
    album (it belongs to none of its photographer's trips) and a later time of posting; all else is its original's.
    """
    exact = round(len(shots) * settings.exact_copy_share)
    near = round(len(shots) * settings.near_copy_share)
    copy, original = _pairs(shots, exact + near, np.random.default_rng([seed, 70, version]))
    kept = {name: shots[name].to_numpy()[copy] for name in ("photo_id", "photographer", "shot_key")}
    made = shots.copy()
    made.iloc[copy] = shots.iloc[original]
    for name, values in kept.items():
        made.loc[copy, name] = values
    made.loc[copy, "album"] = ""
    made.loc[copy, "posted_at"] = reposting_times(
        shots["posted_at"].to_numpy()[original], kept["shot_key"].astype(np.int64)
    )
    made["copy_of"], made["copy_kind"] = np.int64(-1), ""
    made.loc[copy, "copy_of"] = original
    made.loc[copy, "copy_kind"] = np.where(np.arange(len(copy)) < exact, EXACT, NEAR)
    return made


def _pairs(shots: pd.DataFrame, many: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Rows of copies and of their originals. An original comes earlier and is by another photographer.

    No photo of a burst, no row twice. Fewer than `many` only if there are too few photos.
    """
    single = np.flatnonzero(~shots["scene"].duplicated(keep=False))
    rows = rng.permutation(single)
    who = pd.factorize(shots["photographer"])[0]
    many = min(many, len(rows) // 2)
    first, rest = rows[:many], rows[many:]
    pairs: list[tuple[int, int]] = []
    free = list(rest[::-1])
    for row in first.tolist():  # few: a per cent of the photos
        other = _taken_out(free, who, who[row])
        if other is not None:
            pairs.append((max(row, other), min(row, other)))
    made = np.array(pairs, np.int64).reshape(-1, 2)
    return made[:, 0], made[:, 1]


def _taken_out(free: list[int], who: IntArray, not_by: int) -> int | None:
    """Remove and return the last free row by another photographer; None if there is none."""
    for at in range(len(free) - 1, -1, -1):
        if who[free[at]] != not_by:
            return int(free.pop(at))
    return None
