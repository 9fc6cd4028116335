"""Answers for albums: averages and the hidden Markov model, against brute force over all sequences of cells."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hmmlearn.base import BaseHMM
from hypothesis import given
from hypothesis import settings as sets
from hypothesis import strategies as st

from geoloc.localizers.by_album.average import averaged
from geoloc.localizers.by_album.hmm import HiddenMarkovModel, Transitions, count_transitions
from geoloc.localizers.by_album.localizers import UNLIKELY_ORDER, AverageLocalizer, HMMLocalizer, or_single
from geoloc.localizers.by_class.cells import ClassLocalizer
from geoloc.localizers.settings import HMMSettings
from geoloc.photos.sequences import NO_TIME, Sequences, make_sequences
from geoloc.photos.settings import SequenceSettings
from geoloc.settings import replace
from tests.unit.localizer_world import nested, photos, probabilities

COUNTED = HMMSettings(divide_by="counted")


def albums(*cells: list[int]) -> tuple[np.ndarray, Sequences]:
    """Albums with these cells in order of time, an hour between two photos."""
    frame = pd.DataFrame(
        {
            "photo_id": [f"{a}-{i:03d}" for a, album in enumerate(cells) for i in range(len(album))],
            "source": "s",
            "photographer": "p",
            "album": [str(a) for a, album in enumerate(cells) for _ in album],
            "taken_at": [pd.Timestamp(2015, 1, 1, i % 24) for album in cells for i in range(len(album))],
        }
    )
    return np.concatenate(cells), make_sequences(frame, SequenceSettings())


def by_hand(transitions: Transitions, emissions: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Over all sequences of cells: the largest joint probability, the posteriors, and the sum of the joint
    probabilities as a share of that of photos with nothing in common."""
    step, (length, cells) = transitions.dense(), emissions.shape
    best, total, mass = 0.0, np.zeros((length, cells)), 0.0
    for path in itertools.product(range(cells), repeat=length):
        joint = transitions.prior[path[0]] * emissions[0, path[0]]
        for t in range(1, length):
            joint *= step[path[t - 1], path[t]] * emissions[t, path[t]]
        best, mass = max(best, joint), mass + joint
        total[np.arange(length), path] += joint
    return best, total / mass, mass / np.prod(emissions @ transitions.prior)


@sets(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([0.4, 1.0]),
    st.sampled_from(["counted", "predicted"]),
)
def test_the_markov_model_is_the_sum_and_the_maximum_over_all_sequences(
    seed, cells, length, trust, divide_by
):
    numbers = np.random.default_rng(seed)
    train, sequences = albums(
        *(numbers.integers(-1, cells, numbers.integers(1, 6)).tolist() for _ in range(4))
    )
    chosen = HMMSettings(
        smoothing=float(numbers.uniform(0.01, 3)), stay=float(numbers.integers(0, 3)), divide_by=divide_by
    )
    seen = probabilities(20, cells, seed + 1)
    transitions = count_transitions(train, sequences, cells, chosen, seen)
    divisor = seen.mean(axis=0, dtype=float) if divide_by == "predicted" else transitions.prior
    np.testing.assert_allclose(transitions.dense().sum(axis=1), 1)
    p = probabilities(length, cells, seed)
    if length > 2:
        p[1] = np.nan  # a photo that could not be read
    emissions = (np.nan_to_num(p.astype(float), nan=1.0) / divisor) ** trust
    emissions[np.isnan(p).any(axis=1)] = 1.0
    best, posteriors, ratio = by_hand(transitions, emissions)

    model = HiddenMarkovModel(transitions, trust)
    path, log_joint = model.viterbi(p)
    assert log_joint == pytest.approx(np.log(best), abs=1e-6)
    steps = np.log(transitions.dense()[path[:-1], path[1:]]).sum() if length > 1 else 0.0
    own = np.log(transitions.prior[path[0]]) + steps + np.log(emissions[np.arange(length), path]).sum()
    assert own == pytest.approx(log_joint, abs=1e-6)
    found, evidence = model.posteriors(p)
    np.testing.assert_allclose(found, posteriors, atol=1e-5)
    assert evidence == pytest.approx(np.log(ratio), abs=1e-5)


def test_transitions_are_counted_within_albums_and_over_no_gap():
    cells, sequences = albums([0, 0, 1], [1, -1, 2], [2])
    found = count_transitions(cells, sequences, 3, replace(COUNTED, smoothing=1e-6, stay=0))
    expected = np.zeros((3, 3))
    expected[0, :2] = 0.5
    np.testing.assert_allclose(found.counted.toarray(), expected, atol=1e-5)
    np.testing.assert_allclose(found.prior, np.array([2.5, 2.5, 2.5]) / 7.5)
    with pytest.raises(ValueError, match="cells must be from -1 to 1"):
        count_transitions(cells, sequences, 2, COUNTED)
    with pytest.raises(ValueError, match="divide_by predicted needs the probabilities of 3 cells"):
        count_transitions(cells, sequences, 3, HMMSettings())


class Emitted(BaseHMM):
    """hmmlearn's model over observations that are the logarithms of their own likelihoods."""

    def _compute_log_likelihood(self, X):
        return X


def test_a_long_album_has_the_answers_of_hmmlearn():
    numbers = np.random.default_rng(1)
    cells = 6
    train, sequences = albums(numbers.integers(0, cells, 200).tolist())
    transitions = count_transitions(train, sequences, cells, COUNTED)
    p = probabilities(300, cells, 3)
    oracle = Emitted(n_components=cells)
    oracle.startprob_, oracle.transmat_, oracle.n_features = transitions.prior, transitions.dense(), cells
    emitted = np.log(p.astype(float)) - np.log(transitions.prior)

    log_joint, path = oracle.decode(emitted, algorithm="viterbi")
    found, found_joint = HiddenMarkovModel(transitions).viterbi(p)
    np.testing.assert_array_equal(found, path)
    assert found_joint == pytest.approx(log_joint)
    posteriors, _ = HiddenMarkovModel(transitions).posteriors(p)
    np.testing.assert_allclose(posteriors, oracle.predict_proba(emitted), atol=1e-5)


def test_the_mean_of_an_album_leaves_out_what_could_not_be_read():
    _, sequences = albums([0, 0, 0], [0])
    p = np.array([[0.2, 0.8], [np.nan, np.nan], [0.6, 0.4], [1.0, 0.0]], dtype=np.float32)
    found = averaged(p, sequences)
    np.testing.assert_allclose(found[[0, 2, 3]], [[0.4, 0.6], [0.4, 0.6], [1, 0]], atol=1e-6)
    assert np.isnan(found[1]).all()
    with pytest.raises(ValueError, match="a row for each of 4 photos"):
        averaged(p[:3], sequences)


def test_localizers_answer_with_places_and_fall_back_on_the_single_photo():
    partition = nested(*photos())[1]
    count = partition.cell_count
    assert count >= 6
    frame = pd.DataFrame(
        {
            "photo_id": list("abcdef"), "source": "s", "photographer": "p", "album": ["x"] * 4 + ["y"] * 2,
            "taken_at": pd.to_datetime(["2015-01-01", "2015-01-02", "2015-01-03", None, "2015-01-01", "2015-01-02"]),
        }
    )  # fmt: skip
    sequences = make_sequences(frame, SequenceSettings())
    p = np.full((6, count), 0.001 / (count - 1))
    p[np.arange(6), [0, 1, 0, 2, 3, 4]] = 1
    p[1] = 1 / count
    p[1, 1] += 0.01  # hardly known: its neighbours know better
    p /= p.sum(axis=1, keepdims=True)
    train, of = albums([0] * 9, [1] * 9, [2, 2], [3] * 30, [4] * 30)
    transitions = count_transitions(train, of, count, COUNTED)
    single = ClassLocalizer(partition)

    for decode in ("viterbi", "posterior"):
        hmm = HMMLocalizer(partition, transitions, HMMSettings(decode=decode))
        answers, reasons = hmm.explained(p, sequences)
        np.testing.assert_array_equal(answers.cells.cell[:, 0], [0, 0, 0, 2, 3, 4])
        # Nobody ever went from cell 3 to cell 4 in training.
        assert reasons.tolist() == [None, None, None, NO_TIME, UNLIKELY_ORDER, UNLIKELY_ORDER]
        np.testing.assert_array_equal(answers.latitude[3:], single.locate(p).latitude[3:])
        assert hmm.name == f"[L]HMM {count}C"

    average = AverageLocalizer(partition)
    ordered_by_nothing = make_sequences(frame, SequenceSettings(), ordered=False)
    assert set(average.locate(p, ordered_by_nothing).cells.cell[:4, 0]) == {0}


def test_what_a_model_says_nothing_of_is_answered_as_a_single_photo():
    _, sequences = albums([0, 0], [0])
    single = np.array([[0.9, 0.1]] * 3, dtype=np.float32)
    found = np.array([[0.2, 0.8], [np.nan, np.nan], [0.2, 0.8]], dtype=np.float32)
    np.testing.assert_allclose(or_single(found, single)[:, 0], [0.2, 0.9, 0.2], atol=1e-6)
    np.testing.assert_allclose(or_single(found, single, sequences)[:, 0], [0.2, 0.9, 0.9], atol=1e-6)
    with pytest.raises(ValueError, match="equal shapes"):
        or_single(found[:2], single)


def test_a_chosen_cell_comes_first_and_the_others_stay_in_order():
    partition = nested(*photos())[1]
    p = probabilities(2, partition.cell_count, 5)
    localizer = ClassLocalizer(partition, alternatives=3)
    order = np.argsort(-p, axis=1)
    found = localizer.locate(p, chosen=np.array([order[0, 1], order[1, 5]]))
    np.testing.assert_array_equal(found.cells.cell[0], order[0, [1, 0, 2]])
    np.testing.assert_array_equal(found.cells.cell[1], order[1, [5, 0, 1]])
    assert found.confidence[0] == p[0, order[0, 1]]
    np.testing.assert_array_equal(
        localizer.locate(p, chosen=np.array([-1, -1])).latitude, localizer.locate(p).latitude
    )
