"""Sequences of photos: albums and people in order of time, and the reason for every photo that is alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as sets
from hypothesis import strategies as st

from geoloc.photos.sequences import (
    FAR_IN_TIME,
    NO_ALBUM,
    NO_PHOTOGRAPHER,
    NO_TIME,
    ONLY_ONE,
    WRONG_CLOCK,
    make_sequences,
    straddling_albums,
)
from geoloc.photos.settings import SequenceSettings
from geoloc.settings import replace

ALBUMS = SequenceSettings()
DAY = pd.Timestamp("2015-06-01")


def table(*rows: dict) -> pd.DataFrame:
    """Photos a, b, c, ... of one album, taken at the same time and posted a year later, but for what a row says."""
    plain = {
        "source": "s", "photographer": "ann", "album": "x", "taken_at": DAY, "posted_at": DAY + pd.Timedelta(days=365),
    }  # fmt: skip
    return pd.DataFrame([{"photo_id": chr(97 + i), **plain, **row} for i, row in enumerate(rows)])


def at(hours: float) -> dict:
    return {"taken_at": DAY + pd.Timedelta(hours=hours)}


def found(frame: pd.DataFrame, settings: SequenceSettings = ALBUMS, **options: bool) -> list[str]:
    """The sequences as text, each its photos in order."""
    made = make_sequences(frame, settings, **options)
    ids = frame["photo_id"].to_numpy()
    assert sorted(made.rows) == list(range(len(frame)))
    assert (made.lengths > 0).all()
    return sorted("".join(ids[made.of(s)]) for s in range(len(made)))


def test_an_album_is_ordered_by_the_camera_then_by_posting_then_by_id():
    posted = {"posted_at": DAY + pd.Timedelta(days=364)}
    assert found(table(at(5), at(1), at(3))) == ["bca"]
    assert found(table({}, {}, posted)) == ["cab"]
    made = make_sequences(table(at(5), at(1), at(3)), ALBUMS)
    np.testing.assert_allclose(made.hours, [0, 2, 4])
    assert made.reason.tolist() == [None] * 3


def test_two_people_or_sources_can_give_two_albums_one_name():
    assert found(table({}, {"photographer": "bob"}, {"source": "t"}, {})) == ["ad", "b", "c"]
    anonymous = {"photographer": None}
    assert found(table(anonymous, anonymous, {})) == ["ab", "c"]


def test_every_photo_that_is_alone_has_its_reason():
    frame = table(
        at(0), at(1),
        {"album": None},
        {"taken_at": pd.NaT},
        {"taken_at": DAY + pd.Timedelta(days=3650)},  # posted nine years before it was taken
        at(-24 * 365 * 10), # another camera, whose clock began in 2005
        {"album": "y"},
    )  # fmt: skip
    clock = replace(ALBUMS, clock="taken")
    made = make_sequences(frame, clock)
    assert made.reason.tolist() == [None, None, NO_ALBUM, NO_TIME, WRONG_CLOCK, FAR_IN_TIME, ONLY_ONE]
    assert found(frame, clock) == ["ab", "c", "d", "e", "f", "g"]
    assert made.reasons()[NO_TIME] == 1
    # An average needs no time.
    assert len(found(frame, ordered=False)) == 3
    averaged = make_sequences(frame, ALBUMS, ordered=False)
    assert averaged.alone.tolist() == [False, False, True, False, False, False, True]


def test_an_album_goes_by_the_clock_that_more_of_its_photos_have():
    untimed = {"taken_at": pd.NaT}
    later = {"posted_at": DAY + pd.Timedelta(days=366)}
    assert found(table(later | untimed, untimed, at(1))) == ["bca"]
    assert found(table(later | at(0), untimed, at(1)), replace(ALBUMS, clock="taken")) == ["ac", "b"]
    assert found(table(later | at(0), {}, at(1)), replace(ALBUMS, clock="posted")) == ["bca"]
    clock_of_2030 = {"taken_at": pd.Timestamp("2030-01-01")}
    frame = table(clock_of_2030, later | clock_of_2030, at(0))
    assert make_sequences(frame, ALBUMS).reason.tolist() == [None] * 3  # by posting, which all have


def test_a_local_clock_may_be_ahead_of_the_posting_in_utc():
    soon = {"posted_at": DAY - pd.Timedelta(hours=13)}  # posted at once from Kiribati
    never = {"posted_at": DAY - pd.Timedelta(hours=15)}
    clock = replace(ALBUMS, clock="taken")
    assert make_sequences(table(soon, soon, never), clock).reason.tolist() == [None, None, WRONG_CLOCK]
    with_zone = table(soon, soon, {}).assign(utc_offset_hours=[14.0, 2.0, 2.0])
    assert make_sequences(with_zone, clock).reason.tolist() == [None, WRONG_CLOCK, None]


def test_an_album_whose_cameras_know_their_zone_is_ordered_by_utc():
    frame = table(at(9), at(10), at(8))  # b in Tokyo, before the flight
    assert found(frame) == ["cab"]
    assert found(frame.assign(utc_offset_hours=[0.0, 9.0, 0.0])) == ["bca"]
    assert found(frame.assign(utc_offset_hours=[0.0, 9.0, np.nan])) == ["cab"]


def test_a_person_has_one_sequence_over_albums_and_a_gap_cuts_it():
    frame = table(
        at(3), {"album": "y", **at(1)}, {"album": None, **at(2)}, {"photographer": None}, at(24 * 31.5)
    )
    people = SequenceSettings(by="user")
    assert found(frame, people) == ["bca", "d", "e"]
    assert make_sequences(frame, people).reason.tolist()[3:] == [NO_PHOTOGRAPHER, FAR_IN_TIME]
    assert found(frame, replace(people, gap_days=400)) == ["bcae", "d"]
    groups = make_sequences(frame, people).group
    assert sorted(groups) == [-1, 0, 0]


def test_a_sequence_is_cut_into_pieces_with_times_of_their_own():
    made = make_sequences(table(*(at(i) for i in range(7)), {"album": "y"}), ALBUMS).cut(3)
    assert made.lengths.tolist() == [3, 3, 1, 1]
    assert made.hours.tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert made.group.tolist() == [0, 0, 0, 1]
    assert made.numbers().tolist() == [0, 0, 0, 1, 1, 1, 2, 3]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        made.cut(0)
    empty = make_sequences(table({}).iloc[:0], ALBUMS)
    assert (len(empty), empty.cut(3).lengths.tolist()) == (0, [])


@sets(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(["album", "user"]), st.sampled_from(["auto", "taken", "posted"])
)
def test_the_order_of_rows_does_not_matter(seed, by, clock):
    numbers = np.random.default_rng(seed)
    frame = table(*(at(int(h)) for h in numbers.integers(-2000, 12_000, 20)))
    frame["album"] = numbers.choice(["x", "y", None], 20)
    frame["photographer"] = numbers.choice(["ann", "bob", None], 20)
    frame.loc[numbers.random(20) < 0.2, "taken_at"] = pd.NaT
    chosen = SequenceSettings(by=by, clock=clock)
    shuffled = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    assert found(frame, chosen) == found(shuffled, chosen)


def test_albums_over_two_splits_are_counted():
    frame = table({}, {}, {"album": "y"}, {"album": "y"}, {"album": "z"}, {"album": "z"}, {"album": None})
    frame["split"] = ["train", "test", "train", "train", "test", "unused", "validation"]
    assert straddling_albums(frame) == 1
