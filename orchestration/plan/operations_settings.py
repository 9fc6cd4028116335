"""Settings of operations: when a challenger becomes the champion, and what growth of the photos starts."""

from __future__ import annotations

import re
from typing import Literal

from geoloc.settings import Number, Settings, SettingsError, setting

Measure = Literal["street", "city", "region", "country", "continent", "geoscore"]


class PromotionSettings(Settings):
    """When a challenger becomes the champion: it is better by `measure` on the main test set, shown at the level of
    significance, and nowhere worse by more than is allowed.

    "Nowhere": at no level and by no GeoScore, for none of the methods, on no test set, on the new photos by
    photographers never seen, and on no continent, as far as they have `smallest` photos.
    """

    measure: Measure = setting(
        "city", help="what must be better: accuracy at this level, or the GeoScore (as a share of 5000)"
    )
    better_by: Number = setting(0.0, minimum=0, maximum=1, help="by at least this share")
    significance: Number = setting(
        0.05,
        minimum=0.0001,
        maximum=0.5,
        help="the most probable luck: the p-value of no difference is at most this",
    )
    worse_by: Number = setting(
        0.02, minimum=0, maximum=1, help="the most that it may be worse anywhere, as a share"
    )
    judged_by: Literal["estimate", "interval"] = setting(
        "estimate",
        help="worse by more than worse_by is the difference itself, or (interval: stricter) its lower bound",
    )
    methods: tuple[Literal["class", "nn", "knn"], ...] = setting(
        ("class",), help="ways of answering to compare; measure is of the first"
    )
    smallest: int = setting(
        50,
        minimum=1,
        help="continents, and new photos by photographers never seen, count from so many photos on",
    )
    automatic: bool = setting(
        False,
        help="the Dagster daemon (geoloc ui) decides about each newly evaluated build; false: only geoloc promote does",
    )

    def check(self, key: str) -> None:
        """Raise SettingsError for no method, or one twice."""
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise SettingsError(
                f"{key}.methods must name at least one of class, nn, knn, each once; got {list(self.methods)}"
            )


class GrowthSettings(Settings):
    """What new photos start. Growth and drift are measured since the champion was trained, or since a recipe's splits
    were made where that was later."""

    admit: Literal["always", "retraining"] = setting(
        "always",
        help="when new photos enter the splits: with every build, which then trains again; or with a retraining: until "
        "then they wait, and those that may train later are references already",
    )
    recipes: tuple[str, ...] = setting(
        (), help="recipes that the daemon (geoloc ui) refreshes and retrains by itself as the photos grow; none: only "
        "geoloc grow does"
    )  # fmt: skip
    retrain_share: Number | None = setting(
        0.2,
        minimum=0.0001,
        help="retrain when the photos have grown by this share; null: never for this reason",
    )
    retrain_drift: Number | None = setting(
        0.2,
        minimum=0.0001,
        maximum=1,
        help="retrain when this share of the photos would have to be elsewhere for the places to be distributed as "
        "before; null: never for this reason",
    )
    retrain_cron: str = setting(
        "",
        help="also retrain then if photos wait, as a cron expression (0 3 * * 0: Sundays at three); empty: no",
    )

    def check(self, key: str) -> None:
        """Raise SettingsError for what is no cron expression."""
        if self.retrain_cron and not _CRON.fullmatch(self.retrain_cron.strip()):
            raise SettingsError(
                f"{key}.retrain_cron must be a cron expression of five fields, such as 0 3 * * 0, or empty; got "
                f"{self.retrain_cron!r}"
            )

    @property
    def waits(self) -> bool:
        """Whether new photos wait outside of the splits."""
        return self.admit == "retraining"


_CRON = re.compile(r"([0-9*/,-]+\s+){2}([0-9*/,-]+\s+)([A-Za-z0-9*/,-]+\s+)([A-Za-z0-9*/,-]+)")
