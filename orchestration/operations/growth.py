"""Growth: what changed in the photos since the model in service was trained, and what the policy then starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from geoloc.files import read_parquet
from geoloc.photos.catalog import read_catalog
from geoloc.photos.growth import Growth, growth
from orchestration.lineage.build import Build
from orchestration.plan.chain import SPLITS_FILE
from orchestration.plan.seeds import without_seed
from orchestration.plan.settings import load_settings
from orchestration.stores.champion import champion, splits_of
from orchestration.stores.data_version import data_version
from orchestration.workspace import Workspace

_COLUMNS = ["photo_id", "latitude", "longitude"]


@dataclass(frozen=True)
class Seen:
    """What changed in the photos for a recipe. `version`: the data version; `since`: what `growth` is measured from.
    `waiting`: photos came after the recipe's splits. `reasons`: why the policy retrains now; empty: it does not."""

    recipe: str
    version: str
    since: str
    growth: Growth
    waiting: bool
    reasons: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Plain values, for Dagster and JSON. The share of growth is None since nothing: neither writes infinity."""
        share = self.growth.share if math.isfinite(self.growth.share) else None
        return {
            "recipe": self.recipe, "data version": self.version, "since": self.since,
            "added": sum(self.growth.added.values()), "added by source": dict(self.growth.added),
            "removed": self.growth.removed, "photos": self.growth.now, "share of growth": share,
            "drift of places": self.growth.drift, "waiting": self.waiting, "retrain": "; ".join(self.reasons) or "no",
        }  # fmt: skip

    def __str__(self) -> str:
        then = f"retrains: {'; '.join(self.reasons)}" if self.reasons else "no retraining by the policy"
        return f"{self.recipe}: since {self.since}, {self.growth}; {then}"


def look(workspace: Workspace, recipe: str) -> Seen:
    """What changed in the photos for a recipe since the model in service was trained, where that is of this recipe;
    else since its own splits were made. Raises WorkspaceError if there are no photos, and
    SettingsError for a recipe that is missing or wrong."""
    policy = load_settings(workspace, recipe).growth  # raises for a recipe that is missing, or sets a policy
    version = data_version(workspace)
    now = read_catalog(workspace.pool, [*_COLUMNS, "source"])
    build = Build(workspace, recipe)
    record, file = build.record("splits"), build.folder("splits") / SPLITS_FILE
    waiting = record is None or record.inputs.get("data") != version
    serving = champion(workspace)
    measured: dict[str, Growth] = {}
    if serving is not None and without_seed(serving.recipe) == without_seed(recipe):
        measured[f"the champion ({serving}) was trained"] = _since(
            read_parquet(splits_of(workspace, serving)), now
        )
    if record is not None and file.is_file():
        measured["its splits were made"] = _since(read_parquet(file), now)
    if not measured:
        nothing = pd.DataFrame({name: [] for name in _COLUMNS})
        return Seen(recipe, version, "nothing was built", growth(nothing, now), True, ("it was never built",))
    # A challenger that was trained since, and did not win, has seen the growth: it does not start another one.
    share = min(one.share for one in measured.values())
    drift = min(one.drift for one in measured.values())
    reasons = []
    if waiting and policy.retrain_share is not None and share >= policy.retrain_share:
        reasons.append(
            f"grown by {100 * share:.1f} %, at least growth.retrain_share ({100 * policy.retrain_share:g} %)"
        )
    if waiting and policy.retrain_drift is not None and drift >= policy.retrain_drift:
        reasons.append(
            f"drifted by {100 * drift:.1f} %, at least growth.retrain_drift ({100 * policy.retrain_drift:g} %)"
        )
    since, first = next(iter(measured.items()))
    return Seen(recipe, version, since, first, waiting, tuple(reasons))


def _since(splits: pd.DataFrame, now: pd.DataFrame) -> Growth:
    return growth(splits[_COLUMNS], now)
