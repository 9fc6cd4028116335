"""Localizers over albums: from the probabilities of single photos to answers that know the other photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers, Localizer
from geoloc.localizers.by_album.average import averaged, check_rows
from geoloc.localizers.by_album.hmm import HiddenMarkovModel, Transitions
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.settings import HMMSettings
from geoloc.photos.sequences import Sequences

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

UNLIKELY_ORDER = "the order of its album makes no sense"
"""The reason for a single answer to a photo of an album that is less likely than photos with nothing in common."""


def or_single(
    found: NDArray[np.float32], single: NDArray[np.float32], sequences: Sequences | None = None
) -> NDArray[np.float32]:
    """Returns probabilities [N, C] of a model of time or albums, `found`, and those of single photos for what it says
    nothing of: rows with a NaN (a photo without a time, for example), and photos that are alone in `sequences`.

    Raises ValueError for other shapes.
    """
    if found.shape != single.shape:
        raise ValueError(f"probabilities must be of equal shapes, got {found.shape} and {single.shape}")
    silent = np.asarray(np.isnan(found).any(axis=1))
    if sequences is not None:
        check_rows(found, sequences)
        silent |= sequences.alone
    return np.where(silent[:, None], single, found)


class AverageLocalizer(Localizer):
    """Answers each photo with the most probable cell of the mean over its album or person (average.py).

    Confidence is the mean probability of that cell, which is the same for all photos of an album.
    """

    def __init__(
        self, partition: Partition, answer: str = "centroid", model_name: str = "L", by: str = "album"
    ) -> None:
        self.by = by
        self._single = ClassLocalizer(partition, answer, model_name, approach=f"{by} average")

    @property
    def name(self) -> str:
        """For example [L]album average 359C."""
        return self._single.name

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        return f"{self._single.describe()}, by the mean over all photos of the {self.by}"

    def locate(self, probabilities: NDArray[Any], /, sequences: Sequences) -> Answers:
        """Locate N photos from the probabilities of single photos, float [N, C]; a row with a NaN abstains."""
        return self._single.locate(averaged(probabilities, sequences))


class HMMLocalizer(Localizer):
    """Answers with the cells of a hidden Markov model (hmm.py), by settings.decode.

    Confidence is the probability of the cell given all photos of the album, as the model sees it: it is too sure where
    photos of one scene resemble each other (settings.trust). Photos that are alone, and those of albums whose order
    makes no sense with settings.only_if_likely, have the answer of the classifier alone.
    """

    def __init__(
        self,
        partition: Partition,
        transitions: Transitions,
        settings: HMMSettings,
        answer: str = "centroid",
        model_name: str = "L",
    ) -> None:
        self.settings = settings
        self.model = HiddenMarkovModel(transitions, settings.trust)
        self._single = ClassLocalizer(partition, answer, model_name, approach="HMM")

    @property
    def name(self) -> str:
        """For example [L]HMM 359C."""
        return self._single.name

    def describe(self) -> str:
        """What it does, in a sentence for a report."""
        which = (
            "most probable sequence"
            if self.settings.decode == "viterbi"
            else "most probable cell of each photo"
        )
        return f"{which} of a hidden Markov model of albums over {len(self.model.transitions.prior):,} cells"

    def locate(self, probabilities: NDArray[Any], /, sequences: Sequences) -> Answers:
        """Locate N photos from the probabilities of single photos, float [N, C]; a row with a NaN abstains."""
        return self.explained(probabilities, sequences)[0]

    def explained(
        self, probabilities: NDArray[Any], sequences: Sequences
    ) -> tuple[Answers, NDArray[np.object_]]:
        """As `locate`, with the reason for each photo that was answered alone, object (N,), None for the others."""
        p = np.asarray(probabilities)
        check_rows(p, sequences)
        found = p.astype(np.float32)
        reason = sequences.reason.copy()
        cells = np.full(len(p), -1, dtype=np.int64)  # -1: the most probable one
        alone = sequences.alone  # a pass over all photos: not for each sequence
        for number in range(len(sequences)):
            rows = sequences.of(number)
            if alone[rows[0]]:
                continue
            posteriors, evidence = self.model.posteriors(p[rows])
            if self.settings.only_if_likely and evidence < 0:
                reason[rows] = UNLIKELY_ORDER
                continue
            found[rows] = posteriors
            if self.settings.decode == "viterbi":
                cells[rows] = self.model.viterbi(p[rows])[0]
        found[np.isnan(p).any(axis=1)] = np.nan
        return self._single.locate(found, chosen=cells), reason
