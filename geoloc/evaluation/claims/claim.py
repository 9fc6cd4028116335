"""Claims: published findings that can be tested on any build. Verdicts: holds, does not hold, or undecided.

A claim compares the accuracies of roles ("fine", "coarse") at one level; the caller assigns a method to each role
(roles.py). The test is paired: roles are measured on the same photos, so what they have in common cancels. It is
clustered: photographers, not photos, are resampled (bootstrap.py). Verdicts are not corrected for multiple testing: at
95 per cent, about one in twenty false claims may come out as "holds".

The findings themselves are in published.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.measures.accuracy import within
from geoloc.evaluation.measures.bootstrap import interval, photographer_clusters, resampled_means
from geoloc.evaluation.measures.ceilings import ceiling_errors_km
from geoloc.evaluation.measures.groups import errors_by_method
from geoloc.evaluation.result import Evaluation
from geoloc.partitions.base import Answer, Partition
from geoloc.sphere import LEVELS_KM

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
DIRECTIONS = ("greater", "not less", "equal")
COLUMNS = {
    "claim": "str", "finding": "str", "source": "str", "compared": "str", "level": "str", "km": "float64",
    "direction": "str", "margin": "float64", "difference": "float64", "low": "float64", "high": "float64",
    "verdict": "str", "n": "int64", "photographers": "int64", "note": "str",
}  # fmt: skip
_DECIMALS = 10


@dataclass(frozen=True)
class Claim:
    """A published finding: which role is better than which, or equal to it, at one level.

    `terms` are (weight, role): the tested number is the sum of weight times the role's accuracy, so ((1, "fine"),
    (-1, "coarse")) is a difference, and four terms are a difference of differences. `direction` is "greater" (than 0),
    "not less" (than -margin) or "equal" (within margin of 0); `margin` is a share, not per cent. `paired` roles are
    compared on the photos that all of them have; unpaired ones each on its own photos (outdoor against all photos).

    Raises ValueError for an unknown level or direction, weights that do not add up to 0, or a margin that does not
    fit the direction.
    """

    name: str
    finding: str
    source: str
    terms: tuple[tuple[float, str], ...]
    level: str
    direction: str = "greater"
    margin: float = 0.0
    paired: bool = True

    def __post_init__(self) -> None:
        if self.level not in LEVELS_KM:
            raise ValueError(f"{self.name}: level must be one of {', '.join(LEVELS_KM)}; got {self.level!r}")
        if self.direction not in DIRECTIONS:
            raise ValueError(
                f"{self.name}: direction must be one of {', '.join(DIRECTIONS)}; got {self.direction!r}"
            )
        if len(self.terms) < 2 or abs(sum(weight for weight, _ in self.terms)) > 1e-9:
            raise ValueError(f"{self.name}: weights of at least 2 terms must add up to 0, got {self.terms}")
        if (self.direction == "greater") != (self.margin == 0) or self.margin < 0:
            raise ValueError(
                f"{self.name}: margin must be 0 for greater and above 0 for not less and equal; got {self.margin}"
            )

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that must be measured."""
        return tuple(role for _, role in self.terms)

    @property
    def compared(self) -> str:
        """The terms as text: fine - coarse."""
        return self.with_names({})

    def with_names(self, names: Mapping[str, str]) -> str:
        """The terms as text, with `names` in place of the roles where given: [L]359C - [L]82C."""
        text = " ".join(
            f"{'-' if weight < 0 else '+'} {'' if abs(weight) == 1 else f'{abs(weight):g} '}{names.get(role, role)}"
            for weight, role in self.terms
        )
        return text.removeprefix("+ ")

    def verdict(self, low: float, high: float) -> str:
        """Returns HOLDS if the claim is true on the whole interval, FAILS if on none of it, else UNDECIDED.

        An interval that touches the border, or is NaN, is UNDECIDED.
        """
        least = {"greater": 0.0, "not less": -self.margin, "equal": -self.margin}[self.direction]
        most = self.margin if self.direction == "equal" else np.inf
        if low > least and high < most:
            return HOLDS
        return FAILS if high < least or low > most else UNDECIDED

    def __repr__(self) -> str:
        border = f" by {self.margin:g}" if self.margin else ""
        return f"Claim({self.name}: {self.compared} {self.direction}{border} at {self.level} level; {self.source})"


@dataclass(frozen=True)
class Measured:
    """One role's errors on N photos: photo_id (unique) and photographer (null: one of its own), object [N], and
    error_km float64 [N], infinite without an answer. Raises ValueError for different lengths or repeated photos."""

    photo_id: NDArray[np.object_]
    photographer: NDArray[np.object_]
    error_km: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not len(self.photo_id) == len(self.photographer) == len(self.error_km):
            raise ValueError(
                f"{len(self.photo_id)} photos, {len(self.photographer)} photographers and {len(self.error_km)} errors "
                "do not fit each other"
            )
        if not pd.Index(self.photo_id).is_unique:
            raise ValueError("a photo is measured once for a role: photo_ids must be unique")

    def __len__(self) -> int:
        return len(self.photo_id)

    def __repr__(self) -> str:
        return f"Measured({len(self):,} photos)"

    @classmethod
    def of_method(cls, evaluation: Evaluation, method: str, photos: pd.DataFrame) -> Measured:
        """The errors of a method on `photos` (photo_id, photographer), which must be queries of the evaluation.

        Raises ValueError for an unknown method, or a photo that is not a query.
        """
        if method not in evaluation.methods:
            raise ValueError(f"method must be one of {', '.join(evaluation.methods)}; got {method!r}")
        return cls._of(photos, errors_by_method(evaluation, photos)[method])

    @classmethod
    def of_ceiling(cls, partition: Partition, photos: pd.DataFrame, answer: Answer = "centroid") -> Measured:
        """The errors of a perfect classifier over `partition`: each photo is answered with its own cell.

        `photos` have photo_id, photographer, latitude and longitude. A photo in no cell has no answer.
        """
        return cls._of(photos, ceiling_errors_km(partition, photos["latitude"], photos["longitude"], answer))

    @classmethod
    def _of(cls, photos: pd.DataFrame, error: ArrayLike) -> Measured:
        photo_id, photographer = (photos[c].to_numpy(dtype=object) for c in ("photo_id", "photographer"))
        return cls(photo_id, photographer, np.asarray(error, dtype=np.float64))

    def where(self, keep: ArrayLike) -> Measured:
        """Returns the photos where the mask, bool [N], is true, for example the outdoor ones. Null counts as false."""
        mask = pd.array(np.asarray(keep, dtype=object), dtype="boolean").fillna(False).to_numpy(dtype=bool)
        return replace(
            self,
            photo_id=self.photo_id[mask],
            photographer=self.photographer[mask],
            error_km=self.error_km[mask],
        )


def evaluate_claims(
    claims: Iterable[Claim],
    measured: Mapping[str, Measured],
    *,
    seed: int,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Test each claim on the roles in `measured`. Returns a row per claim, in order, with the columns `COLUMNS`.

    `difference` is the tested number, `low` and `high` its interval over resampled photographers, `n` the number of
    photos. A claim is undecided, with the reason in `note`, if a role is not measured, the roles have no photo in
    common, all photos are by one photographer, or no role is right on any photo (at a level that is out of reach for
    all, nobody is better).
    """
    rows = [_test(claim, measured, seed, resamples, confidence) for claim in claims]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS).round(_DECIMALS)


def _test(
    claim: Claim, measured: Mapping[str, Measured], seed: int, resamples: int, confidence: float
) -> dict[str, object]:
    nothing = float("nan")
    row: dict[str, object] = {
        "claim": claim.name, "finding": claim.finding, "source": claim.source, "compared": claim.compared,
        "level": claim.level, "km": LEVELS_KM[claim.level], "direction": claim.direction, "margin": claim.margin,
        "difference": nothing, "low": nothing, "high": nothing, "verdict": UNDECIDED, "n": 0, "photographers": 0,
        "note": "",
    }  # fmt: skip
    absent = [role for role in dict.fromkeys(claim.roles) if role not in measured]
    if absent:
        return row | {"note": f"not measured: {', '.join(absent)}"}
    hits, present, photographer, left_out = _aligned(claim, measured)
    if not present.any(axis=0).all():
        return row | {"note": "the roles have no photo in common" if claim.paired else "a role has no photo"}
    weights = np.array([weight for weight, _ in claim.terms])
    clusters = photographer_clusters(photographer)
    difference = float((hits.sum(axis=0) / present.sum(axis=0)) @ weights)
    row |= {"difference": difference, "n": len(hits), "photographers": len(np.unique(clusters))}
    notes = [f"{left_out:,} photos that not all roles have are left out"] if left_out else []
    if len(np.unique(clusters)) < 2:
        return row | {"note": "; ".join([*notes, "all photos are by one photographer"])}
    # Each role's accuracy is a ratio of two sums of one draw: a paired difference, where all roles have all photos.
    means = resampled_means(np.concatenate([hits, present], axis=1), clusters, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):
        drawn = (means[:, : len(weights)] / means[:, len(weights) :]) @ weights
    drawn = drawn[np.isfinite(drawn)]  # a draw without any photo of some role is undefined
    low, high = (float(x) for x in interval(drawn, confidence)) if len(drawn) else (nothing, nothing)
    verdict = claim.verdict(low, high)
    if not hits.any():
        verdict, notes = UNDECIDED, [*notes, f"no role is right on any photo at {claim.level} level"]
    return row | {"low": low, "high": high, "verdict": verdict, "note": "; ".join(notes)}


def _aligned(
    claim: Claim, measured: Mapping[str, Measured]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.object_], int]:
    """Returns hits and presence of each term on each photo, float64 [N, T] in {0, 1}; photographers [N]; and the number
    of photos left out."""
    roles = [measured[role] for role in claim.roles]
    owners = pd.concat([pd.Series(one.photographer, index=one.photo_id, dtype=object) for one in roles])
    owners = owners[~owners.index.duplicated()]
    rows = np.stack([pd.Index(one.photo_id).get_indexer(owners.index) for one in roles], axis=1)
    kept = (rows >= 0).all(axis=1) if claim.paired else np.ones(len(rows), dtype=bool)
    rows, km = rows[kept], {claim.level: LEVELS_KM[claim.level]}
    present = (rows >= 0).astype(np.float64)
    hits = np.zeros_like(present)
    for term, one in enumerate(roles):
        has = rows[:, term] >= 0
        hits[has, term] = within(one.error_km[rows[has, term]], km)[:, 0]
    return hits, present, owners.to_numpy(dtype=object)[kept], int((~kept).sum())
