"""Which localizers a build evaluates: the answers by class and by neighbour, and the widths of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from geoloc.settings import SettingsError, setting

FROZEN_APPROACHES = {"svm": "SVM", "knn": "kNN"}
"""Kinds of classifiers on frozen features, and what they are called in the names of methods."""


@dataclass(frozen=True)
class FrozenSettings:
    """Classifiers by class on embeddings of the network's first weights (Diving Deeper into IM2GPS, table 1)."""

    kinds: tuple[str, ...] = setting(
        (), choices=tuple(FROZEN_APPROACHES), help="a localizer each for each partition, by the first answer"
    )
    k: int = setting(10, minimum=1, help="knn: training photos that vote")
    c: float = setting(1.0, minimum=1e-6, help="svm: the price of an error against the size of the weights")
    max_iterations: int = setting(1000, minimum=1, help="svm: passes over the photos before it gives up")

    def validate(self, key: str) -> None:
        """Raise SettingsError for repetitions."""
        if len(set(self.kinds)) < len(self.kinds):
            raise SettingsError(f"{key}.kinds must name each value once, got {list(self.kinds)}")


@dataclass(frozen=True)
class LocalizerSettings:
    """The localizers of a build. Defaults are those of Revisiting IM2GPS, section 3.2 and table 2."""

    answers: tuple[str, ...] = setting(
        ("centroid",), choices=("centroid", "centre"), help="points that stand for a cell, a localizer each"
    )
    k: int = setting(100, minimum=1, help="neighbours that vote")
    m: float = setting(10.0, minimum=0.0, help="power of the similarity")
    sigmas: tuple[float, ...] = setting(
        (1.0, 4.0, 16.0), minimum=1e-6, help="kernel widths in degrees, each a row"
    )
    geometries: tuple[str, ...] = setting(
        ("sphere",), choices=("sphere", "flat"), help="flat: degrees as printed in the paper, no wrap at 180"
    )
    crops: int = setting(
        1, choices=(1, 5), help="by class: of a photo's centre, or the mean over its centre and four corners"
    )
    combine: tuple[str, ...] = setting(
        (),
        choices=("product", "overlay"),
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
    coverages: tuple[float, ...] = setting(
        (), help="shares of photos, each that of conformal regions fitted on the validation split"
    )
    batch_size: int = setting(64, minimum=1, help="photos in one forward pass of the classifier")
    frozen: FrozenSettings = setting(FrozenSettings())

    def validate(self, key: str) -> None:
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
