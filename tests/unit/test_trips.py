"""Trips: what is held out of the photos of one person, or of too few; and who is, of few."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from geoloc.photos.settings import SplitSettings
from geoloc.photos.split_checks import check_splits
from geoloc.photos.splits import make_splits, unit_keys
from geoloc.photos.trips import are_trips
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km

SHARES = {"validation": {"share": 0.2}, "test": {"share": 0.2}, "max_hamming": 0}
START = pd.Timestamp("2019-01-01", tz="UTC")


def settings_of(**values: object) -> SplitSettings:
    return parse(SplitSettings, {**SHARES, **values}, "splits")


def catalog_of(
    hours: list[float | None],
    latitude: list[float],
    *,
    who: list[str | None] | str = "me",
    albums: list[str | None] | None = None,
    scenes: list[int] | None = None,
) -> pd.DataFrame:
    n = len(hours)
    made = pd.DataFrame(
        {
            "photo_id": [f"p{i:03d}" for i in range(n)],
            "source": "own",
            "photographer": who,
            "album": albums or [None] * n,
            "latitude": latitude,
            "longitude": 10.0,
            "sha256": [f"{i:064x}" for i in range(n)],
            "phash": [f"{scene:016x}" for scene in scenes or range(n)],
        }
    )
    made = made.astype(
        dict.fromkeys(["photo_id", "source", "photographer", "album", "sha256", "phash"], "str")
    )
    made["taken_at"] = [pd.NaT if h is None else START + pd.Timedelta(hours=h) for h in hours]
    return made


def groups(catalog: pd.DataFrame, **values: object) -> list[list[int]]:
    keys = unit_keys(catalog, settings_of(by="trip", **values))
    assert are_trips(keys)
    return sorted(
        sorted(rows.tolist()) for rows in keys.reset_index(drop=True).groupby(keys).indices.values()
    )


def test_trips_by_time_and_place():
    # Two cameras at two places in turn; a pause of over a day; then the first place again.
    catalog = catalog_of([0, 1, 2, 3, 40, 60, 61], [0, 45, 0.5, 45.1, 0, 0, 2])
    assert groups(catalog) == [[0, 2], [1, 3], [4, 5], [6]]
    assert groups(catalog, trip_hours=48) == [[0, 2, 4, 5], [1, 3], [6]]
    assert groups(catalog, trip_km=300) == [[0, 2], [1, 3], [4, 5, 6]]
    two = catalog.assign(photographer=["me", "me", "you", "me", "me", "me", "me"])
    assert groups(two) == [[0], [1, 3], [2], [4, 5], [6]]


def test_without_times_albums_then_places():
    times: list[float | None] = [0, 100, None, None, None, None, None]
    albums = ["a", "a", "a", "b", "b", None, None]
    catalog = catalog_of(times, [0, 40, 39, 0, 60, 0, 60], albums=albums)
    assert groups(catalog) == [[0], [1, 2], [3, 4], [5], [6]]


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_trip_and_no_near_duplicate_is_on_two_sides(data):
    n = data.draw(st.integers(8, 40))
    several = st.lists(st.integers(0, 400), min_size=n, max_size=n)
    hours, latitude = data.draw(several), [degrees / 5 for degrees in data.draw(several)]
    scenes = [scene % 30 << 8 for scene in data.draw(several)]
    catalog = catalog_of(hours, latitude, scenes=scenes)
    settings = settings_of(by=data.draw(st.sampled_from(["auto", "trip"])))
    assume(unit_keys(catalog, settings).nunique() > 2)
    with suppress(SettingsError):  # near-duplicates can leave a side empty
        promises_hold(catalog, make_splits(catalog, settings, data.draw(st.integers(0, 99))), settings)


def promises_hold(catalog: pd.DataFrame, splits: pd.DataFrame, settings: SplitSettings) -> None:
    assert all(check.passed for check in check_splits(catalog, splits, settings))
    used = catalog.merge(splits[splits["split"] != "unused"], on="photo_id")
    i, j = np.triu_indices(len(used), 1)
    split, scene = used["split"].to_numpy(), used["phash"].to_numpy()
    hour = used["taken_at"].to_numpy("datetime64[h]")
    lat, lon = used["latitude"].to_numpy(), used["longitude"].to_numpy()
    near = (abs(hour[i] - hour[j]) <= np.timedelta64(24, "h")) & (
        distance_km(lat[i], lon[i], lat[j], lon[j]) <= 100
    )
    assert not ((near | (scene[i] == scene[j])) & (split[i] != split[j])).any()


def test_a_trip_on_two_sides_is_found():
    catalog = catalog_of([0, 1, 100, 200], [0, 0.1, 0, 0])
    splits = pd.DataFrame(
        {"photo_id": catalog["photo_id"], "split": ["train", "test", "validation", "train"]}
    )
    splits["reason"] = pd.Series([None] * 4, dtype="str")
    found = {check.name: check for check in check_splits(catalog, splits, settings_of())}
    assert not found["photographer_disjoint"].passed
    assert found["photographer_disjoint"].count == 2


@pytest.mark.parametrize(
    ("people", "by_trip"),
    [
        (["me"] * 12, True),
        (["me"] * 6 + ["you"] * 6, True),
        (["me"] * 7 + ["a", "b", "c", "d", "e"], True),
        (["a", "b", "c"] * 4, False),
    ],
)
def test_auto_holds_out_people_where_there_are_enough(people, by_trip):
    catalog = catalog_of([50.0 * i for i in range(12)], [0.0] * 12, who=people)
    assert are_trips(unit_keys(catalog, settings_of())) == by_trip
    assert are_trips(unit_keys(catalog, settings_of(by="photographer"))) is False
    splits = make_splits(catalog, settings_of(), 0)
    assert set(splits["split"]) >= {"train", "validation", "test"}
    assert all(check.passed for check in check_splits(catalog, splits, settings_of()))


@pytest.mark.parametrize("seed", range(12))
def test_three_people_are_split_whatever_the_seed(seed):
    catalog = catalog_of([None] * 12, [0.0] * 12, who=["a", "b", "c"] * 4)
    splits = make_splits(catalog, settings_of(), seed)
    assert splits["split"].value_counts().to_dict() == {"train": 4, "validation": 4, "test": 4}


def test_the_trip_with_most_photos_trains():
    catalog = catalog_of([0.0] * 20 + [100.0 * i for i in range(1, 9)], [0.0] * 28)
    for seed in range(10):
        assert (make_splits(catalog, settings_of(), seed)["split"][:20] == "train").all()
