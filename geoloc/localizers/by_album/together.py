"""All photos of one album together, for files that no pool has: by a Markov model where a build has counted one, else
by the mean; with anchors, whose place is known.

No photo is answered from the others against what it says itself: an album whose order makes no sense, and a photo that
speaks against the place of the others, are answered as single photos, and the reason is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.localizers.by_album.average import averaged
from geoloc.localizers.by_album.hmm import HiddenMarkovModel, Transitions
from geoloc.localizers.by_album.localizers import UNLIKELY_ORDER
from geoloc.localizers.settings import HMMSettings
from geoloc.photos.sequences import Sequences, make_sequences
from geoloc.photos.settings import SequenceSettings
from geoloc.sphere import distance_km

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition

SPEAKS_AGAINST = "the photo itself speaks against the place of the others"
ALL_COPIES = "all photos of its album are copies of one"
FUTURE = "its time is in the future: the clock is wrong"
LEAST_SUPPORT = 0.25
"""A photo takes the place of the others unless it makes that place this much less probable than it is among all photos:
photos of an album stay in one cell about four times of five."""
SPREAD = 0.8


@dataclass(frozen=True, eq=False)
class Together:
    """N photos answered together: `probabilities` float32 [N, C] given all photos, NaN for a photo that could not be
    read; `cells` int64 (N,) the answers, -1 for none; `reason` object (N,), why a photo is answered alone, None if it
    is not; `sequences`, the order."""

    probabilities: NDArray[np.float32]
    cells: NDArray[np.int64]
    reason: NDArray[np.object_]
    sequences: Sequences


def in_order(photos: pd.DataFrame, now: pd.Timestamp, settings: SequenceSettings) -> Sequences:
    """The sequences of the photos of one album (taken_at, the camera's clock; utc_offset_hours), in the order of rows
    where none has a time. A time after `now` in UTC, in any zone, counts as none."""
    table = photos.assign(source="album", photographer="album", album="album", posted_at=pd.NaT)
    table["photo_id"] = [f"{row:012}" for row in range(len(table))]  # equal times go by id
    taken = pd.to_datetime(table["taken_at"])
    future = (taken - now > pd.Timedelta(hours=14)).to_numpy()
    taken = taken.mask(future)
    if taken.isna().all() and not future.any():
        taken = pd.Series(now, table.index)
    settings = settings.model_copy(update={"by": "album", "clock": "taken"})
    found = make_sequences(table.assign(taken_at=taken), settings)
    found.reason[future] = FUTURE
    return found


def together(
    single: NDArray[Any],
    sequences: Sequences,
    partition: Partition,
    transitions: Transitions | None,
    settings: HMMSettings | None,
    anchors: NDArray[np.int64],
    contents: NDArray[np.object_] | None = None,
) -> Together:
    """Answer N photos together from the classifier's probabilities, float [N, C].

    `anchors` int (N,) are cells that are known, -1 for none. By the Markov model if `transitions` and `settings` are
    given, else by the mean of each sequence. Where the order of a sequence makes no sense to the model, all its photos
    are answered alone; with anchors in it, those that speak against the place of the others.
    `contents` object (N,) is equal for copies of one photo, None where unknown: copies in a sequence count once.
    """
    own = np.asarray(single, dtype=np.float32).copy()
    known = np.flatnonzero(anchors >= 0)
    own[known] = 0
    own[known, anchors[known]] = 1
    reason = sequences.reason.copy()
    found, cells = own.copy(), np.full(len(own), -1, dtype=np.int64)
    first = _first_copies(contents, sequences, known)
    copies = np.flatnonzero(first != np.arange(len(own)))
    heard = own
    if len(copies):
        heard = own.copy()
        heard[copies] = np.nan  # as a photo that says nothing
    for rows in map(sequences.of, range(len(sequences))):
        if len(rows) > 1 and (first[rows] == first[rows[0]]).all():
            reason[rows] = ALL_COPIES
    if transitions is not None and settings is not None:
        model = HiddenMarkovModel(transitions, settings.trust)
        for number in range(len(sequences)):
            rows = sequences.of(number)
            if reason[rows[0]] is not None:
                continue
            posteriors, evidence = model.posteriors(heard[rows])
            if evidence < 0 and (anchors[rows] < 0).all():
                reason[rows] = UNLIKELY_ORDER
                continue
            decoded = posteriors.argmax(axis=1).astype(np.int64)
            if settings.decode == "viterbi":
                decoded = model.viterbi(heard[rows])[0]
            # Anchors are where they are, likely or not: only photos that speak against it are answered alone.
            against = _against(heard[rows], decoded, transitions.expected) & (evidence < 0)
            reason[rows[against]] = SPEAKS_AGAINST
            found[rows[~against]], cells[rows[~against]] = posteriors[~against], decoded[~against]
    else:
        found, against = _by_mean(heard, sequences, partition)
        reason[against] = SPEAKS_AGAINST
    found[copies], cells[copies], reason[copies] = (
        found[first[copies]],
        cells[first[copies]],
        reason[first[copies]],
    )
    found[known] = own[known]
    cells[known] = anchors[known]
    unread = np.isnan(own).any(axis=1)
    found[unread], cells[unread] = np.nan, -1
    open_ = (cells < 0) & ~unread
    cells[open_] = np.nan_to_num(found[open_]).argmax(axis=1)
    return Together(found, cells, reason, sequences)


def _first_copies(
    contents: NDArray[np.object_] | None, sequences: Sequences, known: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each photo the first in its sequence with its content, int64 (N,): mostly itself. Anchors are no copies."""
    first = np.arange(len(sequences.rows))
    if contents is None:
        return first
    anchors = set(known.tolist())
    for number in range(len(sequences)):
        seen: dict[object, int] = {}
        for row in sequences.of(number).tolist():
            if contents[row] is not None and row not in anchors:
                first[row] = seen.setdefault(contents[row], row)
    return first


def _by_mean(
    own: NDArray[np.float32], sequences: Sequences, partition: Partition
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The mean of each sequence, and each photo's own probabilities where it speaks against the mean's cell; and where
    it does, bool (N,)."""
    mean = averaged(own, sequences)
    counts = np.asarray(partition.photo_counts(), dtype=np.float64) + 0.5
    prior = counts / counts.sum()
    against = _against(own, np.nan_to_num(mean).argmax(axis=1), prior) & ~sequences.alone
    return np.where(against[:, None], own, mean), against


def _against(
    own: NDArray[np.float32], cells: NDArray[np.int64], prior: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each photo speaks against its cell, bool (N,): see LEAST_SUPPORT. One that could not be read does not."""
    support = own[np.arange(len(own)), cells] / prior[cells]
    return np.asarray((support < LEAST_SUPPORT) & ~np.isnan(own).any(axis=1))


def spread_km(
    probabilities: NDArray[np.float32],
    cells: NDArray[np.int64],
    points: NDArray[np.float64],
    areas_km2: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How uncertain each of N answers is, float64 (N,) in km: within so far of the answer's point lie whole cells with
    SPREAD of the probability, taken as discs of their areas, (C,), around their points, [C, 2]. NaN without an answer.
    """
    radius = np.sqrt(areas_km2 / np.pi)
    found = np.full(len(cells), np.nan)
    for cell in np.unique(cells[cells >= 0]):
        km = distance_km(points[cell, 0], points[cell, 1], points[:, 0], points[:, 1]) + radius
        order = np.argsort(km, kind="stable")
        for row in np.flatnonzero(cells == cell):
            inside = np.searchsorted(np.cumsum(probabilities[row, order], dtype=np.float64), SPREAD)
            found[row] = km[order[min(int(inside), len(order) - 1)]]
    return found
