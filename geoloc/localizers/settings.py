"""Which localizers a build evaluates: the answers by class and by neighbour, and the widths of the kernel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geoloc.settings import FROM_TEXT, Number, Settings, SettingsError, WholeNumber, setting


class FrozenSettings(Settings):
    """Classifiers by class on embeddings of the network's first weights (Diving Deeper into IM2GPS, table 1)."""

    kinds: tuple[Literal["svm", "knn"], ...] = setting(
        (), help="a localizer each for each partition, by the first answer"
    )
    k: int = setting(10, minimum=1, when=("kinds", ("knn",)), help="training photos that vote")
    c: Number = setting(
        1.0,
        minimum=1e-6,
        when=("kinds", ("svm",)),
        help="the price of an error against the size of the weights",
    )
    max_iterations: int = setting(
        1000, minimum=1, when=("kinds", ("svm",)), help="passes over the photos before it gives up"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError for repetitions."""
        if len(set(self.kinds)) < len(self.kinds):
            raise SettingsError(f"{key}.kinds must name each value once, got {list(self.kinds)}")


class LocalizerSettings(Settings):
    """The localizers of a build. Defaults are those of Revisiting IM2GPS, section 3.2 and table 2."""

    answers: tuple[Literal["centroid", "centre"], ...] = setting(
        ("centroid",), help="points that stand for a cell, a localizer each"
    )
    k: int = setting(100, minimum=1, help="neighbours that vote")
    m: Number = setting(10.0, minimum=0.0, help="power of the similarity")
    sigmas: tuple[Annotated[float, Field(ge=1e-6), FROM_TEXT], ...] = setting(
        (1.0, 4.0, 16.0), help="kernel widths in degrees, each a row"
    )
    geometries: tuple[Literal["sphere", "flat"], ...] = setting(
        ("sphere",), help="flat: degrees as printed in the paper, no wrap at 180"
    )
    crops: Annotated[Literal[1, 5], WholeNumber] = setting(
        1, help="by class: of a photo's centre, or the mean over its centre and four corners"
    )
    combine: tuple[Literal["product", "overlay"], ...] = setting(
        (),
        help="several partitions at once: product of nested ones, overlay of any",
    )
    within_levels: bool = setting(
        False, help="for each level also the point most probably within it, by the main partition"
    )
    calibrate: bool = setting(
        False,
        help="probabilities of cells scaled by a temperature, one a partition, fitted on the validation split; product "
        "and overlay combine the scaled ones and have no temperature of their own",
    )
    coverages: tuple[Number, ...] = setting(
        (), help="shares of photos, each that of conformal regions fitted on the validation split"
    )
    batch_size: int = setting(64, minimum=1, help="photos in one forward pass of the classifier")
    frozen: FrozenSettings = setting(FrozenSettings(), help="classifiers on features of the first weights")

    def check(self, key: str) -> None:
        """Raise SettingsError where nothing would be evaluated, for repetitions, and for coverages out of range."""
        if not self.answers:
            raise SettingsError(f"{key}.answers must name at least one of centroid, centre; got none")
        for name in ("combine", "coverages"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise SettingsError(f"{key}.{name} must name each value once, got {list(given)}")
        for coverage in self.coverages:
            if not 0 < coverage < 1:
                raise SettingsError(f"{key}.coverages must be above 0 and below 1, got {coverage}")
