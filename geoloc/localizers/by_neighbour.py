"""Location by retrieval: the nearest reference, or the densest spot among the k nearest.

Revisiting IM2GPS section 3.2: [L]NN answers with the location of the nearest reference in feature space;
[L]kNN with the peak of the density of k neighbours (equation 1, geoloc/retrieval/density.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.base import Alternatives, Answers, Localizer
from geoloc.localizers.settings import LocalizerSettings
from geoloc.retrieval.density import DensitySettings, densest
from geoloc.retrieval.index import ReferenceIndex
from geoloc.retrieval.neighbours import Neighbours
from geoloc.retrieval.reference_sets import in_random_order
from geoloc.retrieval.references import require_references
from geoloc.settings import parse

Photographers = Sequence[str | None] | NDArray[np.object_]


class NeighbourLocalizer(Localizer):
    """The base of localizers by neighbour: the search, and the abstention for unreadable photos."""

    index: ReferenceIndex
    model_name: str

    @property
    @abstractmethod
    def k(self) -> int:
        """How many neighbours `locate_neighbours` needs."""

    @abstractmethod
    def locate_neighbours(self, neighbours: Neighbours) -> Answers:
        """Returns answers from neighbours already found (at least k), so that one search serves several localizers."""

    def locate(
        self,
        vectors: NDArray[Any],
        /,
        exclude_photographers: Photographers | None = None,
        exclude_photos: Photographers | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> Answers:
        """Locate N photos from their L2-normalised embeddings, float [N, D].

        `exclude_photographers` [N] leaves out the references by that photographer, `exclude_photos` [N] the reference
        of that photo, and `among` [R] all but some references. A query with no reference left abstains; so does a row
        with a NaN (an unreadable photo).
        """
        vectors = np.asarray(vectors)
        unread = np.isnan(vectors).any(axis=1) if vectors.ndim == 2 else np.zeros(0, dtype=bool)
        if not unread.any():
            return self.locate_neighbours(
                self.index.search(vectors, self.k, exclude_photographers, exclude_photos, among=among)
            )
        read = np.flatnonzero(~unread)
        photographers, photos = (
            None if names is None else np.asarray(names, dtype=object)[read]
            for names in (exclude_photographers, exclude_photos)
        )
        found = self.index.search(vectors[read], self.k, photographers, photos, among=among)
        return self.locate_neighbours(found).spread(read, len(vectors))


class NearestLocalizer(NeighbourLocalizer):
    """Answers with the location of the most similar reference.

    Confidence is the cosine similarity, 0 if negative. It ranks answers and is not a probability. The next
    `alternatives` - 1 references are reported with their similarities.
    """

    def __init__(self, index: ReferenceIndex, model_name: str = "L", alternatives: int = 5) -> None:
        if alternatives < 1:
            raise ValueError(f"alternatives must be at least 1, got {alternatives}")
        self.index, self.model_name, self.alternatives = index, model_name, alternatives

    @property
    def name(self) -> str:
        """[L]NN."""
        return f"[{self.model_name}]NN"

    @property
    def k(self) -> int:
        """Neighbours that `locate_neighbours` wants."""
        return self.alternatives

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        return f"nearest of {len(self.index):,} references in feature space"

    def locate_neighbours(self, neighbours: Neighbours) -> Answers:
        """Returns answers from neighbours already found."""
        shown = slice(None, self.alternatives)
        similarity = neighbours.similarity[:, shown]
        latitude, longitude = neighbours.latitude[:, shown], neighbours.longitude[:, shown]
        return Answers(
            latitude=latitude[:, 0].copy(),
            longitude=longitude[:, 0].copy(),
            confidence=np.clip(np.nan_to_num(similarity[:, 0], nan=0.0), 0, 1).astype(np.float32),
            alternatives=Alternatives(latitude, longitude, similarity),
            neighbours=neighbours,
        )


class DensityLocalizer(NeighbourLocalizer):
    """Answers with the densest location among the k most similar references: equation 1.

    k, m, sigma (degrees) and flat are equation 1's, see DensitySettings; the defaults are the paper's, on the
    sphere. Confidence is the density there as a share of the highest possible (`Densest.share`): 1 when all
    neighbours agree. It grows with sigma, ranks answers, and is not a calibrated probability. Alternatives are
    further peaks, more than sigma apart.
    """

    def __init__(
        self,
        index: ReferenceIndex,
        k: int = 100,
        m: float = 10.0,
        sigma: float = 4.0,
        flat: bool = False,
        model_name: str = "L",
        alternatives: int = 5,
    ) -> None:
        self.index, self.model_name = index, model_name
        values = {"k": k, "m": m, "sigma": sigma, "flat": flat, "alternatives": alternatives}
        self.settings = parse(DensitySettings, values, "density")

    @property
    def name(self) -> str:
        """For example [L]kNN σ=4; "flat" is added for flat degrees, k and m where they are not the paper's."""
        chosen, paper = self.settings, DensitySettings()
        extra = f" k={chosen.k}" if chosen.k != paper.k else ""
        extra += f" m={chosen.m:g}" if chosen.m != paper.m else ""
        return f"[{self.model_name}]kNN σ={chosen.sigma:g}{extra}{' flat' if chosen.flat else ''}"

    @property
    def k(self) -> int:
        """Neighbours that `locate_neighbours` wants."""
        return self.settings.k

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        s = self.settings
        geometry = "in flat degrees" if s.flat else "on the sphere"
        return f"densest of {s.k} nearest of {len(self.index):,} references {geometry}, m = {s.m:g}, σ = {s.sigma:g}°"

    def locate_neighbours(self, neighbours: Neighbours) -> Answers:
        """Returns answers from neighbours already found (at least k), so that one search serves several σ."""
        found = densest(neighbours.latitude, neighbours.longitude, neighbours.similarity, self.settings)
        weight = np.where(np.isnan(found.peak_latitude), np.nan, found.peak_share).astype(np.float32)
        return Answers(
            latitude=found.latitude,
            longitude=found.longitude,
            confidence=np.clip(found.share, 0, 1).astype(np.float32),
            alternatives=Alternatives(found.peak_latitude, found.peak_longitude, weight),
            neighbours=neighbours,
        )


def locate_by_neighbours(
    index: ReferenceIndex,
    vectors: NDArray[Any],
    model_name: str,
    settings: LocalizerSettings,
    exclude_photographers: Photographers | None = None,
    exclude_photos: Photographers | None = None,
    exclude_near_duplicates: Photographers | None = None,
    among: NDArray[np.bool_] | None = None,
) -> tuple[dict[str, Answers], dict[str, str], Neighbours]:
    """Locate by the nearest neighbour and by density with each kernel of `settings`, from one search.

    `vectors` are embeddings float [N, D]; what is excluded is as in `ReferenceIndex.search`. Returns
    answers and descriptions by localizer name, and the neighbours. Raises RetrievalError as `votes` does.
    """
    votes(settings, len(index) if among is None else int(among.sum()))
    localizers: list[NeighbourLocalizer] = [NearestLocalizer(index, model_name)]
    localizers += [
        DensityLocalizer(index, settings.k, settings.m, sigma, flat=geometry == "flat", model_name=model_name)
        for geometry in settings.geometries
        for sigma in settings.sigmas
    ]
    neighbours = index.search(
        vectors,
        max(one.k for one in localizers),
        exclude_photographers,
        exclude_photos,
        exclude_near_duplicates,
        among,
    )
    answers = {one.name: one.locate_neighbours(neighbours) for one in localizers}
    return answers, {one.name: one.describe() for one in localizers}, neighbours


def locate_among_fewer(
    index: ReferenceIndex,
    vectors: NDArray[Any],
    model_name: str,
    share: float,
    seed: int,
    among: NDArray[np.bool_] | None = None,
) -> tuple[str, Answers, str]:
    """Locate by the nearest of a random `share` of the references that `among` [R] allows, at least one.

    It is one of the points of `accuracy_by_references`. Returns the method's name, its answers to embeddings float
    [N, D], and its description.
    """
    order = in_random_order(len(index), seed, among)
    fewer = np.zeros(len(index), dtype=bool)
    fewer[order[: max(1, int(share * len(order)))]] = True
    nearest = NearestLocalizer(index, model_name)
    answers = nearest.locate_neighbours(index.search(vectors, nearest.k, among=fewer))
    described = (
        f"nearest of {fewer.sum():,} references in feature space, {share:.3g} of them, drawn at random"
    )
    return f"{nearest.name} of {share:.3g} of the references", answers, described


def votes(settings: LocalizerSettings, count: int) -> int:
    """Returns the number of neighbours that vote where `count` references may be found: `settings.k`.

    The default is a most: of fewer references all vote. Raises RetrievalError for another k that is more than there
    are, and for no references.
    """
    asked = settings.k if settings.k != LocalizerSettings().k else 1
    require_references(count, asked, "localizers.k")
    return settings.k


def neighbour_table(photo_ids: pd.Series, neighbours: Neighbours, count: int) -> pd.DataFrame:
    """The first `count` neighbours of N queries, in their order, as rows: photo_id, rank (from 1), neighbour (its
    photo_id), similarity, latitude, longitude. A query with fewer neighbours has fewer rows."""
    ids = neighbours.photo_ids(count)
    count = ids.shape[1]
    table = pd.DataFrame(
        {
            "photo_id": photo_ids.repeat(count).to_numpy(),
            "rank": np.tile(np.arange(1, count + 1), len(photo_ids)),
            "neighbour": ids.ravel(),
            "similarity": neighbours.similarity[:, :count].ravel(),
            "latitude": neighbours.latitude[:, :count].ravel(),
            "longitude": neighbours.longitude[:, :count].ravel(),
        }
    )
    return table[table["neighbour"].notna()]
