"""Settings of operations: when a challenger becomes the champion, and what growth of the photos starts."""

from __future__ import annotations

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
