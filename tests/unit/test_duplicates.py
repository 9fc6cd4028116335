"""Near-duplicate groups against brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.photos import duplicates
from geoloc.photos.duplicates import (
    hamming,
    hash_groups,
    large_groups,
    near_duplicate_groups,
    parse_phash,
)


def brute_groups(phash: list[str | None], sha256: list[str | None], max_hamming: int) -> list[int]:
    """Oracle: Python integers, all pairs, and labels relaxed until nothing changes."""
    label = list(range(len(phash)))

    def linked(i: int, j: int) -> bool:
        if sha256[i] is not None and sha256[i] == sha256[j]:
            return True
        if phash[i] is None or phash[j] is None:
            return False
        return bin(int(phash[i], 16) ^ int(phash[j], 16)).count("1") <= max_hamming

    changed = True
    while changed:
        changed = False
        for i in range(len(phash)):
            for j in range(i):
                if label[i] != label[j] and linked(i, j):
                    label[i] = label[j] = min(label[i], label[j])
                    changed = True
    seen: dict[int, int] = {}
    return [seen.setdefault(x, len(seen)) for x in label]


@st.composite
def photos(draw: st.DrawFn) -> tuple[list[str | None], list[str | None]]:
    """Hashes clustered around few centres, so that every distance up to 16 occurs; some null."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=10)
    phash: list[str | None] = []
    for centre, bits in draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=25)):
        for bit in bits:
            centre ^= 1 << bit
        phash.append(f"{centre:016x}" if draw(st.integers(0, 9)) else None)
    some_sha = st.sampled_from([None, None, "a", "b", *(f"x{i}" for i in range(30))])
    return phash, [draw(some_sha) for _ in phash]


@settings(deadline=None)
@given(photos(), st.integers(0, 12))
def test_groups_agree_with_brute_force(made: tuple[list, list], max_hamming: int) -> None:
    phash, sha256 = made
    labels = near_duplicate_groups(pd.Series(phash, dtype="str"), pd.Series(sha256, dtype="str"), max_hamming)
    assert labels.tolist() == brute_groups(phash, sha256, max_hamming)


@pytest.mark.parametrize("together", [1, 2, 3, 4])
@pytest.mark.parametrize("max_hamming", [1, 3, 6, 9])
def test_all_links_are_found_with_any_number_of_bands(
    monkeypatch: pytest.MonkeyPatch, together: int, max_hamming: int
) -> None:
    rng = np.random.default_rng(together * 100 + max_hamming)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for _ in range(12):  # each third is a copy of another with one more bit flipped
        target, origin = rng.choice(300, 100, replace=False), rng.choice(300, 100)
        hashes[target] = hashes[origin] ^ (np.uint64(1) << rng.integers(0, 64, 100, dtype=np.uint64))
    hashes = np.unique(hashes)
    monkeypatch.setattr(duplicates, "_bands_together", lambda hashes, most: together)
    for name, value in {"_PAIRS_AT_ONCE": 7, "_SHORT_RUN": 3, "_SUCCESSORS": 1, "_LONG_RUN": 9}.items():
        monkeypatch.setattr(duplicates, name, value)
    labels = hash_groups(hashes, max_hamming)
    wanted = brute_groups([f"{h:016x}" for h in hashes], [None] * len(hashes), max_hamming)
    assert pd.factorize(labels)[0].tolist() == wanted
    assert len(set(wanted)) < len(hashes) - 50


def test_keys_grow_with_the_number_of_hashes_and_with_how_alike_they_are() -> None:
    rng = np.random.default_rng(1)
    many = np.unique(rng.integers(0, 2**64, 200_000, dtype=np.uint64))
    assert duplicates._bands_together(many[::100], 6) == 1
    assert duplicates._bands_together(many, 6) == 2
    alike = np.unique(many & rng.integers(0, 2**64, len(many), dtype=np.uint64) & many[::-1])
    assert duplicates._bands_together(alike, 6) > 2


def test_a_cluster_costs_about_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """20,000 hashes that are all close to each other are 200 million pairs, of which few are looked at."""
    flips = np.uint64(1) << np.random.default_rng(0).integers(0, 64, (30_000, 3), dtype=np.uint64)
    hashes = np.unique(np.bitwise_xor.reduce(flips, axis=1))
    compared, merged = 0, duplicates._merged

    def counted(labels: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += len(one)
        return merged(labels, one, other)

    monkeypatch.setattr(duplicates, "_merged", counted)
    assert len(hashes) > 20_000
    assert (hash_groups(hashes, 6) == 0).all()
    assert compared < 50 * len(hashes)


def test_what_cannot_be_compared_is_linked_and_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that agree on half of their bits without being close: too many to compare are one group."""
    rng = np.random.default_rng(3)
    hashes = np.unique(rng.integers(0, 2**30, 400, dtype=np.uint64) << np.uint64(34))
    assert len(np.unique(hash_groups(hashes, 6))) > 300
    for name in ("_LONG_RUN", "_LONGEST_RUN"):
        monkeypatch.setattr(duplicates, name, 100)
    assert len(np.unique(hash_groups(hashes, 6))) == 1


def test_large_groups_are_named_the_largest_first() -> None:
    groups = pd.Series(["a"] * 3 + ["b"] * 5 + ["c"] * 2 + ["d"] * 3 + [None] * 9, dtype="str")
    assert large_groups(groups, 2).to_dict() == {"b": 5, "a": 3, "d": 3}
    assert list(large_groups(groups, 2).index) == ["b", "a", "d"]
    assert large_groups(groups, 5).empty


def test_a_chain_of_small_changes_is_one_group() -> None:
    phash = pd.Series(["0" * 16, "f" + "0" * 15, "ff" + "0" * 14, "0123456789abcdef"])
    sha256 = pd.Series(["a", "b", "c", "d"])
    assert near_duplicate_groups(phash, sha256, 4).tolist() == [0, 0, 0, 1]
    assert near_duplicate_groups(phash, sha256, 3).tolist() == [0, 1, 2, 3]


def test_many_copies_of_one_picture_do_not_blow_up() -> None:
    """300,000 black pictures are 45 billion pairs; they must cost no more than other photos."""
    count = 300_000
    phash = pd.Series(np.full(count, "0" * 16, dtype=object), dtype="str")
    sha256 = pd.Series([f"{i:064x}" for i in range(count)], dtype="str")
    assert near_duplicate_groups(phash, sha256, 6).max() == 0


def test_hash_text_is_read_as_printed() -> None:
    read = parse_phash(pd.Series(["0000000000000001", "8000000000000000", "fFfFfFfFfFfFfFfF"]))
    assert read.dtype == np.uint64
    assert read.tolist() == [1, 2**63, 2**64 - 1]
    assert hamming(read[0], read).tolist() == [0, 2, 63]


@pytest.mark.parametrize("bad", ["", "abc", "0" * 17, "g" * 16, None, "0x00000000000000", "00000000 0000000"])
def test_a_malformed_hash_is_named(bad: str | None) -> None:
    with pytest.raises(ValueError, match="perceptual hash"):
        parse_phash(pd.Series(["0" * 16, bad], dtype="str"))


def test_bad_arguments() -> None:
    phash = pd.Series(["0" * 16])
    with pytest.raises(ValueError, match="max_hamming must be from 0 to 63, got 64"):
        near_duplicate_groups(phash, pd.Series(["a"]), 64)
    with pytest.raises(ValueError, match="one length"):
        near_duplicate_groups(phash, pd.Series(["a", "b"]), 4)


def test_no_photos() -> None:
    nothing = pd.Series([], dtype="str")
    assert near_duplicate_groups(nothing, nothing, 4).shape == (0,)
