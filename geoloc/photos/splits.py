"""Splits: which photos train, validate and test; by photographer (or trip), with no near-duplicate on two sides.

How a photo gets its split, highest priority first:
1. Photos of the sources under `external` are in that external test, all of them, always.
2. Other photos by a photographer of an external test are unused.
3. A photographer's side is a function of (seed, photographer) alone: a keyed hash u in [0, 1); test where
   u < test.share, validation where u >= 1 - validation.share, then context (if asked for) of context.share, train
   between. Adding photos or photographers, or changing another share, moves nobody, but between train and context. A
   side on which no photographer falls, as happens with few, gets the one nearest to it.
4. Test, then validation, then context, leave out near-duplicates of what is already chosen, and photos in a group of
   more than `max_group` near-duplicates: such a group is a blank picture or a chain of small changes, and would take
   all of its photos from train. It trains, or is left out with an external test's photo. What is left is chosen from.
5. Train leaves out near-duplicates of every chosen photo, and photos near a test photo's coordinates.
6. A photo that two sources have, by its bytes, counts once in an own split: as the first by id has it.
With `by: trip`, and with `by: auto` where there are too few people to hold one out, the trips of each photographer
(geoloc/photos/trips.py) stand for photographers in all of this; a trip with more than half of the photos trains.

What is left out is "unused" with a reason. A photo without photographer counts its album (within its source)
as photographer, and without album, itself.

Near-duplicates and photographers may be shared between two external tests: a test does not teach the other
anything, and a published test keeps its denominator.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from geoloc.photos.duplicates import near_duplicate_groups
from geoloc.photos.owners import photographer_keys
from geoloc.photos.settings import SideSettings, SplitSettings
from geoloc.photos.trips import are_trips, trip_keys
from geoloc.settings import SettingsError
from geoloc.sphere import EARTH_RADIUS_KM, distance_km, is_valid, unit_vectors

TRAIN, VALIDATION, TEST, CONTEXT, UNUSED = "train", "validation", "test", "context", "unused"
FACTS = ("photographer", "latitude", "longitude", "prob_indoor", "sha256")
"""Columns of the catalog that training, retrieval and evaluation use: a change in another one changes none of them."""
_LEAST_SHARE = 0.01  # of a side that is filled although no photographer falls on it by chance
_KEY = "splits"  # where these settings stand in params.yaml, for messages


def make_splits(catalog: pd.DataFrame, settings: SplitSettings, seed: int) -> pd.DataFrame:
    """Split every photo of the catalog; columns photo_id, split, reason, near_duplicates, weight, by photo_id.

    `split` is train, validation, test, context, the name of an external test, or unused; `reason` says why a photo is
    unused and is null otherwise; `near_duplicates` names the photo's group of near-duplicates by the first of their
    ids, null for a photo that has none; `weight` is the design weight of a photo of test, validation or context: of how
    many photos on its side it is a sample (1 / the chance of being used), null elsewhere. The answer depends on the
    photos, settings and seed, not on row order.
    Needs the catalog columns photo_id, source, photographer, album, latitude, longitude, sha256, phash; where
    the column shard is there too, photos without stored bytes are no candidates for test and validation. Trips are
    also told apart by taken_at, where it is there.

    Raises SettingsError when a split that was asked for cannot be filled, ValueError for a catalog with
    duplicate ids or bad coordinates.
    """
    settings.check(_KEY)
    photos = catalog.reset_index(drop=True).sort_values("photo_id", ignore_index=True)
    _check_catalog(photos, settings)
    plan = _Plan(photos, settings, seed)
    plan.place_external()
    for name, wanted in settings.sides().items():
        plan.choose(name, wanted)
    plan.fill_train()
    return plan.result()


def unit_keys(photos: pd.DataFrame, settings: SplitSettings) -> pd.Series:
    """Whom or what each photo counts for in a split: its photographer, or its trip (trips.are_trips tells which).

    Needs the columns of `make_splits`.
    """
    people = photographer_keys(photos)
    if settings.by == "photographer" or (settings.by == "auto" and enough_people(people, photos, settings)):
        return people
    return trip_keys(photos, people, settings.trip_hours, settings.trip_km)


def enough_people(people: pd.Series, photos: pd.DataFrame, settings: SplitSettings) -> bool:
    """Whether the photos outside of external tests can be held out by photographer: each split can have one, and nobody
    took more than half of them. `people` are photographer_keys."""
    own = people[~photos["source"].isin(list(settings.external.values()))].value_counts()
    sides = 1 + sum(side.share > 0 for side in settings.sides().values())
    return own.empty or (len(own) >= sides and int(own.iloc[0]) * 2 <= int(own.sum()))


def keyed_fractions(values: ArrayLike, seed: int, purpose: str) -> NDArray[np.float64]:
    """A number in [0, 1) for each text, float64[N], from BLAKE2b keyed by (seed, purpose).

    The same text gives the same number in any process, on any machine, beside any other texts.
    """
    key = hashlib.sha256(f"{purpose}\0{seed}".encode()).digest()
    digests = b"".join(
        hashlib.blake2b(text.encode(), key=key, digest_size=8).digest() for text in np.asarray(values, object)
    )
    return (np.frombuffer(digests, dtype=">u8") >> np.uint64(11)).astype(np.float64) / 2.0**53


def strata(latitude: ArrayLike, longitude: ArrayLike, level: int) -> NDArray[np.int64]:
    """Cell of each point in a grid of 6 x 4^level cells of equal area, int64[N].

    Rows are equal steps in the sine of the latitude (Lambert's cylinder), columns equal steps in longitude:
    as many cells as S2 has at that level, 5: about 290 km across. Simple, and enough to spread a test set.
    """
    rows, columns = 2 * 2**level, 3 * 2**level
    lat, lon = np.asarray(latitude, np.float64), np.asarray(longitude, np.float64)
    row = np.floor((np.sin(np.radians(lat)) + 1) / 2 * rows).astype(np.int64).clip(0, rows - 1)
    column = np.floor((lon + 180) / 360 * columns).astype(np.int64) % columns  # 180 E is 180 W
    return row * columns + column


def most_under_cap(sizes: NDArray[np.int64], max_share: float) -> int:
    """The most photos to be had from strata of these sizes with no stratum above max_share of them."""
    most = int(sizes.sum())
    while (possible := int(np.minimum(sizes, _cap(most, max_share)).sum())) < most:
        most = possible
    return most


def _cap(count: int, max_share: float) -> int:
    return int(np.floor(count * max_share + 1e-9))  # 0.29 * 100 is 28.999999999999996


def _check_catalog(photos: pd.DataFrame, settings: SplitSettings) -> None:
    if photos.empty:
        raise ValueError("the catalog has no photos to split")
    if photos["photo_id"].duplicated().any():
        raise ValueError(f"the catalog has {int(photos['photo_id'].duplicated().sum())} duplicate photo ids")
    bad = ~is_valid(photos["latitude"], photos["longitude"])
    if bad.any():
        raise ValueError(f"the catalog has {int(bad.sum())} photos with bad or missing coordinates")
    known = set(photos["source"].dropna().unique())
    for name, source in settings.external.items():
        if source not in known:
            raise SettingsError(
                f"{_KEY}.external.{name} must be a source in the catalog ({', '.join(sorted(known))}); "
                f"got {source!r}"
            )


class _Plan:
    """The state of one split as it is made: per photo its split and reason, per group who holds it."""

    def __init__(self, photos: pd.DataFrame, settings: SplitSettings, seed: int) -> None:
        self.photos, self.settings, self.seed = photos, settings, seed
        self.split = np.full(len(photos), None, dtype=object)
        self.reason = np.full(len(photos), None, dtype=object)
        self.weight = np.full(len(photos), np.nan)
        keys = unit_keys(photos, settings)
        self.by_trip = are_trips(keys)
        self.owners = "trips" if self.by_trip else "photographers"
        self.owner, owners = pd.factorize(keys)
        self.side = self._sides(keyed_fractions(owners, seed, "photographer side"))[self.owner]
        self.group = near_duplicate_groups(photos["phash"], photos["sha256"], settings.max_hamming)
        self.in_large_group = np.bincount(self.group)[self.group] > settings.max_group
        self.held_by = np.full(int(self.group.max()) + 1, None, dtype=object)

    def _sides(self, u: NDArray[np.float64]) -> NDArray[np.object_]:
        """The side of each owner, object (K,), by its number `u` in [0, 1)."""
        shares = {name: wanted.share for name, wanted in self.settings.sides().items()}
        validation = 1 - shares[VALIDATION]
        context = validation - shares.get(CONTEXT, 0.0)
        bounds = {TEST: (0.0, shares[TEST]), VALIDATION: (validation, 1.0), TRAIN: (shares[TEST], context)}
        if CONTEXT in shares:
            bounds[CONTEXT] = (context, validation)
        kinds = [u < shares[TEST], u >= validation, u >= context]
        side = np.select(kinds, [TEST, VALIDATION, CONTEXT], TRAIN).astype(object)
        usable = ~self.photos["source"].isin(list(self.settings.external.values())).to_numpy()
        photos = np.bincount(self.owner[usable], minlength=len(u))
        most = photos * 2 > photos.sum()
        if self.by_trip:
            side[most] = TRAIN
        if "shard" in self.photos:
            usable &= self.photos["shard"].notna().to_numpy()
        here = np.bincount(self.owner[usable], minlength=len(u)) > 0
        for name in (*shares, TRAIN):
            if (here & (side == name)).any() or shares.get(name, 1.0) < _LEAST_SHARE:
                continue
            several = [other for other in bounds if (here & (side == other)).sum() > 1]
            movable = np.flatnonzero(here & np.isin(side, several) & ~(self.by_trip & most))
            if len(movable):
                low, high = bounds[name]
                away = np.maximum(np.maximum(low - u[movable], u[movable] - high), 0)
                side[movable[away.argmin()]] = name
        return side

    def place_external(self) -> None:
        """External tests get all photos of their sources; their photographers' other photos are unused."""
        source = self.photos["source"].to_numpy(dtype=object)
        outside = np.full(int(self.owner.max()) + 1, None, dtype=object)
        for name, wanted in reversed(self.settings.external.items()):  # the first named wins
            rows = source == wanted
            self.split[rows] = name
            self.held_by[self.group[rows]] = name
            outside[self.owner[rows]] = name
        for name in self.settings.external:
            rest = (outside[self.owner] == name) & self._undecided()
            self._leave_out(rest, f"{self.owners[:-1]} is in the external test {name}")

    def choose(self, name: str, wanted: SideSettings) -> None:
        """Fill test or validation from its photographers: clean photos, over all strata, as many as asked."""
        if wanted.share == 0:
            return
        candidates = (self.side == name) & self._undecided()
        if "shard" in self.photos:
            no_photo = candidates & self.photos["shard"].isna().to_numpy()
            self._leave_out(no_photo, f"no stored photo, so it cannot be a {name} query")
            candidates &= ~no_photo
        candidates &= ~self._leave_out_duplicates(candidates)
        large = candidates & self.in_large_group
        self._leave_out(large, f"in a group of more than {self.settings.max_group} near-duplicates")
        candidates &= ~large
        again = self._again(candidates)
        rows = np.flatnonzero(candidates & ~again)
        owners = f"{'of' if self.by_trip else 'by'} {len(np.unique(self.owner[rows]))} {self.owners}"
        having = f"{len(rows)} photos {owners} are on the {name} side"
        if len(rows) == 0:
            raise SettingsError(
                f"{_KEY}.{name}.share is {wanted.share:g}, but no photo is on the {name} side: "
                f"raise it, change the seed, {self._remedy()}"
            )
        if wanted.count is not None and wanted.count > len(rows):
            raise SettingsError(
                f"{_KEY}.{name}.count must be at most what is available, got {wanted.count}: "
                f"{having}; raise {_KEY}.{name}.share or lower the count"
            )
        taken, weight = self._sample(rows, name, wanted, having)
        self.split[taken] = name
        self.weight[taken] = weight
        self.held_by[self.group[taken]] = name
        self._leave_out_duplicates(again)
        surplus = candidates & self._undecided()
        self._leave_out(surplus, f"more than the {name} split needs")

    def fill_train(self) -> None:
        """All photos left are train photos, but for near-duplicates and photos near a test photo."""
        left = self._undecided()
        left &= ~self._leave_out_duplicates(left)
        radius = self.settings.exclude_radius_km
        if radius is not None:
            left &= ~self._leave_out_near_tests(left, radius)
        if not left.any():
            raise SettingsError(
                f"{_KEY} leaves no photo to train on out of {len(left)}: lower the shares of "
                f"test and validation or the radius, {self._remedy()}"
            )
        again = self._again(left)
        self._leave_out(again, f"near-duplicate of a {TRAIN} photo")
        self.split[left & ~again] = TRAIN

    def _remedy(self) -> str:
        if self.by_trip:
            return (
                f"add photos of other trips or people (these are of {int(self.owner.max()) + 1} trips), lower "
                f"{_KEY}.trip_hours or {_KEY}.trip_km, or set the share to 0 and name a source in {_KEY}.external"
            )
        return f"add photographers, or hold out trips with {_KEY}.by: trip"

    def result(self) -> pd.DataFrame:
        """The finished split: photo_id, split, reason, near_duplicates, weight."""
        ids = self.photos["photo_id"]
        first, several = ids.groupby(self.group).transform("min"), np.bincount(self.group)[self.group] > 1
        columns = {
            "photo_id": ids,
            "split": self.split,
            "reason": self.reason,
            "near_duplicates": first.where(several),
        }
        return pd.DataFrame(columns).astype("str").assign(weight=self.weight)

    def _undecided(self) -> NDArray[np.bool_]:
        return np.asarray(pd.isna(self.split))

    def _leave_out(self, rows: NDArray[np.bool_], reason: str) -> None:
        self.split[rows] = UNUSED
        self.reason[rows] = reason

    def _again(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of `rows` whose bytes an earlier one of another source has."""
        photos = self.photos.loc[rows & self.photos["sha256"].notna(), ["sha256", "source"]]
        first = photos.groupby("sha256")["source"].transform("first")
        again = np.zeros(len(rows), np.bool_)
        again[photos.index] = (photos["sha256"].duplicated() & (photos["source"] != first)).to_numpy()
        return again

    def _leave_out_duplicates(self, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Leave out those of `rows` whose group a higher split holds; returns which they were."""
        holder = self.held_by[self.group]
        duplicate = rows & ~pd.isna(holder)
        for name in pd.unique(holder[duplicate]):
            self._leave_out(duplicate & (holder == name), f"near-duplicate of a {name} photo")
        return duplicate

    def _sample(
        self, rows: NDArray[np.int64], name: str, wanted: SideSettings, having: str
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Those of `rows` to use, and the design weight of each: 1 / its chance of being used.

        Photos come in order of a keyed hash. A stratum at its cap takes no more; `strata` deals to the strata in turn,
        which makes the largest as small as any choice could, so when it breaks the cap, every choice would.
        """
        share, count = self.settings.max_share_per_stratum, wanted.count
        _, stratum, sizes = np.unique(
            strata(self.photos["latitude"].to_numpy()[rows], self.photos["longitude"].to_numpy()[rows],
                   self.settings.stratify_level), return_inverse=True, return_counts=True,
        )  # fmt: skip
        most = most_under_cap(sizes, share)
        draw = keyed_fractions(self.photos["photo_id"].to_numpy()[rows], self.seed, "photo order")
        order = np.lexsort((draw, stratum))
        turn = np.empty(len(rows), np.int64)  # 0 for the first photo of each stratum, and so on
        turn[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        deal = count is not None and wanted.sample == "strata"
        all_fit = count is None and most == len(rows)
        limit = len(rows) if all_fit else _cap(most if count is None else count, share)
        candidates = np.arange(len(rows)) if deal else np.flatnonzero(turn < limit)
        first = np.lexsort((draw[candidates], turn[candidates] if deal else np.zeros(len(candidates))))
        chosen = candidates[first[:count]]
        used = np.bincount(stratum[chosen], minlength=len(sizes))
        if len(chosen) == 0 or used.max() > limit or (count is not None and len(chosen) < count):
            raise SettingsError(
                f"{_KEY}.max_share_per_stratum is {share:g}, which allows {most} {name} photos"
                f"{'' if count is None else f' of the {count} asked for'}: {having}, in {len(sizes)} strata "
                f"of level {self.settings.stratify_level}; raise it or the level"
            )
        # All strata share one chance, but for those whose number of photos was set.
        fixed = used > 0 if deal else (used == limit) & (sizes > limit)
        weight = np.full(len(sizes), sizes[~fixed].sum() / max(used[~fixed].sum(), 1))
        weight[fixed] = sizes[fixed] / used[fixed]
        return rows[chosen], weight[stratum[chosen]]

    def _leave_out_near_tests(self, rows: NDArray[np.bool_], radius_km: float) -> NDArray[np.bool_]:
        """Leave out those of `rows` within radius_km (<=) of a test or external photo; returns which."""
        from scipy.spatial import cKDTree  # imported here: most splits need no tree, and scipy takes 0.2 s

        latitude, longitude = self.photos["latitude"].to_numpy(), self.photos["longitude"].to_numpy()
        near = np.zeros(len(rows), np.bool_)
        others = (UNUSED, VALIDATION, CONTEXT, "None")
        tests = np.flatnonzero(~np.isin(self.split.astype(str), others))
        if len(tests) == 0:
            return near
        # The nearest by chord is the nearest on the sphere; the last word has the exact distance.
        chord = 2 * np.sin(min(radius_km / EARTH_RADIUS_KM, np.pi) / 2)
        train = np.flatnonzero(rows)
        tree = cKDTree(unit_vectors(latitude[tests], longitude[tests]))
        _, nearest = tree.query(
            unit_vectors(latitude[train], longitude[train]), distance_upper_bound=chord * (1 + 1e-9) + 1e-9
        )
        reached = nearest < len(tests)
        train, query = train[reached], tests[nearest[reached]]
        km = distance_km(latitude[train], longitude[train], latitude[query], longitude[query])
        within = km <= radius_km
        train, query = train[within], query[within]
        near[train] = True
        for name in pd.unique(self.split[query]):
            hit = np.zeros(len(rows), np.bool_)
            hit[train[self.split[query] == name]] = True
            self._leave_out(hit, f"within {radius_km:g} km of a {name} photo")
        return near
