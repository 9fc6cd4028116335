"""The measures and probes of the calibration study: each finds what was planted, and nothing where nothing was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sample_calibration import (
    BEARINGS,
    RINGS,
    SECTORS,
    LayoutProbe,
    ahead,
    blocks_permuted,
    centred,
    grey_thumbnails,
    longitude_by_hour,
    mutual_information,
    photo_sectors,
    placements,
    remake,
    tile_polar,
    turn_between,
    zipf_exponent,
)
from geoloc.sample import SampleSettings, make_sample

pytestmark = pytest.mark.slow


def test_truth_is_made_again_as_it_was_written(tmp_path):
    settings = SampleSettings(size=32, tile_size=32, cities=5)
    make_sample(tmp_path / "made", photos=300, seed=4, settings=settings, processes=1)
    photos, truth = remake(300, 4, settings)
    written = pd.read_csv(tmp_path / "made" / "photos.csv")
    told = pd.read_csv(tmp_path / "made" / "truth.csv", keep_default_na=False)
    assert truth["photo_id"].tolist() == written["photo_id"].tolist() == photos["photo_id"].tolist()
    assert truth["kind"].tolist() == told["kind"].tolist()
    np.testing.assert_allclose(photos["latitude"], written["latitude"], atol=1e-6)
    assert truth["photographer"].tolist() == written["photographer"].tolist()


def test_mutual_information_of_equal_and_of_independent_numbers():
    numbers = np.repeat(np.arange(8), 50)
    assert mutual_information(numbers, numbers) == pytest.approx(3.0)
    assert mutual_information(numbers, np.tile(np.arange(5), 80)) == pytest.approx(0.0, abs=1e-12)
    assert mutual_information(numbers, numbers // 4) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="one length"):
        mutual_information([1, 2], [1])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 99))
def test_blocks_stay_together_in_their_order(owner, seed):
    rows = blocks_permuted(owner, np.random.default_rng(seed))
    assert sorted(rows.tolist()) == list(range(len(owner)))
    held = np.array(owner)[rows]
    assert (held[1:] != held[:-1]).sum() == len(set(owner)) - 1
    for one in set(owner):
        assert (np.diff(rows[held == one]) > 0).all()


def test_turns_go_the_short_way():
    np.testing.assert_allclose(turn_between([350, 10, 179, 0], [10, 350, -179, 180]), [20, 20, 2, 180])


def test_longitude_by_hour_finds_a_planted_clock_across_the_date_line():
    rng = np.random.default_rng(0)
    longitude = rng.uniform(-180, 180, 4000)
    hour = np.floor((20 - longitude / 15) % 24)  # all post at eight in the evening
    told = longitude_by_hour(hour, longitude)
    assert turn_between(told[hour.astype(int)], longitude).mean() < 12


def test_placements_average_to_the_area_under_the_curve():
    positive, negative = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    on, off = placements(positive, negative)
    np.testing.assert_allclose(on, [1.0, 0.5, 0.75])
    np.testing.assert_allclose(off, [0.5, 1.0])
    assert on.mean() == pytest.approx(off.mean())


def test_zipf_exponent_of_exact_counts():
    for exponent in (0.5, 0.8, 1.2):
        counts = 5000 * (np.arange(200) + 4.0) ** -exponent
        assert zipf_exponent(np.random.default_rng(0).permutation(counts)) == pytest.approx(exponent)


def test_thumbnails_do_not_see_brightness_and_contrast():
    picture = np.random.default_rng(0).integers(0, 100, (1, 32, 32, 3)).astype(np.uint8)
    first, other = grey_thumbnails(picture)[0], grey_thumbnails(picture * 2 + 30)[0]
    assert first @ other == pytest.approx(1.0, abs=1e-6)
    assert np.all(grey_thumbnails(np.full((1, 32, 32, 3), 7, np.uint8)) == 0)


def _tile_with_a_white_spot(bearing: float, metres: float) -> np.ndarray:
    tile = np.zeros((128, 128, 3), np.uint8)
    row, column = 64 - np.cos(np.radians(bearing)) * metres, 64 + np.sin(np.radians(bearing)) * metres
    tile[int(row) - 2 : int(row) + 3, int(column) - 2 : int(column) + 3] = 255
    return tile


@pytest.mark.parametrize("bearing", [0.0, 45.0, 90.0, 200.0, 355.0])
def test_tile_is_read_by_bearing_and_turned_by_the_heading(bearing):
    polar = tile_polar(_tile_with_a_white_spot(bearing, 40)[None], metres_per_pixel=1.0)
    assert polar.shape == (1, BEARINGS, RINGS * 4)
    grey = polar.reshape(BEARINGS, RINGS, 4)[..., 0]
    brightest = np.unravel_index(grey.argmax(), grey.shape)
    assert turn_between(brightest[0] * 360 / BEARINGS, bearing) <= 3
    assert brightest[1] > RINGS // 2  # 40 of 62 m
    for turn, sector in ((0, SECTORS // 2), (-18, SECTORS // 2 + 3), (18, SECTORS // 2 - 3)):
        seen = ahead(polar, [bearing + turn]).reshape(SECTORS, RINGS, 4)[..., 0]
        assert seen.max(axis=1).argmax() == sector  # what is to the right of the heading is to the right


def test_photo_is_read_from_left_to_right():
    for column, sector in ((2, 0), (64, SECTORS // 2), (125, SECTORS - 1)):
        photo = np.zeros((1, 128, 128, 3), np.uint8)
        photo[:, :, column - 2 : column + 3] = 255
        grey = photo_sectors(photo).reshape(SECTORS, -1, 4)[..., 0]
        assert grey.mean(axis=1).argmax() == sector


def test_parts_give_what_the_whole_gives():
    pictures = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(photo_sectors(pictures)[65:], photo_sectors(pictures[65:]))
    np.testing.assert_array_equal(tile_polar(pictures, 4.0)[65:], tile_polar(pictures[65:], 4.0))


def test_probe_learns_what_two_sides_share_and_nothing_from_noise():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(400, SECTORS, 3))
    sides = [
        np.concatenate([shared, np.zeros_like(shared)], -1) @ rng.normal(size=(6, 6))
        + 0.3 * rng.normal(size=(400, SECTORS, 6))
        for _ in range(2)
    ]

    def first(one: np.ndarray, other: np.ndarray) -> float:
        fitted = LayoutProbe.fit(one[:300], other[:300])
        scores = fitted.score(fitted.photo_side(one[300:])[:, None], fitted.tile_side(other[300:])[None])
        return float((scores.argmax(axis=1) == np.arange(100)).mean())

    assert first(*sides) > 0.9
    assert first(rng.normal(size=sides[0].shape), sides[1]) < 0.1


def test_centred_takes_out_what_a_group_shares():
    features = np.random.default_rng(0).normal(size=(10, 2, 3))
    group = np.array(["a", "b"] * 5)
    moved = features + np.where(group == "a", 100.0, -5.0)[:, None, None]
    np.testing.assert_allclose(centred(moved, group), centred(features, group))
    for one in "ab":
        np.testing.assert_allclose(centred(features, group)[group == one].mean(axis=0), 0, atol=1e-12)
