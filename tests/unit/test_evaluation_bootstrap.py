"""The bootstrap by photographer, against loops, known variances and scikit-learn's resampling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import resample

from geoloc.evaluation.measures import bootstrap
from geoloc.evaluation.measures.bootstrap import (
    interval,
    photographer_clusters,
    resampled_means,
    resampled_medians,
)
from geoloc.evaluation.measures.comparison import pairs_to_compare


def test_unknown_photographers_are_clusters_of_their_own():
    clusters = photographer_clusters(pd.Series(["a", None, "b", "a", None]))
    assert clusters[0] == clusters[3]
    assert len(set(clusters.tolist())) == 4
    assert sorted(set(clusters.tolist())) == [0, 1, 2, 3]


def test_two_photographers_one_right_one_wrong_gives_the_known_distribution():
    # Draws of 2 from {right, wrong}: both right 1/4, both wrong 1/4, one of each 1/2.
    values, clusters = np.array([[1.0], [1.0], [0.0], [0.0]]), np.array([0, 0, 1, 1])
    means = resampled_means(values, clusters, resamples=20_000, seed=0)[:, 0]
    found, counts = np.unique(means, return_counts=True)
    assert found.tolist() == [0.0, 0.5, 1.0]
    assert counts / 20_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.015)


def test_a_big_photographer_counts_by_photos_not_by_heads():
    # Photographer 0 has 9 photos, right; photographer 1 one photo, wrong: a mixed draw is 0.9, not 0.5.
    values, clusters = np.array([[1.0]] * 9 + [[0.0]]), np.array([0] * 9 + [1])
    assert set(np.unique(resampled_means(values, clusters, resamples=500, seed=1)).tolist()) == {
        0.0,
        0.9,
        1.0,
    }


def test_interval_agrees_with_scikit_learn_resampling_photographers():
    rng = np.random.default_rng(5)
    clusters = np.sort(rng.integers(0, 40, 600))
    clusters = np.unique(clusters, return_inverse=True)[1]
    values = (rng.random(600) < (clusters % 5) / 5).astype(float)
    groups = [values[clusters == c] for c in range(clusters.max() + 1)]
    oracle = [np.concatenate(resample(groups, random_state=i)).mean() for i in range(2000)]
    ours = resampled_means(values[:, None], clusters, resamples=2000, seed=0)[:, 0]
    low, high = interval(ours)
    assert [low, high] == pytest.approx(np.quantile(oracle, [0.025, 0.975]).tolist(), abs=0.015)
    assert ours.std() == pytest.approx(np.std(oracle), rel=0.1)


def test_photographers_who_are_all_right_or_all_wrong_widen_the_interval_as_theory_says():
    # 50 photographers of 10 like photos: the variance is 10 times that of 500 independent photos.
    rng = np.random.default_rng(2)
    right = np.repeat(rng.permutation(50) < 25, 10).astype(float)[:, None]
    by_photographer = resampled_means(right, np.repeat(np.arange(50), 10), resamples=4000, seed=0)
    by_photo = resampled_means(right, np.arange(500), resamples=4000, seed=0)
    assert by_photographer.std() / by_photo.std() == pytest.approx(np.sqrt(10), rel=0.08)
    assert by_photo.std() == pytest.approx(np.sqrt(0.25 / 500), rel=0.08)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_medians_are_numpys_of_the_photos_drawn(seed, n):
    rng = np.random.default_rng(seed)
    clusters = np.unique(rng.integers(0, 6, n), return_inverse=True)[1]
    values = np.where(rng.random(n) < 0.3, np.inf, rng.integers(0, 50, n).astype(float))
    got = resampled_medians(values, clusters, resamples=10, seed=seed)
    weights = np.concatenate(
        list(bootstrap._weights(np.bincount(clusters).astype(float), 10, seed, width=n))
    ).astype(int)
    expected = [np.median(np.repeat(values, w[clusters])) for w in weights]
    assert got.tolist() == expected


def test_chunks_do_not_change_the_draw(monkeypatch):
    values, clusters = np.random.default_rng(0).random((30, 2)), np.arange(30) % 7
    whole = resampled_means(values, clusters, resamples=50, seed=9)
    medians = resampled_medians(values[:, 0], clusters, resamples=50, seed=9)
    monkeypatch.setattr(bootstrap, "_CHUNK", 40)
    assert (resampled_means(values, clusters, resamples=50, seed=9) == whole).all()
    assert (resampled_medians(values[:, 0], clusters, resamples=50, seed=9) == medians).all()
    assert (resampled_means(values, clusters, resamples=50, seed=8) != whole).any()


def test_pairs():
    assert pairs_to_compare(["a", "b", "c"], ["dense"]) == [
        ("a", "b"), ("a", "c"), ("b", "c"), ("a", "dense"), ("b", "dense"), ("c", "dense"),
    ]  # fmt: skip
    assert pairs_to_compare(["a", "b", "c"], ["dense"], "b") == [
        ("a", "b"), ("c", "b"), ("a", "dense"), ("b", "dense"), ("c", "dense"),
    ]  # fmt: skip


def test_no_photos_is_an_error():
    with pytest.raises(ValueError, match="at least one photo"):
        resampled_means(np.empty((0, 2)), np.empty(0, dtype=int), resamples=10, seed=0)
