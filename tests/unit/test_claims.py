"""Claims: verdicts of intervals, the paired and clustered test against loops and evaluations, the published table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.evaluation.claims.claim import COLUMNS, DIRECTIONS, Claim, Measured, evaluate_claims
from geoloc.evaluation.claims.published import MARGIN, PUBLISHED_CLAIMS
from geoloc.evaluation.evaluate import evaluate
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.intervals import differences
from geoloc.evaluation.settings import EvaluationSettings
from geoloc.localizers.base import Answers
from geoloc.sphere import LEVELS_KM, destination
from tests.unit.localizer_world import nested, photos


def claim(direction="greater", margin=0.0, level="city", terms=((1, "a"), (-1, "b")), paired=True):
    return Claim("a beats b", "It is so.", "A paper, table 1", terms, level, direction, margin, paired)


def measured(hits, photographers, ids=None):
    """Errors of 1 km where a hit, 9000 km where not."""
    ids = [f"p{i}" for i in range(len(hits))] if ids is None else ids
    return Measured(
        np.array(ids, dtype=object), np.array(list(photographers), dtype=object), np.where(hits, 1.0, 9000.0)
    )


@pytest.mark.parametrize(
    ("direction", "margin", "low", "high", "verdict"),
    [
        ("greater", 0, 0.01, 0.2, "holds"),
        ("greater", 0, -0.01, 0.2, "undecided"),
        ("greater", 0, -0.2, -0.01, "does not hold"),
        ("greater", 0, 0.0, 0.0, "undecided"),
        ("not less", 0.02, -0.01, 0.2, "holds"),
        ("not less", 0.02, -0.03, 0.2, "undecided"),
        ("not less", 0.02, -0.2, -0.03, "does not hold"),
        ("equal", 0.02, -0.01, 0.01, "holds"),
        ("equal", 0.02, 0.0, 0.0, "holds"),
        ("equal", 0.02, -0.01, 0.03, "undecided"),
        ("equal", 0.02, -0.03, 0.01, "undecided"),
        ("equal", 0.02, 0.021, 0.03, "does not hold"),
        ("equal", 0.02, -0.03, -0.021, "does not hold"),
        ("equal", 0.02, np.nan, np.nan, "undecided"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(direction, margin, low, high, verdict):
    assert claim(direction, margin).verdict(low, high) == verdict


@given(st.integers(0, 10_000))
@settings(deadline=None)
def test_a_claim_is_a_paired_difference_by_photographer(seed):
    rng = np.random.default_rng(seed)
    owners = [f"u{i}" for i in rng.integers(0, 6, 40)]
    a, b = rng.random(40) < 0.6, rng.random(40) < 0.4
    order = rng.permutation(40)  # the second evaluation lists its photos in another order
    ids = np.array([f"p{i}" for i in range(40)])
    roles = {"a": measured(a, owners), "b": measured(b[order], np.array(owners)[order], ids[order])}
    row = evaluate_claims([claim()], roles).iloc[0]
    difference = a.astype(float) - b
    low, high = differences(difference[:, None], photographer_clusters(owners)).interval()
    assert row["difference"] == pytest.approx(difference.mean(), abs=1e-9)
    np.testing.assert_allclose([row["low"], row["high"]], [low[0], high[0]], atol=1e-9)
    assert (row["n"], row["photographers"]) == (40, len(set(owners)))


def test_a_claim_says_what_a_comparison_of_an_evaluation_says():
    rng = np.random.default_rng(0)
    n = 80
    asked = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(n)],
            "latitude": rng.uniform(-60, 60, n),
            "longitude": rng.uniform(-180, 180, n),
            "photographer": [None if i < 3 else f"u{i % 9}" for i in range(n)],
        }
    )
    answers = {}
    for name, typical in (("a", 10), ("b", 200)):
        lat, lon = destination(asked["latitude"], asked["longitude"], 30.0, rng.exponential(typical, n))
        lat[:5], lon[:5] = np.nan, np.nan
        answers[name] = Answers(lat, lon, np.zeros(n, np.float32))
    evaluation = evaluate(answers, asked, settings=EvaluationSettings(resamples=200), seed=4)
    roles = {name: Measured.of_method(evaluation, name, asked) for name in answers}
    for level in LEVELS_KM:
        row = evaluate_claims([claim(level=level)], roles).iloc[0]
        table = evaluation.comparisons
        other = table[(table["method"] == "a") & (table["other"] == "b") & (table["level"] == level)].iloc[0]
        for column in ("difference", "low", "high", "n"):
            assert row[column] == pytest.approx(other[column], abs=1e-9)
        assert row["p"] == pytest.approx(other["p"], rel=1e-3)
        assert row["asked"] == 1
        assert other["asked"] == len(LEVELS_KM)
    with pytest.raises(ValueError, match="method must be one of a, b; got 'c'"):
        Measured.of_method(evaluation, "c", asked)
    some = Measured.of_method(evaluation, "a", asked).where(asked["latitude"] > 0)
    assert len(some) == (asked["latitude"] > 0).sum()


@pytest.mark.slow
def test_verdicts_are_right_about_as_often_as_they_say():
    wrong, right = 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        owners = np.repeat(np.arange(40), 5)
        ease = rng.random(40)[owners]  # photos by one photographer are alike
        same = rng.random((2, 200)) < ease
        roles = {"a": measured(same[0], owners), "b": measured(same[1], owners)}
        roles["better"] = measured(rng.random(200) < ease + 0.25, owners)
        wrong += evaluate_claims([claim()], roles)["verdict"].iloc[0] != "undecided"
        right += (
            evaluate_claims([claim(terms=((1, "better"), (-1, "b")))], roles)["verdict"].iloc[0] == "holds"
        )
    assert wrong <= 17  # 7.5 expected at 95 per cent; 18 has a chance of 0.0006
    assert right >= 140


def test_more_photos_by_the_same_photographers_decide_nothing():
    hits = np.array([1, 1, 1, 0, 1, 0, 1, 1, 0, 1], dtype=bool)
    once = {"a": measured(hits, range(10)), "b": measured(~hits, range(10))}
    many = {
        name: measured(np.repeat(h, 100), np.repeat(np.arange(10), 100))
        for name, h in (("a", hits), ("b", ~hits))
    }
    rows = [evaluate_claims([claim()], roles).iloc[0] for roles in (once, many)]
    assert rows[0]["verdict"] == rows[1]["verdict"] == "undecided"
    np.testing.assert_allclose([rows[0]["low"], rows[0]["high"]], [rows[1]["low"], rows[1]["high"]])


def test_photos_that_not_all_roles_have_are_left_out_and_counted():
    roles = {
        "a": measured([True] * 6, "uvwxyz", list("abcdef")),
        "b": measured([False] * 6, "wxyzst", list("cdefgh")),
    }
    row = evaluate_claims([claim()], roles).iloc[0]
    assert (row["n"], row["difference"]) == (4, 1.0)
    assert row["note"] == "4 photos that not all roles have are left out"
    apart = {"a": roles["a"], "b": measured([True], "u", ["z"])}
    row = evaluate_claims([claim()], apart).iloc[0]
    assert (row["verdict"], row["note"], row["n"]) == ("undecided", "the roles have no photo in common", 0)


def test_unpaired_roles_are_compared_each_on_its_own_photos():
    rng = np.random.default_rng(1)
    owners = rng.integers(0, 8, 60)
    hits, outdoor = rng.random(60) < 0.5, rng.random(60) < 0.7
    whole = measured(hits, owners)
    outside = whole.where(np.where(np.arange(60) == 0, None, outdoor))  # of the first nothing is known
    outdoor[0] = False
    row = evaluate_claims([claim(paired=False)], {"a": outside, "b": whole}).iloc[0]
    assert row["difference"] == pytest.approx(hits[outdoor].mean() - hits.mean())
    assert row["n"] == 60
    # Against the bootstrap of photographers, by a loop: rough with 8 photographers, but of the same size.
    drawn = []
    for _ in range(500):
        weight = np.bincount(rng.integers(0, 8, 8), minlength=8)[owners]
        drawn.append(
            (weight * hits)[outdoor].sum() / weight[outdoor].sum() - (weight * hits).sum() / weight.sum()
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert 0.8 < (row["high"] - row["low"]) / (high - low) < 2.5


def test_many_claims_asked_together_are_corrected_for_being_many():
    hits = np.arange(40) % 2 == 0
    roles = {"a": measured(hits, range(40)), "b": measured(hits & (np.arange(40) > 11), range(40))}
    alone = evaluate_claims([claim()], roles).iloc[0]
    assert (alone["verdict"], alone["asked"]) == ("holds", 1)
    back = claim(terms=((1, "a"), (-1, "a")))  # cannot be decided
    many = evaluate_claims([claim(), *[back] * 30, claim(terms=((1, "a"), (-1, "c")))], roles)
    assert many["asked"].eq(31).all()  # the last was not asked: c is not measured
    first = many.iloc[0]
    assert (first["low"], first["high"], first["p"]) == (alone["low"], alone["high"], alone["p"])
    assert first["p_corrected"] == pytest.approx(31 * alone["p"])
    assert first["verdict"] == "undecided"


@pytest.mark.parametrize("direction", ["equal", "not less"])
def test_margins_do_not_hold_vacuously(direction):
    """Nine hundred photographers, none or one of them right: two points either way say nothing of that."""

    def verdict(first, second):
        roles = {
            "a": measured(np.arange(900) < first, range(900)),
            "b": measured(np.arange(900) < second, range(900)),
        }
        return evaluate_claims([claim(direction, 0.02)], roles).iloc[0]

    for first, second in ((0, 0), (1, 1), (1, 0), (0, 1), (3, 3)):
        assert verdict(first, second)["verdict"] == "undecided"
    row = verdict(9, 9)
    assert row["margin"] == pytest.approx(0.001)
    assert "margin 10% of the accuracy compared with" in row["note"]
    row = verdict(600, 600)
    assert (row["verdict"], row["margin"], row["note"]) == ("holds", 0.02, "")


def test_a_difference_of_differences():
    owners = np.arange(30)
    hits = {name: np.arange(30) < n for name, n in (("a", 20), ("b", 5), ("c", 12), ("d", 9))}
    roles = {name: measured(h, owners) for name, h in hits.items()}
    four = claim(terms=((1, "a"), (-1, "b"), (-1, "c"), (1, "d")))
    row = evaluate_claims([four], roles).iloc[0]
    assert row["difference"] == pytest.approx((20 - 5) / 30 - (12 - 9) / 30)
    assert row["compared"] == "a - b - c + d"
    assert row["verdict"] == "holds"


def test_what_cannot_be_said_is_undecided_and_says_why():
    good, bad = measured([True] * 5, "uvwxy"), measured([False] * 5, "uvwxy")
    table = evaluate_claims([claim(), claim(level="street")], {"a": good})
    assert table["note"].tolist() == ["not measured: b"] * 2
    assert table["difference"].isna().all()
    assert table.dtypes.astype(str).to_dict() == COLUMNS
    alone = {"a": measured([True] * 5, "uuuuu"), "b": measured([False] * 5, "uuuuu")}
    row = evaluate_claims([claim()], alone).iloc[0]
    assert (row["verdict"], row["note"]) == ("undecided", "all photos are by one photographer")
    assert row["difference"] == 1
    assert np.isnan(row["low"])
    nothing = evaluate_claims([claim("equal", 0.02)], {"a": bad, "b": bad}).iloc[0]
    assert (nothing["verdict"], nothing["note"]) == (
        "undecided",
        "no role is right on any photo at city level",
    )
    assert evaluate_claims([claim()], {"a": good, "b": bad})["verdict"].tolist() == ["holds"]
    assert evaluate_claims([claim()], {"a": bad, "b": good})["verdict"].tolist() == ["does not hold"]
    assert len(evaluate_claims([], {})) == 0


def test_claims_that_make_no_sense_are_refused():
    for arguments, text in (
        (
            {"level": "village"},
            "level must be one of street, city, region, country, continent, bias; got 'village'",
        ),
        ({"direction": "less"}, "direction must be one of greater, not less, equal; got 'less'"),
        ({"terms": ((1, "a"), (1, "b"))}, "must add up to 0"),
        ({"terms": ((0, "a"),)}, "at least 2 terms"),
        ({"margin": 0.1}, "margin must be 0 for greater"),
        ({"direction": "equal"}, "above 0 for not less and equal; got 0"),
        ({"direction": "equal", "margin": -1}, "got -1"),
    ):
        with pytest.raises(ValueError, match=text):
            claim(**arguments)
    with pytest.raises(ValueError, match="photo_ids must be unique"):
        measured([True, True], "uv", ["p", "p"])
    with pytest.raises(ValueError, match="do not fit each other"):
        measured([True, True], "u")


def test_a_ceiling_is_that_of_the_partition():
    lat, lon = photos(300)
    partition = nested(lat, lon)[0]
    rng = np.random.default_rng(0)
    asked = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(400)],
            "latitude": np.append(lat, rng.uniform(-90, 90, 100)),
            "longitude": np.append(lon, rng.uniform(-180, 180, 100)),
            "photographer": "u",
        }
    )
    for answer in ("centroid", "centre"):
        errors = Measured.of_ceiling(partition, asked, answer).error_km
        share = partition.ceiling(asked["latitude"], asked["longitude"], answer=answer)
        for level, km in LEVELS_KM.items():
            assert (errors <= km).mean() == pytest.approx(share[level])
    assert np.isinf(errors).sum() == (partition.assign(asked["latitude"], asked["longitude"]) < 0).sum() > 0


def test_the_published_table_has_the_findings_of_the_issue():
    names = {one.name for one in PUBLISHED_CLAIMS}
    assert len({(one.name, one.level) for one in PUBLISHED_CLAIMS}) == len(PUBLISHED_CLAIMS)
    for text in (
        "finer wins", "coarser wins", "centroid beats centre", "gains most on coarse", "as good as [L]",
        "no worse than [L2]", "outdoor", "triangles", "SVM on frozen", "beats kNN", "retrieval beats classification",
        "kNN beats NN", "larger σ", "metric fine-tuning", "large batches",
        "averaging over an album helps", "LSTM beats averaging", "LSTM beats single", "twice beats one pass",
        "both directions beat twice", "offset of one", "time of posting helps", "lowers bias", "raises bias",
    ):  # fmt: skip
        assert any(text in name for name in names), text
    for one in PUBLISHED_CLAIMS:
        assert one.finding
        assert any(
            paper in one.source
            for paper in ("Revisiting", "Multi-modal", "Diving Deeper", "dissertation", "PlaNet")
        )
        assert one.direction in DIRECTIONS
        assert one.margin in (0.0, MARGIN)
    # The published ceilings themselves (Multi-modal, table 6, city level) agree with the directions in the table.
    city = {
        "coarse ceiling": 0.4338, "coarse ceiling centre": 0.2533,
        "fine ceiling": 0.8323, "fine ceiling centre": 0.7313,
    }  # fmt: skip
    roles = {
        role: measured(np.arange(2000) < round(2000 * share), np.arange(2000)) for role, share in city.items()
    }
    table = evaluate_claims([c for c in PUBLISHED_CLAIMS if c.level == "city"], roles)
    decided = table[table["n"] > 0]
    assert len(decided) == 3
    assert decided["verdict"].eq("holds").all()
    assert table[table["n"] == 0]["note"].str.startswith("not measured").all()
