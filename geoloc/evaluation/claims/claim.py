"""Claims: published findings that can be tested on any build. Verdicts: holds, does not hold, or undecided.

A claim compares the accuracies of roles ("fine", "coarse") at one level; the caller assigns a method to each role
(roles.py). The test is paired: roles are measured on the same photos, so what they have in common cancels. It is
by photographer (measures/intervals.py), and verdicts are corrected for the number of claims asked together (Holm): the
chance that any of them is wrong is at most 5 per cent.

The findings themselves are in published.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.claims.bias import bias_difference
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.ceilings import ceiling_errors_km
from geoloc.evaluation.measures.groups import errors_by_method
from geoloc.evaluation.measures.intervals import Differences, differences, holm, sum_of_shares
from geoloc.evaluation.measures.trainings import Luck, pooled_luck
from geoloc.evaluation.result import Evaluation
from geoloc.partitions.base import Answer, Partition
from geoloc.photos.owners import photographer_keys
from geoloc.sphere import LEVELS_KM

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
DIRECTIONS = ("greater", "not less", "equal")
BIAS = "bias"
"""In place of a level: the tested number is of KL divergences of the frequencies of answered cells from true ones."""
COLUMNS = {
    "claim": "str", "finding": "str", "source": "str", "compared": "str", "level": "str", "km": "float64",
    "direction": "str", "margin": "float64", "difference": "float64", "low": "float64", "high": "float64",
    "p": "float64", "p_corrected": "float64", "asked": "int64", "verdict": "str", "n": "int64",
    "photographers": "int64", "note": "str",
}  # fmt: skip
RELATIVE_MARGIN = 0.1
"""A margin is at most this share of the accuracy compared with: two points say nothing of accuracies of one."""
_DECIMALS = 10


@dataclass(frozen=True)
class Claim:
    """A published finding: which role is better than which, or equal to it, at one level.

    `terms` are (weight, role): the tested number is the sum of weight times the role's accuracy, so ((1, "fine"),
    (-1, "coarse")) is a difference, and four terms are a difference of differences. `direction` is "greater" (than 0),
    "not less" (than -margin) or "equal" (within margin of 0); `margin` is a share, not per cent, and where accuracies
    are low RELATIVE_MARGIN of the accuracy compared with. `paired` roles are
    compared on the photos that all of them have; unpaired ones each on its own photos (outdoor against all photos).
    With `level` BIAS the tested number is the sum of weight times the role's KL divergence, in nats (bias.py).

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
        if self.level not in (*LEVELS_KM, BIAS):
            allowed = ", ".join((*LEVELS_KM, BIAS))
            raise ValueError(f"{self.name}: level must be one of {allowed}; got {self.level!r}")
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

    def verdict(self, low: float, high: float, margin: float | None = None) -> str:
        """Returns HOLDS if the claim is true on the whole interval, FAILS if on none of it, else UNDECIDED.

        An interval that touches the border, or is NaN, is UNDECIDED. `margin` replaces the claim's.
        """
        margin = self.margin if margin is None else margin
        least = 0.0 if self.direction == "greater" else -margin
        most = margin if self.direction == "equal" else np.inf
        if low > least and high < most:
            return HOLDS
        return FAILS if high < least or low > most else UNDECIDED

    def margin_at(self, accuracies: NDArray[np.float64]) -> float:
        """Returns the margin for measured accuracies of the terms, float64 [T]: at most RELATIVE_MARGIN of the accuracy
        of what is compared with (the terms of negative weight, summed)."""
        weights = np.array([weight for weight, _ in self.terms])
        return float(min(self.margin, RELATIVE_MARGIN * (np.maximum(-weights, 0) @ accuracies)))

    def __repr__(self) -> str:
        border = f" by {self.margin:g}" if self.margin else ""
        return f"Claim({self.name}: {self.compared} {self.direction}{border} at {self.level} level; {self.source})"


@dataclass(frozen=True)
class Measured:
    """One role's errors on N photos: photo_id (unique) and photographer (null: one of its own), object [N], and
    error_km float64 [N], infinite without an answer; or [N, R] for R trainings of one recipe. `training` names that
    recipe, "" for what no training changes. `cells` int64 [N, 2] are the true and the answered cell of `cell_count`, -1
    for none, for claims on bias. Raises ValueError for different lengths or repeated photos."""

    photo_id: NDArray[np.object_]
    photographer: NDArray[np.object_]
    error_km: NDArray[np.float64]
    training: str = ""
    cells: NDArray[np.int64] | None = None
    cell_count: int = 0

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

    def hits(self, km: float) -> NDArray[np.float64]:
        """Returns whether each photo is right within a distance in each training, float64 [N, R]."""
        return (self.error_km.reshape(len(self), -1) <= km).astype(np.float64)

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
        photo_id, photographer = photos["photo_id"], photographer_keys(photos)
        return cls(
            photo_id.to_numpy(dtype=object),
            photographer.to_numpy(dtype=object),
            np.asarray(error, np.float64),
        )

    def where(self, keep: ArrayLike) -> Measured:
        """Returns the photos where the mask, bool [N], is true, for example the outdoor ones. Null counts as false."""
        mask = pd.array(np.asarray(keep, dtype=object), dtype="boolean").fillna(False).to_numpy(dtype=bool)
        return replace(
            self,
            photo_id=self.photo_id[mask],
            photographer=self.photographer[mask],
            error_km=self.error_km[mask],
            cells=None if self.cells is None else self.cells[mask],
        )


def evaluate_claims(
    claims: Iterable[Claim], measured: Mapping[str, Measured], *, confidence: float = 0.95
) -> pd.DataFrame:
    """Test each claim on the roles in `measured`. Returns a row per claim, in order, with the columns `COLUMNS`.

    `difference` is the tested number, `low` and `high` its interval by photographer, `n` the number of photos, `margin`
    the margin that was used. `p` is the smallest level at which the interval decides the claim, `p_corrected` Holm's
    for the `asked` claims that could be tested: the verdict is decided if that is at most 1 - confidence. A claim is
    undecided, with the reason in `note`, if a role is not measured, the roles have no photo in common, all photos are
    by one photographer, or no role is right on any photo (at a level that is out of reach for all, nobody is better).
    """
    tested = [_test(claim, measured, confidence) for claim in claims]
    table = pd.DataFrame([row for row, _ in tested], columns=list(COLUMNS))
    table["p_corrected"] = holm(table["p"].to_numpy(dtype=np.float64))
    table["asked"] = int(table["p"].notna().sum())
    decided = table["p_corrected"].to_numpy(dtype=np.float64) <= 1 - confidence
    table["verdict"] = np.where(decided, [verdict for _, verdict in tested], UNDECIDED)
    return table.astype(COLUMNS).round(_DECIMALS)


def _test(claim: Claim, measured: Mapping[str, Measured], confidence: float) -> tuple[dict[str, object], str]:
    """Returns the row of a claim, and its verdict if it is decided."""
    nothing = float("nan")
    row: dict[str, object] = {
        "claim": claim.name, "finding": claim.finding, "source": claim.source, "compared": claim.compared,
        "level": claim.level, "km": LEVELS_KM.get(claim.level, nothing), "direction": claim.direction,
        "margin": claim.margin,
        "difference": nothing, "low": nothing, "high": nothing, "p": nothing, "n": 0, "photographers": 0, "note": "",
    }  # fmt: skip
    absent = [role for role in dict.fromkeys(claim.roles) if role not in measured]
    if absent:
        return row | {"note": f"not measured: {', '.join(absent)}"}, UNDECIDED
    if claim.level == BIAS:
        return _test_bias(claim, [measured[role] for role in claim.roles], row, confidence)
    hits, present, photographer, left_out = _aligned(claim, measured)
    if not present.any(axis=0).all():
        return row | {
            "note": "the roles have no photo in common" if claim.paired else "a role has no photo"
        }, UNDECIDED
    clusters = photographer_clusters(photographer)
    found, accuracies = _difference(claim, hits, present, clusters), hits.sum(axis=0) / present.sum(axis=0)
    luck, trainings = _luck(claim, measured)
    if luck is not None:
        found = found.widened(luck.spread(trainings), luck.freedom)
    margin = claim.margin_at(accuracies)
    row |= {
        "margin": margin,
        "difference": float(found.estimate[0]),
        "n": len(hits),
        "photographers": len(np.unique(clusters)),
    }
    notes = [f"{left_out:,} photos that not all roles have are left out"] if left_out else []
    if margin < claim.margin and hits.any():
        notes.append(f"margin {RELATIVE_MARGIN:.0%} of the accuracy compared with")
    if len(np.unique(clusters)) < 2:
        return row | {"note": "; ".join([*notes, "all photos are by one photographer"])}, UNDECIDED
    if not hits.any():
        notes.append(f"no role is right on any photo at {claim.level} level")

    def decides(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.array([claim.verdict(low[0], high[0], margin) != UNDECIDED])

    low, high = (float(bound[0]) for bound in found.interval(confidence))
    p = float(found.p_value(decides)[0])
    # At the level where the interval decides, the estimate lies on the same side as all of it.
    at = float(found.estimate[0])
    return row | {"low": low, "high": high, "p": p, "note": "; ".join(notes)}, claim.verdict(at, at, margin)


def _test_bias(
    claim: Claim, roles: list[Measured], row: dict[str, object], confidence: float
) -> tuple[dict[str, object], str]:
    """As `_test`, of KL divergences: of the first training where a recipe has several."""
    counts = {one.cell_count for one in roles}
    if len(counts) > 1 or any(one.cells is None for one in roles):
        return row | {"note": "the roles have no cells in common"}, UNDECIDED
    ids = roles[0].photo_id
    at = np.stack([pd.Index(one.photo_id).get_indexer(ids) for one in roles], axis=1)
    kept = (at >= 0).all(axis=1)
    both = np.stack([one.cells[at[kept, i]] for i, one in enumerate(roles) if one.cells is not None], axis=1)
    clusters = photographer_clusters(roles[0].photographer[at[kept, 0]])
    if not kept.any() or len(np.unique(clusters)) < 2 or not (both[:, 0, 0] >= 0).any():
        return row | {"note": "the roles have too few photos in common"}, UNDECIDED
    found = bias_difference(
        [weight for weight, _ in claim.terms], both[:, 0, 0], both[:, :, 1], counts.pop(), clusters
    )
    low, high = found.interval(confidence)
    notes = ["nats, not points"]
    if any(one.error_km.ndim > 1 and one.error_km.shape[1] > 1 for one in roles):
        notes.append("of the first training alone")
    return row | {
        "difference": found.estimate, "low": low, "high": high, "p": found.p_value(), "n": int(kept.sum()),
        "photographers": len(np.unique(clusters)), "note": "; ".join(notes),
    }, claim.verdict(found.estimate, found.estimate)  # fmt: skip


def _difference(
    claim: Claim, hits: NDArray[np.float64], present: NDArray[np.float64], clusters: NDArray[np.int64]
) -> Differences:
    """The tested number: of roles on the same photos as gains less losses, else as a sum of shares."""
    weights = np.array([weight for weight, _ in claim.terms])
    if claim.paired:
        return differences(hits @ weights[:, None], clusters, float(np.maximum(weights, 0).sum()))
    has = present > 0
    rest = ~has[:, 0]
    if (
        len(weights) == 2
        and has[:, 1].all()
        and rest.any()
        and (hits[has[:, 0], 0] == hits[has[:, 0], 1]).all()
    ):
        # One method on some of its own photos: its accuracy there less that on the others, by the share of these.
        apart = weights * rest.mean()
        return sum_of_shares(apart.tolist(), hits[:, [1, 1]], np.stack([has[:, 0], rest], axis=1), clusters)
    return sum_of_shares(weights.tolist(), hits, has, clusters)


def _luck(claim: Claim, measured: Mapping[str, Measured]) -> tuple[Luck | None, list[int]]:
    """The luck of one training in the claim's number, and how often each of its recipes was trained.

    The terms of one recipe are of one training, so their luck is that of their sum.
    """
    of_recipe: dict[str, NDArray[np.float64]] = {}
    for weight, role in claim.terms:
        one = measured[role]
        if one.training:
            shares = weight * one.hits(LEVELS_KM[claim.level]).mean(axis=0)
            of_recipe[one.training] = of_recipe.get(one.training, 0) + shares
    return pooled_luck(runs[:, None] for runs in of_recipe.values()), [
        len(runs) for runs in of_recipe.values()
    ]


def _aligned(
    claim: Claim, measured: Mapping[str, Measured]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.object_], int]:
    """Returns hits (their mean over trainings) and presence of each term on each photo, float64 [N, T] in [0, 1];
    photographers [N]; and the number of photos left out."""
    roles = [measured[role] for role in claim.roles]
    owners = pd.concat([pd.Series(one.photographer, index=one.photo_id, dtype=object) for one in roles])
    owners = owners[~owners.index.duplicated()]
    rows = np.stack([pd.Index(one.photo_id).get_indexer(owners.index) for one in roles], axis=1)
    kept = (rows >= 0).all(axis=1) if claim.paired else np.ones(len(rows), dtype=bool)
    rows = rows[kept]
    present = (rows >= 0).astype(np.float64)
    hits = np.zeros_like(present)
    for term, one in enumerate(roles):
        has = rows[:, term] >= 0
        hits[has, term] = one.hits(LEVELS_KM[claim.level])[rows[has, term]].mean(axis=1)
    return hits, present, owners.to_numpy(dtype=object)[kept], int((~kept).sum())
