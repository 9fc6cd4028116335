"""Splits of pairs: cities and photographers on one side only, and a reason for every pair that is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from geoloc.photos.catalog import COLUMNS, write_catalog
from geoloc.photos.pair_settings import PairSplitSettings
from geoloc.photos.pair_splits import PAIR_COLUMNS, PICTURE_COLUMNS, joined_pairs, pictures_of, split_pairs
from geoloc.photos.pairs import add_pairs, overhead_pool
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km

CITIES = {
    "Bonn": (50.7, 7.1),
    "Kyiv": (50.4, 30.5),
    "Lima": (-12.0, -77.0),
    "Oslo": (59.9, 10.7),
    "Pune": (18.5, 73.9),
}


def world(each: int = 8, seed: int = 0) -> pd.DataFrame:
    """Joined pairs, `each` in a city, two by a photographer, some km apart."""
    rng = np.random.default_rng(seed)
    rows = []
    for city, (latitude, longitude) in CITIES.items():
        for n in range(each):
            name = f"{city}{n}"
            rows.append(
                {
                    "photo_id": name,
                    "overhead_id": f"o-{name}",
                    "pair_id": f"{name}+o-{name}",
                    "photographer": f"{city}-{n // 2}",
                    "latitude": latitude + rng.uniform(-0.2, 0.2),
                    "longitude": longitude + rng.uniform(-0.2, 0.2),
                    "city": city,
                    "stored": True,
                    "sha256": f"s-{name}",
                    "tile_sha256": f"t-{name}",
                    "phash": f"{rng.integers(2**63):016x}",
                    "tile_width": 128,
                    "tile_height": 128,
                }
            )
    return pd.DataFrame(rows)


def split(table: pd.DataFrame, build_seed: int = 0, /, **values: object) -> pd.DataFrame:
    few = {"least_pairs": 1, "test": 1, "apart_km": 0.1}
    return split_pairs(table, parse(PairSplitSettings, few | values), build_seed)


def put(table: pd.DataFrame, photo: str, **values: object) -> pd.DataFrame:
    changed = table.copy()
    for column, value in values.items():
        changed.loc[changed["photo_id"] == photo, column] = value
    return changed


def reasons(made: pd.DataFrame) -> dict[str, str]:
    left_out = made[made["split"] == "unused"]
    return dict(zip(left_out["photo_id"], left_out["reason"], strict=True))


def test_named_cities_are_held_out_and_the_others_train():
    made = split(world(), test=["Lima", "Oslo"], validation=["Kyiv"])
    sides = made.groupby("city")["split"].unique().map(list).to_dict()
    assert sides == {
        "Bonn": ["train"], "Kyiv": ["validation"], "Lima": ["test"], "Oslo": ["test"], "Pune": ["train"],
    }  # fmt: skip
    assert reasons(made) == {}


def test_cities_are_drawn_by_the_seed_from_those_with_enough_pairs():
    few = world()[lambda t: (t["city"] != "Pune") | (t["photo_id"] == "Pune0")]
    drawn = {
        tuple(split(few, seed, least_pairs=2).query("split == 'test'")["city"].unique()) for seed in range(9)
    }
    assert len(drawn) > 2
    assert ("Pune",) not in drawn
    own = split(few, 1, least_pairs=2, seed=5)
    assert own.equals(split(few, 2, least_pairs=2, seed=5))


PLANTED = {
    "its photographer has pairs in test": lambda t: put(t, "Bonn0", photographer="Lima-0"),
    "its tile is one of test": lambda t: put(t, "Bonn0", tile_sha256="t-Lima0"),
    "its street photo is a near-duplicate of one of test": lambda t: put(
        t, "Bonn0", phash=t.set_index("photo_id")["phash"]["Lima0"]
    ),
    "within 0.1 km of a pair of test": lambda t: put(
        t, "Bonn0", **t.set_index("photo_id").loc["Lima0", ["latitude", "longitude"]].to_dict()
    ),
}


@pytest.mark.parametrize("reason", PLANTED)
@pytest.mark.parametrize("side", ["train", "validation"])
def test_what_is_too_near_to_the_test_is_left_out(reason, side):
    held = ["Kyiv"] if side == "train" else ["Bonn"]
    made = split(PLANTED[reason](world()), test=["Lima"], validation=held)
    told = reason.replace("of test", "of test or validation").replace("in test", "in test or validation")
    assert reasons(made) == {"Bonn0": told if side == "train" else reason} | (
        {"Bonn1": made.set_index("photo_id")["reason"]["Bonn1"]} if "Bonn1" in reasons(made) else {}
    )
    assert made.loc[made["city"] == "Lima", "split"].eq("test").all()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"stored": False}, "the pool no longer stores both pictures"),
        ({"tile_height": 96}, "its tile is not square"),
        ({"sha256": "s-Bonn0", "tile_sha256": "t-Bonn0"}, "another pair has the same two pictures"),
    ],
)
def test_pairs_that_no_side_can_use_are_left_out_with_the_reason(values, reason):
    made = split(put(world(), "Bonn1", **values), test=["Lima"], validation=["Kyiv"])
    assert reasons(made) == {"Bonn1": reason}


def test_pairs_without_a_city_are_held_out_by_blocks():
    made = split(world().assign(city=None), test=2)
    assert made["city"].str.startswith("block ").all()
    assert made["city"].nunique() >= len(CITIES)
    used = made[made["split"] != "unused"]
    assert used.groupby("city")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    ("table", "values", "told"),
    [
        (world().iloc[:0], {}, "the pool has none"),
        (world().assign(stored=False), {}, r"none of 40 can be used: the pool no longer .* \(40\)"),
        (world(), {"test": ["Rome"]}, r"splits\.test must name cities with pairs: .*; got 'Rome'"),
        (world(), {"test": 3, "least_pairs": 9}, r"splits\.test must be at most .* 9 pairs .*, 0; got 3"),
        (world(), {"test": 3, "validation": 2}, "holds out all 5 cities"),
        (
            world().assign(photographer="one"),
            {"test": 1},
            r"no pair for validation: its photographer .* \(8\)",
        ),
    ],
)
def test_a_split_that_cannot_be_filled_is_told(table, values, told):
    with pytest.raises(SettingsError, match=told):
        split(table, **values)


@tries(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_no_city_photographer_tile_or_place_is_on_two_sides(seed, apart):
    rng = np.random.default_rng(seed)
    table = world(12, seed)
    for column in ("photographer", "tile_sha256", "phash"):
        rows = rng.choice(len(table), 8, replace=False)
        table.loc[rows, column] = table[column].to_numpy()[rng.permutation(rows)]
    try:
        made = split(table, seed, test=2, apart_km=float(apart))
    except SettingsError:
        return
    assert made["reason"].notna().eq(made["split"] == "unused").all()
    used = made[made["split"] != "unused"]
    for column in ("city", "photographer", "tile_sha256", "phash"):
        assert used.groupby(column)["split"].nunique().max() == 1
    test, train = (used[used["split"] == side] for side in ("test", "train"))
    between = distance_km(
        *(test[c].to_numpy()[:, None] for c in ("latitude", "longitude")),
        *(train[c].to_numpy()[None] for c in ("latitude", "longitude")),
    )
    assert apart == 0 or between.min() > apart
    again = split(table.sample(frac=1, random_state=seed), seed, test=2, apart_km=float(apart))
    assert again.set_index("pair_id")["split"].to_dict() == made.set_index("pair_id")["split"].to_dict()


def test_pairs_of_a_pool_with_the_facts_of_both_pictures(tmp_path):
    def catalog(folder, ids, **more):
        rows = pd.DataFrame(dict.fromkeys(COLUMNS), index=range(len(ids)), dtype=object)
        rows = rows.assign(
            photo_id=ids, source="s", latitude=1.0, longitude=2.0, width=64, height=64, phash="0" * 16
        )
        digests = [f"{n:064x}" for n in range(len(ids))]
        folder.mkdir(parents=True, exist_ok=True)
        write_catalog(folder, rows.assign(sha256=digests, shard="x.tar", offset=512, length=9, **more))

    pool = tmp_path / "data"
    catalog(pool, ["a", "b"], photographer=["anna", None])
    catalog(overhead_pool(pool), ["o-a", "o-b"])
    given = {
        "photo_id": ["a", "b"],
        "overhead_id": ["o-a", "o-b"],
        "heading": [90.0, None],
        "city": ["X", "Y"],
    }
    add_pairs(pool, pd.DataFrame(given | {"tile_metres": [128.0, None]}))
    catalog(pool, ["a"], photographer=["anna"])  # b was taken down
    table = joined_pairs(pool)
    assert set(PAIR_COLUMNS) - {"split"} <= set(table.columns)
    assert table["stored"].tolist() == [True, False]
    assert table["metres_per_pixel"].fillna(0).tolist() == [2.0, 0.0]
    assert table["heading_reference"].fillna("").tolist() == ["true", ""]
    assert table["photographer"][0] == "photographer:anna"
    pictures = pictures_of(table[table["stored"]])
    assert list(pictures.columns) == list(PICTURE_COLUMNS)
    assert pictures[["photo_id", "view"]].to_numpy().tolist() == [["a", "street"], ["o-a", "overhead"]]
