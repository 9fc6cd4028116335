"""Checks that a split keeps its promises, proved on the result alone and by other means than made it.

Nothing here calls the code that makes splits or groups duplicates: near-duplicates are found by a different
exact index, strata by their edges, photographers by plain joins. A check that shares its subject's code
agrees with its mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.photos.settings import SplitSettings
from geoloc.sphere import EARTH_RADIUS_KM, distance_km, unit_vectors

_EXTERNAL = "(external)"
_PAIRS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check: `count` is the number of photos (or sets) that break the rule, `detail` names some."""

    name: str
    passed: bool
    count: int
    detail: str


def check_splits(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> list[CheckResult]:
    """Every check on a split (columns photo_id, split, reason) of a catalog, in a fixed order."""
    return [
        every_photo_once(catalog, splits, settings),
        no_empty_split(splits, settings),
        sizes_as_asked(catalog, splits, settings),
        photographer_disjoint(catalog, splits, settings),
        no_exact_duplicate_straddles(catalog, splits, settings),
        no_near_duplicate_straddles(catalog, splits, settings),
        external_sets_apart(catalog, splits, settings),
        radius_respected(catalog, splits, settings),
        strata_cap(catalog, splits, settings),
    ]


def every_photo_once(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """Each photo of the catalog has one row with a known split, and a reason exactly when it is unused."""
    known = {"train", "unused", *settings.sides(), *settings.external}
    ids, wanted = splits["photo_id"], catalog["photo_id"]
    unused = splits["split"] == "unused"
    faults = {
        "missing from the split": set(wanted) - set(ids),
        "not in the catalog": set(ids) - set(wanted),
        "more than once": set(ids[ids.duplicated()]),
        "in an unknown split": set(ids[~splits["split"].isin(known)]),
        "unused without a reason": set(ids[unused & (splits["reason"].fillna("") == "")]),
        "used, yet with a reason not to be": set(ids[~unused & splits["reason"].notna()]),
    }
    broken = set().union(*faults.values())
    told = "; ".join(f"{len(v)} {k}, such as {min(v)}" for k, v in faults.items() if v)
    return _result("every_photo_once", len(broken), told, f"{len(splits)} photos, each in one split")


def no_empty_split(splits: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """Train, and each of validation, test, context and the external tests that was asked for, holds photos."""
    wanted = ["train", *settings.external]
    wanted += [name for name, side in settings.sides().items() if side.share > 0]
    empty = sorted(set(wanted) - set(splits["split"]))
    return _result(
        "no_empty_split", len(empty), f"empty: {', '.join(empty)}", f"{len(wanted)} splits hold photos"
    )


def sizes_as_asked(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """A count is met exactly, and a share of photographers within chance (5 standard deviations).

    Each photographer falls on a side by an independent draw, so the photographers seen in a split must be a
    plausible outcome. Those with no used photo could have been on any side, and widen what is plausible;
    photographers of external tests were never drawn.
    """
    joined = _join(catalog, splits)
    by_trip = _by_trip(joined, settings)
    faults, sizes = [], []
    drawn = joined[~joined["photographer"].isin(joined["photographer"][_is_external(joined, settings)])]
    total = drawn["photographer"].nunique()
    used = drawn[drawn["split"] != "unused"]
    unseen = total - used["photographer"].nunique()
    for name, side in settings.sides().items():
        size = int((joined["split"] == name).sum())
        sizes.append(f"{name} {size}")
        if side.count is not None and size != side.count:
            faults.append(f"{name} has {size} photos, asked were {side.count}")
        seen = used["photographer"][used["split"] == name].nunique()
        slack = 5 * np.sqrt(total * side.share * (1 - side.share)) + (1 if side.share else 0)
        expected = total * side.share
        # The side of a trip is drawn too, but which trips were drawn cannot be seen from the result alone.
        if not by_trip and not seen - slack <= expected <= seen + unseen + slack:
            faults.append(f"{name} has {seen} of {total} photographers, asked was a share of {side.share:g}")
    return _result("sizes_as_asked", len(faults), "; ".join(faults), ", ".join(sizes))


def photographer_disjoint(
    catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings
) -> CheckResult:
    """No photographer has used photos on two sides (train, validation, test, context, the external tests together).

    A photo without photographer counts its album within its source, and without album itself. Where trips are held
    out: no two used photos of one photographer on two sides were taken within trip_hours and trip_km of each other.
    """
    joined = _join(catalog, splits)
    used = _sides(joined, settings)
    if _by_trip(joined, settings):
        return _trips_apart(used, settings)
    sides = used.groupby("photographer")["side"].nunique()
    broken = sides[sides > 1].index
    count = int(used["photographer"].isin(broken).sum())
    shown = ", ".join(str(who) for who in broken[:3])
    return _result(
        "photographer_disjoint",
        count,
        f"{count} photos by {len(broken)} photographers who are on two sides, such as {shown}",
        f"{len(sides)} photographers, each on one side",
    )


def _trips_apart(used: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """By trees over places and times of each side; linked pairs are what the split's own walk through time avoids."""
    from scipy.spatial import cKDTree  # imported here: the other checks do without scipy

    taken = pd.to_datetime(used.get("taken_at", pd.Series(pd.NaT, used.index)), utc=True)
    timed = used.assign(hour=(taken - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(hours=1)).dropna(
        subset="hour"
    )
    chord = 2 * np.sin(min(settings.trip_km / EARTH_RADIUS_KM, np.pi) / 2) * (1 + 1e-9) + 1e-12
    broken: set[str] = set()
    for _, photos in timed.groupby("photographer"):
        sides = [rows.reset_index(drop=True) for _, rows in photos.groupby("side")]
        trees = [
            cKDTree(
                np.column_stack(
                    [
                        unit_vectors(rows["latitude"], rows["longitude"]) / chord,
                        rows["hour"] / max(settings.trip_hours, 1e-9),
                    ]
                )
            )
            for rows in sides
        ]
        for (one, tree), (other, another) in combinations(zip(sides, trees, strict=True), 2):
            found = tree.sparse_distance_matrix(another, 1 + 1e-9, p=np.inf, output_type="coo_matrix")
            first, second = one.iloc[found.row], other.iloc[found.col]
            km = distance_km(first["latitude"], first["longitude"], second["latitude"], second["longitude"])
            apart = np.abs(first["hour"].to_numpy() - second["hour"].to_numpy())
            near = (km <= settings.trip_km) & (apart <= settings.trip_hours)
            broken |= {*first["photo_id"][near], *second["photo_id"][near]}
    return _result(
        "photographer_disjoint",
        len(broken),
        f"{len(broken)} photos have one of the same trip on another side, such as {', '.join(sorted(broken)[:3])}",
        f"{len(used)} photos, held out by trip: photographers are on several sides, none of their trips is",
    )


def _by_trip(joined: pd.DataFrame, settings: SplitSettings) -> bool:
    """Whether trips are held out: as set, or, by auto, if there are fewer people than splits, or one took over half."""
    if settings.by != "auto":
        return settings.by == "trip"
    own = joined.loc[~joined["source"].isin([*settings.external.values()]), "photographer"]
    sizes = sorted(own.groupby(own).size(), reverse=True)
    needed = 1 + sum(side.share > 0 for side in (settings.test, settings.validation))
    return bool(sizes) and (len(sizes) < needed or sizes[0] > sum(sizes) / 2)


def no_exact_duplicate_straddles(
    catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings
) -> CheckResult:
    """No two used photos with the same bytes (sha256) are on two sides."""
    used = _sides(_join(catalog, splits), settings).dropna(subset="sha256")
    sides = used.groupby("sha256")["side"].nunique()
    broken = used[used["sha256"].isin(sides[sides > 1].index)]
    return _result(
        "no_exact_duplicate_straddles",
        len(broken),
        f"{len(broken)} photos have their very bytes on two sides, such as {_some(broken['photo_id'])}",
        f"{len(sides)} distinct photos, each on one side",
    )


def no_near_duplicate_straddles(
    catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings
) -> CheckResult:
    """No two used photos with perceptual hashes within max_hamming bits are on two sides."""
    used = _sides(_join(catalog, splits), settings).dropna(subset="phash")
    # A hash on two sides is two entries, 0 bits apart.
    entries = pd.DataFrame({"hash": _hash_numbers(used["phash"]), "side": pd.factorize(used["side"])[0]})
    entry_of = entries.groupby(["hash", "side"], sort=False).ngroup().to_numpy()
    entries = entries.drop_duplicates()
    bad = _straddling(entries["hash"].to_numpy(), entries["side"].to_numpy(), settings.max_hamming)
    broken = used[bad[entry_of]]
    return _result(
        "no_near_duplicate_straddles",
        len(broken),
        f"{len(broken)} photos have a near-duplicate on another side, such as {_some(broken['photo_id'])}",
        f"{entries['hash'].nunique()} distinct hashes, none within {settings.max_hamming} bits of one on another side",
    )


def external_sets_apart(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """Each external test is all of its source and nothing else; its photographers are used nowhere else."""
    joined = _join(catalog, splits)
    faults: dict[str, pd.Series] = {}
    for name, source in settings.external.items():
        of_source, in_set = joined["source"].eq(source).fillna(False), joined["split"] == name
        faults[f"of {source} are not in {name}"] = joined["photo_id"][of_source & ~in_set]
        faults[f"in {name} are not of {source}"] = joined["photo_id"][in_set & ~of_source]
    external = _is_external(joined, settings)
    elsewhere = ~external & (joined["split"] != "unused")
    authors = joined["photographer"].isin(joined["photographer"][external])
    authors &= not _by_trip(joined, settings)  # then photographer_disjoint looks at their trips
    faults["elsewhere are by photographers of an external test"] = joined["photo_id"][elsewhere & authors]
    told = "; ".join(
        f"{len(ids)} photos {what}, such as {_some(ids)}" for what, ids in faults.items() if len(ids)
    )
    count = sum(map(len, faults.values()))
    return _result("external_sets_apart", count, told, f"{int(external.sum())} photos in external tests")


def radius_respected(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """No test or external photo has a train photo within exclude_radius_km (<=).

    Asked from the other end than the split was made: for each test photo, which train photo is nearest?
    """
    from scipy.spatial import cKDTree  # imported here: the other checks do without scipy

    radius = settings.exclude_radius_km
    if radius is None:
        return CheckResult("radius_respected", True, 0, "no radius was asked for")
    joined = _join(catalog, splits)
    train, tests = (
        joined[joined["split"] == "train"],
        joined[joined["split"].isin(["test", *settings.external])],
    )
    if train.empty or tests.empty:
        return CheckResult("radius_respected", True, 0, "no train photo or no test photo")
    here, there = tests[["latitude", "longitude"]], train[["latitude", "longitude"]]
    _, nearest = cKDTree(unit_vectors(*there.to_numpy().T)).query(unit_vectors(*here.to_numpy().T))
    km = distance_km(*here.to_numpy().T, *there.to_numpy()[nearest].T)
    bad = km <= radius
    return _result(
        "radius_respected",
        int(bad.sum()),
        f"{int(bad.sum())} test photos have a train photo within {radius:g} km, "
        f"such as {_some(tests['photo_id'][bad])}",
        f"{len(tests)} test photos; the nearest train photo is {km.min():.4g} km away",
    )


def strata_cap(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> CheckResult:
    """In test, in validation and in context no stratum holds more than max_share_per_stratum of the photos.

    Strata are 2 x 2^level rows of equal area by 3 x 2^level columns of equal longitude. A point within 1e-9
    degrees of an edge may count to either side, and is left out of the tally.
    """
    share, level = settings.max_share_per_stratum, settings.stratify_level
    if share >= 1:
        return CheckResult("strata_cap", True, 0, "no cap was asked for")
    joined = _join(catalog, splits)
    row_edges = np.degrees(np.arcsin(np.linspace(-1, 1, 2 * 2**level + 1)))
    column_edges = np.linspace(-180, 180, 3 * 2**level + 1)
    faults, count, largest = [], 0, []
    for name in settings.sides():
        points = _coordinates(joined[joined["split"] == name])
        row, row_clear = _bin(points[:, 0], row_edges)
        column, column_clear = _bin(points[:, 1], column_edges)
        _, sizes = np.unique((row * 3 * 2**level + column)[row_clear & column_clear], return_counts=True)
        over = sizes[sizes > share * len(points) + 1e-6]
        largest.append(f"{name} {max(sizes, default=0)} of {len(points)}")
        if len(over):
            count += len(over)
            faults.append(f"{name} has {len(over)} strata above a share of {share:g}, the largest with "
                          f"{sizes.max()} of {len(points)} photos")  # fmt: skip
    return _result("strata_cap", count, "; ".join(faults), f"largest stratum: {', '.join(largest)}")


def _result(name: str, count: int, fault: str, fine: str) -> CheckResult:
    return CheckResult(name, count == 0, count, fault if count else fine)


def _some(ids: pd.Series) -> str:
    return ", ".join(map(str, ids.head(3)))


def _join(catalog: pd.DataFrame, splits: pd.DataFrame) -> pd.DataFrame:
    """Catalog rows with their split; `photographer` filled from album or photo where it is null."""
    split = splits[["photo_id", "split"]].reset_index(drop=True)
    joined = catalog.reset_index(drop=True).merge(split, on="photo_id", how="inner")
    missing = joined["photographer"].isna()
    if missing.any():
        rows = joined[missing]
        in_album = rows["album"].notna()
        # A tuple as text cannot equal the keyed hash of a photographer.
        names = [
            repr((source, album)) if grouped else repr((photo,))
            for source, album, photo, grouped in zip(
                rows["source"], rows["album"], rows["photo_id"], in_album, strict=True
            )
        ]
        joined.loc[missing, "photographer"] = names
    return joined


def _is_external(joined: pd.DataFrame, settings: SplitSettings) -> pd.Series:
    return joined["split"].isin(list(settings.external))


def _sides(joined: pd.DataFrame, settings: SplitSettings) -> pd.DataFrame:
    """The used photos with column `side`: their split, the external tests as one."""
    external = _is_external(joined, settings)
    used = external | joined["split"].isin(["train", *settings.sides()])
    return joined.assign(side=joined["split"].where(~external, _EXTERNAL))[used]


def _coordinates(photos: pd.DataFrame) -> NDArray[np.float64]:
    return photos[["latitude", "longitude"]].to_numpy(dtype=np.float64)


def _bin(
    values: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which interval each value is in, and whether it is clear of both its edges."""
    upper = np.searchsorted(edges, values, side="right").clip(1, len(edges) - 1)
    clear = (values - edges[upper - 1] > 1e-9) & (edges[upper] - values > 1e-9)
    return upper - 1, clear


def _hash_numbers(phash: pd.Series) -> NDArray[np.uint64]:
    return np.fromiter((int(text, 16) for text in phash), np.uint64, len(phash))


def _straddling(hashes: NDArray[np.uint64], side: NDArray[np.int64], max_hamming: int) -> NDArray[np.bool_]:
    """Whether each of N hashes has one within max_hamming bits on another side, bool [N]. Exact.

    Deal the bits to max_hamming + m hands: two close hashes are equal in at least m hands. So for each choice of m
    hands, join the sides on the bits in them. Hashes of the largest side that meet nobody are left out by a table of
    the bits that the others have, so that only what can straddle is sorted. Memory is bounded by _PAIRS_AT_ONCE.
    """
    bad = np.zeros(len(hashes), np.bool_)
    if len(np.unique(side)) < 2:
        return bad
    for mask in _masks(hashes, side, max_hamming):
        key = hashes & mask
        rows = _meeting(key, side)
        rows = rows[np.lexsort((side[rows], key[rows]))]
        for i, j in _pairs_of_sides(key[rows], side[rows]):
            i, j = rows[i], rows[j]
            new = ~(bad[i] & bad[j])
            i, j = i[new], j[new]
            close = np.bitwise_count(hashes[i] ^ hashes[j]) <= max_hamming
            bad[i[close]] = bad[j[close]] = True
    return bad


def _masks(hashes: NDArray[np.uint64], side: NDArray[np.int64], max_hamming: int) -> list[np.uint64]:
    """The bits of each choice of m hands, for the m that seems the least work: pairs are counted on a sample."""
    step = -(-len(hashes) // 100_000)
    sample, of_sample = hashes[::step], side[::step]

    def choices(m: int) -> list[np.uint64]:
        hands = max_hamming + m
        dealt = [sum(1 << bit for bit in range(hand, 64, hands)) for hand in range(hands)]
        return [np.uint64(sum(chosen)) for chosen in combinations(dealt, m)]

    def work(m: int) -> float:
        masks = choices(m)
        pairs = 0
        for mask in masks[:: -(-len(masks) // 4)]:
            _, run = np.unique(sample & mask, return_inverse=True)
            both = np.unique(run * (of_sample.max() + 1) + of_sample, return_counts=True)[1].astype(np.int64)
            pairs += ((np.bincount(run).astype(np.int64) ** 2).sum() - (both**2).sum()) / 2 * step**2
        return len(masks) * (len(hashes) + pairs / min(len(masks), 4))

    if len(hashes) < 2_000:
        return choices(1)
    possible = [m for m in range(1, 7) if m == 1 or comb(max_hamming + m, m) <= 1000]
    return choices(min(possible, key=work))


def _meeting(key: NDArray[np.uint64], side: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows without those of the largest side whose key no other side has (but for some that share its slot)."""
    other = side != np.bincount(side).argmax()
    bits = int(np.clip(np.log2(len(key)) + 3, 4, 28))
    slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)
    seen = np.zeros(1 << bits, np.bool_)
    seen[slot[other]] = True
    return np.flatnonzero(other | seen[slot])


def _pairs_of_sides(
    key: NDArray[np.uint64], side: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of rows (sorted by key and side) of one key on two sides, in blocks of bounded size."""
    if not len(key):
        return
    new_key = np.append(True, key[1:] != key[:-1])
    new_side = new_key | np.append(True, side[1:] != side[:-1])
    key_end = np.append(np.flatnonzero(new_key)[1:], len(key))[np.cumsum(new_key) - 1]
    side_end = np.append(np.flatnonzero(new_side)[1:], len(key))[np.cumsum(new_side) - 1]
    sizes = key_end - side_end
    for rows in _blocks(sizes, _PAIRS_AT_ONCE):
        many = sizes[rows]
        i = np.repeat(np.arange(rows.start, rows.stop), many)
        j = np.repeat(side_end[rows], many) + np.arange(len(i)) - np.repeat(np.cumsum(many) - many, many)
        yield i, j


def _blocks(sizes: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Consecutive slices whose sizes add up to at most `most`, or hold one element."""
    ends = np.cumsum(sizes)
    begin = 0
    while begin < len(sizes):
        done = ends[begin - 1] if begin else 0
        stop = max(int(np.searchsorted(ends, done + most, side="right")), begin + 1)
        yield slice(begin, stop)
        begin = stop
