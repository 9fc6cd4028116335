"""Paired errors: Wilcoxon's test against all signs by hand, and the interval by photographer beside it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from geoloc.evaluation.measures.signed_rank import FURTHEST_KM, paired_errors, wilcoxon_p


def test_the_p_value_is_the_share_of_all_signs_that_are_as_far_apart():
    one = np.array([1.0, 2.0, 9.0, 4.0, 5.5, 12.0])
    two = np.array([3.0, 7.0, 8.0, 8.0, 14.0, 25.0])
    difference = one - two
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1

    def sum_of(signs: np.ndarray) -> int:
        return abs(int((signs * ranks).sum()))

    every = [sum_of(np.array(signs)) for signs in itertools.product([-1, 1], repeat=6)]
    expected = np.mean(np.array(every) >= sum_of(np.sign(difference)))
    assert wilcoxon_p(one, two) == pytest.approx(expected)
    assert wilcoxon_p(one, one) == 1


def test_photos_of_a_photographer_count_together_in_the_interval_but_not_in_the_test():
    numbers = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 50)
    other = numbers.uniform(100, 200, 600)
    # All photos of a photographer are better, or all are worse, by chance.
    shift = np.repeat(np.array([-30.0] * 8 + [30.0] * 4), 50)
    found = paired_errors(other + shift + numbers.normal(0, 1, 600), other, clusters)
    assert found.wilcoxon_p < 1e-10
    assert found.low < 0 < found.high
    assert found.mean_km == pytest.approx(-10, abs=1)
    assert found.nearer == pytest.approx(2 / 3, abs=0.01)
    assert (found.photos, found.photographers) == (600, 12)
    better = paired_errors(other - 30, other, clusters)
    assert better.high < 0
    assert better.median_high < 0


def test_a_missing_answer_is_as_wrong_as_can_be_and_two_are_equal():
    found = paired_errors([np.inf, np.inf, 5], [np.inf, 16.0, 5], [0, 0, 0])
    assert found.mean_km == pytest.approx((FURTHEST_KM - 16) / 3)
    assert (found.nearer, found.further) == (0, 1 / 3)
    assert np.isnan(found.low)
    with pytest.raises(ValueError, match="got NaN"):
        paired_errors([np.nan], [1], [0])
    with pytest.raises(ValueError, match="equal photos"):
        paired_errors([1, 2], [1], [0])
