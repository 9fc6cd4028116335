"""An album of files: its order, answers no worse than without it, anchors, and how uncertain an answer is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geoloc.localizers.by_album.hmm import count_transitions
from geoloc.localizers.by_album.localizers import UNLIKELY_ORDER
from geoloc.localizers.by_album.together import (
    ALL_COPIES,
    FUTURE,
    SPEAKS_AGAINST,
    in_order,
    spread_km,
    together,
)
from geoloc.localizers.settings import HMMSettings
from geoloc.photos.sequences import FAR_IN_TIME, NO_TIME, ONLY_ONE, make_sequences
from geoloc.photos.settings import SequenceSettings
from geoloc.sphere import distance_km
from tests.unit.localizer_world import nested, photos

PARTITION = nested(*photos())[1]
CELLS = PARTITION.cell_count
NOW = pd.Timestamp("2024-06-01 12:00")


def album(*taken, offset=None):
    table = pd.DataFrame({"photo_id": [f"{i:05}.jpg" for i in range(len(taken))], "taken_at": list(taken)})
    table["taken_at"] = pd.to_datetime(table["taken_at"]).astype("datetime64[us]")
    table["utc_offset_hours"] = np.nan if offset is None else offset
    return table


def order(*taken, **keywords):
    return in_order(album(*taken, **keywords), NOW, SequenceSettings())


def sure(*cells, p=0.6):
    """Probabilities of photos, each with `p` in its cell."""
    found = np.full((len(cells), CELLS), (1 - p) / (CELLS - 1))
    found[np.arange(len(cells)), cells] = p
    return found.astype(np.float32)


def answered(single, sequences, anchors=None, hmm=None, contents=None):
    known = np.full(len(single), -1) if anchors is None else np.asarray(anchors)
    transitions = None
    if hmm is not None:
        cells = np.repeat(np.arange(CELLS), 10)
        table = pd.DataFrame(
            {"photo_id": [f"p{i}" for i in range(len(cells))], "photographer": "a", "source": "s"}
        )
        table["album"] = [f"a{i // 5}" for i in range(len(cells))]
        table["taken_at"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(cells)), "min")
        counted = make_sequences(table, SequenceSettings())
        transitions = count_transitions(cells, counted, CELLS, hmm, sure(*cells))
    same = None if contents is None else np.array(contents, dtype=object)
    return together(single, sequences, PARTITION, transitions, hmm, known, same)


@pytest.mark.parametrize("hmm", [None, HMMSettings()], ids=["mean", "HMM"])
def test_an_unsure_photo_follows_the_others(hmm):
    times = [f"2020-05-01 10:0{i}" for i in range(4)]
    single = sure(2, 2, 2, 2, p=0.9)
    single[3] = sure(1, p=0.15)[0]
    found = answered(single, order(*times), hmm=hmm)
    assert found.cells.tolist() == [2, 2, 2, 2]
    assert not pd.notna(found.reason).any()
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize("hmm", [None, HMMSettings()], ids=["mean", "HMM"])
def test_a_photo_that_is_sure_of_another_place_keeps_it(hmm):
    """As of a trip to two cities: no worse than alone."""
    times = [f"2020-05-01 10:0{i}" for i in range(6)]
    found = answered(sure(2, 2, 2, 2, 1, 1, p=0.97), order(*times), hmm=hmm)
    assert found.cells.tolist() == [2, 2, 2, 2, 1, 1]
    if hmm is None:
        assert found.reason.tolist() == [None] * 4 + [SPEAKS_AGAINST] * 2


def test_photos_in_an_order_that_makes_no_sense_are_answered_alone():
    """As of two cameras whose clocks disagree, in two places at once."""
    times = [f"2020-05-01 10:0{i}" for i in range(8)]
    single = sure(*[1, 2] * 4, p=0.999)
    found = answered(single, order(*times), hmm=HMMSettings())
    assert found.cells.tolist() == [1, 2] * 4
    assert set(found.reason) == {UNLIKELY_ORDER}
    np.testing.assert_array_equal(found.probabilities, single)


@pytest.mark.parametrize("hmm", [None, HMMSettings()], ids=["mean", "HMM"])
def test_an_anchor_tells_of_the_others_and_is_never_moved(hmm):
    times = [f"2020-05-01 10:0{i}" for i in range(3)]
    single = sure(1, 1, 1, p=0.12)
    found = answered(single, order(*times), [-1, 3, -1], hmm)
    assert found.cells.tolist() == [3, 3, 3]
    unread = single.copy()
    unread[0] = np.nan
    found = answered(unread, order(*times), [-1, 3, -1], hmm)
    assert found.cells.tolist() == [-1, 3, 3]
    assert np.isnan(found.probabilities[0]).all()


def test_an_anchor_counts_where_the_order_makes_no_sense():
    """Only photos that speak against its place are answered alone."""
    times = [f"2020-05-01 10:0{i}" for i in range(4)]
    single = np.concatenate([sure(1, 1, 1, p=0.3), sure(2, p=0.9)])
    assert set(answered(single, order(*times), hmm=HMMSettings()).reason) == {UNLIKELY_ORDER}
    found = answered(single, order(*times), [-1, 3, -1, -1], HMMSettings())
    assert found.cells.tolist() == [3, 3, 3, 2]
    assert found.reason.tolist() == [None, None, None, SPEAKS_AGAINST]
    np.testing.assert_array_equal(found.probabilities[3], single[3])


@pytest.mark.parametrize("hmm", [None, HMMSettings()], ids=["mean", "HMM"])
def test_copies_of_a_photo_count_once(hmm):
    times = [f"2020-05-01 10:0{i}" for i in range(3)]
    few = answered(sure(2, 2, 1, p=0.4), order(*times), hmm=hmm)
    copied = answered(
        sure(2, 2, 1, 1, 1, 1, p=0.4), order(*times, *times[2:] * 3), hmm=hmm, contents=list("abcccc")
    )
    assert copied.cells.tolist() == [2] * 6
    np.testing.assert_allclose(copied.probabilities[2:], few.probabilities[[2] * 4], atol=0.05)
    single = sure(1, 1, 1, p=0.4)
    found = answered(single, order(*times), hmm=hmm, contents=list("aaa"))
    np.testing.assert_allclose(found.probabilities, single)
    assert found.reason.tolist() == [ALL_COPIES] * 3


def test_clocks_that_cannot_be_right_leave_a_photo_alone():
    found = order("2020-05-01 10:00", "2020-05-01 10:05", "2001-01-01 00:00", "2031-01-01 00:00", None)
    assert found.reason.tolist() == [None, None, FAR_IN_TIME, FUTURE, NO_TIME]
    assert order("2020-05-01").reason.tolist() == [ONLY_ONE]
    # A clock ahead of UTC is not in the future.
    assert order("2024-06-02 01:00", "2024-06-02 01:05").reason.tolist() == [None, None]


def test_without_times_photos_are_in_the_order_of_their_names():
    for times in ([None] * 4, ["2020-05-01 10:00"] * 4):
        found = order(*times)
        assert found.of(0).tolist() == [0, 1, 2, 3]
        assert not found.alone.any()


def test_offsets_put_photos_over_several_zones_in_order():
    taken = ("2020-05-01 10:00", "2020-05-01 09:30")  # nine hours of flight later by UTC
    assert order(*taken).of(0).tolist() == [1, 0]
    assert order(*taken, offset=[9.0, 0.0]).of(0).tolist() == [0, 1]


def test_ten_thousand_photos_are_answered():
    taken = pd.Timestamp("2020-05-01") + pd.to_timedelta(np.arange(10_000), "min")
    found = answered(sure(*[2] * 10_000), order(*taken), hmm=HMMSettings())
    assert set(found.cells) == {2}


def test_the_spread_is_the_distance_within_which_the_probability_lies():
    points = PARTITION.answers()
    p = np.zeros((3, CELLS), dtype=np.float32)
    p[0, 0] = 1
    p[1, [0, 1]] = 0.7, 0.3
    p[2] = np.nan
    radius = np.linspace(100, 10, CELLS)
    found = spread_km(p, np.array([0, 0, -1]), points, np.pi * radius**2)
    assert found[0] == pytest.approx(100)  # a photo that is surely from a cell is somewhere in it
    assert found[1] == pytest.approx(distance_km(*points[0], *points[1]) + radius[1])
    assert np.isnan(found[2])
