"""Splits keep their promises, and the checks find each planted fault and no other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from geoloc.photos import split_checks
from geoloc.photos.settings import SplitSettings
from geoloc.photos.split_checks import check_splits
from geoloc.photos.splits import (
    keyed_fractions,
    make_splits,
    most_under_cap,
    photographer_keys,
    strata,
)
from geoloc.reports.summary import bent_warnings
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km

TEXT_COLUMNS = ["photo_id", "source", "photographer", "album", "sha256", "phash", "shard"]


def frame(columns: dict[str, Any]) -> pd.DataFrame:
    made = pd.DataFrame(columns)
    return made.astype({name: "str" for name in TEXT_COLUMNS if name in made})


def settings_of(**values: Any) -> SplitSettings:
    return parse(SplitSettings, values, "splits")


def make_catalog(photos: int = 1500, photographers: int = 100, seed: int = 0) -> pd.DataFrame:
    """Photos of two sources; about one in twelve is a near or exact copy of another."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, photos, dtype=np.uint64)
    sha256 = np.array([f"{i:064x}" for i in range(photos)], dtype=object)
    copies, origins = rng.choice(photos, (2, photos // 12), replace=False)
    hashes[copies] = hashes[origins] ^ (np.uint64(1) << rng.integers(0, 64, len(copies), dtype=np.uint64))
    exact = slice(0, len(copies) // 3)
    hashes[copies[exact]] = hashes[origins[exact]]
    sha256[copies[exact]] = sha256[origins[exact]]
    photographer = rng.integers(0, photographers, photos)
    return frame(
        {
            "photo_id": [f"p{i:05d}" for i in range(photos)],
            "source": np.where(photographer < 8, "im2gps3k", "own"),
            "photographer": [f"who{n}" for n in photographer],
            "album": None,
            "latitude": np.degrees(np.arcsin(rng.uniform(-0.8, 0.8, photos))),
            "longitude": rng.uniform(-180, 180, photos),
            "sha256": sha256,
            "phash": [f"{h:016x}" for h in hashes],
            "shard": "shard-0.tar",
        }
    )


EVERYTHING = {
    "test": {"share": 0.3, "count": 150},
    "validation": {"share": 0.15},
    "external": {"published": "im2gps3k"},
    "exclude_radius_km": 60.0,
    "stratify_level": 2,
    "max_share_per_stratum": 0.15,
}


# --- what a split promises -------------------------------------------------------------------------------


def brute_force_faults(catalog: pd.DataFrame, splits: pd.DataFrame, wanted: SplitSettings) -> list[str]:
    """Oracle: every pair of used photos, in plain Python."""
    faults = []
    split = dict(zip(splits["photo_id"], splits["split"], strict=True))
    rows = [row for row in catalog.to_dict("records") if split[row["photo_id"]] != "unused"]
    latitude, longitude = (np.array([row[name] for row in rows]) for name in ("latitude", "longitude"))
    apart = distance_km(latitude[:, None], longitude[:, None], latitude, longitude)
    for n, a in enumerate(rows):
        for m, b in enumerate(rows[:n]):
            sides = {
                "external" if split[x["photo_id"]] in wanted.external else split[x["photo_id"]]
                for x in (a, b)
            }
            if len(sides) == 1:
                continue
            pair = f"{a['photo_id']} {b['photo_id']} {sides}"
            same = {k: isinstance(a[k], str) and a[k] == b[k] for k in ("photographer", "album", "sha256")}
            nameless = not isinstance(a["photographer"], str) and not isinstance(b["photographer"], str)
            if same["photographer"] or (nameless and same["album"] and a["source"] == b["source"]):
                faults.append(f"photographer {pair}")
            if same["sha256"]:
                faults.append(f"sha256 {pair}")
            if isinstance(a["phash"], str) and isinstance(b["phash"], str):
                bits = (int(a["phash"], 16) ^ int(b["phash"], 16)).bit_count()
                if bits <= wanted.max_hamming:
                    faults.append(f"phash {pair}")
            radius = wanted.exclude_radius_km
            kept_apart = sides in ({"train", "test"}, {"train", "external"})
            if radius is not None and kept_apart and apart[n, m] <= radius:
                faults.append(f"radius {pair}")
    return faults


@st.composite
def catalogs(draw: st.DrawFn) -> pd.DataFrame:
    count = draw(st.integers(4, 40))
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=12))

    def column(values: st.SearchStrategy) -> list:
        return draw(st.lists(values, min_size=count, max_size=count))

    bit = st.one_of(st.none(), st.integers(0, 63))
    phash = [
        None if c is None else f"{c if b is None else c ^ (1 << b):016x}"
        for c, b in zip(column(st.sampled_from([None, *centres])), column(bit), strict=True)
    ]
    return frame(
        {
            "photo_id": [f"p{i}" for i in range(count)],
            "source": column(st.sampled_from(["a", "b"])),
            "photographer": column(st.sampled_from([None, *(f"who{i}" for i in range(8))])),
            "album": column(st.sampled_from([None, "one", "two"])),
            "sha256": column(st.sampled_from([None, *(f"s{i}" for i in range(60))])),
            "phash": phash,
            "latitude": column(st.floats(-90, 90) | st.sampled_from([0.0, 0.001, 45.0])),
            "longitude": column(st.floats(-180, 180) | st.sampled_from([0.0, 180.0, -180.0])),
        }
    )


@pytest.mark.slow
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])  # of few people
@given(
    catalogs(),
    st.sampled_from([{}, {"published": "b"}]),
    st.sampled_from([None, 0.0, 1.0, 500.0]),
    st.sampled_from([0, 1, 4]),
    st.sampled_from([None, {"share": 0.2}]),
    st.integers(0, 2**32),
)
def test_no_pair_of_photos_breaks_a_promise(
    catalog: pd.DataFrame,
    external: dict,
    radius: float | None,
    max_hamming: int,
    context: dict | None,
    seed: int,
) -> None:
    wanted = settings_of(
        by="photographer", test={"share": 0.4}, validation={"share": 0.3}, external=external,
        exclude_radius_km=radius, max_hamming=max_hamming, context=context,
    )  # fmt: skip
    try:
        splits = make_splits(catalog, wanted, seed)
    except SettingsError:
        assume(False)
    assert brute_force_faults(catalog, splits, wanted) == []
    assert splits["photo_id"].tolist() == sorted(catalog["photo_id"])
    assert (splits["reason"].notna() == (splits["split"] == "unused")).all()
    assert [c.name for c in check_splits(catalog, splits, wanted) if not c.passed] == []


def test_every_reason_is_true() -> None:
    """What is left out is left out for the reason given: nothing is thrown away for nothing."""
    catalog, wanted = make_catalog(), settings_of(**EVERYTHING)
    splits = make_splits(catalog, wanted, 3)
    photos = catalog.merge(splits, on="photo_id")
    where = dict(zip(splits["photo_id"], splits["split"], strict=True))
    numbers = dict(zip(photos["photo_id"], (int(h, 16) for h in photos["phash"]), strict=True))
    used = photos[photos["split"] != "unused"]
    seen = set()
    for photo in photos[photos["split"] == "unused"].itertuples():
        reason = photo.reason
        if reason.startswith("near-duplicate of a "):
            name = reason.split()[3]
            in_set = [p for p, split in where.items() if split == name]
            assert any((numbers[p] ^ numbers[photo.photo_id]).bit_count() <= 12 for p in in_set), photo
            seen.add("near-duplicate")
        elif reason.startswith("within 60 km of a "):
            others = used[used["split"] == reason.split()[5]]
            km = distance_km(photo.latitude, photo.longitude, others["latitude"], others["longitude"])
            assert km.min() <= 60
            seen.add("radius")
        elif reason.startswith("photographer is in the external test published"):
            assert photo.photographer in set(used["photographer"][used["split"] == "published"])
            seen.add("external")
        else:
            assert reason == "more than the test split needs"
            seen.add("surplus")
    assert seen == {"near-duplicate", "radius", "surplus"}  # its photographers are all of one source


def test_other_photos_by_a_photographer_of_an_external_test_are_unused() -> None:
    catalog = make_catalog()
    other = (catalog["photographer"] == "who3") & (catalog.index % 2 == 0)
    catalog.loc[other, "source"] = "own"
    splits = make_splits(catalog, settings_of(external={"published": "im2gps3k"}), 3)
    got = splits.set_index("photo_id").loc[catalog["photo_id"][other]]
    assert other.sum() > 2
    assert set(got["split"]) == {"unused"}
    assert set(got["reason"]) == {"photographer is in the external test published"}
    whole = splits.set_index("photo_id").loc[catalog["photo_id"][catalog["source"] == "im2gps3k"]]
    assert set(whole["split"]) == {"published"}


def test_a_near_duplicate_stays_on_the_highest_side_and_its_photographer_does_not_move() -> None:
    catalog = make_catalog()
    wanted = settings_of()
    before = make_splits(catalog, wanted, 1).set_index("photo_id")["split"]
    train, test, validation = (before.index[before == name][5] for name in ("train", "test", "validation"))
    catalog = catalog.set_index("photo_id", drop=False)
    catalog.loc[[train, validation], "phash"] = catalog.loc[test, "phash"]
    after = make_splits(catalog.reset_index(drop=True), wanted, 1).set_index("photo_id")
    assert after.loc[test, "split"] == "test"
    for photo in (train, validation):
        assert after.loc[photo, ["split", "reason"]].tolist() == ["unused", "near-duplicate of a test photo"]
    rest = ~before.index.isin([train, validation])
    mates = catalog["photographer"].isin(catalog.loc[[train, validation], "photographer"]).to_numpy() & rest
    assert mates.sum() > 5
    unchanged = after["split"][mates] == before[mates]
    # What the two were near-duplicates of before may now come free; nothing else moves.
    assert (unchanged | (before[mates] == "unused")).all()


def test_a_group_that_grew_too_large_only_trains() -> None:
    """A chain of small changes through many photographers' photos does not end up in test, nor empty train."""
    catalog = make_catalog()
    chain = catalog.index[(catalog["source"] == "own") & (catalog.index % 3 == 0)]
    catalog.loc[chain, "phash"] = [f"{(1 << (i % 64)) - 1:016x}" for i in range(len(chain))]
    wanted = settings_of(max_group=100)
    splits = make_splits(catalog, wanted, 1).set_index("photo_id")
    got = splits.loc[catalog.loc[chain, "photo_id"]]
    assert got["near_duplicates"].nunique() == 1
    assert set(got["split"]) == {"train", "unused"}
    assert (got["split"] == "train").mean() > 0.6
    reasons = got["reason"].dropna()
    assert set(reasons[reasons.str.contains("group")]) == {"in a group of more than 100 near-duplicates"}
    assert all(check.passed for check in check_splits(catalog, splits.reset_index(), wanted))
    kept = make_splits(catalog, settings_of(max_group=10_000), 1).set_index("photo_id")
    assert (kept.loc[got.index, "split"] == "train").sum() == 0


# --- stability and determinism ---------------------------------------------------------------------------


def test_a_photographer_keeps_its_side_when_photos_are_added() -> None:
    catalog = make_catalog(3000, 300)
    few = make_splits(catalog.iloc[::3], settings_of(), 11)
    many = make_splits(catalog, settings_of(), 11)

    def sides(splits: pd.DataFrame) -> pd.Series:
        used = catalog.merge(splits[splits["split"] != "unused"], on="photo_id")
        return used.groupby("photographer")["split"].agg(lambda s: "/".join(sorted(set(s))))

    a, b = sides(few).align(sides(many), join="inner")
    assert len(a) > 250
    assert a.tolist() == b.tolist()
    assert set(a) == {"train", "validation", "test"}


def test_one_share_moves_nobody_of_the_other_set() -> None:
    catalog = make_catalog(3000, 300)
    small = make_splits(catalog, settings_of(test={"share": 0.1}, max_hamming=0), 11)
    large = make_splits(catalog, settings_of(test={"share": 0.3}, max_hamming=0), 11)
    was, now = small["split"], large["split"]
    assert ((now == "test") | (was != "test") | (now == "unused")).all()
    assert not ((was == "validation") & now.isin(["train", "test"])).any()


def test_photos_for_models_of_context_are_taken_from_train_alone() -> None:
    catalog = make_catalog(3000, 300)
    without = make_splits(catalog, settings_of(max_hamming=0), 11)
    wanted = settings_of(max_hamming=0, context={"share": 0.2})
    taken = make_splits(catalog, wanted, 11)
    moved = without["split"] != taken["split"]
    assert set(without["split"][moved]) == {"train"}
    assert set(taken["split"][moved]) == {"context", "unused"}
    people = catalog.merge(taken, on="photo_id")
    assert people[people["split"] == "context"]["photographer"].nunique() == pytest.approx(60, abs=25)
    assert [c.name for c in check_splits(catalog, taken, wanted) if not c.passed] == []
    emptied = taken.assign(split=taken["split"].replace("context", "train"))
    failed = [c.name for c in check_splits(catalog, emptied, wanted) if not c.passed]
    assert {"no_empty_split", "sizes_as_asked"} <= set(failed)
    with pytest.raises(
        SettingsError, match=r"splits.test.share, splits.validation.share and splits.context.share"
    ):
        settings_of(test={"share": 0.5}, context={"share": 0.4})


def test_row_order_and_other_columns_do_not_matter() -> None:
    catalog, wanted = make_catalog(), settings_of(**EVERYTHING)
    one = make_splits(catalog, wanted, 5)
    two = make_splits(catalog.sample(frac=1, random_state=1).assign(width=640), wanted, 5)
    pd.testing.assert_frame_equal(one, two)
    assert not one.equals(make_splits(catalog, wanted, 6))


def test_the_hash_of_a_photographer_never_changes() -> None:
    """Golden numbers: another hash would move every photographer of every pool to a new side."""
    key = hashlib.sha256(b"photographer side\x0042").digest()
    first = int.from_bytes(hashlib.blake2b(b"photographer:anna", key=key, digest_size=8).digest(), "big")
    got = keyed_fractions(["photographer:anna", "photo:1"], 42, "photographer side")
    assert got[0] == (first >> 11) / 2**53
    np.testing.assert_allclose(got, [0.8557213206444175, 0.005201011277140233], rtol=0, atol=1e-15)


def test_hashed_fractions_are_uniform_and_differ_by_seed_and_purpose() -> None:
    names = [f"who{i}" for i in range(20_000)]
    a = keyed_fractions(names, 1, "x")
    assert a.min() >= 0
    assert a.max() < 1
    counts = np.histogram(a, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
    for other in (keyed_fractions(names, 2, "x"), keyed_fractions(names, 1, "y")):
        assert abs(np.corrcoef(a, other)[0, 1]) < 0.04


def test_photographer_keys_fall_back_to_album_then_photo() -> None:
    photos = frame(
        {
            "photo_id": ["1", "2", "3", "4", "5", "6"],
            "source": ["s", "s", "s", "t", None, "s"],
            "photographer": ["a", None, None, None, None, None],
            "album": ["x", "x", "x", "x", "x", None],
        }
    )
    keys = photographer_keys(photos)
    assert keys.notna().all()
    assert keys[1] == keys[2]
    assert keys.nunique() == 5
    assert photographer_keys(photos.assign(photographer=photos["photo_id"])).nunique() == 6


# --- sizes and strata ------------------------------------------------------------------------------------


def crowded_catalog() -> pd.DataFrame:
    """3,000 photos, of which four in five are in one city."""
    catalog = make_catalog(3000, 300)
    crowd = catalog.index < 2400
    catalog.loc[crowd, "latitude"] = 48.85 + catalog["latitude"][crowd] / 1000
    catalog.loc[crowd, "longitude"] = 2.35 + catalog["longitude"][crowd] / 1000
    return catalog


def test_counts_are_met_and_spread_over_strata() -> None:
    catalog = crowded_catalog()
    test = {"share": 0.4, "count": 120, "sample": "strata"}
    wanted = settings_of(test=test, stratify_level=3, max_share_per_stratum=0.2)
    splits = make_splits(catalog, wanted, 0)
    chosen = catalog.merge(splits[splits["split"] == "test"], on="photo_id")
    cells = strata(chosen["latitude"], chosen["longitude"], 3)
    assert len(chosen) == 120
    assert pd.Series(cells).value_counts().max() <= 24
    free = make_splits(catalog, settings_of(test={"share": 0.4}, stratify_level=3), 0)
    assert (catalog.merge(free[free["split"] == "test"])["longitude"].between(2, 3)).mean() > 0.7


@pytest.mark.parametrize(
    ("sample", "cap", "in_the_city"),
    [("representative", 1.0, (0.7, 0.9)), ("representative", 0.3, (0.3, 0.3)), ("strata", 1.0, (0.0, 0.2))],
)
def test_a_count_is_representative_by_default_and_else_has_design_weights(sample, cap, in_the_city) -> None:
    """Weighted, every sample has the share of the city that its side has; equal weights mean nothing was bent."""
    catalog = crowded_catalog()
    everything = make_splits(catalog, settings_of(test={"share": 0.4}, stratify_level=3), 0)
    side = catalog.merge(everything[everything["split"] == "test"], on="photo_id")
    test = {"share": 0.4, "count": 200, "sample": sample}
    splits = make_splits(catalog, settings_of(test=test, stratify_level=3, max_share_per_stratum=cap), 0)
    chosen = catalog.merge(splits[splits["split"] == "test"], on="photo_id")
    city, weight = chosen["longitude"].between(2, 3), chosen["weight"]
    assert in_the_city[0] <= city.mean() <= in_the_city[1]
    assert weight.sum() == pytest.approx(len(side), rel=1e-9)
    assert (weight * city).sum() / weight.sum() == pytest.approx(
        side["longitude"].between(2, 3).mean(), abs=0.06
    )
    assert (weight.nunique() == 1) == (sample == "representative" and cap == 1)
    said = bent_warnings(splits)
    assert bool(said) == (weight.nunique() > 1)
    assert all(
        f"a test photo represents {weight.min():.3g} to {weight.max():.3g} photos" in one for one in said
    )
    assert splits.loc[~splits["split"].isin(["test", "validation"]), "weight"].isna().all()


def test_without_a_count_the_cap_keeps_as_many_as_it_allows() -> None:
    catalog = make_catalog(2000, 200)
    catalog["latitude"] = np.where(catalog.index % 10 < 8, 48.0, catalog["latitude"])
    catalog["longitude"] = np.where(catalog.index % 10 < 8, 2.0, catalog["longitude"])
    wanted = settings_of(test={"share": 0.3}, stratify_level=1, max_share_per_stratum=0.25, max_hamming=0)
    splits = make_splits(catalog, wanted, 0)
    test = catalog.merge(splits[splits["split"] == "test"], on="photo_id")
    sizes = pd.Series(strata(test["latitude"], test["longitude"], 1)).value_counts()
    assert sizes.max() == np.floor(len(test) * 0.25)
    surplus = catalog.merge(splits[splits["reason"] == "more than the test split needs"], on="photo_id")
    assert len(surplus) > 100
    gave = set(strata(surplus["latitude"], surplus["longitude"], 1))
    assert gave == {int(strata(48.0, 2.0, 1))}  # only the crowded stratum gives photos up


@hypothesis_settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 100))
def test_most_under_cap_is_the_largest_that_fits(sizes: list[int], percent: int) -> None:
    fits = [
        n for n in range(sum(sizes) + 1) if sum(min(s, n * percent // 100) for s in sizes) >= n
    ]  # a choice of n photos exists exactly when the capped strata hold n
    assert most_under_cap(np.array(sizes), percent / 100) == max(fits)


def test_strata_are_of_equal_area_and_as_many_as_s2_cells() -> None:
    rng = np.random.default_rng(0)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, 200_000)))
    cells = strata(latitude, rng.uniform(-180, 180, 200_000), 2)
    counts = np.bincount(cells)
    assert len(counts) == 6 * 4**2
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())
    assert strata(10.0, 180.0, 5) == strata(10.0, -180.0, 5)
    assert strata([90.0, -90.0], [0.0, 0.0], 5).tolist() == [63 * 96 + 48, 48]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test": {"count": 100_000}}, r"splits\.test\.count must be at most .* got 100000: \d+ photos by"),
        (
            {"external": {"big": "nowhere"}},
            r"splits\.external\.big must be a source .*im2gps3k, own.* 'nowhere'",
        ),
        (
            {"test": {"share": 0.3, "count": 50}, "stratify_level": 0, "max_share_per_stratum": 0.02},
            r"splits\.max_share_per_stratum is 0\.02, which allows 0 test photos of the 50 asked for: \d+ photos",
        ),
        (
            {"validation": {"share": 0.000001}},
            r"splits\.validation\.share is 1e-06, but no photo is on the validation side",
        ),
    ],
)
def test_what_cannot_be_filled_is_named(values: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_splits(make_catalog(), settings_of(**values), 0)


def test_a_radius_that_takes_all_of_train_is_named() -> None:
    one_city = make_catalog().assign(latitude=48.85, longitude=2.35)
    with pytest.raises(SettingsError, match="splits leaves no photo to train on"):
        make_splits(one_city, settings_of(exclude_radius_km=0.0), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test": {"share": 0.6}, "validation": {"share": 0.5}}, "sum to less than 1, got 0.6 \\+ 0.5"),
        ({"test": {"share": 0, "count": 5}}, "splits.test.share must be above 0"),
        ({"external": {"train": "x"}}, "splits.external.*got 'train'"),
        ({"external": {"a": "x", "b": "x"}}, "'x' must be in one test only"),
        ({"test": {"count": 0}}, "splits.test.count must be at least 1, got 0"),
        ({"max_hamming": 13}, "splits.max_hamming must be at most 12, got 13"),
    ],
)
def test_bad_settings_are_named(values: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_of(**values)


def test_a_share_of_zero_makes_no_set() -> None:
    splits = make_splits(make_catalog(), settings_of(validation={"share": 0}), 0)
    assert set(splits["split"]) == {"train", "test", "unused"}


def test_photos_without_bytes_are_no_queries() -> None:
    catalog = make_catalog()
    catalog.loc[catalog.index % 2 == 0, "shard"] = None
    splits = make_splits(catalog, settings_of(), 0)
    got = catalog.merge(splits, on="photo_id")
    assert got["shard"][got["split"].isin(["test", "validation"])].notna().all()
    assert got["shard"][got["split"] == "train"].isna().sum() > 100
    assert (got["reason"] == "no stored photo, so it cannot be a test query").any()
    bare = make_splits(catalog.drop(columns="shard"), settings_of(), 0)
    assert (bare["split"] == "test").sum() > (splits["split"] == "test").sum()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.iloc[:0], "no photos"),
        (lambda c: pd.concat([c, c.iloc[:2]]), "2 duplicate photo ids"),
        (lambda c: c.assign(latitude=c["latitude"].where(c.index > 2)), "3 photos with bad or missing"),
    ],
)
def test_a_spoiled_catalog_is_refused(spoil: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_splits(spoil(make_catalog(100)), settings_of(), 0)


# --- the checks find planted faults ----------------------------------------------------------------------


class Planted:
    """A good split of a catalog, to break on purpose."""

    def __init__(self) -> None:
        self.catalog = make_catalog(seed=1).set_index("photo_id", drop=False)
        # A photographer of the external test with photos elsewhere.
        other = (self.catalog["photographer"] == "who3") & (np.arange(len(self.catalog)) % 2 == 0)
        self.catalog.loc[other, "source"] = "own"
        self.settings = settings_of(**EVERYTHING)
        self.splits = make_splits(self.catalog, self.settings, 3).set_index("photo_id", drop=False)
        numbers = np.array([int(text, 16) for text in self.catalog["phash"]], np.uint64)
        bits = np.bitwise_count(numbers[:, None] ^ numbers[None, :])
        self.copies = pd.Series((bits <= self.settings.max_hamming).sum(axis=1) > 1, self.catalog.index)

    def first(self, split: str, reason: str = "") -> str:
        """A photo of that split with no near-duplicate anywhere."""
        rows = (self.splits["split"] == split) & ~self.copies
        if reason:
            rows &= self.splits["reason"].str.contains(reason)
        return str(self.splits.index[rows][0])

    def leave_out(self, rows: Any) -> None:
        self.splits.loc[rows, ["split", "reason"]] = ["unused", "planted"]

    def failed(self) -> list[str]:
        results = check_splits(self.catalog, self.splits, self.settings)
        assert all((c.count > 0) == (not c.passed) and c.detail for c in results)
        return [c.name for c in results if not c.passed]


def photographer_on_two_sides(p: Planted) -> None:
    p.catalog.loc[p.first("train"), "photographer"] = p.catalog.loc[p.first("test"), "photographer"]


def album_on_two_sides(p: Planted) -> None:
    both = [p.first("train"), p.first("validation")]
    p.catalog.loc[both, "photographer"] = None
    p.catalog.loc[both, "album"] = "holiday"


def near_duplicate_in_train(p: Planted) -> None:
    near = int(p.catalog.loc[p.first("validation"), "phash"], 16) ^ (0b111 << 30) ^ (0b11 << 62) ^ 1
    p.catalog.loc[p.first("train"), "phash"] = f"{near:016x}"


def same_hash_in_train(p: Planted) -> None:
    p.catalog.loc[p.first("train"), "phash"] = p.catalog.loc[p.first("published"), "phash"]


def exact_copy_in_train(p: Planted) -> None:
    p.catalog.loc[p.first("train"), "sha256"] = p.catalog.loc[p.first("test"), "sha256"]


def external_photo_missing(p: Planted) -> None:
    p.leave_out(p.first("published"))


def stranger_in_external(p: Planted) -> None:
    photo = p.first("unused", "photographer is in the external test")
    p.splits.loc[photo, "split"] = "published"
    p.splits.loc[photo, "reason"] = None


def train_photo_beside_a_test_photo(p: Planted) -> None:
    train, test = p.first("train"), p.first("test")
    p.catalog.loc[train, "latitude"] = p.catalog.loc[test, "latitude"] + 0.5  # 56 km
    p.catalog.loc[train, "longitude"] = p.catalog.loc[test, "longitude"]


def train_photo_beside_an_external_photo(p: Planted) -> None:
    train, test = p.first("train"), p.first("published")
    p.catalog.loc[train, ["latitude", "longitude"]] = p.catalog.loc[test, ["latitude", "longitude"]]


def one_test_photo_short(p: Planted) -> None:
    p.leave_out(p.first("test"))


def far_too_many_in_validation(p: Planted) -> None:
    """Half of the train photographers move: no split of theirs is broken, but the share is."""
    people = sorted(set(p.catalog["photographer"][p.splits["split"] == "train"]))[::2]
    moved = p.catalog["photographer"].isin(people) & (p.splits["split"] == "train")
    p.splits.loc[moved & ~p.copies, "split"] = "validation"
    p.leave_out(moved & p.copies)


def all_of_test_in_one_place(p: Planted) -> None:
    rows = p.splits["split"] == "test"
    p.catalog.loc[rows, "latitude"] = -89.0
    p.catalog.loc[rows, "longitude"] = np.linspace(1, 20, rows.sum())


def a_photo_forgotten(p: Planted) -> None:
    p.splits = p.splits.drop(index=p.first("train"))


def a_photo_twice(p: Planted) -> None:
    p.splits = pd.concat([p.splits, p.splits.loc[[p.first("train")]]])


def a_photo_from_nowhere(p: Planted) -> None:
    p.splits.loc["new", ["photo_id", "split"]] = ["new", "train"]


def a_misspelt_split(p: Planted) -> None:
    p.splits.loc[p.first("unused", "within"), "split"] = "trian"


def unused_without_reason(p: Planted) -> None:
    p.splits.loc[p.first("unused"), "reason"] = None


def used_with_reason(p: Planted) -> None:
    p.splits.loc[p.first("train"), "reason"] = "more than the test split needs"


def nothing_to_train_on(p: Planted) -> None:
    p.leave_out(p.splits["split"] == "train")


FAULTS: dict[Callable[[Planted], None], str] = {
    photographer_on_two_sides: "photographer_disjoint",
    album_on_two_sides: "photographer_disjoint",
    near_duplicate_in_train: "no_near_duplicate_straddles",
    same_hash_in_train: "no_near_duplicate_straddles",
    exact_copy_in_train: "no_exact_duplicate_straddles",
    external_photo_missing: "external_sets_apart",
    stranger_in_external: "external_sets_apart",
    train_photo_beside_a_test_photo: "radius_respected",
    train_photo_beside_an_external_photo: "radius_respected",
    one_test_photo_short: "sizes_as_asked",
    far_too_many_in_validation: "sizes_as_asked",
    all_of_test_in_one_place: "strata_cap",
    a_photo_forgotten: "every_photo_once",
    a_photo_twice: "every_photo_once",
    a_photo_from_nowhere: "every_photo_once",
    a_misspelt_split: "every_photo_once",
    unused_without_reason: "every_photo_once",
    used_with_reason: "every_photo_once",
    nothing_to_train_on: "no_empty_split",
}


def test_a_good_split_passes_every_check() -> None:
    planted = Planted()
    assert planted.failed() == []
    assert set(planted.splits["split"]) == {"train", "validation", "test", "published", "unused"}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_fails_its_check_and_no_other(plant: Callable[[Planted], None]) -> None:
    planted = Planted()
    plant(planted)
    assert planted.failed() == [FAULTS[plant]]


def test_each_check_has_a_planted_fault() -> None:
    planted = Planted()
    names = {c.name for c in check_splits(planted.catalog, planted.splits, planted.settings)}
    assert names == set(FAULTS.values())


@pytest.mark.parametrize("max_hamming", [0, 1, 3, 4, 7, 8, 12])
def test_the_checks_own_search_for_near_duplicates_is_exact(
    max_hamming: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(max_hamming)
    hashes = rng.integers(0, 2**64, 400, dtype=np.uint64)
    for _ in range(max_hamming + 6):
        target, origin = rng.choice(400, 60, replace=False), rng.choice(400, 60)
        hashes[target] = hashes[origin] ^ (np.uint64(1) << rng.integers(0, 64, 60, dtype=np.uint64))
    hashes[:20] = hashes[20:40]
    side = rng.choice(3, 400, p=[0.1, 0.85, 0.05])
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    wanted = ((bits <= max_hamming) & (side[:, None] != side[None, :])).any(axis=1)
    monkeypatch.setattr(split_checks, "_PAIRS_AT_ONCE", 5)
    assert split_checks._straddling(hashes, side, max_hamming).tolist() == wanted.tolist()
    assert 5 < wanted.sum() < 350
