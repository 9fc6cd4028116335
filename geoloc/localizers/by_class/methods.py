"""All localizers by class that the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from geoloc.localizers.base import Answers, Localizer
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.localizers.by_class.overlay import OverlayLocalizer
from geoloc.localizers.by_class.probabilities import Probabilities
from geoloc.localizers.by_class.product import HierarchyLocalizer
from geoloc.localizers.by_class.within_level import WithinLevelLocalizer
from geoloc.localizers.settings import LocalizerSettings
from geoloc.settings import SettingsError
from geoloc.sphere import LEVELS_KM

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


@dataclass(frozen=True)
class ClassMethod:
    """A localizer by class, and the names of the partitions whose probabilities it reads, in its order."""

    localizer: Localizer
    partitions: tuple[str, ...]

    def locate(self, probabilities: Probabilities) -> Answers:
        """Returns answers for the N photos of `probabilities`. Raises ValueError as the localizer does."""
        own: Any = [probabilities[name] for name in self.partitions]
        return self.localizer.locate(own if len(own) > 1 else own[0])


def class_methods(
    partitions: Mapping[str, Partition],
    settings: LocalizerSettings,
    latitude: ArrayLike,
    longitude: ArrayLike,
    *,
    model_name: str = "L",
    seed: int = 0,
) -> list[ClassMethod]:
    """Returns the localizers by class that `settings` ask for, in report order.

    They are fitted on training photos: degrees, (N,) each. First come those of single partitions, then the product and
    the overlay of all partitions, then one per level over the main partition (the first). Raises SettingsError if the
    partitions cannot be combined.
    """
    made = [
        ClassMethod(localizer, (name,))
        for name, localizer in class_localizers(partitions, settings.answers, model_name)
    ]
    try:
        if "product" in settings.combine:
            made += [product_method(partitions, answer, model_name) for answer in settings.answers]
        if "overlay" in settings.combine:
            made.append(overlay_method(partitions, latitude, longitude, model_name))
    except ValueError as error:
        raise SettingsError(
            f"localizers.combine {', '.join(settings.combine)} cannot be made of the partitions "
            f"{', '.join(partitions)}: {error}"
        ) from None
    if settings.within_levels:
        main = next(iter(partitions))
        made += [
            within_level_method(partitions, main, level, latitude, longitude, model_name, seed)
            for level in LEVELS_KM
        ]
    return made


def product_method(
    partitions: Mapping[str, Partition],
    answer: str = "centroid",
    model_name: str = "M",
    alternatives: int = 5,
) -> ClassMethod:
    """Returns the product over all partitions. Raises ValueError as HierarchyLocalizer does, for example if they do not
    nest."""
    localizer = HierarchyLocalizer(list(partitions.values()), answer, model_name, alternatives)
    return ClassMethod(localizer, tuple(partitions))


def overlay_method(
    partitions: Mapping[str, Partition],
    latitude: ArrayLike,
    longitude: ArrayLike,
    model_name: str = "M",
    alternatives: int = 5,
) -> ClassMethod:
    """Returns the overlay of all partitions, fitted on training photos: degrees, (N,) each.

    Raises ValueError for a single partition, or if no photo is in a cell of every partition.
    """
    localizer = OverlayLocalizer(list(partitions.values()), model_name, alternatives)
    return ClassMethod(localizer.fit(latitude, longitude), tuple(partitions))


def within_level_method(
    partitions: Mapping[str, Partition],
    name: str,
    level: str,
    latitude: ArrayLike,
    longitude: ArrayLike,
    model_name: str = "L",
    seed: int = 0,
    alternatives: int = 5,
) -> ClassMethod:
    """Returns the localizer for `level` (a key of LEVELS_KM) over the partition `name`, fitted on training photos:
    degrees, (N,) each."""
    localizer = WithinLevelLocalizer(
        partitions[name], LEVELS_KM[level], seed=seed, model_name=model_name, alternatives=alternatives
    )
    return ClassMethod(localizer.fit(latitude, longitude), (name,))
