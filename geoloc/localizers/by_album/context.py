"""Models of time and albums together: what is stored of photos goes in, the answers of every method come out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.by_album.hmm import HMM_FILE, Transitions
from geoloc.localizers.by_album.localizers import AverageLocalizer, HMMLocalizer, or_single
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.settings import AlbumSettings, network_file
from geoloc.models.context_inputs import ContextInputs, Embeddings, top_cells
from geoloc.models.daylight import DaylightModel
from geoloc.models.posting_time import TimePrior
from geoloc.models.sequence_network import SequenceNetwork, load_sequence_network
from geoloc.models.sequence_prediction import all_probabilities
from geoloc.models.time_network import TimeNetwork, load_time_network, time_probabilities
from geoloc.photos.owners import photographer_keys
from geoloc.photos.sequences import Sequences, make_sequences
from geoloc.photos.settings import SequenceSettings
from geoloc.training.context import ContextPhotos
from geoloc.training.context_settings import SequenceModelSettings, TimeSettings

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

Probabilities = NDArray[np.float32]
M2_FILE, PRIOR_FILE, DAYLIGHT_FILE = (f"{name}.safetensors" for name in ("m2", "prior", "daylight"))
TOP = 10
"""Most probable cells that a network over top cells sees where no M2 says how many."""
NO_TIME_OF_POSTING, NO_CAMERA_TIME = "no time of posting", "no camera time"


@dataclass(frozen=True, eq=False)
class SeenPhotos:
    """N photos as models of time and albums see them: `photos` has photo_id, source, photographer, album, taken_at and
    posted_at; `single` float32 [N, C] are the classifier's probabilities, NaN for a photo that could not be read;
    `vectors` [N, D] the stored embeddings, a row of NaN for none, or None where no model needs them."""

    photos: pd.DataFrame
    single: Probabilities
    vectors: NDArray[Any] | None = None

    def take(self, rows: NDArray[np.int64]) -> SeenPhotos:
        """Some of the photos, by position."""
        vectors = None if self.vectors is None else self.vectors[rows]
        return SeenPhotos(self.photos.iloc[rows].reset_index(drop=True), self.single[rows], vectors)

    def inputs(
        self, settings: SequenceModelSettings, timed: Probabilities | None, top: int = TOP
    ) -> ContextInputs:
        """What a network over sequences sees; `timed` are M2's probabilities where there is an M2. Raises ValueError
        without embeddings where it sees these."""
        if settings.inputs == "top_cells":
            return top_cells(self.single if timed is None else timed, self.photos["posted_at"], top)
        if self.vectors is None:
            raise ValueError("a network on embeddings needs the embeddings of the photos, got none")
        return Embeddings(self.vectors)

    def to_learn(self, inputs: ContextInputs, partition: Partition) -> ContextPhotos:
        """The photos as trainings take them; needs the columns latitude and longitude."""
        places = self.photos[["latitude", "longitude"]].to_numpy(dtype=np.float64)
        return ContextPhotos(inputs, partition.assign(*places.T).astype(np.int64), places)


@dataclass(frozen=True, eq=False)
class Answered:
    """One method's answers to N photos; `alone` object (N,) says why a photo has the single photo's answer, None where
    it has not."""

    answers: Answers
    description: str
    alone: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class TimeModels:
    """Models of the time of posting, and of daylight, that a build has; None for those that it has not."""

    network: TimeNetwork | None = None
    prior: TimePrior | None = None
    daylight: DaylightModel | None = None

    @classmethod
    def load(cls, folder: Path, settings: TimeSettings) -> TimeModels:
        """The models that the settings name."""
        return cls(
            load_time_network(folder / M2_FILE) if settings.network else None,
            TimePrior.load(folder / PRIOR_FILE) if settings.prior else None,
            DaylightModel.load(folder / DAYLIGHT_FILE) if settings.daylight else None,
        )

    def with_time(self, seen: SeenPhotos) -> Probabilities | None:
        """M2's probabilities, float32 [N, C], NaN where it says nothing; None without an M2."""
        if self.network is None:
            return None
        return time_probabilities(
            self.network, top_cells(seen.single, seen.photos["posted_at"], self.network.settings.top)
        )

    @property
    def top(self) -> int:
        """The most probable cells that M2 sees."""
        return TOP if self.network is None else self.network.settings.top


@dataclass(frozen=True, eq=False)
class AlbumModels:
    """What answers for albums and people: `settings`, the counted `transitions` (None without a Markov model), and the
    trained networks by name."""

    settings: AlbumSettings
    transitions: Transitions | None = None
    networks: Mapping[str, SequenceNetwork] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, settings: AlbumSettings) -> AlbumModels:
        """The models that the settings name."""
        transitions = Transitions.load(folder / HMM_FILE) if settings.hmm else None
        names = settings.networks
        return cls(
            settings,
            transitions,
            {name: load_sequence_network(folder / network_file(name)) for name in names},
        )


@dataclass(frozen=True, eq=False)
class ContextMethods:
    """All methods of time and albums of a build, over one partition. `model` is the classifier's name in tables."""

    partition: Partition
    time: TimeModels | None
    albums: AlbumModels | None
    answer: str = "centroid"
    model: str = "L"

    def single(self) -> ClassLocalizer:
        """The localizer of single photos that all others are compared with."""
        return ClassLocalizer(self.partition, self.answer, self.model)

    def answers(self, seen: SeenPhotos) -> dict[str, Answered]:
        """The answers of each method by its name, in the order of the papers' tables. All photos of an album or person
        must be among `seen`: see `by_person`."""
        found = list(self._of_time(seen)) + list(self._of_albums(seen))
        return dict(found)

    def _of_time(self, seen: SeenPhotos) -> Iterator[tuple[str, Answered]]:
        if self.time is None:
            return
        time, posted, points = self.time, seen.photos["posted_at"], self.partition.answers()
        nothing = _reason(posted, NO_TIME_OF_POSTING)
        timed = time.with_time(seen)
        if timed is not None:
            yield self._by("M2", or_single(timed, seen.single), nothing, "corrected by the time of posting")
        if time.prior is not None:
            p = time.prior.apply(seen.single, posted)
            yield self._by("time prior", p, nothing, "times the chance of the time of posting in each cell")
        if time.daylight is not None and seen.vectors is not None:
            taken = seen.photos["taken_at"]
            p = or_single(time.daylight.apply(seen.single, seen.vectors, taken, points[:, 0]), seen.single)
            nothing = _reason(taken, NO_CAMERA_TIME)
            yield self._by("daylight", p, nothing, "weighed by the sun's height at the camera's hour")

    def _of_albums(self, seen: SeenPhotos) -> Iterator[tuple[str, Answered]]:
        if self.albums is None:
            return
        settings = self.albums.settings
        for by in settings.averages:
            average = AverageLocalizer(self.partition, self.answer, self.model, by)
            of = make_sequences(seen.photos, SequenceSettings(by=by), ordered=False)
            yield average.name, Answered(average.locate(seen.single, of), average.describe(), of.reason)
        if settings.hmm is not None and self.albums.transitions is not None:
            hmm = HMMLocalizer(self.partition, self.albums.transitions, settings.hmm, self.answer, self.model)
            found, alone = hmm.explained(seen.single, make_sequences(seen.photos, settings.sequences))
            yield hmm.name, Answered(found, hmm.describe(), alone)
        timed = None if self.time is None else self.time.with_time(seen)
        if timed is not None:
            timed = or_single(timed, seen.single)
        for name, network in self.albums.networks.items():
            of_network = settings.networks[name]
            sequences = make_sequences(seen.photos, of_network.sequences)
            p = self._network(network, of_network, seen, sequences, timed)
            about = f"{network.settings.kind} network over each {of_network.sequences.by}'s photos"
            yield self._by(name, p, sequences.reason, about)

    def _network(
        self,
        network: SequenceNetwork,
        settings: SequenceModelSettings,
        seen: SeenPhotos,
        sequences: Sequences,
        timed: Probabilities | None,
    ) -> Probabilities:
        inputs = seen.inputs(settings, timed, TOP if self.time is None else self.time.top)
        pieces = sequences if settings.length is None else sequences.cut(settings.length)
        return or_single(all_probabilities(network, inputs, pieces), seen.single, sequences)

    def _by(
        self, approach: str, probabilities: Probabilities, alone: NDArray[np.object_], about: str
    ) -> tuple[str, Answered]:
        localizer = ClassLocalizer(self.partition, self.answer, self.model, approach=approach)
        found = localizer.locate(probabilities)
        return localizer.name, Answered(found, f"{localizer.describe()}, {about}", alone)


def by_person(photos: pd.DataFrame, most: int) -> list[NDArray[np.int64]]:
    """Positions of N photos in parts of about `most` photos, in which all photos of a person, and so of an album, are
    together; at least one part."""
    owners, _ = pd.factorize(photographer_keys(photos))
    order = np.argsort(owners, kind="stable").astype(np.int64)
    begins = np.flatnonzero(np.append(True, np.diff(owners[order]) != 0)) if len(order) else np.zeros(1, int)
    cuts: list[int] = []
    start = 0
    for begin, end in itertools.pairwise([*map(int, begins), len(order)]):
        if begin > start and end - start > most:
            cuts.append(begin)
            start = begin
    return np.split(order, cuts)


def _reason(times: pd.Series, why: str) -> NDArray[np.object_]:
    """`why` for each photo without a time, None for the others."""
    found = np.full(len(times), None, dtype=object)
    found[times.isna().to_numpy()] = why
    return found
