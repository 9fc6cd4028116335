"""Measures of cross-view matching: chance for constant embeddings, both conventions of the top 1 %, intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.evaluation.measures.overhead import (
    ALL,
    FIXED_THRESHOLD,
    MEAN_ERROR,
    MEDIAN_ERROR,
    TOP_PERCENT,
    TOP_PERCENT_FLOOR,
    measure_pairs,
    orientation_histogram,
    top_percent,
)
from geoloc.models.matching import distances, ranks


def pairs(rank, candidates, **columns):
    count = len(rank)
    given = {
        "city": [f"c{i % 3}" for i in range(count)], "photographer": [f"p{i // 2}" for i in range(count)],
        "rank": np.asarray(rank, float), "candidates": candidates, "metres": 10.0, "right_best": 1.0,
        "right_fixed": 0.5,
        "heading_error": np.nan,
    }  # fmt: skip
    return pd.DataFrame(given | columns)


def value(table, measure, group=ALL, column="value"):
    return table[(table["group"] == group) & (table["measure"] == measure)][column].item()


def test_a_constant_embedding_never_finds_anything():
    same = np.ones((200, 4), dtype=np.float32)
    apart, _ = distances(same, same[:, None])
    table = measure_pairs(pairs(ranks(apart, np.arange(200)), 200))
    assert value(table, TOP_PERCENT) == 0
    assert value(table, "R@10") == 0
    assert value(table, TOP_PERCENT, column="chance") == pytest.approx(3 / 200)


def test_random_embeddings_find_as_much_as_chance():
    numbers = np.random.default_rng(0)
    photos, tiles = numbers.normal(size=(2, 400, 8)).astype(np.float32)
    apart, _ = distances(photos, tiles[:, None])
    table = measure_pairs(pairs(ranks(apart, np.arange(400)), 400))
    for measure in ("R@1", "R@10", TOP_PERCENT, TOP_PERCENT_FLOOR):
        low, high = value(table, measure, column="low"), value(table, measure, column="high")
        assert low <= value(table, measure, column="chance") <= high


def test_the_top_1_percent_has_two_conventions():
    candidates = np.array([99, 100, 250, 70_000])
    assert top_percent(candidates).tolist() == [1, 2, 3, 701]
    floor = top_percent(candidates, floor=True)
    assert np.isnan(floor[0])
    assert floor[1:].tolist() == [1, 2, 700]
    small = measure_pairs(pairs([1, 2], 99))
    assert TOP_PERCENT_FLOOR not in small["measure"].tolist(), "undefined below 100 candidates"
    large = measure_pairs(pairs([1, 2, 3, 3], 250))
    assert value(large, TOP_PERCENT) == 1
    assert value(large, TOP_PERCENT_FLOOR) == 0.5


@given(st.lists(st.integers(1, 50), min_size=2, max_size=40), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_recalls_are_those_of_brute_force(rank, missing):
    given_ranks = [*map(float, rank), *[np.nan] * missing]
    table = measure_pairs(pairs(given_ranks, 50))
    for at in (1, 5, 10):
        assert value(table, f"R@{at}") == pytest.approx(sum(r <= at for r in rank) / len(given_ranks))
        by_city = [(g, c) for g, c in table.groupby("group") if g != ALL]
        total = sum(
            value(c, f"R@{at}", group=g) * value(c, f"R@{at}", group=g, column="n") for g, c in by_city
        )
        if by_city:
            assert total / len(given_ranks) == pytest.approx(value(table, f"R@{at}"))


def test_intervals_are_by_photographer_and_by_city():
    numbers = np.random.default_rng(1)
    lucky = numbers.random(20) < 0.5
    rank = np.where(np.repeat(lucky, 10), 1, 40)
    alone = measure_pairs(pairs(rank, 50, photographer=[f"p{i}" for i in range(200)]))
    together = measure_pairs(pairs(rank, 50, photographer=np.repeat([f"p{i}" for i in range(20)], 10)))

    def width(table):
        return value(table, "R@1", column="high") - value(table, "R@1", column="low")

    assert width(together) > 2 * width(alone)
    assert (
        value(alone, "R@1", column="city_low") < value(alone, "R@1") < value(alone, "R@1", column="city_high")
    )
    assert np.isnan(value(alone, "R@1", group="c0", column="city_low")), "one city has no interval by city"


def test_orientation_counts_known_headings_only():
    errors = [-170.0, 10.0, 20.0, np.nan]
    table = measure_pairs(pairs([1] * 4, 50, heading_error=errors))
    assert value(table, MEAN_ERROR) == pytest.approx(200 / 3)
    several = measure_pairs(pairs([1] * 40, 50, heading_error=np.linspace(-120, 60, 40)))
    for measure in (MEAN_ERROR, MEDIAN_ERROR):
        assert 0 < value(several, measure, column="low") < value(several, measure)
        assert value(several, measure) < value(several, measure, column="high") < 180
    assert value(table, MEDIAN_ERROR) == 20
    assert value(table, MEDIAN_ERROR, column="n") == 3
    assert value(table, MEAN_ERROR, column="chance") == 90
    assert value(table, FIXED_THRESHOLD) == 0.5
    found = orientation_histogram(np.array([*errors, 359.0, 180.0]), width=30)
    assert found["pairs"].sum() == 5
    assert found.loc[(found["from"] <= -1) & (found["to"] > -1), "pairs"].item() == 1


def test_a_network_that_scores_pairs_has_no_ranks():
    table = measure_pairs(pairs([np.nan] * 4, 50, heading_error=np.nan))
    assert set(table["measure"]) == {"verification, best threshold", FIXED_THRESHOLD}
