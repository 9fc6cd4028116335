"""Near-duplicate photos: groups of equal bytes or of perceptual hashes within a Hamming distance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, combinations, pairwise
from math import comb

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

HASH_BITS = 64
Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

_PAIRS_AT_ONCE = 4_000_000
_SHORT_RUN = 32
"""Runs up to this length are compared whole, at once for all runs."""
_SUCCESSORS = 4
"""In longer runs each hash is first compared with so many of its successors: in a dense cluster that links most."""
_LONG_RUN = 500
"""Hashes that share a key beyond this number wait for longer keys, while there are any ..."""
_LONGEST_RUN = 5_000
"""... and beyond this number are linked without being compared. This bounds the work at n log n + n * _LONGEST_RUN,
and can only make a group larger."""
_MOST_KEYS = 1_000
_FEW = 2_000
"""Fewer hashes are compared by the shortest keys."""
_SAMPLE = 1 << 17
"""Hashes on which the number of comparisons is estimated."""


def hamming(a: ArrayLike, b: ArrayLike) -> NDArray[np.uint8]:
    """Number of bits in which 64-bit hashes differ, uint8; arguments are uint64 and broadcast."""
    return np.bitwise_count(np.bitwise_xor(np.asarray(a, np.uint64), np.asarray(b, np.uint64)))


def parse_phash(phash: pd.Series) -> Hashes:
    """Perceptual hashes of 16 hex digits as uint64[N]. Raises ValueError for a null or malformed one."""
    if phash.isna().any():
        raise ValueError(f"{int(phash.isna().sum())} perceptual hashes are null: leave those out first")
    good = phash.str.fullmatch(r"[0-9a-fA-F]{16}")
    if not good.all():
        raise ValueError(f"a perceptual hash has 16 hex digits, got {phash[~good].iloc[0]!r}")
    return np.frombuffer(bytes.fromhex("".join(phash)), dtype=">u8").astype(np.uint64)


def near_duplicate_groups(phash: pd.Series, sha256: pd.Series, max_hamming: int) -> Integers:
    """Label of each photo's group of near-duplicates, int64[N], 0, 1, ... in order of first appearance.

    Two photos are linked when their bytes are equal (sha256) or their perceptual hashes differ in at most
    `max_hamming` bits; a group is a connected component of those links, so a chain of small changes is one
    group (`large_groups` names those that grew too far). A null hash links to nothing. No link is ever missed, see
    `hash_groups`. Raises ValueError for a malformed hash, for series of unequal length and for max_hamming outside 0 to
    63.
    """
    if len(phash) != len(sha256):
        raise ValueError(f"phash has {len(phash)} rows and sha256 {len(sha256)}: they must be of one length")
    has_phash = phash.notna().to_numpy()
    hashes, hash_of = np.unique(parse_phash(phash[has_phash]), return_inverse=True)
    label = np.arange(len(hashes), len(hashes) + len(phash), dtype=np.int64)  # alone, where it has no hash
    label[has_phash] = hash_groups(hashes, max_hamming)[hash_of]
    again = np.flatnonzero(sha256.notna().to_numpy() & sha256.duplicated(keep=False).to_numpy())
    if len(again):
        same = pd.factorize(sha256.iloc[again])[0]
        first = again[np.unique(same, return_index=True)[1]][same]
        label = _merged(label, label[first], label[again])
    return pd.factorize(label)[0].astype(np.int64)


def large_groups(near_duplicates: pd.Series, most: int) -> pd.Series:
    """Number of photos by group of those groups that have more than `most`, the largest first.

    `near_duplicates` [N] names each photo's group, null for none.
    """
    sizes = near_duplicates.value_counts().rename("photos")
    return sizes[sizes > most].sort_index().sort_values(ascending=False, kind="stable")


def hash_groups(hashes: Hashes, max_hamming: int) -> Integers:
    """Label of each hash's connected component of links of at most `max_hamming` bits, int64[N], below N.

    `hashes` are distinct and sorted. By the pigeonhole principle (Manku, Jain, Das Sarma: Detecting near-duplicates
    for web crawling, WWW 2007, section 3): cut the bits into max_hamming + m bands; two close hashes agree on at
    least m whole bands. So for each choice of m bands, sort by those bands and compare within runs of equal keys.
    A larger m sorts more often and compares far less.

    Hashes that are already in one component are not compared again, so a cluster of thousands costs little more than
    its size, and no list of pairs is kept. Exact, except that a run of more than _LONGEST_RUN hashes that are not yet
    in one component is linked as a whole. Raises ValueError when max_hamming is outside 0 to 63.
    """
    if not 0 <= max_hamming < HASH_BITS:
        raise ValueError(f"max_hamming must be from 0 to {HASH_BITS - 1}, got {max_hamming}")
    labels = np.arange(len(hashes), dtype=np.int64)
    if len(hashes) < 2 or max_hamming == 0:
        return labels
    together, most = _bands_together(hashes, max_hamming), _most_together(max_hamming)
    left = labels.copy()  # positions of the hashes whose runs were too long for shorter keys
    while len(left):
        before = labels[left]
        after, too_long = _compared(before, hashes[left], max_hamming, together, last=together == most)
        labels = _merged(labels, before, after)
        left = left[too_long]
        together += 1
    return labels


def _compared(
    labels: Integers, hashes: Hashes, max_hamming: int, together: int, last: bool
) -> tuple[Integers, NDArray[np.bool_]]:
    """Labels after comparing within the runs of all keys of `together` bands, and which hashes were in runs that are
    too long to compare; these are linked if it is the `last` length of keys."""
    too_long = np.zeros(len(hashes), np.bool_)
    for key in _keys(max_hamming + together, together):
        # Values are sorted, not positions: that is several times faster, and the few that matter are looked up.
        moved = np.sort(key.forward(hashes))
        labels, longer = _merge_short_runs(labels, hashes, moved, key, max_hamming)
        if longer:
            labels, waiting = _merge_long_runs(labels, hashes, moved, key, max_hamming, last)
            too_long[waiting] = True
    return labels, too_long


class _Key:
    """A choice of bands, as a permutation of the bits that moves them to the top: hashes that agree on those bands are
    then neighbours in sorted order."""

    def __init__(self, bands: Sequence[tuple[int, int]], chosen: Sequence[int]) -> None:
        """`bands` are (lowest bit, width) of all bands; `chosen` the numbers of those that move to the top."""
        order = [*(b for n, b in enumerate(bands) if n not in chosen), *(bands[n] for n in chosen)]
        ends = accumulate((width for _, width in order), initial=0)
        self._moves = [(low, width, to) for (low, width), to in zip(order, ends, strict=False)]
        rest = HASH_BITS - sum(bands[n][1] for n in chosen)
        self.limit = np.uint64(1 << rest)
        """Two moved hashes agree on the chosen bands if their XOR is below this."""

    def forward(self, hashes: Hashes) -> Hashes:
        """The hashes with their bits moved."""
        return self._moved(hashes, self._moves)

    def positions(self, moved: Hashes, hashes: Hashes) -> Integers:
        """Where moved hashes are in `hashes`, which are sorted."""
        back = self._moved(moved, [(to, width, low) for low, width, to in self._moves])
        return np.searchsorted(hashes, back)

    @staticmethod
    def _moved(hashes: Hashes, moves: list[tuple[int, int, int]]) -> Hashes:
        out = np.zeros_like(hashes)
        for low, width, to in moves:
            out |= ((hashes >> np.uint64(low)) & np.uint64((1 << width) - 1)) << np.uint64(to)
        return out


def _keys(bands: int, together: int) -> list[_Key]:
    """All choices of `together` of `bands` neighbouring bands of almost equal width."""
    edges = [HASH_BITS * band // bands for band in range(bands + 1)]
    cut = [(a, b - a) for a, b in pairwise(edges)]
    return [_Key(cut, chosen) for chosen in combinations(range(bands), together)]


def _bands_together(hashes: Hashes, max_hamming: int) -> int:
    """How many bands make a key: the number with the least estimated work, sorts and comparisons together.

    The comparisons are counted on a sample, because real hashes are far from uniform.
    """
    count = len(hashes)
    if count < _FEW:
        return 1
    sample = hashes[:: -(-count // _SAMPLE)]

    def work(together: int) -> float:
        keys = _keys(max_hamming + together, together)
        some = keys[:: -(-len(keys) // 5)]
        pairs = np.mean([_pairs(np.sort(key.forward(sample)), key) for key in some])
        return len(keys) * (count * np.log2(count) + 4 * float(pairs) * (count / len(sample)) ** 2)

    return min(range(1, _most_together(max_hamming) + 1), key=work)


def _most_together(max_hamming: int) -> int:
    """How many bands make the longest keys."""
    possible = range(1, HASH_BITS - max_hamming + 1)
    return max(m for m in possible if m == 1 or comb(max_hamming + m, m) <= _MOST_KEYS)


def _runs(moved: Hashes, key: _Key) -> tuple[Integers, Integers]:
    """Starts and lengths of the runs of equal keys."""
    starts = np.flatnonzero(np.append(True, (moved[1:] ^ moved[:-1]) >= key.limit))
    return starts, np.diff(np.append(starts, len(moved)))


def _pairs(moved: Hashes, key: _Key) -> float:
    """How many pairs are within runs."""
    lengths = _runs(moved, key)[1].astype(np.float64)
    return float((lengths * (lengths - 1)).sum() / 2)


def _merge_short_runs(
    labels: Integers, hashes: Hashes, moved: Hashes, key: _Key, max_hamming: int
) -> tuple[Integers, bool]:
    """Labels after comparing within runs up to _SHORT_RUN, and of longer ones the successors; and whether there are
    longer ones."""
    _, lengths = _runs(moved, key)
    is_long = np.repeat(lengths > _SHORT_RUN, lengths)
    longer = bool(is_long.any())
    # Hashes that are close one after the other are linked by that; no further pair among them is looked up.
    differing = moved[1:] ^ moved[:-1]
    chain = np.append(0, np.cumsum(np.bitwise_count(differing) > max_hamming))
    left = np.flatnonzero(differing < key.limit)
    waiting: list[tuple[Hashes, Hashes]] = []
    for step in range(1, _SHORT_RUN):
        if step == _SUCCESSORS + 1 and longer:
            left = left[~is_long[left]]
        left = left[: np.searchsorted(left, len(moved) - step)]
        differing = moved[left] ^ moved[left + step]
        same_run = differing < key.limit
        left, differing = left[same_run], differing[same_run]
        close = left[np.bitwise_count(differing) <= max_hamming]
        if step > 1:
            close = close[chain[close] != chain[close + step]]
        waiting.append((moved[close], moved[close + step]))
        done = step == _SHORT_RUN - 1 or not len(left)
        if done or sum(len(one) for one, _ in waiting) > _PAIRS_AT_ONCE:
            pair = (key.positions(np.concatenate(side), hashes) for side in zip(*waiting, strict=True))
            labels = _merged(labels, *(labels[position] for position in pair))
            waiting = []
        if done:
            break
    return labels, longer


def _merge_long_runs(
    labels: Integers, hashes: Hashes, moved: Hashes, key: _Key, max_hamming: int, last: bool
) -> tuple[Integers, Integers]:
    """Labels after comparing within runs longer than _SHORT_RUN, where these are not one component already; and the
    positions of the hashes in runs that are too long, which are linked if they are the `last`."""
    starts, lengths = _runs(moved, key)
    long = lengths > _SHORT_RUN
    starts, lengths = starts[long], lengths[long]
    run = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    member = key.positions(moved[np.arange(len(run)) - before[run] + starts[run]], hashes)
    of_member = labels[member]
    several = np.minimum.reduceat(of_member, before) != np.maximum.reduceat(of_member, before)
    too_long = several & (lengths > (_LONGEST_RUN if last else _LONG_RUN))
    waiting = too_long[run]
    if last:
        labels = _merged(labels, of_member[before][run[waiting]], of_member[waiting])
        waiting[:] = False
    skipped = member[waiting]
    several &= ~too_long
    member, run = member[several[run]], run[several[run]]
    order = np.lexsort((labels[member], run))
    member, run = member[order], run[order]
    of_member, values = labels[member], hashes[member]
    for i, j in _pairs_across(run, of_member):
        close = hamming(values[i], values[j]) <= max_hamming
        labels = _merged(labels, labels[member[i[close]]], labels[member[j[close]]])
    return labels, skipped


def _pairs_across(run: Integers, label: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Positions (i, j), i < j, of pairs in one run with unequal labels, in blocks of bounded size; sorted by both."""
    last = np.append(run[1:] != run[:-1], True)
    last_of_label = np.append(label[1:] != label[:-1], True) | last
    ends, label_ends = (np.flatnonzero(x) + 1 for x in (last, last_of_label))
    here = np.arange(len(run))
    start = label_ends[np.searchsorted(label_ends, here, side="right")] if len(run) else here
    partners = (ends[np.searchsorted(ends, here, side="right")] if len(run) else here) - start
    left = np.flatnonzero(partners)
    before = np.concatenate([[0], np.cumsum(partners[left])])
    block = 0
    while block < len(left):
        end = max(int(np.searchsorted(before, before[block] + _PAIRS_AT_ONCE, side="right")) - 1, block + 1)
        many = partners[left[block:end]]
        i = np.repeat(left[block:end], many)
        step = np.arange(len(i)) - np.repeat(before[block:end] - before[block], many)
        yield i, start[i] + step
        block = end


def _merged(labels: Integers, one: Integers, other: Integers) -> Integers:
    """Labels after the labels `one` and `other` [P] became equal pair by pair: the lowest of each component."""
    from scipy.sparse import coo_array  # imported here: only this function needs scipy (0.2 s)
    from scipy.sparse.csgraph import connected_components

    apart = one != other
    if not apart.any():
        return labels
    nodes, place = np.unique(np.concatenate([one[apart], other[apart]]), return_inverse=True)
    start, end = np.split(place, 2)
    links = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(links, directed=False)
    lowest = nodes[np.unique(component, return_index=True)[1]][component]
    renamed = np.arange(int(labels.max()) + 1)
    renamed[nodes] = lowest
    return np.asarray(renamed[labels])
