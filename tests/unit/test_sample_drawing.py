"""The drawings of the sample planet: true geometry in photo and tile, and looks that follow the globe."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from geoloc.sample import drawing
from geoloc.sample.air import daylight, season
from geoloc.sample.canvas import HOUSE, TOWER, TREE
from geoloc.sample.drawing import draw_photo, draw_tile, outdoor, tile
from geoloc.sample.geography import all_cities, cities, to_degrees
from geoloc.sample.ground import REACH_M
from geoloc.sample.looks import SCRIPTS, look_at
from geoloc.sample.plan import landmark, to_street
from geoloc.sample.subjects import SUBJECTS
from geoloc.sample.surroundings import surroundings
from geoloc.sample.towers import tower_of

CITIES = cities(60, 3)
SIZE, FIELD = 96, 64.0


def shot_at(city: int, east: float, north: float, heading: float, **further: Any) -> SimpleNamespace:
    row = all_cities().set_index("city").loc[city]
    latitude, longitude = to_degrees(row["latitude"], row["longitude"], east, north)
    given = {
        "shot_key": 0, "latitude": float(latitude), "longitude": float(longitude), "city": city, "east_m": east,
        "north_m": north, "heading": heading % 360, "subject": "outdoor", "field_of_view": FIELD, "pitch": 0.0,
        "roll": 0.0, "eye_m": 1.6, "sun_elevation": 40.0, "sun_azimuth": 120.0, "day_of_year": 190, "cloud": 60,
        "fog": 0, "scene": 11, "exposure": 1.0, "grain": 0, "cast_r": 0, "cast_g": 0, "cast_b": 0, "shake_x": 0,
        "shake_y": 0,
    }  # fmt: skip
    return SimpleNamespace(**(given | further))


def street_shots(count: int, seed: int, **further: Any) -> list[SimpleNamespace]:
    rng = np.random.default_rng(seed)
    ids = CITIES["city"].to_numpy()[rng.integers(0, len(CITIES), count)]
    east, north, along = to_street(ids, rng.normal(0, 500, count), rng.normal(0, 500, count))
    heading = along + rng.uniform(-60, 60, count) + 180 * rng.integers(0, 2, count)
    return [
        shot_at(int(c), float(e), float(n), float(h), scene=k, **further)
        for k, (c, e, n, h) in enumerate(zip(ids, east, north, heading, strict=True))
    ]


@pytest.mark.slow
def test_what_the_photo_shows_stands_where_the_tile_says() -> None:
    """Columns of each house, by their bearings and depths, fall on the pixels of that very house in the tile."""
    size, scale, tested = 160, 0.75, 0
    for shot in street_shots(40, 1):
        photo, above = outdoor(shot, SIZE), tile(shot, 7, size, scale)
        focal = SIZE / 2 / np.tan(np.radians(FIELD / 2))
        near = surroundings(shot.city, shot.east_m, shot.north_m, REACH_M).houses.number
        over = surroundings(shot.city, shot.east_m, shot.north_m, 0.75 * size * scale + 20).houses.number
        of_number = {int(number): k for k, number in enumerate(over)}
        for label in np.unique(photo.label[photo.label // 100_000 == HOUSE]):
            house = int(label) % 100_000 - 1
            if house >= len(near) or int(near[house]) not in of_number:
                continue
            rows, columns = np.nonzero(photo.label == label)
            ahead = photo.depth[rows, columns]
            if len(rows) < 40 or ahead.max() > 50:
                continue
            aside = ahead * (columns + 0.5 - SIZE / 2) / focal
            angle = np.radians(shot.heading)
            east = ahead * np.sin(angle) + aside * np.cos(angle)
            north = ahead * np.cos(angle) - aside * np.sin(angle)
            x, y = east / scale + size / 2 - 0.5, size / 2 - north / scale - 0.5
            wanted = 100_000 * HOUSE + of_number[int(near[house])] + 1
            there = np.argwhere(above.label == wanted)
            if not len(there):
                continue  # under a crown of a tree
            far = np.sqrt((y[:, None] - there[:, 0]) ** 2 + (x[:, None] - there[:, 1]) ** 2).min(axis=1)
            row, column = (np.clip(np.rint(v).astype(int), 0, size - 1) for v in (y, x))
            hidden = np.isin(above.label[row, column] // 100_000, [TREE, TOWER])
            if (~hidden).any():
                assert np.quantile(far[~hidden], 0.99, method="lower") <= 1.5
                tested += 1
    assert tested > 60


def test_another_heading_contradicts_the_tile() -> None:
    """The probe of the test above is no formality: with a heading 40 degrees off, houses miss their places."""
    size, scale, off = 160, 0.75, []
    for shot in street_shots(12, 1):
        photo, above = outdoor(shot, SIZE), tile(shot, 7, size, scale)
        focal = SIZE / 2 / np.tan(np.radians(FIELD / 2))
        rows, columns = np.nonzero((photo.label // 100_000 == HOUSE) & (photo.depth < 50))
        for turn in (0, 40):
            angle = np.radians(shot.heading + turn)
            ahead = photo.depth[rows, columns] + 0.4  # just inside the wall
            aside = ahead * (columns + 0.5 - SIZE / 2) / focal
            x = (ahead * np.sin(angle) + aside * np.cos(angle)) / scale + size / 2
            y = size / 2 - (ahead * np.cos(angle) - aside * np.sin(angle)) / scale
            at = above.label[np.clip(y.astype(int), 0, size - 1), np.clip(x.astype(int), 0, size - 1)]
            off.append((turn, float(np.mean(at // 100_000 == HOUSE)) if len(rows) else np.nan))
    right = np.nanmean([hit for turn, hit in off if turn == 0])
    wrong = np.nanmean([hit for turn, hit in off if turn == 40])
    assert right > 0.8
    assert wrong < right - 0.25


def test_the_landmark_stands_at_its_bearing_and_height() -> None:
    off_top = []
    for city in CITIES["city"].to_numpy()[:30].tolist():
        mark_east, mark_north = (float(x[0]) for x in landmark([city]))
        east, north = mark_east + 130.0, mark_north - 90.0
        bearing = np.degrees(np.arctan2(-130.0, 90.0))
        shot = shot_at(city, east, north, bearing + 9, pitch=12.0)
        photo = outdoor(shot, SIZE)
        mark = photo.label == 100_000 * TOWER + 1
        if mark.sum() < 30:
            continue  # behind houses
        focal = SIZE / 2 / np.tan(np.radians(FIELD / 2))
        ahead = np.hypot(130, 90) * np.cos(np.radians(9))
        middle = SIZE / 2 - focal * np.tan(np.radians(9))
        tower = tower_of(city)
        rows, columns = np.nonzero(mark)
        half = focal * tower.radius_m / ahead
        assert middle - half - 1 <= columns.min()
        assert columns.max() <= middle + half + 1
        horizon = SIZE / 2 + focal * np.tan(np.radians(12.0))
        top = horizon - (tower.height_m - 1.6) * focal / ahead
        # A thin top falls between the middles of pixels; it never stands higher than it is.
        off_top.append(rows.min() - max(top, 0))
        assert photo.depth[mark] == pytest.approx(ahead, abs=0.05)
    assert len(off_top) > 8
    assert min(off_top) > -1
    assert np.median(off_top) < 1.6


def test_near_things_hide_far_ones_and_the_sky_is_endless() -> None:
    for shot in street_shots(6, 3):
        photo = outdoor(shot, SIZE)
        assert np.isinf(photo.depth[photo.label == 0]).all()
        assert np.isfinite(photo.depth[photo.label > 0]).all()
        ground = photo.label == 100_000
        rows = np.arange(SIZE)[:, None] + 0.5 - SIZE / 2
        focal = SIZE / 2 / np.tan(np.radians(FIELD / 2))
        expected = np.broadcast_to(focal * 1.6 / np.where(rows > 0, rows, np.nan), ground.shape)
        np.testing.assert_allclose(photo.depth[ground], expected[ground], rtol=2e-3)


def test_drawings_keep_their_bytes() -> None:
    """Golden pictures: a change here is a new version of the sample for everybody, and must be meant."""
    shots = street_shots(6, 9, grain=5)
    shots += [SimpleNamespace(**(vars(shots[0]) | {"subject": subject, "scene": 5})) for subject in SUBJECTS]
    digest = hashlib.sha256()
    for shot in shots:
        digest.update(draw_photo(shot, 64).tobytes())
        digest.update(draw_tile(shot, 3, 48, 1.5).tobytes())
    assert digest.hexdigest() == GOLDEN


GOLDEN = "dd4d76be687cce3a3607f623af6e9d6ab6e8cd08ed111e60470b5db330cd2e09"


def test_the_same_shot_gives_the_same_bytes_in_any_order() -> None:
    shots = street_shots(5, 2, grain=6)
    once = [draw_photo(s, 64).tobytes() for s in shots]
    assert [draw_photo(s, 64).tobytes() for s in reversed(shots)] == once[::-1]
    assert draw_photo(shots[0], 64).shape == (64, 64, 3)
    assert draw_photo(shots[0], 64).dtype == np.uint8
    assert len(set(once)) == 5


def test_a_burst_shares_its_scene_up_to_a_shake_and_grain() -> None:
    shot = street_shots(1, 4, grain=0)[0]
    shaken = SimpleNamespace(**(vars(shot) | {"shake_x": 2, "shake_y": -1}))
    one, other = draw_photo(shot, 64), draw_photo(shaken, 64)
    np.testing.assert_array_equal(one[:-1, 2:], other[1:, :-2])
    grainy = SimpleNamespace(**(vars(shot) | {"grain": 6, "shot_key": 3}))
    far = np.abs(draw_photo(grainy, 64).astype(int) - one)
    assert far.max() <= 6
    assert far.mean() > 1


def test_pictures_without_a_cue_do_not_depend_on_the_place() -> None:
    here, there = street_shots(2, 6)
    for subject in SUBJECTS[1:]:
        pictures = [
            draw_photo(SimpleNamespace(**(vars(s) | {"subject": subject, "scene": 77})), 64)
            for s in (here, there)
        ]
        np.testing.assert_array_equal(*pictures)
        other = draw_photo(SimpleNamespace(**(vars(here) | {"subject": subject, "scene": 78})), 64)
        assert np.abs(other.astype(int) - pictures[0]).mean() > 5


def test_looks_are_nearly_alike_near_by_and_different_far_away() -> None:
    inland = CITIES[CITIES["motif"] == ""].head(25)
    names = ("sky_top", "grass", "leaf", "roof", "rock")
    near, far = [], []
    for row, other in zip(inland.itertuples(), inland.iloc[::-1].itertuples(), strict=True):
        if row.city == other.city:
            continue
        here = look_at(row.latitude, row.longitude, row.city, 0, 0)
        beside = look_at(row.latitude + 0.03, row.longitude, row.city, 0, 3300)
        away = look_at(other.latitude, other.longitude, other.city, 0, 0)
        near += [float(np.abs(getattr(here, n) - getattr(beside, n)).max()) for n in names]
        far.append(np.mean([np.abs(getattr(here, n) - getattr(away, n)).mean() for n in names]))
        assert here.left == beside.left
    assert max(near) <= 4
    assert np.median(far) > 12


def test_look_alikes_are_alike_across_oceans() -> None:
    table = all_cities()
    for motif in ("beach", "fjord"):
        coast = table[table["motif"] == motif].groupby("continent").head(1)
        plain = table[table["motif"] == ""].groupby("continent").head(1)
        spreads = []
        for group in (coast, plain):
            looks = [look_at(r.latitude, r.longitude, r.city, 0, 0) for r in group.itertuples()]
            spreads.append(np.array([look.walls.mean(axis=0) for look in looks]).std(axis=0).mean())
        assert len(coast) >= 3
        assert spreads[0] < 0.6 * spreads[1]


def test_countries_have_their_script_and_side_of_the_road() -> None:
    table = all_cities()

    def look_of(name: str, country: str) -> Any:
        row = table[(table["name"] == name) & (table["country_code"] == country)].iloc[0]
        return look_at(row["latitude"], row["longitude"], int(row["city"]), 0, 0)

    assert SCRIPTS[look_of("Athens", "GR").script] == "greek"
    assert SCRIPTS[look_of("Tokyo", "JP").script] == "kana"
    assert SCRIPTS[look_of("Lyon", "FR").script] == "latin"
    assert look_of("Tokyo", "JP").left
    assert look_of("London", "GB").left
    assert not look_of("Lyon", "FR").left
    lyon, paris = look_of("Lyon", "FR"), look_of("Paris", "FR")
    assert (lyon.line == paris.line).all()
    assert (lyon.accent != paris.accent).any()


def test_light_follows_the_sun_and_snow_the_winter() -> None:
    shot = street_shots(1, 8)[0]
    brightness = [
        draw_photo(SimpleNamespace(**(vars(shot) | {"sun_elevation": e})), 64).mean() for e in (45, 6, -20)
    ]
    assert brightness[0] > brightness[1] > 1.5 * brightness[2]
    assert (daylight(60.0, 0) > 240).all()
    north = look_at(65.0, 25.7, int(CITIES["city"].iloc[0]), 0, 0)
    assert season(north, 15, southern=False)[1] > 100
    assert season(north, 15, southern=True)[1] == 0
    assert season(north, 197, southern=False)[1] == 0
    assert season(north, 197, southern=True)[1] > 100


def test_the_sun_shines_where_it_stands() -> None:
    city = int(CITIES["city"].iloc[5])
    shot = shot_at(city, 40_000.0, 20_000.0, 100.0, cloud=0, sun_elevation=14.0, sun_azimuth=112.0)
    drawn = outdoor(shot, 128)
    sky = np.where(drawn.label == 0, drawn.colours.sum(axis=2), 0)
    row, column = np.unravel_index(int(sky.argmax()), sky.shape)
    focal = 64 / np.tan(np.radians(FIELD / 2))
    assert column == pytest.approx(64 + focal * np.tan(np.radians(12)), abs=3)
    assert row == pytest.approx(64 - focal * np.tan(np.radians(14)), abs=3)


def test_towers_differ_and_fill_their_height() -> None:
    up = np.linspace(0.001, 0.999, 200)[:, None] + np.zeros((1, 41))
    off = np.linspace(-1, 1, 41)[None, :]
    outlines = []
    for number in CITIES["city"].tolist()[:40]:
        inside, colour = tower_of(int(number)).at(off, up)
        assert inside[:, 20].mean() > 0.95  # its axis from foot to top
        assert inside[0].all() or tower_of(int(number)).widths[0] == 1.0
        assert colour.max() < 6
        outlines.append((inside * (1 + colour)).tobytes())
    assert len(set(outlines)) == 40


def test_tiles_show_another_day_than_their_photos() -> None:
    shot = street_shots(1, 12)[0]
    one, two = tile(shot, 1, 96, 1.0), tile(shot, 2, 96, 1.0)
    np.testing.assert_array_equal(one.label, two.label)  # the layout stays
    assert np.abs(one.picture.astype(int) - two.picture).mean() > 4  # season and sensor do not
    assert drawing.MARGIN >= 2
