"""The findings on cross-view matching (Vo's dissertation, chapter 3) as claims over pairs of a photo and a tile.

They are tested as those of published.py: paired, by photographer, corrected for their number. A role is a network, a
way of testing rotations and a measure; a pair is right if its own tile is in the top 1 %, or if it is verified right.
Of the joint evaluation a role is a network, a way of answering and a distance; a photo is right within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.claims.claim import Claim, Measured, evaluate_claims
from geoloc.evaluation.measures.overhead import (
    AMONG_TILES,
    CLASSIFIER,
    FIXED_THRESHOLD,
    JOINT,
    LAST,
    OVERHEAD,
    PENULTIMATE,
    TOP_PERCENT,
    top_percent,
)

ONE, FOUR, SIXTEEN, AVERAGED = "1 rotation", "4 rotations", "16 rotations", "16 rotations, averaged"
BOTH = (TOP_PERCENT, FIXED_THRESHOLD)
WITHIN_KM = {"within 1 km": 1.0, "within 25 km": 25.0}
"""Measures of the joint evaluation."""
TOWERS = ("separate", "shared_last_layer", "shared_but_batch_norm")
"""The networks of figure 4.11: what their towers share."""
MARGIN = 0.02
"""Two points: "comparable" (the dissertation names no number)."""
_ANY_LEVEL = "street"  # a pair is right or wrong: no distance matters


@dataclass(frozen=True)
class Role:
    """A network, by the end of its recipe's name after cross_view_, tested by `method` and measured by `measure`."""

    network: str
    method: str
    measure: str

    def __str__(self) -> str:
        return f"{self.network}, {self.method}"


@dataclass(frozen=True)
class CrossViewClaim:
    """A finding: by `measure`, `better` (network, method) is better than `than`, or equal to it within `margin`."""

    name: str
    source: str
    better: tuple[str, str]
    than: tuple[str, str]
    measure: str
    margin: float = 0.0

    @property
    def roles(self) -> tuple[Role, Role]:
        """What is compared with what."""
        return Role(*self.better, self.measure), Role(*self.than, self.measure)


def _both(name: str, source: str, better: tuple[str, str], than: tuple[str, str]) -> list[CrossViewClaim]:
    return [CrossViewClaim(name, source, better, than, measure) for measure in BOTH]


CROSS_VIEW_CLAIMS: tuple[CrossViewClaim, ...] = (
    *_both("DBL beats contrastive", "table 3.1", ("siamese_dbl", SIXTEEN), ("siamese", SIXTEEN)),
    *_both("DBL beats hinge", "table 3.1", ("triplet_dbl", SIXTEEN), ("triplet", SIXTEEN)),
    *_both("triplet beats Siamese", "table 3.1", ("triplet", SIXTEEN), ("siamese", SIXTEEN)),
    CrossViewClaim(
        "exhaustive triplets learn faster: better after as many epochs", "section 3.5.3",
        ("edbl", AVERAGED), ("ri360_or", AVERAGED), TOP_PERCENT,
    ),
    *(
        CrossViewClaim(
            "partial rotation invariance needs several test rotations", "table 3.2",
            (network, SIXTEEN), (network, ONE), TOP_PERCENT,
        )
        for network in ("ri45", "triplet_dbl", "ri180")
    ),
    *(
        claim
        for method in (ONE, SIXTEEN)
        for claim in _both(
            "full invariance with orientation regression beats without", "table 3.2",
            ("ri360_or", method), ("ri360", method),
        )
    ),
    *(
        CrossViewClaim(
            "averaging 16 rotations is nearly as good as testing 16", "table 3.2",
            ("ri360_or", AVERAGED), ("ri360_or", SIXTEEN), measure, MARGIN,
        )
        for measure in BOTH
    ),
    *(
        CrossViewClaim(
            "classification verifies best", "table 3.1", (network, SIXTEEN), (other, SIXTEEN), FIXED_THRESHOLD
        )
        for network in ("classification", "hybrid")
        for other in ("siamese", "triplet")
    ),
    *(
        CrossViewClaim(
            "the last layer beats the penultimate one", "figure 4.11", (towers, LAST), (towers, PENULTIMATE),
            TOP_PERCENT,
        )
        for towers in TOWERS
    ),
    *(
        CrossViewClaim(
            "the penultimate layer is better the more is shared", "figure 4.11", (more, PENULTIMATE),
            (less, PENULTIMATE), TOP_PERCENT,
        )
        for less, more in pairwise(TOWERS)
    ),
    *_both("beyond the paper: InfoNCE with hard negatives beats eDBL", "Sample4Geo", ("info_nce", AVERAGED),
           ("edbl", AVERAGED)),
    *_both("beyond the paper: polar tiles beat plain ones", "SAFA", ("polar", AVERAGED), ("edbl", AVERAGED)),
    *(
        CrossViewClaim(
            f"beyond the paper: photo and tiles together beat {what}", "ours", ("edbl", JOINT), ("edbl", other),
            measure,
        )
        for what, other, measures in (
            ("tiles alone", OVERHEAD, WITHIN_KM),
            ("the photo classifier alone", CLASSIFIER, WITHIN_KM),
            ("the classifier that is told the area", AMONG_TILES, ("within 1 km",)),
        )
        for measure in measures
    ),
)  # fmt: skip
"""Each of the chapter's findings, and what is measured against it. "polar" is the recipe cross_view."""


def measured_pairs(trainings: Sequence[pd.DataFrame], role: Role) -> Measured | None:
    """Whether each pair of a role is right, by one or several trainings of its network: the tables `pairs` of their
    evaluations over the same test pairs, and for WITHIN_KM rows of their joint evaluations (method, pair_id,
    photographer, error_km). None if the network does not have the method or measure.

    By verification, a pair counts as two: matched and unmatched.
    """
    hits, rows = [], pd.DataFrame()
    for table in trainings:
        rows = table[table["method"] == role.method].sort_values("pair_id", kind="stable")
        found = _hits(rows, role.measure)
        if found is None:
            return None
        hits.append(found)
    if not hits:
        return None
    name, photographer = (rows[column].to_numpy(dtype=object) for column in ("pair_id", "photographer"))
    if role.measure == FIXED_THRESHOLD:
        name = np.concatenate([name + ": matched", name + ": unmatched"])
        photographer = np.concatenate([photographer, photographer])
    errors = np.where(np.stack(hits, axis=1), 0.0, np.inf)
    return Measured(name, photographer, errors, role.network)


def evaluate_cross_view_claims(
    pairs: Mapping[str, Sequence[pd.DataFrame]], claims: Sequence[CrossViewClaim] = CROSS_VIEW_CLAIMS
) -> pd.DataFrame:
    """Test each claim on the tables `pairs` of the trainings of each network. Returns a row a claim: claim, source,
    compared, measure, and the columns of evaluate_claims from `difference` on."""
    roles = dict.fromkeys(role for claim in claims for role in claim.roles)
    measured = {
        _key(role): found
        for role in roles
        if (found := measured_pairs(pairs.get(role.network, ()), role)) is not None
    }
    asked = [
        Claim(
            claim.name,
            claim.name,
            claim.source,
            ((1, _key(claim.roles[0])), (-1, _key(claim.roles[1]))),
            _ANY_LEVEL,
            "equal" if claim.margin else "greater",
            claim.margin,
        )
        for claim in claims
    ]
    table = evaluate_claims(asked, measured).drop(columns=["finding", "level", "km"])
    table["compared"] = [f"{claim.roles[0]} - {claim.roles[1]}" for claim in claims]
    table.insert(3, "measure", [claim.measure for claim in claims])
    table["n"] = [
        count // 2 if claim.measure == FIXED_THRESHOLD else count
        for claim, count in zip(claims, table["n"], strict=True)
    ]
    return table


def _hits(rows: pd.DataFrame, measure: str) -> NDArray[np.bool_] | None:
    if not len(rows):
        return None
    if measure in WITHIN_KM:
        return np.asarray(rows["error_km"].fillna(np.inf) <= WITHIN_KM[measure])
    if measure == TOP_PERCENT:
        if rows["rank"].isna().all():
            return None
        return np.asarray(rows["rank"].fillna(np.inf) <= top_percent(rows["candidates"].to_numpy(np.int64)))
    if rows["matched_fixed"].isna().all():
        return None
    both = [
        rows[column].fillna(0).to_numpy(np.float64) > 0 for column in ("matched_fixed", "unmatched_fixed")
    ]
    return np.concatenate(both)


def _key(role: Role) -> str:
    return f"{role}, {role.measure}"
