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
        """Raise SettingsError for what is no cron expression: Dagster would not load with it."""
        if self.retrain_cron and not is_cron(self.retrain_cron):
            raise SettingsError(
                f"{key}.retrain_cron must be a cron expression of five fields (minute, hour, day of the month, month, "
                f"day of the week) that comes, such as 0 3 * * 0, or empty; got {self.retrain_cron!r}"
            )

    @property
    def waits(self) -> bool:
        """Whether new photos wait outside of the splits."""
        return self.admit == "retraining"


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 7, _DAYS),
)  # fmt: skip
"""The least and the largest number of each field of a cron expression, and names for numbers from the least on."""
_LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]+))?")


def is_cron(text: str) -> bool:
    """Whether a text is a cron expression of five fields that is due at some time. Here and not by Dagster, whose
    import takes seconds that `geoloc locate` does not have."""
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return False
    found = [_numbers(field, *allowed) for field, allowed in zip(fields, _FIELDS, strict=True)]
    if not all(found):
        return False
    days, months = found[2], found[3]
    # With a day of the week too, either is enough.
    return fields[4] != "*" or any(min(days) <= _LONGEST[month - 1] for month in months)


def _numbers(field: str, least: int, largest: int, names: tuple[str, ...]) -> set[int]:
    """The numbers that a field of a cron expression stands for; empty if it is none."""
    known = {name: least + position for position, name in enumerate(names)}
    found: set[int] = set()
    for part in field.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None:
            return set()
        first, last, step = match.groups()
        ends = [
            known.get(end, int(end) if end.isascii() and end.isdigit() else -1)
            for end in (first, last)
            if end is not None
        ]
        start = ends[0] if ends else least
        stop = ends[1] if len(ends) > 1 else start if ends and not step else largest
        if not least <= start <= stop <= largest or (step and not 1 <= int(step) <= largest):
            return set()
        found |= set(range(start, stop + 1, int(step or 1)))
    return found
