"""Photos whose coordinates or times contradict something else that the pool knows.

Ingest turns away what cannot be a place at all. What is left may still be wrong: a mistyped longitude, latitude and
longitude exchanged, the position of another photo. Nothing here proves that a photo is wrong, so nothing is removed:
`find_inconsistencies` gives a table photo_id, check, detail that people, suites and benchmarks read.

Every check looks at photos with possible coordinates only: those out of range and those at exactly (0, 0) are the
matter of other rules. All work on whole columns.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import KDTree

from geoloc.land import CELLS_PER_DEGREE, is_land, land_raster
from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.places import place_table
from geoloc.settings import Number, Settings, setting
from geoloc.sphere import EARTH_RADIUS_KM, distance_km, is_valid, unit_vectors

COLUMNS = ("photo_id", "check", "detail")

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

_ROUNDS = (
    50  # of taking outliers out of journeys: each round ends at least one contradiction of a photographer
)


class ConsistencySettings(Settings):
    """From where on a photo contradicts the rest of the pool."""

    sea_km: Number = setting(60.0, minimum=0.0, help="at sea: further than this from land and from any city")
    speed_km_per_hour: Number = setting(1200.0, minimum=1.0, help="no photographer travels faster")
    slack_km: Number = setting(
        50.0, minimum=0.0, help="free distance in a journey: for maps, clocks and short times"
    )
    hours_before_taken: Number = setting(
        14.0, minimum=0.0, help="a camera's clock may be so far ahead of UTC"
    )
    swap_near_km: Number = setting(50.0, minimum=0.0, help="swapped: so near to a neighbour after exchanging")
    swap_far_km: Number = setting(
        200.0, minimum=0.0, help="swapped: further than this from all neighbours as given"
    )
    duplicate_km: Number = setting(25.0, minimum=0.0, help="near-duplicates stand no further apart")
    max_hamming: int = setting(
        2, minimum=0, maximum=12, help="near-duplicate: at most so many of 64 bits; fewer than for splits, where a "
        "false one costs nothing: at 4 and more, pictures with nothing but a face pass for copies",
    )  # fmt: skip


def find_inconsistencies(catalog: pd.DataFrame, settings: ConsistencySettings | None = None) -> pd.DataFrame:
    """What every check finds in a catalog: columns photo_id, check (a key of CHECKS), detail (text for people).

    Rows are ordered by check, as in CHECKS, then as the catalog is. A photo may be found by several checks, and is
    listed once a check.
    """
    settings = settings or ConsistencySettings()
    return pd.concat([check(catalog, settings) for check in CHECKS.values()], ignore_index=True)


def at_sea(catalog: pd.DataFrame, settings: ConsistencySettings | None = None) -> pd.DataFrame:
    """Photos further than `sea_km` from any land and from any city of GeoNames.

    Land is the raster of geoloc.land, quarter-degree cells that are at least half land: distances, to the middle of
    the nearest such cell, are right to about 20 km, and islands smaller than half a cell are not in it. So cities
    count too, which knows the inhabited ones. Photos from ships and far islets are found here and are right.
    """
    settings = settings or ConsistencySettings()
    photos = _Photos(catalog)
    rows = np.flatnonzero(photos.placed)
    rows = rows[~is_land(photos.latitude[rows], photos.longitude[rows])]
    km = _chord_km(_coast().query(unit_vectors(photos.latitude[rows], photos.longitude[rows]))[0])
    rows, km = rows[km > settings.sea_km], km[km > settings.sea_km]
    city = place_table(photos.latitude[rows], photos.longitude[rows])["distance_km"].to_numpy(np.float64)
    lonely = city > settings.sea_km
    details = [f"{land:,.0f} km from land" for land in km[lonely]]
    return _found(photos, "at_sea", rows[lonely], details)


def posted_before_taken(catalog: pd.DataFrame, settings: ConsistencySettings | None = None) -> pd.DataFrame:
    """Photos posted more than `hours_before_taken` before they were taken.

    taken_at is the camera's clock, whose zone is unknown, and posted_at is UTC: no zone is more than 14 hours ahead.
    Ingest already drops a taken_at more than a day after posted_at (a field fault in quarantine), so from an ingested
    pool only those in between come here.
    """
    settings = settings or ConsistencySettings()
    photos = _Photos(catalog)
    hours = _hours(photos.posted) - _hours(photos.taken)
    rows = np.flatnonzero(hours < -settings.hours_before_taken)
    details = [f"posted {-early:,.1f} h before it was taken" for early in hours[rows]]
    return _found(photos, "posted_before_taken", rows, details)


def impossible_journey(catalog: pd.DataFrame, settings: ConsistencySettings | None = None) -> pd.DataFrame:
    """Photos that their photographer cannot have reached in time, by speed between consecutive photos of one person.

    The idea is the usual one for GPS tracks (drop the point that makes the speed impossible). Two consecutive photos by
    taken_at contradict each other when they ask for more than `speed_km_per_hour` over the time between them plus
    `slack_km`. taken_at is local, and a camera that is set to local time loses the hours of the zones on the way west,
    so these are added to the time (by longitude, 15 degrees an hour).

    A photo is an outlier when the way over it from the photo before to the one after is impossible and the straight
    way is not: zones cancel out there and back. Of two photos that contradict each other otherwise, at an end of the
    track, the outlier is the one whose removal ends more contradictions; if that is a tie, the one without
    which the whole track is clearly shorter; if that is a tie too, both are reported. Outliers are taken out in rounds.
    At the very ends, a wrong place in the far west of the last photo or in the far east of the first goes unseen.
    """
    settings = settings or ConsistencySettings()
    photos = _Photos(catalog)
    known = photos.placed & (photos.who >= 0) & ~np.isnat(photos.taken)
    order = photos.ordered(np.flatnonzero(known), photos.who, photos.taken)
    found: dict[int, str] = {}
    for _ in range(_ROUNDS):
        track = _Track(photos, order, settings)
        out = track.detours()
        found |= track.detour_details(out)
        if not len(out):
            out = track.outliers()
            found |= track.details(out, "")
        if not len(out):
            break
        at_fault = photos.who[order[np.append(track.bad, False) | track.detour]]
        troubled = np.isin(photos.who[order], at_fault)
        troubled[out] = False
        order = order[troubled]
    track = _Track(photos, order, settings)
    both = np.flatnonzero(np.append(track.bad, False) | np.append(False, track.bad))
    found |= track.details(both, "; which of the two is wrong cannot be told")
    return _found(photos, "impossible_journey", *_sorted(found))


def swapped_coordinates(catalog: pd.DataFrame, settings: ConsistencySettings | None = None) -> pd.DataFrame:
    """Photos that stand among their neighbours once latitude and longitude are exchanged, and far from them as given.

    Neighbours are the two photos before and the two after in the photographer's time and in the album. As given the
    photo is further than `swap_far_km` from all of them, exchanged it is within `swap_near_km` of one. Where latitude
    and longitude are nearly equal, exchanging moves the photo little, and nothing is found.
    """
    settings = settings or ConsistencySettings()
    photos = _Photos(catalog)
    possible = photos.placed & (np.abs(photos.longitude) <= 90)
    as_given, exchanged = (np.full(len(photos), np.inf) for _ in range(2))
    nearest = np.full(len(photos), -1)
    for one, other in photos.neighbours():
        for a, b in ((one, other), (other, one)):
            a, b = a[possible[a]], b[possible[a]]
            np.minimum.at(as_given, a, photos.km(a, b))
            km = distance_km(photos.longitude[a], photos.latitude[a], photos.latitude[b], photos.longitude[b])
            closer = km < exchanged[a]
            exchanged[a[closer]], nearest[a[closer]] = km[closer], b[closer]
    found = (as_given > settings.swap_far_km) & (exchanged <= settings.swap_near_km)
    # The only witness may itself be a swapped photo, which stands where this one would: the one further off is swapped.
    witness = np.where(nearest >= 0, nearest, np.arange(len(photos)))
    found &= ~(found[witness] & (as_given[witness] > 1.1 * as_given))
    rows = np.flatnonzero(found)
    details = [
        f"{exchanged[row]:,.0f} km from {photos.ids[nearest[row]]} if latitude and longitude are exchanged,"
        f" {as_given[row]:,.0f} km from the nearest neighbour as given"
        for row in rows
    ]
    return _found(photos, "swapped_coordinates", rows, details)


def duplicate_apart(catalog: pd.DataFrame, settings: ConsistencySettings | None = None) -> pd.DataFrame:
    """Near-duplicates (geoloc.photos.duplicates) that are more than `duplicate_km` apart.

    The middle of a group is its photo nearest to the median of its places. Where more than half of the group is
    within `duplicate_km` of it, only the others are found, else all: which of them is right cannot be told.
    """
    settings = settings or ConsistencySettings()
    photos = _Photos(catalog)
    rows = np.flatnonzero(photos.placed)
    phash, sha256 = (
        catalog[name].iloc[rows].astype("str").reset_index(drop=True) for name in ("phash", "sha256")
    )
    phash = phash.where(phash.str.fullmatch("[0-9a-f]{16}"))  # a malformed one is the matter of another rule
    group = near_duplicate_groups(phash, sha256, settings.max_hamming)
    several = np.bincount(group, minlength=1)[group] > 1
    rows, group = rows[several], np.unique(group[several], return_inverse=True)[1]
    if not len(rows):
        return _found(photos, "duplicate_apart", rows, [])
    vectors = pd.DataFrame(unit_vectors(photos.latitude[rows], photos.longitude[rows]))
    from_median = np.linalg.norm((vectors - vectors.groupby(group).transform("median")).to_numpy(), axis=1)
    order = np.lexsort((rows, from_median, group))
    middle = rows[order[np.unique(group[order], return_index=True)[1]]][group]
    km = photos.km(rows, middle)
    near = km <= settings.duplicate_km
    size, within = np.bincount(group)[group], np.bincount(group, weights=near)[group]
    widest = pd.Series(km).groupby(group).transform("max").to_numpy()
    wrong = ~near | (2 * within <= size)
    details = [
        f"{km[i]:,.0f} km from its near-duplicate {photos.ids[middle[i]]}"
        if rows[i] != middle[i]
        else f"a near-duplicate of it is {widest[i]:,.0f} km away"
        for i in np.flatnonzero(wrong)
    ]
    return _found(photos, "duplicate_apart", rows[wrong], details)


Check = Callable[[pd.DataFrame, ConsistencySettings | None], pd.DataFrame]
CHECKS: dict[str, Check] = {
    "at_sea": at_sea,
    "impossible_journey": impossible_journey,
    "posted_before_taken": posted_before_taken,
    "swapped_coordinates": swapped_coordinates,
    "duplicate_apart": duplicate_apart,
}


class _Photos:
    """A catalog as plain arrays, whatever its dtypes. Rows are positions in it; unknown is NaN, NaT or -1."""

    def __init__(self, catalog: pd.DataFrame) -> None:
        self.ids = catalog["photo_id"].to_numpy(dtype=object)
        self.latitude = catalog["latitude"].to_numpy(dtype=np.float64, na_value=np.nan)
        self.longitude = catalog["longitude"].to_numpy(dtype=np.float64, na_value=np.nan)
        self.taken, self.posted = (
            pd.to_datetime(catalog[name]).to_numpy(dtype="M8[us]", na_value=np.datetime64("NaT"))
            for name in ("taken_at", "posted_at")
        )
        self.who, self.album = (
            pd.factorize(catalog[name].astype("str"))[0].astype(np.int64)
            for name in ("photographer", "album")
        )
        zero = (self.latitude == 0) & (self.longitude == 0)
        self.placed: BoolArray = is_valid(self.latitude, self.longitude) & ~zero

    def __len__(self) -> int:
        return len(self.ids)

    def km(self, a: IntArray, b: IntArray) -> FloatArray:
        """Distances between rows."""
        return distance_km(self.latitude[a], self.longitude[a], self.latitude[b], self.longitude[b])

    def ordered(self, rows: IntArray, group: IntArray, time: NDArray[np.datetime64]) -> IntArray:
        """Rows by group, then time (unknown last), then as the catalog is."""
        return rows[np.lexsort((rows, time[rows], group[rows]))]

    def neighbours(self) -> Iterator[tuple[IntArray, IntArray]]:
        """Pairs of rows that follow each other, or all but, in a photographer's time or in an album."""
        time = np.where(np.isnat(self.taken), self.posted, self.taken)
        in_album = self.album * (self.who.max(initial=0) + 2) + self.who  # albums of one name are several
        for group, known in (
            (self.who, (self.who >= 0) & ~np.isnat(time)),
            (in_album, self.album >= 0),
        ):
            order = self.ordered(np.flatnonzero(self.placed & known), group, time)
            for step in (1, 2):
                one, other = order[:-step], order[step:]
                together = group[one] == group[other]
                yield one[together], other[together]


class _Track:
    """Photos ordered by photographer and time, and the legs between each and the next.

    bad: bool [N - 1], the leg asks for too much speed; false between two photographers. detour: bool [N], the way
    over the photo from the one before to the one after does, and the straight way does not. shorter: float64 [N], km
    by which the track is shorter without the photo.
    """

    def __init__(self, photos: _Photos, order: IntArray, settings: ConsistencySettings) -> None:
        self.photos, self.order, self.settings = photos, order, settings
        self.km, self.hours, self.bad = self._legs(1)
        over_km, over_hours, self.over_bad = self._legs(2)
        self.shorter = self._around(self.km, over_km)
        self.detour = np.zeros(len(order), bool)
        if len(order) > 2:
            one, other = photos.who[order[:-2]], photos.who[order[2:]]
            most = settings.speed_km_per_hour * over_hours + 2 * settings.slack_km
            too_far = self.km[:-1] + self.km[1:] > most
            # Where the photo is hardly off the way, not it but one of the two others is in the wrong place.
            self.detour[1:-1] = (
                (one == other) & too_far & ~self.over_bad & (self.shorter[1:-1] > 2 * settings.slack_km)
            )

    def _around(self, of_leg: NDArray[Any], over: NDArray[Any]) -> FloatArray:
        """What taking each photo out ends: of its two legs, less of the leg over it."""
        total = np.zeros(len(self.order))
        total[1:] += of_leg
        total[:-1] += of_leg
        total[1:-1] -= over  # 0 between two photographers
        return total

    def _legs(self, step: int) -> tuple[FloatArray, FloatArray, BoolArray]:
        """Length, hours and whether it is impossible, of the legs from each photo to the one `step` further on."""
        photos, one, other = self.photos, self.order[:-step], self.order[step:]
        same = photos.who[one] == photos.who[other]
        km = np.where(same, photos.km(one, other), 0.0)
        west = np.maximum(photos.longitude[one] - photos.longitude[other], 0.0)
        hours = _hours(photos.taken[other]) - _hours(photos.taken[one]) + west / 15.0
        return km, hours, same & (km > self.settings.speed_km_per_hour * hours + self.settings.slack_km)

    def detours(self) -> IntArray:
        """Positions of detours to take out now: of neighbours that both are, the one that is further off."""
        off = np.where(self.detour, self.shorter, 0.0)
        before, after = np.append(0.0, off[:-1]), np.append(off[1:], 0.0)
        return np.flatnonzero(self.detour & (off >= before) & (off > after))

    def outliers(self) -> IntArray:
        """Positions of photos to take out now: the losers of their bad legs."""
        count = len(self.order)
        ended, shorter = self._around(self.bad, self.over_bad), self.shorter
        left = np.flatnonzero(self.bad)
        right = left + 1
        clearly = 1.5 * shorter + self.settings.slack_km
        equal = ended[left] == ended[right]
        left_loses = (ended[left] > ended[right]) | (equal & (shorter[left] > clearly[right]))
        right_loses = (ended[right] > ended[left]) | (equal & (shorter[right] > clearly[left]))
        loses, wins = np.zeros(count, bool), np.zeros(count, bool)
        loses[left[left_loses]] = loses[right[right_loses]] = True
        wins[left[right_loses]] = wins[right[left_loses]] = True
        # Losing is an order of all photos, so the greatest loser of a photographer wins nowhere: each round ends.
        return np.flatnonzero(loses & ~wins)

    def detour_details(self, positions: IntArray) -> dict[int, str]:
        """Row of the photo -> how far off it is."""
        ids, order = self.photos.ids, self.order
        hours = self.hours_between(positions - 1, positions + 1)
        return {
            int(order[p]): f"{self.km[p - 1]:,.0f} km from {ids[order[p - 1]]} and {self.km[p]:,.0f} km from"
            f" {ids[order[p + 1]]}, which are {h:,.1f} h apart"
            for p, h in zip(positions.tolist(), hours.tolist(), strict=True)
        }

    def hours_between(self, one: IntArray, other: IntArray) -> FloatArray:
        """Hours between the times of photos at positions."""
        taken = self.photos.taken
        return _hours(taken[self.order[other]]) - _hours(taken[self.order[one]])

    def details(self, positions: IntArray, more: str) -> dict[int, str]:
        """Row of the photo -> what is wrong with it: its longest bad leg."""
        made = {}
        bad_km = np.where(self.bad, self.km, -1.0)
        before, after = np.append(-1.0, bad_km)[positions], np.append(bad_km, -1.0)[positions]
        other = np.where(before >= after, positions - 1, positions + 1)
        leg = np.minimum(positions, other)
        for position, neighbour, k in zip(positions.tolist(), other.tolist(), leg.tolist(), strict=True):
            to = self.photos.ids[self.order[neighbour]]
            made[int(self.order[position])] = (
                f"{self.km[k]:,.0f} km from {to} in {self.hours[k]:,.1f} h{more}"
            )
        return made


@functools.cache
def _coast() -> KDTree:
    """A tree over the unit vectors of the land cells that touch water."""
    land = land_raster()
    inner = land.copy()
    inner[1:] &= land[:-1]
    inner[:-1] &= land[1:]
    inner &= np.roll(land, 1, axis=1) & np.roll(land, -1, axis=1)
    row, column = np.nonzero(land & ~inner)
    vectors = unit_vectors(90.0 - (row + 0.5) / CELLS_PER_DEGREE, (column + 0.5) / CELLS_PER_DEGREE - 180.0)
    return KDTree(vectors)


def _chord_km(chord: FloatArray) -> FloatArray:
    """Kilometres along the ground for straight distances between unit vectors."""
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.clip(chord / 2, 0.0, 1.0)))


def _hours(times: NDArray[np.datetime64]) -> FloatArray:
    """Hours since 1970, NaN where unknown."""
    return np.asarray((times - np.datetime64(0, "us")) / np.timedelta64(1, "h"))


def _sorted(found: dict[int, str]) -> tuple[IntArray, list[str]]:
    rows = np.array(sorted(found), np.int64)
    return rows, [found[row] for row in rows.tolist()]


def _found(photos: _Photos, check: str, rows: IntArray, details: list[str]) -> pd.DataFrame:
    """The result of a check, in the catalog's order."""
    made = {"photo_id": photos.ids[rows], "check": check, "detail": details}
    return pd.DataFrame(made, columns=list(COLUMNS)).astype("str")
