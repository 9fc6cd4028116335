"""Settings of the split of street and overhead pairs, separate from the code that uses them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from geoloc.settings import Number, Settings, SettingsError, setting


def _cities(value: Any) -> int | tuple[str, ...]:
    """A number of cities, or a list of their names as a tuple."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, list | tuple) and all(isinstance(name, str) and name for name in value):
        return tuple(value)
    raise PydanticCustomError(
        "cities",
        "must be a number of cities, at least 0, or a list of their names, got {got}",
        {"got": repr(value)},
    )


Cities = Annotated[
    int | tuple[str, ...], PlainValidator(_cities, json_schema_input_type=int | tuple[str, ...])
]
"""A number of cities, or their names."""


class PairSplitSettings(Settings):
    """How pairs are split by city: the section `cross_view.splits`."""

    test: Cities = setting(
        3, help="cities held out for the test: their names, or how many of those with least_pairs pairs"
    )
    validation: Cities = setting(
        1, help="cities held out for choosing the epoch, thresholds and rotations: names or a number, as test"
    )
    least_pairs: int = setting(
        20, minimum=1, help="cities with fewer pairs are held out only if they are named; they train"
    )
    apart_km: Number = setting(
        1.0,
        minimum=0.0,
        maximum=1000.0,
        help="pairs this near to a pair that is held out do not train; 0: off",
    )
    max_hamming: int = setting(
        6, minimum=0, maximum=12, help="street photos are near-duplicates as in splits.max_hamming"
    )
    block_level: int = setting(
        7,
        minimum=0,
        maximum=15,
        help="pairs without a city are grouped by blocks, 6 x 4^level of equal area on the Earth (7: 72 km)",
    )
    seed: int | None = setting(None, minimum=0, help="chooses the cities; null: the build's seed")

    def check(self, key: str) -> None:
        """Raise SettingsError if a city is held out twice, or nothing is held out for validation or test."""
        for name, cities in (("test", self.test), ("validation", self.validation)):
            if not cities:
                raise SettingsError(f"{key}.{name} must hold out at least one city, got {cities!r}")
            if isinstance(cities, tuple) and len(set(cities)) < len(cities):
                raise SettingsError(f"{key}.{name} must name each city once, got {', '.join(cities)}")
        if isinstance(self.test, tuple) and isinstance(self.validation, tuple):
            for city in self.test:
                if city in self.validation:
                    raise SettingsError(
                        f"{key}.validation must not name {city!r}, which {key}.test holds out"
                    )
