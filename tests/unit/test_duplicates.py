"""Near-duplicate groups against brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.photos import duplicates
from geoloc.photos.duplicates import close_pairs, hamming, near_duplicate_groups, parse_phash


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


@settings(max_examples=150, deadline=None)
@given(photos(), st.integers(0, 12))
def test_groups_agree_with_brute_force(made: tuple[list, list], max_hamming: int) -> None:
    phash, sha256 = made
    labels = near_duplicate_groups(pd.Series(phash, dtype="str"), pd.Series(sha256, dtype="str"), max_hamming)
    assert labels.tolist() == brute_groups(phash, sha256, max_hamming)


@pytest.mark.parametrize("together", [1, 2, 3, 4])
@pytest.mark.parametrize("max_hamming", [1, 3, 6, 9])
def test_all_close_pairs_are_found_with_any_number_of_bands(
    monkeypatch: pytest.MonkeyPatch, together: int, max_hamming: int
) -> None:
    rng = np.random.default_rng(together * 100 + max_hamming)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    for _ in range(12):  # each third is a copy of another with one more bit flipped
        target, origin = rng.choice(300, 100, replace=False), rng.choice(300, 100)
        hashes[target] = hashes[origin] ^ (np.uint64(1) << rng.integers(0, 64, 100, dtype=np.uint64))
    hashes = np.unique(hashes)
    monkeypatch.setattr(duplicates, "_bands_together", lambda count, most: together)
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 7)
    i, j = close_pairs(hashes, max_hamming)
    found = {(min(a, b), max(a, b)) for a, b in zip(i.tolist(), j.tolist(), strict=True)}
    numbers = hashes.tolist()
    wanted = {
        (a, b)
        for b in range(len(numbers))
        for a in range(b)
        if (numbers[a] ^ numbers[b]).bit_count() <= max_hamming
    }
    assert len(wanted) > 50
    assert found == wanted


def test_bands_follow_the_number_of_hashes() -> None:
    assert duplicates._bands_together(1_000, 6) == 1
    assert duplicates._bands_together(1_000_000, 6) > 1


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
