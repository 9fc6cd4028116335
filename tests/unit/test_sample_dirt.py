"""The dirt of the sample planet: as much as the settings say, each kind as announced, and nothing else touched."""

from __future__ import annotations

import io

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geoloc.photos.decoding import UnreadablePhoto, check_and_normalise, decode_rgb
from geoloc.photos.quarantine import Reason
from geoloc.sample.daylight import to_utc
from geoloc.sample.dirt import (
    COPIES,
    DIRT,
    NOT_KEPT,
    ODD,
    WRONG_PLACE,
    WRONG_TIME,
    near_copy,
    share_of,
    soiled,
    spoil_picture,
    spoil_records,
    suffix,
)
from geoloc.sample.people import make_shots
from geoloc.sample.settings import NO_DIRT, DirtSettings, SampleSettings
from geoloc.sphere import distance_km, is_valid

PHOTOS = 4000


@pytest.fixture(scope="module")
def shots() -> pd.DataFrame:
    return make_shots(PHOTOS, 0, SampleSettings())


@pytest.fixture(scope="module")
def table(shots: pd.DataFrame) -> pd.DataFrame:
    return soiled(shots, DirtSettings(), 0, 1)


@pytest.fixture(scope="module")
def right(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as they would be without dirt."""
    return table[["photo_id", "latitude", "longitude", "taken_at", "posted_at"]].copy()


@pytest.fixture(scope="module")
def wrong(table: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    return spoil_records(right, table)


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG with colours, edges and nothing that is the same the other way round."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((128, 128), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def test_each_kind_has_its_share(table: pd.DataFrame) -> None:
    counts = table["kind"].value_counts()
    assert set(counts.index) == {*DIRT, ""}
    for kind in DIRT:
        if kind not in COPIES:
            assert counts[kind] == round(PHOTOS * share_of(kind, DirtSettings())) > 0, kind
    assert (table["kind"].iloc[:PHOTOS].isin(NOT_KEPT)).sum() == 0
    assert table["kind"].iloc[PHOTOS:].isin(NOT_KEPT).all()
    assert (table["kind"] == "").mean() > 0.9


def test_the_names_of_the_kinds_stay() -> None:
    assert DIRT == (
        "truncated image", "not an image", "no such file", "no coordinates", "zero coordinates",
        "latitude out of range", "repeated id", "swapped coordinates", "wrong coordinates", "gps noise",
        "missing time", "impossible time", "cmyk", "16-bit", "alpha", "exif rotation", "grey", "exact copy",
        "near copy",
    )  # fmt: skip


def test_the_photos_themselves_stay(shots: pd.DataFrame, table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(table.iloc[:PHOTOS][list(shots.columns)], shots)
    assert table["file"].is_unique
    assert (table["kind"].eq("exact copy") == table["copy_kind"].eq("exact")).all()
    assert (table["kind"].eq("near copy") == table["copy_kind"].eq("near")).all()


def test_originals_of_copies_are_clean(shots: pd.DataFrame) -> None:
    """A copy of dirt would be dirt of two kinds."""
    most = DirtSettings(**dict.fromkeys(DirtSettings.model_fields, 0.05))
    table = soiled(shots, most, 0, 1)
    originals = table["copy_of"][table["copy_of"] >= 0]
    assert len(originals) == 40
    assert (table.loc[originals, "kind"] == "").all()


def test_rows_on_top_are_photos_of_their_own(table: pd.DataFrame) -> None:
    extra, good = table.iloc[PHOTOS:], table.iloc[:PHOTOS]
    repeated = extra["kind"] == "repeated id"
    assert extra.loc[repeated, "photo_id"].isin(good["photo_id"]).all()
    assert not extra.loc[~repeated, "photo_id"].isin(good["photo_id"]).any()
    assert not extra["scene"].isin(good["scene"]).any()
    assert not extra["overhead"].any()
    assert (extra["copy_of"] == -1).all()
    assert extra["heading"].between(0, 359.9).all()


def test_the_same_seed_gives_the_same_dirt(shots: pd.DataFrame, table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(soiled(shots, DirtSettings(), 0, 1), table)
    assert (soiled(shots, DirtSettings(), 1, 1)["kind"] != table["kind"]).any()


def test_clean_rows_are_left_as_they_are(
    table: pd.DataFrame, right: pd.DataFrame, wrong: pd.DataFrame
) -> None:
    of_row = ("no coordinates", "zero coordinates", "latitude out of range", *WRONG_PLACE, *WRONG_TIME)
    clean = ~table["kind"].isin(of_row)
    pd.testing.assert_frame_equal(wrong[clean], right[clean])
    for kind in of_row:
        at = table["kind"] == kind
        assert (wrong[at] != right[at]).any(axis=1).all(), kind


def test_wrong_places(table: pd.DataFrame, right: pd.DataFrame, wrong: pd.DataFrame) -> None:
    def of(kind: str, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[table["kind"] == kind]

    swapped, before = of("swapped coordinates", wrong), of("swapped coordinates", right)
    np.testing.assert_array_equal(swapped["latitude"], before["longitude"])
    np.testing.assert_array_equal(swapped["longitude"], before["latitude"])

    def km(kind: str) -> np.ndarray:
        a, b = of(kind, right), of(kind, wrong)
        return distance_km(a["latitude"], a["longitude"], b["latitude"], b["longitude"])

    assert km("swapped coordinates").min() > 50
    assert 700 < km("wrong coordinates").min() < km("wrong coordinates").max() <= 12_001
    assert 0.199 < km("gps noise").min() < km("gps noise").max() < 0.501
    kept = wrong[table["kind"].isin(WRONG_PLACE)]
    assert is_valid(kept["latitude"], kept["longitude"]).all()
    assert of("no coordinates", wrong)[["latitude", "longitude"]].isna().all(axis=None)
    assert (of("zero coordinates", wrong)[["latitude", "longitude"]] == 0).all(axis=None)
    assert (of("latitude out of range", wrong)["latitude"] > 90).all()


def test_wrong_times(table: pd.DataFrame, wrong: pd.DataFrame) -> None:
    assert wrong.loc[table["kind"] == "missing time", "taken_at"].isna().all()
    assert wrong["taken_at"].isna().sum() == (table["kind"] == "missing time").sum()
    assert wrong["posted_at"].notna().all()
    known = wrong["taken_at"].notna()
    utc = to_utc(wrong.loc[known, "taken_at"].to_numpy(), table.loc[known, "utc_offset_h"])
    early = wrong.loc[known, "posted_at"].to_numpy() - utc
    impossible = (table.loc[known, "kind"] == "impossible time").to_numpy()
    assert (early[impossible] <= -np.timedelta64(3, "D")).all()
    assert (early[~impossible] > np.timedelta64(0, "s")).all()


def test_unreadable_pictures(photo: bytes) -> None:
    for kind, reason in (
        ("truncated image", Reason.TRUNCATED_IMAGE),
        ("not an image", Reason.UNREADABLE_IMAGE),
    ):
        with pytest.raises(UnreadablePhoto) as caught:
            check_and_normalise(spoil_picture(photo, kind, 0))
        assert caught.value.reason == reason
    with pytest.raises(ValueError, match="no such file"):
        spoil_picture(photo, "no such file", 0)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("kind", ODD)
def test_odd_pictures_are_read_as_the_picture(photo: bytes, kind: str, number: int) -> None:
    data = spoil_picture(photo, kind, number)
    with Image.open(io.BytesIO(data)) as image:
        mode, form, orientation = image.mode, image.format, image.getexif().get(0x0112, 1)
    assert form == {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[suffix(kind, number)]
    expected = {"cmyk": "CMYK", "16-bit": "I;16", "alpha": "RGBA", "exif rotation": "RGB", "grey": "L"}
    assert mode == expected[kind]
    assert (orientation in (3, 6, 8)) == (kind == "exif rotation")
    made, plain = decode_rgb(data).astype(np.int64), decode_rgb(photo).astype(np.int64)
    if kind in ("16-bit", "grey"):
        plain = np.asarray(Image.fromarray(plain.astype(np.uint8)).convert("L").convert("RGB")).astype(
            np.int64
        )
    assert made.shape == plain.shape
    assert np.median(np.abs(made - plain)) <= 6
    stored = check_and_normalise(data)
    assert stored.lossless == (kind == "grey")


def test_other_dirt_leaves_the_picture_alone(photo: bytes) -> None:
    for kind in ("", "gps noise", "repeated id", "impossible time", "exact copy"):
        assert spoil_picture(photo, kind, 3) == photo


@pytest.mark.parametrize("number", range(18))
def test_near_copies_are_near(photo: bytes, number: int) -> None:
    copy = near_copy(photo, number)
    assert copy != photo
    assert check_and_normalise(copy).lossless
    with Image.open(io.BytesIO(copy)) as made, Image.open(io.BytesIO(photo)) as plain:
        assert imagehash.phash(made) - imagehash.phash(plain) <= 6
        assert made.size == plain.size or number % 3 != 2


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.floats(0, 0.05), st.integers(0, 5))
@pytest.mark.slow
def test_any_share_of_any_number_of_photos(photos: int, share: float, seed: int) -> None:
    shots = make_shots(photos, seed, SampleSettings(cities=5))
    every = DirtSettings(**dict.fromkeys(DirtSettings.model_fields, share))
    table = soiled(shots, every, seed, 1)
    assert len(table) == photos + len(NOT_KEPT) * round(photos * share)
    counts = table["kind"].value_counts()
    for kind in (*WRONG_PLACE, *WRONG_TIME, *ODD):
        assert counts.get(kind, 0) <= round(photos * share)


def test_no_dirt_at_all(shots: pd.DataFrame) -> None:
    table = soiled(shots, NO_DIRT, 0, 1)
    assert len(table) == PHOTOS
    assert set(table["kind"]) == {"", *COPIES}
