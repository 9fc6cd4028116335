"""Growth of a pool: what changed since a model was trained, and which new photos are found before the next training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from geoloc.photos.settings import SplitSettings
from geoloc.photos.splits import FACTS, TRAIN, UNUSED, make_splits, strata, unit_keys

REFERENCE = "reference"
"""The split of a new photo that would train if it were admitted now: until then it is only found as a neighbour."""
DRIFT_LEVEL = 2
"""Cells of equal area for the drift of places: 96, some 2,300 km across."""


@dataclass(frozen=True)
class Growth:
    """How a pool differs from that of earlier: photos added by source, removed, their number then and now, and the
    drift of their places: the share of photos that would have to be elsewhere for the distribution over 96 cells to be
    the earlier one, in [0, 1]."""

    added: Mapping[str, int]
    removed: int
    then: int
    now: int
    drift: float

    @property
    def share(self) -> float:
        """The number of added photos as a share of the photos then; infinite if there were none."""
        added = sum(self.added.values())
        return added / self.then if self.then else float("inf") if added else 0.0

    def __str__(self) -> str:
        sources = ", ".join(f"{count:,} of {source}" for source, count in self.added.items())
        return (
            f"{sum(self.added.values()):,} photos added{f' ({sources})' if sources else ''}, {self.removed:,} removed: "
            f"{self.then:,} → {self.now:,}"
            + (
                f", grown by {100 * self.share:.1f} %, places drifted by {100 * self.drift:.1f} %"
                if self.then
                else ""
            )
        )


def growth(then: pd.DataFrame, now: pd.DataFrame) -> Growth:
    """Compare two tables of photos: `then` (photo_id, latitude, longitude) and `now` (also source)."""
    new = now[~now["photo_id"].isin(then["photo_id"])]
    added = new["source"].value_counts().sort_index()
    return Growth(
        {str(source): int(count) for source, count in added.items()},
        int((~then["photo_id"].isin(now["photo_id"])).sum()),
        len(then),
        len(now),
        _drift(then, now),
    )


def newcomers(
    catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings, seed: int
) -> pd.DataFrame:
    """The photos of the catalog that the splits do not have, in its order, as a table of splits: photo_id, FACTS, split
    and reason.

    REFERENCE are those that would train if all were admitted now, and that share neither a photographer nor a group of
    near-duplicates with a photo that is tested or validated on; the others wait (UNUSED). Needs the columns of
    `make_splits`.
    """
    is_new = ~catalog["photo_id"].isin(splits["photo_id"])
    found = catalog.loc[is_new, ["photo_id", *FACTS]].reset_index(drop=True)
    if found.empty:
        return found.assign(split=pd.Series(dtype="str"), reason=pd.Series(dtype="str"))
    admitted = make_splits(catalog, settings, seed).set_index("photo_id")
    units = unit_keys(catalog, settings)
    units.index = pd.Index(catalog["photo_id"])
    held = splits.loc[~splits["split"].isin([TRAIN, UNUSED]), "photo_id"]
    held = held[held.isin(admitted.index)]
    owners = units.reindex(found["photo_id"]).to_numpy()
    near = admitted["near_duplicates"].reindex(found["photo_id"])
    held_groups = set(admitted.loc[held, "near_duplicates"].dropna())
    would_train = (admitted["split"].reindex(found["photo_id"]) == TRAIN).to_numpy()
    apart = ~np.isin(owners, list(set(units.loc[held]))) & ~near.isin(held_groups).to_numpy()
    known = found["sha256"].notna().to_numpy()
    split = np.where(would_train & apart & known, REFERENCE, UNUSED)
    found["photographer"] = found["photographer"].fillna(pd.Series(owners, index=found.index))
    found = found.assign(split=split)
    return found.assign(reason=found["split"].map({UNUSED: "waits for the next training"}))


def _drift(then: pd.DataFrame, now: pd.DataFrame) -> float:
    if then.empty or now.empty:
        return 0.0
    counts = [
        np.bincount(strata(one["latitude"], one["longitude"], DRIFT_LEVEL), minlength=6 * 4**DRIFT_LEVEL)
        for one in (then, now)
    ]
    return float(0.5 * np.abs(counts[0] / len(then) - counts[1] / len(now)).sum())
