"""Sequences: the photos of an album or of a person in order of time, for models that answer for them together.

Pass the photos of one split: a sequence then never holds photos of two. Every photo is in exactly one sequence. A photo
that cannot be placed among others (no album, no time, a clock that cannot be right) has a sequence of its own and a
reason, so that it can be answered as a single photo and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.photos.settings import SequenceSettings

NO_ALBUM, NO_PHOTOGRAPHER = "no album", "no photographer"
NO_TIME = "no time on the clock that orders its album"
WRONG_CLOCK = "taken after it was posted: the clock is wrong"
ONLY_ONE = "the only photo of its album or person"
FAR_IN_TIME = "far in time from the other photos of its album or person"

EARLIEST_ZONE_HOURS = 14.0
"""The clock that is furthest ahead of UTC (Kiribati): how much a local time can be after the UTC of its moment."""


@dataclass(frozen=True)
class Sequences:
    """S sequences over the N rows of a table of photos.

    `rows` int64 (N,) are the positions in the table, sequence after sequence, each in order of time; sequence s is
    rows[starts[s] : starts[s + 1]]. `hours` float64 (N,), along `rows`, is the time since the first photo of the
    sequence, NaN if unknown. `group` int64 (S,) is the album or person of each sequence, which can have several, and -1
    for a photo without one. `reason` object (N,), by row of the table, says why a photo is alone; None if it is not.
    """

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    hours: NDArray[np.float64]
    group: NDArray[np.int64]
    reason: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of photos of each sequence, int64 (S,)."""
        return np.diff(self.starts)

    @property
    def alone(self) -> NDArray[np.bool_]:
        """Whether each photo has a sequence of its own, bool (N,), by row of the table."""
        return np.asarray(pd.notna(self.reason))

    def of(self, sequence: int) -> NDArray[np.int64]:
        """The rows of one sequence in order, int64 (T,)."""
        return self.rows[self.starts[sequence] : self.starts[sequence + 1]]

    def numbers(self) -> NDArray[np.int64]:
        """The sequence of each photo, int64 (N,), by row of the table."""
        found = np.empty(len(self.rows), dtype=np.int64)
        found[self.rows] = np.repeat(np.arange(len(self)), self.lengths)
        return found

    def cut(self, length: int) -> Sequences:
        """Returns the same with each sequence cut, from its beginning, into pieces of at most `length` photos.

        A last piece of one photo keeps None as its reason: it belongs to an album. Raises ValueError for a length below
        1.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        pieces = -(-self.lengths // length)
        within = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        begins = np.repeat(self.starts[:-1], pieces) + within * length
        starts = np.append(begins, len(self.rows)).astype(np.int64)
        return Sequences(
            self.rows,
            starts,
            _since_first(self.hours, starts),
            np.repeat(self.group, pieces),
            self.reason,
        )

    def reasons(self) -> dict[str, int]:
        """The number of photos that are alone, by reason, most first."""
        return {str(why): int(count) for why, count in pd.Series(self.reason).value_counts().items()}


def make_sequences(photos: pd.DataFrame, settings: SequenceSettings, *, ordered: bool = True) -> Sequences:
    """The sequences of N photos: their albums, or all photos of a person, in order of time.

    Needs the columns photo_id, source, photographer, album; taken_at (the camera's clock) and posted_at (UTC) where
    known, and utc_offset_hours where the camera recorded it: an album whose photos all have it is ordered by UTC.

    An album (of one photographer, in one source) is ordered by one clock, see settings.clock. Photos that are not on it
    are alone, and a gap of more than settings.gap_days begins another sequence: it is another trip, or another camera
    whose clock is wrong. Equal times are ordered by posting and by id. The result does not depend on the order of rows,
    but for the positions. With `ordered` False time does not count: each album is one sequence, as averages need it.
    """
    table = photos.reset_index(drop=True)
    group, missing = _groups(table, settings.by)
    reason = np.full(len(table), None, dtype=object)
    reason[group < 0] = missing
    hours = np.full(len(table), np.nan)
    if ordered:
        hours, wrong = _times(table, group, settings.clock)
        reason[(group >= 0) & np.isnan(hours)] = NO_TIME
        reason[(group >= 0) & np.isnan(hours) & wrong] = WRONG_CLOCK
    single = np.asarray(pd.notna(reason))
    known = group.copy()
    group = np.where(single, group.max(initial=-1) + 1 + np.arange(len(table)), group)
    posted = _hours(table.get("posted_at", pd.Series(pd.NaT, table.index)))
    ids = np.argsort(np.argsort(table["photo_id"].astype("str").to_numpy(dtype=object), kind="stable"))
    rows = np.lexsort((ids, posted, hours, group)).astype(np.int64)
    begins = np.append(True, np.diff(group[rows]) != 0)[: len(rows)]
    if ordered:
        gaps = np.append(0.0, np.diff(hours[rows]))[: len(rows)]
        begins |= gaps > settings.gap_days * 24
    starts = np.append(np.flatnonzero(begins), len(rows)).astype(np.int64)
    if len(rows):
        lonely = np.zeros(len(rows), dtype=bool)
        lonely[rows[starts[:-1][np.diff(starts) == 1]]] = True
        several = np.bincount(group, minlength=int(group.max()) + 1)[group] > 1
        reason[lonely & ~single] = ONLY_ONE
        reason[lonely & ~single & several] = FAR_IN_TIME
    return Sequences(rows, starts, _since_first(hours[rows], starts), known[rows[starts[:-1]]], reason)


def straddling_albums(photos: pd.DataFrame) -> int:
    """The number of albums with photos in two splits (columns photo_id, source, photographer, album, split).

    There is none where splits are by photographer. Where trips are held out, a trip may be a part of an album: its
    sequences are then made of each split alone. Unused photos do not count.
    """
    used = photos[photos["split"] != "unused"].reset_index(drop=True)
    group, _ = _groups(used, "album")
    splits = used["split"].groupby(pd.Series(group)).nunique()
    return int((splits[splits.index >= 0] > 1).sum())


def _groups(table: pd.DataFrame, by: Literal["album", "user"]) -> tuple[NDArray[np.int64], str]:
    """The album or person of each photo, int64 (N,), -1 for none; and what is missing then."""
    if by == "user":
        keys, missing = table["photographer"].astype("str"), NO_PHOTOGRAPHER
    else:
        # Two people can give two albums one name; photos without a photographer share their album.
        owner, source = (table[name].astype("str").fillna("") for name in ("photographer", "source"))
        keys, missing = (owner + "\0" + source + "\0" + table["album"].astype("str")), NO_ALBUM
        keys = keys.where(table["album"].notna())
    codes, _ = pd.factorize(keys, sort=True)
    return codes.astype(np.int64), missing


def _times(
    table: pd.DataFrame, group: NDArray[np.int64], clock: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The time of each photo in hours on the clock of its group, float64 (N,), NaN if it is not on it; and whose camera
    clock cannot be right, bool (N,)."""
    nothing = pd.Series(pd.NaT, table.index)
    taken, posted = _hours(table.get("taken_at", nothing)), _hours(table.get("posted_at", nothing))
    offset = table.get("utc_offset_hours", pd.Series(np.nan, table.index)).to_numpy(dtype=np.float64)
    ahead = np.where(np.isnan(offset), EARLIEST_ZONE_HOURS, offset)
    wrong = taken > posted + ahead  # false where one is unknown
    taken = np.where(wrong, np.nan, taken)
    if clock == "posted":
        return posted, np.zeros(len(table), dtype=bool)

    size = int(group.max(initial=-1)) + 1
    inside = group >= 0

    def on(times: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.bincount(group[inside & np.isfinite(times)], minlength=size)

    in_utc = (on(taken) > 0) & (on(taken - offset) == on(taken))
    taken = np.where(np.append(in_utc, False)[group], taken - offset, taken)
    if clock == "taken":
        return taken, wrong
    by_posting = np.append(on(posted) > on(taken), False)[group]
    return np.where(by_posting, posted, taken), wrong & ~by_posting


def _hours(times: pd.Series) -> NDArray[np.float64]:
    """Hours since 1970, float64 (N,), NaN for no time."""
    stamps = pd.to_datetime(times, utc=True)
    hours: NDArray[np.float64] = ((stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(hours=1)).to_numpy(
        dtype=np.float64
    )
    return hours


def _since_first(hours: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    return hours - np.repeat(hours[starts[:-1]], np.diff(starts)) if len(hours) else hours
