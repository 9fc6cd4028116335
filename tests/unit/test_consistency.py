"""Photos that contradict the rest of the pool: each planted fault is found, honest collections are left alone."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoloc.land import CELLS_PER_DEGREE, land_raster
from geoloc.photos.consistency import (
    CHECKS,
    ConsistencySettings,
    at_sea,
    duplicate_apart,
    find_inconsistencies,
    impossible_journey,
    posted_before_taken,
    swapped_coordinates,
)
from geoloc.sphere import distance_km

LYON, PARIS, NICE, NEW_YORK, TOKYO = (
    (45.76, 4.84), (48.86, 2.35), (43.70, 7.26), (40.71, -74.01), (35.68, 139.69)
)  # fmt: skip


def catalog(places, hours=None, who="anna", album=None, **columns):
    """Photos p0, p1, ... at places (latitude, longitude), taken at hours after a start, posted a day after the last."""
    count = len(places)
    hours = np.arange(count) * 1.0 if hours is None else np.array(hours, np.float64)
    taken = pd.Timestamp("2015-06-01") + pd.to_timedelta(hours, unit="h")
    frame = pd.DataFrame(
        {
            "photo_id": [f"p{i}" for i in range(count)],
            "photographer": [who] * count if isinstance(who, str) else who,
            "latitude": [p[0] for p in places],
            "longitude": [p[1] for p in places],
            "taken_at": taken.astype("datetime64[us]"),
            "posted_at": (taken + pd.Timedelta(days=1)).astype("datetime64[us]"),
            "album": pd.Series(
                [album] * count if album is None or isinstance(album, str) else album, dtype="str"
            ),
            "phash": [f"{i * 0x9E3779B97F4A7C15 % 2**64:016x}" for i in range(count)],
            "sha256": [f"{i:064x}" for i in range(count)],
        }
    )
    return frame.assign(**columns)


def ids(found):
    return found["photo_id"].tolist()


def near(place, km_north):
    return place[0] + km_north / 111.195, place[1]


def test_a_good_collection_has_nothing_to_find():
    places = [near(LYON, i % 5) for i in range(20)] + [near(NEW_YORK, i % 5) for i in range(20)]
    hours = [*range(20), *range(40, 60)]
    found = find_inconsistencies(catalog(places, hours, album="trip"))
    assert list(found.columns) == ["photo_id", "check", "detail"]
    assert len(found) == 0


def test_an_empty_catalog_has_nothing_to_find():
    assert len(find_inconsistencies(catalog([]))) == 0


@pytest.mark.parametrize("backend", ["arrow", "nullable", "object"])
def test_any_dtypes_give_the_same(backend):
    frame = catalog([LYON, LYON, TOKYO, LYON, (0.0, -30.0)], hours=[0, 1, 2, 3, 300], album="a")
    frame.loc[3, ["album", "photographer", "phash", "sha256"]] = None
    wanted = find_inconsistencies(frame)
    assert set(ids(wanted)) == {"p2", "p4"}
    if backend == "object":
        other = frame.astype(object)
    else:
        other = frame.convert_dtypes(dtype_backend="pyarrow" if backend == "arrow" else "numpy_nullable")
    pd.testing.assert_frame_equal(find_inconsistencies(other), wanted)


def test_rows_are_in_the_order_of_checks_and_of_the_catalog():
    frame = catalog([(0.0, -30.0), LYON, (0.0, -31.0)], hours=[0, 1, 2])
    frame.loc[0, "posted_at"] = frame.loc[0, "taken_at"] - pd.Timedelta(hours=20)
    found = find_inconsistencies(frame)
    assert found["check"].tolist() == sorted(found["check"], key=list(CHECKS).index)
    assert ids(found[found["check"] == "at_sea"]) == ["p0", "p2"]


# at sea


def test_photos_far_from_land_are_at_sea_and_islands_and_coasts_are_not():
    inland, harbour, malé, hamilton = (48.2, 16.4), (43.295, 5.36), (4.175, 73.51), (32.295, -64.783)
    mid_atlantic, far_south = (30.0, -45.0), (-55.0, -140.0)
    frame = catalog([inland, mid_atlantic, harbour, malé, far_south, hamilton], who=list("abcdef"))
    found = at_sea(frame)
    assert ids(found) == ["p1", "p4"]
    assert found["detail"].str.fullmatch(r"[\d,]+ km from land").all()


def test_the_distance_to_land_is_that_of_a_search_over_all_cells():
    rng = np.random.default_rng(3)
    points = np.column_stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 60))), rng.uniform(-180, 180, 60)])
    row, column = np.nonzero(land_raster())
    latitude, longitude = 90 - (row + 0.5) / CELLS_PER_DEGREE, (column + 0.5) / CELLS_PER_DEGREE - 180
    found = at_sea(catalog(points.tolist(), who=[f"w{i}" for i in range(60)])).set_index("photo_id")["detail"]
    assert 10 < len(found) < 50
    for i, point in enumerate(points):
        km = distance_km(point[0], point[1], latitude, longitude).min()
        if f"p{i}" in found:
            assert found[f"p{i}"] == f"{km:,.0f} km from land"
        else:  # nearer, or a city stands on an island that the raster does not have
            assert km <= 60 or point[0] > -60


def test_the_limit_is_a_setting():
    frame = catalog([(36.0, 18.5)])  # between Sicily and Crete, some 250 km from both
    assert ids(at_sea(frame, ConsistencySettings(sea_km=100.0))) == ["p0"]
    assert ids(at_sea(frame, ConsistencySettings(sea_km=600.0))) == []


def test_what_is_no_place_is_left_to_other_rules():
    frame = catalog([(0.0, 0.0), (np.nan, 1.0), (91.0, 2.0), (-0.0, 0.0), LYON, LYON], hours=range(6))
    assert len(find_inconsistencies(frame)) == 0


# impossible journey


@pytest.mark.parametrize("at", range(6))
def test_the_one_photo_far_away_is_found_wherever_it_stands(at):
    places = [near(LYON, i) for i in range(6)]
    places[at] = NEW_YORK if at == 0 else TOKYO  # on the way west the local clocks leave time for a flight
    found = impossible_journey(catalog(places))
    assert ids(found) == [f"p{at}"]
    assert "km from p" in found["detail"][0]


@pytest.mark.parametrize("wrong", [{1, 4}, {0, 5}, {2, 3}, {0, 3}])
def test_several_wrong_photos_are_found(wrong):
    places = [near(LYON, i) for i in range(7)]
    elsewhere = iter([NEW_YORK, TOKYO])
    for i in sorted(wrong):
        places[i] = next(elsewhere)
    assert set(ids(impossible_journey(catalog(places)))) == {f"p{i}" for i in wrong}


def test_of_two_photos_alone_both_are_found_and_it_says_so():
    found = impossible_journey(catalog([LYON, TOKYO]))
    assert ids(found) == ["p0", "p1"]
    assert found["detail"].str.contains("cannot be told").all()


def test_a_photo_long_before_helps_to_tell():
    frame = catalog([LYON, LYON, TOKYO, LYON], hours=[0, 100, 101, 200])
    assert ids(impossible_journey(frame)) == ["p2"]


def test_a_flight_west_on_local_clocks_is_possible():
    # Paris 10:00 to New York 12:00 of the same day by the local clocks: eight hours
    frame = catalog([PARIS, PARIS, NEW_YORK, NEW_YORK], hours=[9, 10, 12, 13])
    assert len(impossible_journey(frame)) == 0
    back = catalog([NEW_YORK, NEW_YORK, PARIS, PARIS], hours=[9, 10, 12, 13])
    assert len(impossible_journey(back)) > 0


def test_there_and_back_zones_cancel_out():
    # Each leg alone leaves time enough, the way back by the nine hours of the zones; both together do not.
    hours = [-1, 0, 9, 10, 11]
    frame = catalog([LYON, LYON, TOKYO, near(LYON, 3), LYON], hours)
    found = impossible_journey(frame)
    assert ids(found) == ["p2"]
    assert re.fullmatch(
        r"9,8\d\d km from p1 and 9,8\d\d km from p3, which are 10.0 h apart", found["detail"][0]
    )
    assert len(impossible_journey(frame.drop(index=[3, 4]))) == 0


def test_a_wrong_first_photo_does_not_make_a_detour_of_the_second():
    frame = catalog([TOKYO, LYON, near(LYON, 1), near(LYON, 2)], hours=[0, 1, 2, 3])
    assert len(impossible_journey(frame)) == 0  # unseen: the way west leaves ten hours
    frame = catalog([NEW_YORK, LYON, near(LYON, 1), near(LYON, 2)], hours=[0, 1, 2, 3])
    assert ids(impossible_journey(frame)) == ["p0"]


def test_speed_and_slack_are_settings():
    frame = catalog([LYON, PARIS], hours=[0, 1])  # 392 km, and ten minutes of longitude
    assert len(impossible_journey(frame)) == 0
    assert len(impossible_journey(frame, ConsistencySettings(speed_km_per_hour=200.0))) == 2
    slack = ConsistencySettings(speed_km_per_hour=200.0, slack_km=250.0)
    assert len(impossible_journey(frame, slack)) == 0


def test_other_photographers_and_unknown_ones_do_not_count():
    frame = catalog([LYON, TOKYO, LYON, TOKYO], who=["anna", "ben", "anna", "ben"])
    assert len(impossible_journey(frame)) == 0
    frame["photographer"] = pd.Series([None] * 4, dtype="str")
    assert len(impossible_journey(frame)) == 0


def test_the_order_of_the_catalog_does_not_matter():
    places = [near(LYON, i) for i in range(9)]
    places[4] = TOKYO
    frame = catalog(places)
    assert ids(impossible_journey(frame.sample(frac=1, random_state=1))) == ["p4"]


PLACES = st.sampled_from([LYON, near(LYON, 30), PARIS, NICE, TOKYO, NEW_YORK, (-33.87, 151.21)])


@settings(deadline=None)
@given(st.lists(st.tuples(PLACES, st.integers(0, 40), st.sampled_from("ab")), max_size=12))
@pytest.mark.slow
def test_what_is_left_is_possible_and_nothing_is_found_in_possible_tracks(rows):
    frame = catalog([r[0] for r in rows], hours=[r[1] for r in rows], who=[f"who-{r[2]}" for r in rows])

    def impossible(one, other, over=None):
        """Whether the way between two photos, over a third or straight, is too far for the time; and its km."""
        hours = (other.taken_at - one.taken_at) / pd.Timedelta(hours=1)
        hours += max(one.longitude - other.longitude, 0) / 15
        stops = [one, over, other] if over is not None else [one, other]
        km = sum(
            distance_km(a.latitude, a.longitude, b.latitude, b.longitude)
            for a, b in itertools.pairwise(stops)
        )
        return km > 1200 * hours + 50 * (len(stops) - 1), km

    def contradictions(some):
        found = 0
        for _, track in some.sort_values("taken_at", kind="stable").groupby("photographer"):
            photos = list(track.itertuples())
            found += sum(impossible(*leg)[0] for leg in itertools.pairwise(photos))
            for one, over, other in zip(photos, photos[1:], photos[2:], strict=False):
                (detour, long), (straight, short) = impossible(one, other, over), impossible(one, other)
                found += bool(detour and not straight and long - short > 100)
        return found

    found = impossible_journey(frame)
    assert (len(found) > 0) == (contradictions(frame) > 0)
    assert found["photo_id"].is_unique
    left = frame[~frame["photo_id"].isin(found["photo_id"])]
    if not found["detail"].str.contains("cannot be told").any():
        assert contradictions(left) == 0


# posted before taken


def test_posted_before_taken_allows_for_zones():
    frame = catalog([LYON] * 4)
    frame["posted_at"] = frame["taken_at"] - pd.to_timedelta([13.9, 14.1, 30.0, 0.0], unit="h")
    frame.loc[2, "taken_at"] = None
    found = posted_before_taken(frame)
    assert ids(found) == ["p1"]
    assert found["detail"][0] == "posted 14.1 h before it was taken"


# swapped coordinates


def test_swapped_photos_are_found_by_time():
    places = [near(LYON, i) for i in range(8)]
    places[3] = places[3][::-1]
    frame = catalog(places, hours=np.arange(8) * 24 * 30)  # months apart: any journey is possible
    assert len(impossible_journey(frame)) == 0
    found = swapped_coordinates(frame)
    assert ids(found) == ["p3"]
    assert "exchanged" in found["detail"][0]


def test_a_photo_whose_only_witness_is_a_swapped_one_is_not_swapped():
    trip = near(LYON, 250)
    places = [LYON, LYON, trip, trip[::-1], LYON, LYON]
    assert ids(swapped_coordinates(catalog(places, hours=np.arange(6) * 24))) == ["p3"]


def test_of_two_photos_alone_either_may_be_the_swapped_one():
    assert ids(swapped_coordinates(catalog([LYON, LYON[::-1]], hours=[0, 900]))) == ["p0", "p1"]


def test_swapped_photos_are_found_by_album_without_any_time():
    places = [near(LYON, i) for i in range(5)] + [near(PARIS, i) for i in range(5)]
    places[7] = places[7][::-1]
    frame = catalog(places, album=["a"] * 5 + ["b"] * 5)
    frame["photographer"] = pd.Series([None] * 10, dtype="str")
    frame[["taken_at", "posted_at"]] = pd.NaT
    assert ids(swapped_coordinates(frame)) == ["p7"]


def test_albums_of_one_name_by_two_photographers_are_two():
    frame = catalog([LYON, LYON[::-1]], who=["anna", "ben"], album="holidays")
    assert len(swapped_coordinates(frame)) == 0


def test_true_trips_are_not_swapped():
    frame = catalog([LYON, LYON, TOKYO, TOKYO, NEW_YORK, LYON], hours=np.arange(6) * 100)
    assert len(swapped_coordinates(frame)) == 0


def test_exchanging_must_matter_and_be_possible():
    tashkent = (41.31, 69.28)
    found = swapped_coordinates(catalog([tashkent, tashkent, tashkent[::-1], tashkent], hours=range(4)))
    assert ids(found) == ["p2"]
    ankara = (39.93, 38.9)  # nearly on the line where exchanging changes nothing
    assert len(swapped_coordinates(catalog([ankara, ankara, ankara[::-1], ankara]))) == 0
    assert len(swapped_coordinates(catalog([TOKYO, TOKYO, TOKYO]))) == 0  # longitude 139 is no latitude


# near-duplicates apart


def duplicates(places, phash=None, **columns):
    frame = catalog(places, who=[f"w{i}" for i in range(len(places))], **columns)
    return frame.assign(phash=phash or ["00ff00ff00ff00ff"] * len(places))


def test_near_duplicates_within_the_limit_are_fine():
    assert len(duplicate_apart(duplicates([near(LYON, 0), near(LYON, 20), near(LYON, 10)]))) == 0


def test_of_two_near_duplicates_apart_both_are_found():
    found = duplicate_apart(duplicates([LYON, PARIS], ["00ff00ff00ff00ff", "00ff00ff00ff00fe"]))
    assert ids(found) == ["p0", "p1"]
    assert found["detail"].str.contains("392 km").all()


def test_the_odd_one_of_several_is_found_alone():
    found = duplicate_apart(duplicates([LYON, near(LYON, 3), TOKYO, near(LYON, 5)]))
    assert ids(found) == ["p2"]


def test_two_against_two_are_all_found():
    assert len(duplicate_apart(duplicates([LYON, LYON, TOKYO, TOKYO]))) == 4


def test_equal_bytes_count_and_photos_without_hashes_do_not():
    frame = catalog([LYON, TOKYO, NICE], who=list("abc"))
    assert len(duplicate_apart(frame)) == 0
    frame["sha256"] = ["0" * 64, "0" * 64, None]
    assert ids(duplicate_apart(frame)) == ["p0", "p1"]
    frame["phash"] = pd.Series([None] * 3, dtype="str")
    assert ids(duplicate_apart(frame)) == ["p0", "p1"]
    frame["sha256"] = pd.Series([None] * 3, dtype="str")
    assert len(duplicate_apart(frame)) == 0


def test_groups_do_not_mix():
    phash = ["0" * 16, "f" * 16, "0" * 16, "f" * 16]
    assert len(duplicate_apart(duplicates([LYON, TOKYO, LYON, TOKYO], phash))) == 0


def test_distance_over_the_antimeridian_is_short():
    assert len(duplicate_apart(duplicates([(-17.0, 179.95), (-17.0, -179.95), (-17.0, 179.9)]))) == 0
