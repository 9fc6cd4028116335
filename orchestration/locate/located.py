"""The answers of `geoloc locate`, and the interface of what gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geoloc.localizers.base import Answers
from geoloc.localizers.confidence.regions import Region
from geoloc.models.preprocess import Preprocess
from orchestration.locate.measured import Shortfall
from orchestration.locate.nearby import Nearby


@dataclass(frozen=True)
class Alternative:
    """One place of an answer: coordinates in degrees, a name, its weight, and the evidence for it."""

    latitude: float
    longitude: float
    place: str
    weight: float
    why: str


@dataclass(frozen=True)
class Located:
    """Where one photo was taken. Coordinates in degrees; None where there is no answer, and `error` says why.

    `confidence` is in [0, 1]: of a level, the probability of being within `within_km`. It is also given where the
    answer is withheld for being below the wanted confidence; it is 0 where the photo could not be read. `scaled`: a
    fitted temperature scales the confidences of this question. `regions` are in ascending order of coverage; None
    where the build has none. `worse_than_baseline` are the levels at which the build is right less often than a
    baseline, which looks at no photo. `nearby` has the neighbours of an answer by neighbour and the modes of their
    density. `method` is "" if no photo could be read, so that no network was loaded. `made_by` names the outputs that
    gave the answer, for `geoloc audit` (lineage/answered.py).
    """

    photo: str
    method: str
    latitude: float | None = None
    longitude: float | None = None
    place: str | None = None
    confidence: float = 0.0
    alternatives: tuple[Alternative, ...] = ()
    error: str | None = None
    within_km: float | None = None
    scaled: bool = False
    regions: tuple[Region, ...] | None = None
    worse_than_baseline: tuple[Shortfall, ...] = ()
    nearby: Nearby | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether the photo was located."""
        return self.latitude is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know before believing the answer, a line each."""
        return tuple(f"note: {shortfall}" for shortfall in self.worse_than_baseline)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        regions = [f"  {region}" for region in self.regions or ()]
        if self.latitude is None or self.longitude is None:
            return "\n".join([self.photo, f"  no answer: {self.error or 'nothing to go by'}", *regions])
        of = f" of being within {self.within_km:g} km" if self.within_km else ""
        lines = [
            f"{self.photo}",
            *(f"  {note}" for note in self.notes),
            f"  {self.latitude:.5f}, {self.longitude:.5f}  {self.place}  "
            f"(confidence {self.confidence:.2f}{of}, {self.method})",
            *regions,
        ]
        lines += [
            f"  {number}. {other.latitude:9.4f}, {other.longitude:9.4f}  {other.weight:.2f}  {other.place}"
            f"  [{other.why}]"
            for number, other in enumerate(self.alternatives, start=1)
        ]
        lines += [f"  {line}" for line in (self.nearby.lines if self.nearby else [])]
        return "\n".join(lines)


@dataclass(frozen=True)
class Found:
    """Answers for N photos, per photo the evidence for each alternative, its regions (None without any), and its
    neighbours where they answer (empty where classes do)."""

    answers: Answers
    reasons: list[list[str]]
    regions: list[tuple[Region, ...] | None]
    nearby: list[Nearby] = field(default_factory=list)


class PhotoLocalizer(Protocol):
    """A way of answering, opened on a build. There is one file per way, with a class that has these members."""

    @property
    def name(self) -> str:
        """The method's name, as in tables."""

    @property
    def within_km(self) -> float | None:
        """The distance that confidences are about: the probability of being within it. None if they are not."""

    @property
    def scaled(self) -> bool:
        """Whether a fitted temperature scales the confidences."""

    @property
    def preprocess(self) -> Preprocess | None:
        """How its network gets a photo; None if it has several that get it in different ways."""

    def locate(self, photos: Sequence[NDArray[np.uint8]]) -> Found:
        """Locate N photos, uint8 [H, W, 3] each, N at least 1."""
