"""Matching of photos with rotated tiles, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.models import matching


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 4]))
@settings(max_examples=30, deadline=None)
def test_distances_and_ranks_are_those_of_brute_force(seed, photos, tiles, rotations):
    numbers = np.random.default_rng(seed)
    # Small whole numbers, so that there are ties.
    asked = numbers.integers(0, 2, (photos, 3)).astype(np.float32)
    indexed = numbers.integers(0, 2, (tiles, rotations, 3)).astype(np.float32)
    apart, turned = matching.distances(asked, indexed)
    truth = numbers.integers(0, tiles, photos)
    found = matching.ranks(apart, truth)
    whole = matching.ranking(asked, indexed, truth)
    assert whole.rank.tolist() == found.tolist()
    assert matching.pair_distances(asked, indexed, truth) == pytest.approx(whole.distance)
    for q, best in enumerate(whole.best):
        nearest = np.flatnonzero(np.isclose(apart[q], apart[q].min()))
        assert best == (nearest[0] if len(nearest) == 1 else -1)
    for q in range(photos):
        each = ((asked[q] - indexed) ** 2).sum(axis=2)
        assert apart[q] == pytest.approx(each.min(axis=1))
        assert each[np.arange(tiles), turned[q]] == pytest.approx(each.min(axis=1))
        assert found[q] == (each.min(axis=1) <= each.min(axis=1)[truth[q]]).sum()


def test_equal_embeddings_rank_last_and_broken_ones_too():
    same = np.ones((3, 4), dtype=np.float32)
    apart, _ = matching.distances(same, np.ones((5, 2, 4), dtype=np.float32))
    assert matching.ranks(apart, np.array([0, 1, 4])).tolist() == [5, 5, 5]
    same[1] = np.nan
    apart, _ = matching.distances(same, np.eye(4, dtype=np.float32)[:, None])
    assert matching.ranks(apart, np.array([0, 1, 2]))[1] == 4
    assert matching.ranking(same[:1], np.ones((5, 2, 4), np.float32), np.array([2])).best.tolist() == [-1]
    assert np.isnan(
        matching.pair_distances(same, np.ones((5, 2, 4), np.float32), np.array([-1, 0, -1]))
    ).all()


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=8), st.lists(st.integers(0, 6), min_size=1, max_size=8)
)
def test_the_best_threshold_is_that_of_brute_force(matched, unmatched):
    near, far = np.array(matched, float), np.array(unmatched, float)

    def accuracy(threshold):
        return ((near <= threshold).mean() + (far > threshold).mean()) / 2

    threshold, found = matching.best_threshold(near, far)
    assert found == pytest.approx(accuracy(threshold))
    assert found == pytest.approx(max(accuracy(t) for t in [-1, *range(7)]))
    assert found >= 0.5


def test_runs_of_rotations_are_averaged_by_their_middle():
    tiles = np.arange(16, dtype=np.float32)[None, :, None] * np.ones((2, 1, 1), np.float32)
    best, up = matching.indexed_rotations(tiles, "best", 90, False)
    assert best.shape == (2, 16, 1)
    assert up.tolist() == [i * 22.5 for i in range(16)]
    runs, middles = matching.indexed_rotations(tiles, "sequence", 90, False)
    assert runs[0, :, 0].tolist() == [np.mean([(s + i) % 16 for i in range(4)]) for s in range(16)]
    assert middles[0] == pytest.approx(1.5 * 22.5)
    assert middles[15] == pytest.approx((16.5 * 22.5) % 360)
    mean, none = matching.indexed_rotations(tiles, "average", 90, False)
    assert mean.shape == (2, 1, 1)
    assert mean[0, 0, 0] == pytest.approx(7.5)
    assert np.isnan(none).all()
    unit, _ = matching.indexed_rotations(
        np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32), "average", 360, True
    )
    assert np.linalg.norm(unit, axis=2) == pytest.approx(1.0)
