"""Photographers, trips, places, times and copies of the sample planet: as skewed and as linked as real ones."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.sample.daylight import to_utc, utc_offset_hours
from geoloc.sample.geography import cities
from geoloc.sample.people import (
    NO_CUE_SHARES,
    OLD_HANDS_SHARE,
    SUBJECTS,
    activity,
    apportioned,
    make_shots,
    photographers,
    roster,
)
from geoloc.sample.plan import landmark, to_street
from geoloc.sample.positions import RURAL_M
from geoloc.sample.settings import SampleSettings
from geoloc.sample.trips import make_trips, period, pick
from geoloc.sphere import distance_km, is_valid
from tests.unit.sample_frame import to_metres

PHOTOS = 20_000
DEFAULT = SampleSettings()
PICTURE = [
    "latitude", "longitude", "city", "east_m", "north_m", "heading", "subject", "sun_elevation", "sun_azimuth", "cloud",
    "fog", "field_of_view", "roll", "pitch", "eye_m", "exposure", "grain", "cast_r", "cast_g", "cast_b", "quality",
]  # fmt: skip


@pytest.fixture(scope="module")
def shots() -> pd.DataFrame:
    return make_shots(PHOTOS, 0, DEFAULT)


@pytest.fixture(scope="module")
def own(shots: pd.DataFrame) -> pd.DataFrame:
    """Without the copies, which belong to nobody's trip."""
    return shots[shots["copy_of"] < 0]


@pytest.fixture(scope="module")
def towns() -> pd.DataFrame:
    return cities(DEFAULT.cities, 0).set_index("city")


def utc_of(shots: pd.DataFrame) -> np.ndarray:
    return to_utc(shots["taken_at"].to_numpy(), shots["utc_offset_h"])


def test_every_column_is_in_its_range(shots: pd.DataFrame) -> None:
    assert shots.index.equals(pd.RangeIndex(PHOTOS))
    assert shots.notna().all(axis=None)
    assert shots["photo_id"].is_unique
    assert shots["shot_key"].is_unique
    assert is_valid(shots["latitude"], shots["longitude"]).all()
    assert set(shots["subject"]) == set(SUBJECTS)
    ranges = {
        "heading": (0, 359.9), "sun_elevation": (-90, 90), "sun_azimuth": (0, 360), "day_of_year": (1, 366),
        "cloud": (0, 255), "fog": (0, 255), "field_of_view": (40, 75), "roll": (-12, 12), "pitch": (-12, 12),
        "eye_m": (1.5, 12), "exposure": (0.8, 1.25), "grain": (0, 12), "cast_r": (-8, 8), "cast_g": (-8, 8),
        "cast_b": (-8, 8), "quality": (70, 90), "shake_x": (-2, 2), "shake_y": (-2, 2), "scene": (0, 2**63 - 1),
        "copy_of": (-1, PHOTOS - 1), "utc_offset_h": (-12, 12),
    }  # fmt: skip
    for column, (low, high) in ranges.items():
        assert shots[column].between(low, high).all(), column
    whole = [
        "city",
        "cloud",
        "fog",
        "grain",
        "quality",
        "scene",
        "copy_of",
        "day_of_year",
        "shake_x",
        "cast_r",
    ]
    assert (shots[whole].dtypes == np.int64).all()
    assert shots["overhead"].dtype == bool


def test_the_true_place_is_that_of_the_local_frame(shots: pd.DataFrame, towns: pd.DataFrame) -> None:
    town = towns.loc[shots["city"]]
    east, north = to_metres(
        town["latitude"].to_numpy(), town["longitude"].to_numpy(), shots["latitude"], shots["longitude"]
    )
    np.testing.assert_allclose(east, shots["east_m"], atol=0.12)
    np.testing.assert_allclose(north, shots["north_m"], atol=0.12)
    assert (shots["city_name"].to_numpy() == (town["name"] + ", " + town["country_code"]).to_numpy()).all()


def test_the_same_seed_gives_the_same_table_and_another_does_not() -> None:
    pd.testing.assert_frame_equal(make_shots(300, 7, DEFAULT), make_shots(300, 7, DEFAULT))
    assert (make_shots(300, 8, DEFAULT)["scene"] != make_shots(300, 7, DEFAULT)["scene"]).all()


def test_people_and_trips_keep_their_numbers() -> None:
    """Golden: a change here is a new sample for everybody."""
    towns = pd.DataFrame(
        {
            "latitude": [48.9, 40.7, -33.9, 35.7],
            "longitude": [2.3, -74.0, 151.2, 139.7],
            "weight": [4.0, 3, 1, 2],
        }
    )
    people = photographers(np.arange(50), 7, towns, DEFAULT)
    trips, scenes = make_trips(people.key, np.full(50, 12), people.home, towns, 0.06, 1)
    parts = (
        people.home,
        people.habit,
        people.quality,
        people.cast,
        trips.place,
        trips.day,
        trips.days,
        scenes.key,
    )
    data = b"".join(np.ascontiguousarray(part.astype(np.int64)).tobytes() for part in parts)
    assert hashlib.sha256(data).hexdigest() == GOLDEN


GOLDEN = "62854efb6ea6ad57a85aa8da8163435d4942263efab8f6c64685e730ab1db533"


def test_activity_follows_zipfs_law(own: pd.DataFrame) -> None:
    """The exponent, fitted to what was made, is the one of the settings."""
    counts = own["photographer"].value_counts().to_numpy()
    rank = np.arange(len(counts)) + 4.0
    slope, _ = np.polyfit(np.log(rank), np.log(counts), 1)
    assert slope == pytest.approx(-DEFAULT.zipf_exponent, abs=0.05)
    steeper = roster(PHOTOS, SampleSettings(zipf_exponent=1.1), 1)[1]
    slope, _ = np.polyfit(np.log(np.arange(len(steeper)) + 4.0), np.log(steeper), 1)
    assert slope == pytest.approx(-1.1, abs=0.08)
    assert len(counts) == pytest.approx(PHOTOS / DEFAULT.photos_per_photographer, rel=0.01)
    assert counts[0] > 8 * np.median(counts)


@given(st.integers(0, 3000), st.integers(1, 80), st.floats(0, 1.5))
def test_apportioning_loses_nothing(total: int, people: int, exponent: float) -> None:
    parts = apportioned(total, activity(np.arange(people), exponent))
    assert parts.sum() == total
    assert (parts >= (1 if total >= people else 0)).all()
    assert (np.diff(parts) <= 1).all()


@given(st.integers(2, 400), st.integers(1, 5))
def test_a_roster_has_as_many_photos_as_asked_for(photos: int, version: int) -> None:
    numbers, counts = roster(photos, DEFAULT, version)
    assert counts.sum() == photos
    assert counts.min() >= 1
    assert len(set(numbers.tolist())) == len(numbers) >= 2


def test_a_photographer_depends_on_the_seed_and_the_number_alone() -> None:
    towns = cities(50, 3)
    all_of_them = photographers(np.arange(1000), 3, towns, DEFAULT)
    some = photographers(np.array([5, 999, 17]), 3, towns, DEFAULT)
    for field in ("key", "home", "skill", "habit", "cast", "quality", "grain"):
        np.testing.assert_array_equal(getattr(some, field), getattr(all_of_them, field)[[5, 999, 17]])
    assert (photographers(np.arange(1000), 4, towns, DEFAULT).home != all_of_them.home).mean() > 0.5


def test_skill_shows_in_the_pictures(own: pd.DataFrame) -> None:
    towns = cities(DEFAULT.cities, 0)
    number = own["photographer"].str.removeprefix("user").astype(int).to_numpy()
    skill = photographers(number, 0, towns, DEFAULT).skill
    best, worst = skill > np.quantile(skill, 0.75), skill < np.quantile(skill, 0.25)
    for column in ("roll", "pitch", "exposure"):
        assert own[column][worst].std() > 1.3 * own[column][best].std(), column


def test_cities_are_photographed_by_their_weight(own: pd.DataFrame, towns: pd.DataFrame) -> None:
    """By photographer and trip, not by photo, as trips come in lumps."""
    trips = own.drop_duplicates("album")["city"].value_counts().reindex(towns.index, fill_value=0)
    expected = towns["weight"] / towns["weight"].sum() * trips.sum()
    assert np.corrcoef(trips, expected)[0, 1] > 0.85
    big = expected > 20
    assert big.sum() > 10
    assert np.abs(np.log(trips[big] / expected[big])).median() < 0.4
    assert own["city"].nunique() > 0.9 * len(towns)
    assert own.groupby("city")["photographer"].nunique().max() > 60


def test_trips_are_at_home_near_and_far(own: pd.DataFrame, towns: pd.DataFrame) -> None:
    people = photographers(np.arange(400), 0, towns.reset_index(), DEFAULT)
    home = towns.iloc[people.home].reset_index()
    trips = own.drop_duplicates("album")
    number = trips["photographer"].str.removeprefix("user").astype(int)
    trips, number = trips[number < 400], number[number < 400]
    km = distance_km(
        home["latitude"][number], home["longitude"][number], towns.loc[trips["city"], "latitude"],
        towns.loc[trips["city"], "longitude"],
    )  # fmt: skip
    assert 0.40 < (km == 0).mean() < 0.55
    assert 0.15 < ((km > 0) & (km < 1000)).mean() < 0.40
    assert 0.15 < (km > 2000).mean() < 0.40


def test_half_of_a_citys_photos_are_taken_where_others_take_them(own: pd.DataFrame) -> None:
    centre = np.hypot(own["east_m"], own["north_m"]) < 9000
    big = own[centre & (own["city"] == own["city"].value_counts().index[0])]
    east, north = big["east_m"].to_numpy(), big["north_m"].to_numpy()
    who = pd.factorize(big["photographer"])[0]
    near = np.hypot(east[:, None] - east, north[:, None] - north) < 60
    shared = (near & (who[:, None] != who)).any(axis=1)
    assert len(big) > 200
    assert 0.45 < shared.mean() < 0.98
    at_the_landmark = np.hypot(*(np.array([east, north]) - np.array(landmark(big["city"])))) < 260
    assert at_the_landmark.mean() > 0.2
    # Nobody stands just where another does.
    assert len(np.unique(np.column_stack([east, north]), axis=0)) > 0.6 * len(big.drop_duplicates("scene"))


def test_a_share_is_rural(own: pd.DataFrame) -> None:
    far = np.hypot(own["east_m"], own["north_m"])
    # An island or a coast may leave no land so far off, and to_street moves points a little.
    assert (far > 0.95 * RURAL_M[0]).mean() == pytest.approx(DEFAULT.rural_share, abs=0.03)
    assert far.max() < RURAL_M[1] + 2500
    none = make_shots(500, 0, SampleSettings(rural_share=0.0))
    assert np.hypot(none["east_m"], none["north_m"]).quantile(0.99) < 20_000


def test_beaches_and_fjords_are_photographed_at_the_shore(own: pd.DataFrame, towns: pd.DataFrame) -> None:
    town = towns.loc[own["city"]]
    bearing = np.radians(town["seaward"].fillna(0).to_numpy())
    to_sea = own["east_m"] * np.sin(bearing) + own["north_m"] * np.cos(bearing) - town["shore_m"].to_numpy()
    assert (to_sea < 0).all()  # nobody stands in the water
    at_shore = (to_sea > -60).to_numpy()
    motif = (town["motif"] != "").to_numpy()
    assert at_shore[motif].mean() > 0.25
    assert at_shore[~motif].mean() < 0.12
    # Those who would stand in the water stand elsewhere in town; they do not crowd at its edge.
    by_the_sea = np.isfinite(town["shore_m"].to_numpy())
    assert at_shore[by_the_sea & ~motif].mean() < 0.11
    out = (own["heading"] - np.degrees(bearing) + 180) % 360 - 180
    assert (np.abs(out[at_shore]) < 60).mean() > 0.5


def test_cameras_look_at_the_landmark_or_along_the_street(own: pd.DataFrame) -> None:
    mark_east, mark_north = landmark(own["city"])
    east, north = mark_east - own["east_m"].to_numpy(), mark_north - own["north_m"].to_numpy()
    off = (own["heading"] - np.degrees(np.arctan2(east, north)) + 180) % 360 - 180
    near, far = np.hypot(east, north) < 200, np.hypot(east, north) > 1000
    assert (np.abs(off[near]) < 30).mean() > 0.55
    assert (np.abs(off[far]) < 30).mean() < 0.3
    _, _, along = to_street(own["city"], own["east_m"], own["north_m"])
    aside = np.abs((own["heading"] - along + 90) % 180 - 90)
    assert (aside[far] <= 26).mean() > 0.6
    assert own["heading"].quantile([0.25, 0.5, 0.75]).between(60, 300).all()


def test_bursts_repeat_a_picture_within_seconds(own: pd.DataFrame) -> None:
    groups = own.groupby("scene")
    size = groups.size()
    assert set(size[size > 1]) == {2, 3, 4, 5}
    assert own["scene"].duplicated().mean() == pytest.approx(DEFAULT.burst_share, rel=0.15)
    assert (groups[[*PICTURE, "photographer", "album"]].nunique() == 1).all(axis=None)
    seconds = (groups["taken_at"].max() - groups["taken_at"].min()).dt.total_seconds()
    assert seconds[size > 1].between(1, 12).all()
    later = own["scene"].duplicated()
    assert (own.loc[~later, ["shake_x", "shake_y"]] == 0).all(axis=None)
    assert (own.loc[later, ["shake_x", "shake_y"]] != 0).any(axis=1).mean() > 0.9
    assert not make_shots(400, 0, SampleSettings(burst_share=0.0))["scene"].duplicated().sum() > 4


def test_copies_are_of_earlier_rows_by_others(shots: pd.DataFrame) -> None:
    copies = shots[shots["copy_of"] >= 0]
    originals = shots.loc[copies["copy_of"]]
    assert copies["copy_kind"].value_counts().to_dict() == {
        "exact": round(PHOTOS * DEFAULT.exact_copy_share),
        "near": round(PHOTOS * DEFAULT.near_copy_share),
    }
    assert (copies.index.to_numpy() > copies["copy_of"].to_numpy()).all()
    assert copies["copy_of"].is_unique
    assert (originals["copy_of"] == -1).all()
    assert (copies["photographer"].to_numpy() != originals["photographer"].to_numpy()).all()
    same = [*PICTURE, "scene", "taken_at", "utc_offset_h", "city_name"]
    pd.testing.assert_frame_equal(copies[same].reset_index(drop=True), originals[same].reset_index(drop=True))
    assert (copies["posted_at"].to_numpy() > originals["posted_at"].to_numpy()).all()
    assert (copies["album"] == "").all()
    assert not copies["overhead"].any()
    assert (shots.loc[shots["copy_of"] < 0, "copy_kind"] == "").all()


def test_copies_are_by_others_also_where_there_are_few() -> None:
    few = SampleSettings(photos_per_photographer=100, exact_copy_share=0.1, near_copy_share=0.1)
    shots = make_shots(300, 0, few)
    copies = shots[shots["copy_of"] >= 0]
    assert len(copies) >= 55  # 60, unless one photographer has most of the photos
    assert (
        copies["photographer"].to_numpy() != shots.loc[copies["copy_of"], "photographer"].to_numpy()
    ).all()


def test_outdoor_photos_agree_with_daylight(own: pd.DataFrame) -> None:
    outdoor = own[own["subject"] == "outdoor"]
    up = outdoor["sun_elevation"] > 0
    assert 0.88 < up.mean() < 0.97
    assert 0.01 < (outdoor["sun_elevation"] < -6).mean() < 0.06
    assert own.loc[own["subject"] == "food", "sun_elevation"].lt(0).mean() > 0.25
    assert (own["utc_offset_h"] == utc_offset_hours(own["longitude"])).all()
    start, days = period(1)
    assert own["taken_at"].min() >= pd.Timestamp(start)
    assert own["taken_at"].max() < pd.Timestamp(start + np.timedelta64(days + 1, "D"))
    assert own["taken_at"].dt.year.value_counts().min() > 0.04 * len(own)


def albums_of(own: pd.DataFrame) -> pd.DataFrame:
    """One row an album, by photographer and name; first and last in UTC."""
    utc = pd.Series(utc_of(own), own.index)
    albums = pd.DataFrame(
        {
            "who": own.groupby("album")["photographer"].first(),
            "people": own.groupby("album")["photographer"].nunique(),
            "cities": own.groupby("album")["city"].nunique(),
            "first": utc.groupby(own["album"]).min(),
            "last": utc.groupby(own["album"]).max(),
            "photos": own.groupby("album").size(),
        }
    ).reset_index()
    return albums.sort_values(["who", "album"])


def one_after_another(albums: pd.DataFrame) -> bool:
    same = albums["who"].to_numpy()[1:] == albums["who"].to_numpy()[:-1]
    return bool((albums["first"].to_numpy()[1:] > albums["last"].to_numpy()[:-1])[same].all())


def test_albums_follow_one_another(own: pd.DataFrame) -> None:
    albums = albums_of(own)
    assert (albums["people"] == 1).all()
    assert (albums["cities"] == 1).all()
    assert (albums["album"].str.len() == len("album000000-1-000")).all()  # so names sort as numbers do
    assert one_after_another(albums)
    assert (albums["last"] - albums["first"]).max() < pd.Timedelta(days=8)
    assert 4 < albums["photos"].mean() < 8
    in_order = own.groupby("photographer")["taken_at"].apply(
        lambda t: (np.diff(t) >= np.timedelta64(0)).mean()
    )
    assert (in_order == 1).all()


def test_busy_people_finish_a_trip_before_the_next() -> None:
    """About 150 trips each in a year."""
    busy = SampleSettings(photos_per_photographer=800, exact_copy_share=0.0, near_copy_share=0.0)
    albums = albums_of(make_shots(4000, 0, busy, version=2))
    assert albums["who"].value_counts().max() > 120
    assert one_after_another(albums)


def test_nobody_posts_before_taking(shots: pd.DataFrame) -> None:
    delay = shots["posted_at"].to_numpy() - utc_of(shots)
    assert delay.min() >= np.timedelta64(60, "s")
    assert np.median(delay) < np.timedelta64(7, "D")
    minutes, weeks = delay < np.timedelta64(4, "h"), delay > np.timedelta64(9, "D")
    assert 0.2 < minutes.mean() < 0.5
    assert 0.1 < weeks.mean() < 0.35


def test_each_trip_is_posted_at_its_own_hour(own: pd.DataFrame) -> None:
    busiest = own[own["photographer"].isin(own["photographer"].value_counts().index[:40])]
    of_trips = busiest.groupby(["photographer", "album"])["posted_at"].min().dt.floor("min")
    minutes = (of_trips.dt.hour * 60 + of_trips.dt.minute).groupby("photographer").nunique()
    assert minutes.min() > 8


def circle(hours: np.ndarray) -> np.ndarray:
    return np.exp(2j * np.pi * np.asarray(hours, np.float64) / 24)


def test_the_hour_of_posting_tells_of_the_longitude(own: pd.DataFrame) -> None:
    """Mutual information of the hour (UTC) and the longitude, one photo a photographer, against permutations."""
    one = own.sample(frac=1, random_state=0).drop_duplicates("photographer")
    hour = (one["posted_at"].dt.hour // 2).to_numpy()
    zone = np.floor((one["longitude"].to_numpy() + 180) / 30).astype(int) % 12

    def information(a: np.ndarray, b: np.ndarray) -> float:
        joint = np.histogram2d(a, b, bins=(np.arange(13), np.arange(13)))[0] / len(a)
        expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
        there = joint > 0
        return float((joint[there] * np.log2(joint[there] / expected[there])).sum())

    rng = np.random.default_rng(0)
    by_chance = np.array([information(rng.permutation(hour), zone) for _ in range(200)])
    told = information(hour, zone)
    assert told > by_chance.mean() + 20 * by_chance.std()
    assert told - by_chance.mean() > 0.15  # bits
    # By the clock of the place hours are far more alike than by UTC.
    utc = one["posted_at"].dt.hour + one["posted_at"].dt.minute / 60
    local, world = (abs(circle(h).mean()) for h in (utc + one["longitude"] / 15, utc))
    assert local > 0.4
    assert local > 1.5 * world


def test_pictures_without_a_cue(own: pd.DataFrame) -> None:
    share = own["subject"].value_counts(normalize=True)
    assert 1 - share["outdoor"] == pytest.approx(DEFAULT.no_cue_share, abs=0.02)
    for subject, of_them in zip(SUBJECTS[1:], NO_CUE_SHARES, strict=True):
        assert share[subject] / (1 - share["outdoor"]) == pytest.approx(of_them, abs=0.05)
    by_person = (own["subject"] != "outdoor").groupby(own["photographer"]).mean()
    busy = by_person[own["photographer"].value_counts() > 60]
    assert busy.max() > 2 * busy.min()


def test_tiles_are_of_outdoor_photos(shots: pd.DataFrame) -> None:
    with_tile = shots[shots["overhead"]]
    assert len(with_tile) / can_have_a_tile(shots).sum() == pytest.approx(DEFAULT.overhead_share, abs=0.015)
    assert can_have_a_tile(shots)[with_tile.index].all()
    everyone = make_shots(200, 0, SampleSettings(overhead_share=1.0))
    assert (everyone["overhead"] == can_have_a_tile(everyone)).all()


def can_have_a_tile(shots: pd.DataFrame) -> pd.Series:
    return (shots["subject"] == "outdoor") & (shots["copy_of"] < 0) & ~shots["scene"].duplicated()


def test_a_later_version_has_new_photos_by_old_and_new_people() -> None:
    first, second, third = (make_shots(2000, 0, DEFAULT, version) for version in (1, 2, 3))
    ids = pd.concat([first, second, third])["photo_id"]
    assert ids.is_unique
    old = second["photographer"].isin(first["photographer"])
    assert old.mean() == pytest.approx(OLD_HANDS_SHARE, abs=0.02)
    busiest = first["photographer"].value_counts().index[: len(set(second["photographer"][old])) + 10]
    assert set(second["photographer"][old]) <= set(busiest)
    newcomers = set(second["photographer"][~old])
    assert set(third["photographer"]) & newcomers
    assert first["taken_at"].max() < second["taken_at"].min()
    assert second["taken_at"].max() < third["taken_at"].min()
    own = [table[table["copy_of"] < 0] for table in (first, second)]
    camera = [
        t.drop_duplicates("photographer").set_index("photographer")[["quality", "cast_r", "cast_b"]]
        for t in own
    ]
    both = camera[0].index.intersection(camera[1].index)
    pd.testing.assert_frame_equal(camera[0].loc[both], camera[1].loc[both])
    assert not set(first["album"]) & set(second["album"]) - {""}
    assert not set(first["scene"]) & set(second["scene"])


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="photos must be at least 2, got 1"):
        make_shots(1, 0, DEFAULT)
    with pytest.raises(ValueError, match="version must be at least 1, got 0"):
        make_shots(10, 0, DEFAULT, 0)
    with pytest.raises(ValueError, match="photographers"):
        roster(10**8, DEFAULT, 1)


@pytest.mark.parametrize("photos", [2, 3, 7, 20])
def test_small_samples_work(photos: int) -> None:
    made = make_shots(photos, 1, DEFAULT)
    assert len(made) == photos
    assert made["photographer"].nunique() >= 2


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20).filter(lambda w: sum(w) > 0.1))
def test_picking_by_weight(weights: list[float]) -> None:
    u = (np.arange(4000) + 0.5) / 4000
    share = np.bincount(pick(np.array(weights), u), minlength=len(weights)) / 4000
    np.testing.assert_allclose(share, np.array(weights) / sum(weights), atol=6e-4)
