"""R@k, mAP and mP@k: equal to brute force, and right on lists that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.evaluation.measures.retrieval import (
    Relevance,
    average_precision,
    landmark_measures,
    precision_at_k,
    ranks_of,
    recall_at_k,
)


def relevance(easy: list[int], hard: list[int], junk: list[int]) -> Relevance:
    return Relevance(*(np.array(part, dtype=np.int64) for part in (easy, hard, junk)))


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 25))
def test_recall_is_the_share_with_one_of_the_class_among_the_k_nearest_others(seed: int, count: int) -> None:
    numbers = np.random.default_rng(seed)
    x, classes = numbers.normal(size=(count, 4)).astype(np.float32), numbers.integers(0, 6, count)
    found = recall_at_k(x, classes, (1, 2, 8))
    for k, value in found.items():
        hits = 0
        for i in range(count):
            others = [j for j in np.argsort(-(x[i] @ x.T), kind="stable") if j != i]
            hits += any(classes[j] == classes[i] for j in others[:k])
        assert value == pytest.approx(hits / count)


def test_images_of_the_querys_own_group_are_not_among_its_others() -> None:
    x = np.array([[1, 0], [0.99, 0.1], [0.9, 0.4], [0.8, 0.6]], dtype=np.float32)
    classes, people = [0, 0, 1, 0], np.array(["a", "a", "b", "c"])
    assert recall_at_k(x, classes, (1, 2))[1] == 0.5  # images 0 and 1 find each other
    assert recall_at_k(x, classes, (1, 2), [people]) == {1: 0.0, 2: 0.75}
    with pytest.raises(ValueError, match="a group for each of 4 images"):
        recall_at_k(x, classes, (1,), [people[:3]])


def test_a_constant_embedding_finds_nothing() -> None:
    assert recall_at_k(np.ones((6, 3)), [0, 0, 1, 1, 2, 2], (1, 4, 5)) == {1: 0.0, 4: 0.0, 5: 1.0}


def their_average_precision(ranks: np.ndarray, right: int) -> float:
    """The published evaluation of revisited Oxford and Paris, line by line."""
    total, step = 0.0, 1.0 / right
    for j, rank in enumerate(ranks):
        before = 1.0 if rank == 0 else float(j) / rank
        total += (before + float(j + 1) / (rank + 1)) * step / 2.0
    return total


@given(st.sets(st.integers(0, 40), min_size=1, max_size=15), st.integers(0, 3))
def test_average_precision_is_the_published_one(ranks: set[int], not_found: int) -> None:
    ordered, right = np.array(sorted(ranks)), len(ranks) + not_found
    assert average_precision(ordered, right) == pytest.approx(their_average_precision(ordered, right))
    for k in (1, 5, 10):
        depth = min(max(ranks) + 1, k)
        assert precision_at_k(ordered, right, k) == pytest.approx(sum(r < depth for r in ranks) / depth)


def test_the_three_protocols_of_revisited_oxford_and_paris() -> None:
    ranked = np.array([[3, 0, 5, 1, 4, 2], [0, 1, 2, 3, 4, 5]])
    wanted = [relevance([0, 1], [4], [3]), relevance([5], [], [0])]
    # First query, easy: 3 and 4 are ignored, so the list is 0 5 1 2: ranks 0 and 2.
    np.testing.assert_array_equal(ranks_of(ranked[0], [0, 1], [3, 4]), [0, 2])
    easy = landmark_measures(ranked, wanted, "easy")
    first = (1 + (1 / 2 + 2 / 3) / 2) / 2
    second = (0 / 4 + 1 / 5) / 2  # 0 is ignored: rank 4
    assert easy == pytest.approx(
        {"map": (first + second) / 2, "mp_1": 0.5, "mp_5": (2 / 3 + 1 / 5) / 2, "mp_10": (2 / 3 + 1 / 5) / 2,
         "queries": 2}
    )  # fmt: skip
    # Medium: 3 is ignored: 0 5 1 4 2. Hard: 3, 0 and 1 are ignored: 5 4 2, and the second query has nothing to find.
    medium = landmark_measures(ranked[:1], wanted[:1], "medium", ks=(2,))
    assert medium["map"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3)
    assert medium["mp_2"] == 0.5
    hard = landmark_measures(ranked, wanted, "hard", ks=(1,))
    assert hard == {"map": pytest.approx((0 + 1 / 2) / 2), "mp_1": 0.0, "queries": 1}
    assert np.isnan(landmark_measures(ranked[1:], wanted[1:], "hard")["map"])


def test_wrong_input_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"two or more vectors \(N, D\) and N classes, got \(2, 3\) and \(3,\)"
    ):
        recall_at_k(np.ones((2, 3)), [0, 1, 2], (1,))
    with pytest.raises(ValueError, match="finite vectors; 1 are not"):
        recall_at_k([[1.0, np.nan], [0, 1]], [0, 0], (1,))
    with pytest.raises(ValueError, match=r"k of at least 1, got \[0\]"):
        recall_at_k(np.eye(2), [0, 0], (0,))
    with pytest.raises(ValueError, match="protocol must be one of easy, medium, hard; got 'normal'"):
        landmark_measures(np.array([[0]]), [relevance([0], [], [])], "normal")
    with pytest.raises(ValueError, match="1 ranked lists do not fit 0 queries"):
        landmark_measures(np.array([[0]]), [], "easy")
