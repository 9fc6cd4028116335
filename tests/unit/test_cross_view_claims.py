"""Cross-view findings: better on the same pairs, equal within a margin, not built."""

from __future__ import annotations

import numpy as np
import pandas as pd

from geoloc.evaluation.claims.cross_view import (
    AVERAGED,
    CROSS_VIEW_CLAIMS,
    SIXTEEN,
    CrossViewClaim,
    evaluate_cross_view_claims,
)
from geoloc.evaluation.measures.overhead import (
    CLASSIFIER,
    FIXED_THRESHOLD,
    JOINT,
    LAST,
    PENULTIMATE,
    TOP_PERCENT,
)


def pairs(found, verified, method=SIXTEEN, order=None):
    count = len(found)
    table = pd.DataFrame(
        {
            "method": method, "pair_id": [f"p{i}" for i in range(count)],
            "photographer": [f"w{i // 2}" for i in range(count)], "rank": np.where(found, 1.0, 40.0),
            "candidates": 50.0, "matched_fixed": np.asarray(verified, float),
            "unmatched_fixed": np.asarray(verified, float),
        }
    )  # fmt: skip
    return table if order is None else table.iloc[order]


def test_claims_are_paired_over_the_same_pairs():
    numbers = np.random.default_rng(0)
    good, bad = numbers.random(200) < 0.6, numbers.random(200) < 0.2
    same = np.ones(200, bool)
    claim = CrossViewClaim("x", "y", ("siamese_dbl", SIXTEEN), ("siamese", SIXTEEN), TOP_PERCENT)
    verified = CrossViewClaim("x", "y", ("siamese_dbl", SIXTEEN), ("siamese", SIXTEEN), FIXED_THRESHOLD, 0.02)
    shuffled = numbers.permutation(200)
    table = evaluate_cross_view_claims(
        {"siamese_dbl": [pairs(good, same)], "siamese": [pairs(bad, same, order=shuffled)]}, [claim, verified]
    )
    assert table["difference"].tolist() == [round(good.mean() - bad.mean(), 10), 0]
    assert table["verdict"][0] == "holds"
    assert table["n"].tolist() == [200, 200]
    turned = evaluate_cross_view_claims(
        {"siamese_dbl": [pairs(bad, same)], "siamese": [pairs(good, same)]}, [claim]
    )
    assert turned["verdict"].item() == "does not hold"


def test_the_luck_of_a_training_widens_the_interval():
    numbers = np.random.default_rng(0)
    runs = [pairs(numbers.random(200) < share, np.ones(200)) for share in (0.4, 0.8)]
    other = pairs(numbers.random(200) < 0.3, np.ones(200))
    claim = [CrossViewClaim("x", "y", ("a", SIXTEEN), ("b", SIXTEEN), TOP_PERCENT)]
    once = evaluate_cross_view_claims({"a": runs[:1], "b": [other]}, claim)
    twice = evaluate_cross_view_claims({"a": runs, "b": [other]}, claim)
    width = [(one["high"] - one["low"]).item() for one in (once, twice)]
    assert width[1] > 1.5 * width[0]


def test_what_is_not_built_is_undecided():
    table = evaluate_cross_view_claims({"siamese": [pairs(np.ones(9), np.ones(9))]}, CROSS_VIEW_CLAIMS)
    assert len(table) == len(CROSS_VIEW_CLAIMS)
    assert table["note"].str.startswith("not measured").all()
    scores_only = pairs(np.ones(9), np.ones(9)).assign(rank=np.nan)
    claim = CrossViewClaim("x", "y", ("hybrid", SIXTEEN), ("siamese", AVERAGED), TOP_PERCENT)
    table = evaluate_cross_view_claims({"hybrid": [scores_only]}, [claim])
    assert "hybrid, 16 rotations" in table["note"].item(), "it ranks nothing"


def test_photo_and_tiles_together_are_compared_within_a_distance():
    rows = pd.DataFrame({"pair_id": ["p0", "p1", "p2", "p3"], "photographer": ["v", "w", "x", "y"]})
    both = [
        rows.assign(method=method, error_km=km)
        for method, km in ((JOINT, [0.5, 1.0, 1.1, 30]), (CLASSIFIER, [9, 9, 9, np.nan]))
    ]
    mixed = pd.concat([pairs(np.ones(4), np.ones(4)), *both], ignore_index=True)
    claims = [
        CrossViewClaim("x", "y", ("edbl", JOINT), ("edbl", CLASSIFIER), measure)
        for measure in ("within 1 km", "within 25 km")
    ]
    table = evaluate_cross_view_claims({"edbl": [mixed]}, claims)
    assert table["difference"].tolist() == [0.5, 0.0]
    assert table["n"].tolist() == [4, 4]


def test_layers_of_a_network_are_compared_with_each_other():
    (claim,) = [c for c in CROSS_VIEW_CLAIMS if c.better == ("separate", LAST)]
    both = pd.concat(
        [pairs([1, 1, 0, 0], [1] * 4, LAST), pairs([1, 0, 0, 0], [1] * 4, PENULTIMATE)], ignore_index=True
    )
    table = evaluate_cross_view_claims({"separate": [both]}, [claim])
    assert table["difference"].tolist() == [0.25]
    assert claim.than == ("separate", PENULTIMATE)
