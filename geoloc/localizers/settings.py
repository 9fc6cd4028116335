"""The localizers that a build evaluates: answers by class and by neighbour, and the widths of the kernel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from geoloc.photos.settings import SequenceSettings
from geoloc.retrieval.settings import ReferenceSettings
from geoloc.settings import FROM_TEXT, Number, Settings, SettingsError, Title, WholeNumber, setting
from geoloc.training.context_settings import SequenceModelSettings


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


class HMMSettings(Settings):
    """The hidden Markov model over the photos of an album (PlaNet, section 4)."""

    smoothing: Number = setting(
        1.0, minimum=1e-6, help="pseudo-count of each cell's moves to anywhere, spread by the prior"
    )
    stay: Number = setting(1.0, minimum=0.0, help="pseudo-count of staying in a cell")
    prior_smoothing: Number = setting(0.5, minimum=1e-6, help="pseudo-count of each cell in the prior")
    divide_by: Literal["predicted", "counted"] = setting(
        "predicted",
        help="what the classifier's probabilities are divided by, by Bayes' rule; predicted: their own mean over the "
        "training albums; counted: the counted prior, as PlaNet does, right only where the two agree",
    )
    trust: Number = setting(
        1.0,
        minimum=0.0,
        maximum=1.0,
        help="power of what a photo says of its cell; below 1: photos of an album that resemble each other count less",
    )
    decode: Literal["viterbi", "posterior"] = setting(
        "viterbi",
        help="viterbi: the cells of the most probable sequence; posterior: each photo's most probable cell",
    )
    only_if_likely: bool = setting(
        True,
        help="answer photos one by one where their order makes no sense to the model (clocks of two cameras that "
        "disagree, for example): where the album is less likely than as photos that have nothing in common",
    )


class AlbumSettings(Settings):
    """Answers for albums and people from what a build has stored of their photos (localizers/by_album): the section
    `albums`."""

    averages: tuple[Literal["album", "user"], ...] = setting(
        ("album", "user"),
        help="over what the probabilities of single photos are averaged; one localizer each",
    )
    hmm: HMMSettings | None = setting(HMMSettings(), help="a hidden Markov model over albums; null: none")
    sequences: SequenceSettings = setting(
        SequenceSettings(), help="how the albums of the Markov model are made"
    )
    networks: dict[Title, SequenceModelSettings] = setting(
        factory=dict,
        help="networks over sequences, by their names in tables (letters, digits and spaces), such as LSTM rep 25",
    )

    @property
    def on_embeddings(self) -> bool:
        """Whether a network sees embeddings."""
        return any(one.inputs == "embeddings" for one in self.networks.values())

    def check(self, key: str) -> None:
        """Raise SettingsError for repeated averages, names that cannot be used, and where nothing would answer."""
        if len(set(self.averages)) < len(self.averages):
            raise SettingsError(f"{key}.averages must name each value once, got {list(self.averages)}")
        if not (self.averages or self.hmm or self.networks):
            raise SettingsError(f"{key} must have averages, hmm or networks, or be null; got none of them")
        files = [network_file(name) for name in self.networks]
        for name in self.networks:
            if files.count(network_file(name)) > 1:
                raise SettingsError(
                    f"{key}.networks must have names that differ in more than case; got {name!r} twice"
                )
            if name.lower() in _TAKEN:
                raise SettingsError(
                    f"{key}.networks must not be called as another method, {', '.join(_TAKEN)}; got {name!r}"
                )


_TAKEN = ("album average", "user average", "hmm", "m2", "time prior", "daylight")


def network_file(name: str) -> str:
    """The file of a network over sequences, by its name in settings."""
    return f"{name.lower().replace(' ', '_')}.safetensors"


_ANY = ("methods", ("levels", "product", "cells"))


class NeighbourSettings(Settings):
    """Methods by neighbour whose parameters are chosen on the validation split, never on a test set.

    Revisiting IM2GPS, section 4: sigma is best chosen for each level if the system may answer differently at each.
    """

    methods: tuple[Literal["levels", "product", "cells"], ...] = setting(
        (),
        help="levels: kNN with the k and sigma that are best at each level, and for all levels together; product, "
        "cells: neighbours and the main partition's classes combined, by the density times the probability of the "
        "cell, or by a search within the most probable cells; of both, the better one answers",
    )
    ks: tuple[Annotated[int, Field(ge=1), WholeNumber], ...] = setting(
        (10, 30, 100), when=_ANY, help="numbers of neighbours to try"
    )
    sigmas: tuple[Annotated[float, Field(ge=1e-6), FROM_TEXT], ...] = setting(
        (0.01, 0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 16.0), when=_ANY, help="kernel widths in degrees to try"
    )
    weights: tuple[Annotated[float, Field(gt=0, le=4), FROM_TEXT], ...] = setting(
        (0.25, 0.5, 1.0, 2.0),
        when=("methods", ("product",)),
        help="product: powers of the probability of the cell to try",
    )
    cells: tuple[Annotated[int, Field(ge=1), WholeNumber], ...] = setting(
        (1, 3, 10),
        when=("methods", ("cells",)),
        help="cells: numbers of most probable cells to search within to try",
    )
    photos: int = setting(
        2000,
        minimum=1,
        when=_ANY,
        help="most validation photos to choose with and, apart, to calibrate with; of more, some photographers'",
    )

    @property
    def ways(self) -> tuple[Literal["product", "cells"], ...]:
        """The ways to combine neighbours and classes."""
        return tuple(one for one in self.methods if one != "levels")

    def check(self, key: str) -> None:
        """Raise SettingsError for repeated values, and for a grid without any."""
        for name in ("methods", "ks", "sigmas", "weights", "cells"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise SettingsError(f"{key}.{name} must name each value once, got {list(given)}")
            if not given and name != "methods":
                raise SettingsError(f"{key}.{name} must have at least one value to try, got none")


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
    reference_share: Annotated[float, Field(gt=0, lt=1), FROM_TEXT] | None = setting(
        None,
        help="also answer with the nearest of this share of the references, drawn at random: what more are worth",
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

    neighbours: NeighbourSettings = setting(
        NeighbourSettings(), help="methods by neighbour that are chosen on validation photos"
    )

    def check(self, key: str) -> None:
        """Raise SettingsError if nothing would be evaluated, for repeated values, and for coverages out of range."""
        if not self.answers:
            raise SettingsError(f"{key}.answers must name at least one of centroid, centre; got none")
        for name in ("answers", "sigmas", "geometries", "combine", "coverages"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise SettingsError(f"{key}.{name} must name each value once, got {list(given)}")
        for coverage in self.coverages:
            if not 0 < coverage < 1:
                raise SettingsError(f"{key}.coverages must be above 0 and below 1, got {coverage}")
