"""The localizers that a build evaluates: answers by class and by neighbour, and the widths of the kernel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geoloc.retrieval.settings import ReferenceSettings
from geoloc.settings import FROM_TEXT, Number, Settings, SettingsError, WholeNumber, setting


class FrozenSettings(Settings):
    """Classifiers on embeddings of the network with its first weights (Diving Deeper into IM2GPS, table 1)."""

    kinds: tuple[Literal["svm", "knn"], ...] = setting(
        (), help="the classifiers; one localizer each per partition, with the first of `answers`"
    )
    k: int = setting(
        10, minimum=1, when=("kinds", ("knn",)), help="number of nearest training photos that vote"
    )
    c: Number = setting(
        1.0,
        minimum=1e-6,
        when=("kinds", ("svm",)),
        help="C: penalty of an error relative to the size of the weights",
    )
    max_iterations: int = setting(
        1000, minimum=1, when=("kinds", ("svm",)), help="most passes over the photos"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError for repeated kinds."""
        if len(set(self.kinds)) < len(self.kinds):
            raise SettingsError(f"{key}.kinds must name each value once, got {list(self.kinds)}")


class LocalizerSettings(Settings):
    """The localizers of a build. The defaults are those of Revisiting IM2GPS, section 3.2 and table 2."""

    answers: tuple[Literal["centroid", "centre"], ...] = setting(
        ("centroid",), help="points to answer with for a cell; one localizer each"
    )
    k: int = setting(100, minimum=1, help="number of neighbours that vote")
    m: Number = setting(10.0, minimum=0.0, help="power of the similarity in a neighbour's weight")
    sigmas: tuple[Annotated[float, Field(ge=1e-6), FROM_TEXT], ...] = setting(
        (1.0, 4.0, 16.0), help="kernel widths in degrees; one localizer each"
    )
    geometries: tuple[Literal["sphere", "flat"], ...] = setting(
        ("sphere",),
        help="where the kernel works: on the sphere, or on flat degrees as printed in the paper (no wrap at 180)",
    )
    references: ReferenceSettings | None = setting(
        None,
        help="answers by neighbour: the references that may be found, by source, time or data version; null: all",
    )
    quantised: bool = setting(
        False,
        help="also answer with the cell of the nearest reference in place of its coordinates (main partition)",
    )
    crops: Annotated[Literal[1, 5], WholeNumber] = setting(
        1, help="answers by class: 1 uses a photo's centre, 5 the mean over its centre and four corners"
    )
    combine: tuple[Literal["product", "overlay"], ...] = setting(
        (),
        help="ways to combine several partitions: product (nested ones only), overlay (any)",
    )
    within_levels: bool = setting(
        False,
        help="also answer, for each level, with the point most probably within it of the photo (main partition)",
    )
    calibrate: bool = setting(
        False,
        help="scale the probabilities of cells by a temperature per partition, fitted on the validation split; product "
        "and overlay combine the scaled probabilities and have no temperature of their own",
    )
    coverages: tuple[Number, ...] = setting(
        (), help="coverages of conformal regions to fit on the validation split, above 0 and below 1"
    )
    batch_size: int = setting(64, minimum=1, help="photos in one forward pass of the classifier")
    frozen: FrozenSettings = setting(
        FrozenSettings(), help="classifiers on features of the network with its first weights"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if nothing would be evaluated, for repeated values, and for coverages out of range."""
        if not self.answers:
            raise SettingsError(f"{key}.answers must name at least one of centroid, centre; got none")
        for name in ("combine", "coverages"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise SettingsError(f"{key}.{name} must name each value once, got {list(given)}")
        for coverage in self.coverages:
            if not 0 < coverage < 1:
                raise SettingsError(f"{key}.coverages must be above 0 and below 1, got {coverage}")
