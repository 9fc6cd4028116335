"""The sample in the repository is what the sample planet gives: its table whole, its pictures at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from geoloc.files import sha256_bytes
from geoloc.photos.catalog import read_catalog
from geoloc.photos.decoding import check_and_normalise
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.sample import SOURCE, SampleSettings
from geoloc.sample.dirt import NOT_KEPT, ODD, soiled
from geoloc.sample.generate import photo_jpegs, tile_jpegs
from geoloc.sample.people import make_shots
from geoloc.sample.records import photo_records, tile_records

POOL = Path(__file__).parents[2] / "data"
PHOTOS, SEED = 3500, 7
"""What made the committed sample: `geoloc sample --photos 3500 --seed 7`."""

pytestmark = pytest.mark.skipif(not (POOL / "catalog.parquet").is_file(), reason="run `make data` first")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    shots = make_shots(PHOTOS, SEED, SampleSettings())
    return soiled(shots, SampleSettings().dirt, SEED, 1)


@pytest.fixture(scope="module")
def catalog() -> pd.DataFrame:
    catalog = read_catalog(POOL).set_index("photo_id")
    assert set(catalog["source"]) == {SOURCE}
    return catalog


def test_places_and_times_are_those_of_a_fresh_generation(table: pd.DataFrame, catalog: pd.DataFrame) -> None:
    fresh = photo_records(table, SampleSettings().heading_share)
    fresh = fresh[~table["kind"].isin(NOT_KEPT)].drop_duplicates("photo_id").set_index("photo_id")
    missing = fresh.index.difference(catalog.index)
    assert (
        table.set_index("photo_id").loc[missing, "copy_kind"] == "exact"
    ).all()  # stored once, by their bytes
    fresh = fresh.loc[catalog.index]
    for name in ("latitude", "longitude", "heading"):
        np.testing.assert_allclose(
            catalog[name].to_numpy(float, na_value=np.nan), fresh[name].astype(float), atol=1e-6, err_msg=name
        )
    posted = pd.to_datetime(fresh["posted_at"])
    assert (pd.to_datetime(catalog["posted_at"]).to_numpy() == posted.to_numpy()).all()
    assert catalog["album"].fillna("").tolist() == fresh["album"].fillna("").tolist()


def test_pictures_have_the_bytes_of_a_fresh_generation(table: pd.DataFrame, catalog: pd.DataFrame) -> None:
    settings = SampleSettings()
    drawn = table[(table["copy_of"] < 0) & ~table["kind"].isin([*NOT_KEPT, *ODD])]
    some = drawn[drawn["photo_id"].isin(catalog.index)].iloc[:: len(drawn) // 60]
    made = [sha256_bytes(check_and_normalise(data).bytes) for data in photo_jpegs(some, settings.size)]
    assert made == catalog.loc[some["photo_id"], "sha256"].tolist()


def test_tiles_have_the_bytes_of_a_fresh_generation(table: pd.DataFrame) -> None:
    settings = SampleSettings()
    records = tile_records(table)
    stored = read_catalog(overhead_pool(POOL)).set_index("photo_id")
    assert sorted(stored.index) == sorted(records["overhead_id"])
    some = records.iloc[:: len(records) // 20]
    data = tile_jpegs(table.loc[some.index], SEED, settings.tile_size, settings.metres_per_pixel)
    made = [sha256_bytes(check_and_normalise(tile).bytes) for tile in data]
    assert made == stored.loc[some["overhead_id"], "sha256"].tolist()
    pairs = read_pairs(POOL).set_index("photo_id")
    assert sorted(pairs.index) == sorted(records["photo_id"])
