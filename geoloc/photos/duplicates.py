"""Near-duplicate photos: groups of equal bytes or of perceptual hashes within a Hamming distance."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

HASH_BITS = 64
_PAIRS_AT_ONCE = 4_000_000


def hamming(a: ArrayLike, b: ArrayLike) -> NDArray[np.uint8]:
    """Number of bits in which 64-bit hashes differ, uint8; arguments are uint64 and broadcast."""
    return np.bitwise_count(np.bitwise_xor(np.asarray(a, np.uint64), np.asarray(b, np.uint64)))


def parse_phash(phash: pd.Series) -> NDArray[np.uint64]:
    """Perceptual hashes of 16 hex digits as uint64[N]. Raises ValueError for a null or malformed one."""
    if phash.isna().any():
        raise ValueError(f"{int(phash.isna().sum())} perceptual hashes are null: leave those out first")
    good = phash.str.fullmatch(r"[0-9a-fA-F]{16}")
    if not good.all():
        raise ValueError(f"a perceptual hash has 16 hex digits, got {phash[~good].iloc[0]!r}")
    return np.frombuffer(bytes.fromhex("".join(phash)), dtype=">u8").astype(np.uint64)


def near_duplicate_groups(phash: pd.Series, sha256: pd.Series, max_hamming: int) -> NDArray[np.int64]:
    """Label of each photo's group of near-duplicates, int64[N], 0, 1, ... in order of first appearance.

    Two photos are linked when their bytes are equal (sha256) or their perceptual hashes differ in at most
    `max_hamming` bits; a group is a connected component of those links, so a chain of small changes is one
    group. A null hash links to nothing. The pairs are exact (see `close_pairs`). Raises ValueError for a
    malformed hash, for series of unequal length and for max_hamming outside 0 to 63.
    """
    from scipy.sparse import coo_array  # imported here: only this function needs scipy (0.2 s)
    from scipy.sparse.csgraph import connected_components

    if len(phash) != len(sha256):
        raise ValueError(f"phash has {len(phash)} rows and sha256 {len(sha256)}: they must be of one length")
    has_phash, has_sha = phash.notna().to_numpy(), sha256.notna().to_numpy()
    hashes, hash_of = np.unique(parse_phash(phash[has_phash]), return_inverse=True)
    sha_of, shas = pd.factorize(sha256[has_sha])

    # Nodes are the photos, then the distinct hashes, then the distinct bytes. Photos hang on shared nodes, so
    # a million copies of one black picture make a million links, not half a trillion pairs.
    count = len(phash)
    first, second = close_pairs(hashes, max_hamming)
    starts = [np.flatnonzero(has_phash), np.flatnonzero(has_sha), count + first]
    ends = [count + hash_of, count + len(hashes) + sha_of, count + second]
    start, end = np.concatenate(starts), np.concatenate(ends)
    nodes = count + len(hashes) + len(shas)
    graph = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    return pd.factorize(labels[:count])[0].astype(np.int64)


def close_pairs(hashes: NDArray[np.uint64], max_hamming: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs (i, j) of distinct 64-bit hashes that differ in at most `max_hamming` bits; two int64[P].

    Exact, by the pigeonhole principle (Manku, Jain, Das Sarma: Detecting near-duplicates for web crawling,
    WWW 2007, section 3): cut the bits into max_hamming + m bands; two close hashes agree on at least m whole
    bands. So for each choice of m bands, sort by those bands and compare within runs of equal keys. m = 1 is
    the usual banded index; a larger m sorts more often and compares far less. A pair may be listed twice.
    Raises ValueError when max_hamming is outside 0 to 63.
    """
    if not 0 <= max_hamming < HASH_BITS:
        raise ValueError(f"max_hamming must be from 0 to {HASH_BITS - 1}, got {max_hamming}")
    found_i: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    found_j: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    if len(hashes) > 1 and max_hamming > 0:
        together = _bands_together(len(hashes), max_hamming)
        for chosen in combinations(_band_masks(max_hamming + together), together):
            key = hashes & np.bitwise_or.reduce(np.array(chosen, np.uint64))
            order = np.argsort(key)
            for i, j in _pairs_in_runs(key[order]):
                i, j = order[i], order[j]
                close = hamming(hashes[i], hashes[j]) <= max_hamming
                found_i.append(i[close])
                found_j.append(j[close])
    return np.concatenate(found_i), np.concatenate(found_j)


def _band_masks(bands: int) -> list[np.uint64]:
    """Masks that cut 64 bits into `bands` neighbouring bands of almost equal width."""
    edges = [HASH_BITS * band // bands for band in range(bands + 1)]
    return [np.uint64(((1 << (b - a)) - 1) << a) for a, b in pairwise(edges)]


def _bands_together(count: int, max_hamming: int) -> int:
    """How many bands make a key: the number with the least estimated work, sorts and comparisons together."""

    def work(together: int) -> float:
        bands = max_hamming + together
        comparisons = count**2 / 2 / 2 ** (HASH_BITS * together / bands)
        sort = count * np.log2(count)
        return comb(bands, together) * (sort + 2 * comparisons)

    return min((m for m in range(1, 5) if max_hamming + m <= HASH_BITS), key=work)


def _pairs_in_runs(key: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions (i, j), i < j, of all pairs with equal keys in a sorted array, in blocks of bounded size."""
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    lengths = np.diff(np.append(starts, len(key)))
    partners = np.repeat(starts + lengths, lengths) - np.arange(len(key)) - 1  # later ones in its own run
    left = np.flatnonzero(partners)
    before = np.concatenate([[0], np.cumsum(partners[left])])
    block = 0
    while block < len(left):
        end = max(int(np.searchsorted(before, before[block] + _PAIRS_AT_ONCE, side="right")) - 1, block + 1)
        many = partners[left[block:end]]
        i = np.repeat(left[block:end], many)
        step = np.arange(len(i)) - np.repeat(before[block:end] - before[block], many)
        yield i, i + 1 + step
        block = end
