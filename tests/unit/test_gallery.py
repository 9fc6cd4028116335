"""The gallery page and the banners: offline, escaped, honest about what is shown, equal bytes for equal input."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geoloc.photos.catalog import empty_catalog
from geoloc.photos.pairs import read_pairs
from geoloc.places import continents
from geoloc.reports import gallery_choice
from geoloc.reports.banner import SAMPLE_BANNER, SAMPLE_SOURCE, banners
from geoloc.reports.gallery import (
    GalleryGroup,
    GalleryInput,
    GalleryPair,
    GalleryPhoto,
    compass,
    gallery_html,
    gallery_numbers,
    write_gallery,
)
from geoloc.reports.gallery_choice import gather_gallery
from geoloc.reports.maps import photo_map

NASTY = "<script>alert('x')</script>\"&{{ 7*7 }}"
CITIES = [
    (48.86, 2.35), (52.52, 13.4), (35.68, 139.69), (-33.87, 151.21), (40.71, -74.0), (-23.55, -46.6), (-1.29, 36.8)
]  # fmt: skip


class Page(HTMLParser):
    """What a browser would load, run and show."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.handlers, self.texts = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))

    def handle_data(self, data):
        self.texts.append(data.strip())


def jpeg(number=0, side=96):
    stream = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def read(shard, offset, length):
    """A picture of its own for each place, as ShardReader.read gives."""
    return jpeg(offset)


def catalog(count=60, people=12, source="mine"):
    """Photos in seven cities; every fifth is indoors, every tenth known by metadata only; albums of five; bursts."""
    i = np.arange(count)
    place = np.array(CITIES)[(i // 5) % len(CITIES)]
    taken = pd.Timestamp("2014-03-01") + pd.to_timedelta(
        np.where(i % 5 == 1, (i - 1) * 3600 + 2, i * 3600), "s"
    )
    digest = [hashlib.sha256(f"{n}".encode()).hexdigest() for n in i]
    frame = pd.DataFrame(
        {
            "photo_id": [f"p{n:03d}" for n in i],
            "source": source,
            "photographer": [f"who{(n // 5) % people}" for n in i],
            "latitude": place[:, 0] + i * 1e-4,
            "longitude": place[:, 1],
            "taken_at": taken.astype("datetime64[us]"),
            "album": [f"a{n // 5}" for n in i],
            "prob_indoor": np.where(i % 5 == 4, 0.9, 0.1),
            "sha256": digest,
            "phash": [d[:16] for d in digest],
            "shard": "photos-000000.tar",
            "offset": pd.array(i, "Int64"),
            "length": pd.array(i * 0 + 9, "Int64"),
        }
    )
    frame.loc[i % 10 == 7, ["sha256", "phash", "shard", "offset", "length"]] = None
    return frame


def overhead(count=60):
    return catalog(count).assign(photo_id=[f"o-p{n:03d}" for n in range(count)])


def pairs(count=60):
    heading = np.where(np.arange(count) % 4 == 0, np.nan, np.arange(count) * 5.5)
    ids = [f"p{n:03d}" for n in range(count)]
    return pd.DataFrame(
        {"photo_id": ids, "overhead_id": [f"o-{i}" for i in ids], "heading": heading, "city": "x", "split_city": "x"}
    )  # fmt: skip


def gather(photos=None, **keywords):
    photos = catalog() if photos is None else photos
    return gather_gallery(
        "0123456789abcdef", (), photos, pairs(), overhead(), read, read, **keywords
    )  # fmt: skip


@pytest.fixture(scope="module")
def gathered():
    return gather()


def nasty(heading=90.0):
    photo = GalleryPhoto(NASTY, jpeg(), NASTY, NASTY, NASTY)
    group = GalleryGroup(NASTY, NASTY, (photo, dataclasses.replace(photo, thumbnail=None)))
    return GalleryInput(
        data_version=NASTY,
        banners=(NASTY,),
        about=(NASTY,),
        latitude=np.array([1.0]),
        longitude=np.array([2.0]),
        facts={NASTY: NASTY, "photos": NASTY},
        continents_table=pd.DataFrame(
            {
                "continent": [NASTY],
                "photos": 1,
                "share": NASTY,
                "photographers": 1,
                "countries": 1,
                "cities": 1,
            }
        ),
        sources=pd.DataFrame({"source": [NASTY], "photos": [1]}),
        continents=(group,),
        albums=(group,),
        pairs=(GalleryPair(photo, NASTY, jpeg(), heading), GalleryPair(photo, NASTY, None)),
        duplicates=(group,),
        bursts=(group,),
        no_cue=(photo,),
    )


def test_the_page_needs_no_network_runs_nothing_and_escapes_all():
    text = gallery_html(nasty())
    page = Page(text)
    assert all(link.startswith(("data:image/", "#")) or link == "report.html" for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not {"script", "iframe", "link", "object", "base", "form"} & set(page.tags)
    assert "<script" not in text
    assert "url(" not in text
    assert page.handlers == []
    assert "default-src 'none'" in text
    assert "\n".join(page.texts).count(NASTY) >= 25


def test_the_wedge_points_where_the_camera_looked():
    text = gallery_html(nasty(heading=237.3))
    assert text.count("rotate(") == 1  # the pair whose heading is unknown has no wedge
    assert 'transform="rotate(237.3 50 50)"' in text
    assert "looking south-west (237.3°)" in text
    assert "heading unknown" in text


@pytest.mark.parametrize(
    ("heading", "wind"),
    [(0, "north"), (22.4, "north"), (22.6, "north-east"), (180, "south"), (359.9, "north")],
)
def test_compass(heading, wind):
    assert compass(heading) == wind


def test_sections_without_content_are_left_out():
    text = gallery_html(GalleryInput("v"))
    assert "<section" not in text
    assert 'class="banner"' not in text
    ids = Page(gallery_html(GalleryInput("v", no_cue=(GalleryPhoto("p", None),)))).ids
    assert ids == ["no-cue"]


def test_equal_input_gives_equal_bytes(gathered, tmp_path):
    one, two = write_gallery(tmp_path / "1", gathered), write_gallery(tmp_path / "2", gather())
    assert one.name == "gallery.html"
    assert one.read_bytes() == two.read_bytes()
    assert gallery_numbers(gather(seed=1)) != gallery_numbers(gathered)


def test_the_page_is_small_whatever_the_pictures(monkeypatch):
    monkeypatch.setattr(
        gallery_choice, "thumbnail", lambda *a: jpeg(1, 144)[:14_000]
    )  # noise: the worst there is
    big = gather_gallery("v", (), catalog(400, 80), pairs(400), overhead(400), read, read)
    assert len(gallery_html(big).encode()) < 3_000_000


def test_numbers_hold_what_the_page_shows(gathered):
    numbers, text = gallery_numbers(gathered), gallery_html(gathered)
    shown = {i for group in (*numbers["continents"].values(), *numbers["albums"]) for i in group}
    assert shown
    assert all(f"photo {photo}" in text for photo in shown)
    assert numbers["facts"]["photos"] == "60"
    assert numbers["facts"]["photographers"] == "12"


# what is chosen


def test_only_stored_photos_are_shown(gathered):
    numbers = gallery_numbers(gathered)
    bare = set(catalog().loc[lambda c: c["shard"].isna(), "photo_id"])
    shown = set(re.findall(r"p\d{3}", str({k: v for k, v in numbers.items() if k != "facts"})))
    assert len(shown) > 20
    assert not shown & bare
    assert len(gathered.latitude) == 60  # all are on the map


def test_a_continent_shows_its_own_outdoor_photos_one_a_photographer():
    photos = catalog(200, 40)
    known = photos.set_index("photo_id")
    for group in gather(photos).continents:
        rows = known.loc[[photo.photo_id for photo in group.photos]]
        assert set(continents(rows["latitude"], rows["longitude"])) == {group.title}
        assert rows["photographer"].is_unique
        assert (rows["prob_indoor"] < 0.5).all()
        assert 1 <= len(rows) <= gallery_choice.CONTINENT_PHOTOS


def test_albums_are_in_order_of_time_by_different_people_and_show_one_of_a_burst(gathered):
    known = catalog().set_index("photo_id")
    assert len(gathered.albums) == gallery_choice.ALBUMS
    people = set()
    for album in gathered.albums:
        rows = known.loc[[photo.photo_id for photo in album.photos]]
        assert rows["album"].nunique() == 1
        assert rows["taken_at"].is_monotonic_increasing
        assert rows["taken_at"].diff().dropna().min() > pd.Timedelta(seconds=gallery_choice.BURST_SECONDS)
        people.add(rows["photographer"].iloc[0])
    assert len(people) == len(gathered.albums)


def test_pairs_are_those_of_the_table_and_of_stored_tiles(gathered):
    wanted = pairs().set_index("photo_id")
    tiles = overhead().set_index("photo_id")
    assert 0 < len(gathered.pairs) <= gallery_choice.PAIRS
    for pair in gathered.pairs:
        row = wanted.loc[pair.street.photo_id]
        assert pair.overhead_id == row["overhead_id"]
        assert pair.heading == row["heading"]
        assert pd.notna(tiles.loc[pair.overhead_id, "shard"])


def test_pairs_without_heading_are_shown_where_there_are_no_others():
    bare = pairs().assign(heading=np.nan)
    found = gather_gallery("v", (), catalog(), bare, overhead(), read, read).pairs
    assert found
    assert all(math.isnan(pair.heading) for pair in found)


def test_near_duplicates_are_of_several_people_and_bursts_of_one():
    photos = catalog()
    photos.loc[[0, 5, 20], "phash"] = "0123456789abcdef"
    found = gather(photos)
    assert [{p.photo_id for p in group.photos} for group in found.duplicates] == [{"p000", "p005", "p020"}]
    known = photos.set_index("photo_id")
    assert found.bursts
    for burst in found.bursts:
        rows = known.loc[[photo.photo_id for photo in burst.photos]]
        assert rows["photographer"].nunique() == 1
        assert rows["taken_at"].max() - rows["taken_at"].min() <= pd.Timedelta(seconds=2)


def test_photos_with_no_cue_are_the_surest_indoor_ones():
    photos = catalog()
    photos["prob_indoor"] = np.linspace(0, 1, 60)
    found = [photo.photo_id for photo in gather(photos).no_cue]
    rows = photos.set_index("photo_id").loc[found]
    assert rows["prob_indoor"].is_monotonic_decreasing
    assert (rows["prob_indoor"] >= 0.5).all()
    assert rows["photographer"].is_unique
    assert found[0] == "p059"


def test_any_pool_has_a_gallery(tmp_path):
    """Nothing known but coordinates and bytes; one photo; no tiles."""
    for count in (1, 12):
        photos = catalog(count).assign(prob_indoor=np.nan, taken_at=pd.NaT)
        photos["photographer"] = photos["album"] = pd.Series([None] * count, dtype="str")
        found = gather_gallery("v", (), photos, read_pairs(tmp_path), empty_catalog(), read, read)
        assert found.albums == found.pairs == found.bursts == found.no_cue == ()
        assert found.continents
        assert "photographers" not in found.facts
        assert "time unknown" in gallery_html(found)


def test_unknown_photographers_are_each_their_own():
    photos = catalog()
    photos["photographer"] = pd.Series([None] * 60, dtype="str")
    assert max(len(group.photos) for group in gather(photos).continents) > 3


def test_the_sample_planet_says_that_it_is_generated():
    told = " ".join(gather(catalog(source=SAMPLE_SOURCE)).about)
    assert "drawn by a program" in told
    assert "drawn by a program" not in " ".join(gather().about)


def test_photo_map_needs_a_known_place():
    assert photo_map(np.array([1.0, np.nan]), np.array([2.0, 3.0])).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least one photo"):
        photo_map(np.array([np.nan]), np.array([np.nan]))


# banners


def test_the_source_is_that_of_the_generator():
    from geoloc.sample import SOURCE

    assert SAMPLE_SOURCE == SOURCE


@pytest.mark.parametrize(
    ("note", "sources", "told"),
    [
        ("", {}, ()),
        ("  ", {"mine": 3}, ()),
        ("mine", {"mine": 3}, ("mine",)),
        ("", {SAMPLE_SOURCE: 3}, (SAMPLE_BANNER,)),
        ("mine", {SAMPLE_SOURCE: 3}, (SAMPLE_BANNER, "mine")),
        (SAMPLE_BANNER, {SAMPLE_SOURCE: 3}, (SAMPLE_BANNER,)),
        ("built on  the SAMPLE planet.", {SAMPLE_SOURCE: 3}, (SAMPLE_BANNER,)),
        (f"{SAMPLE_BANNER} Seed 7.", {SAMPLE_SOURCE: 3}, (f"{SAMPLE_BANNER} Seed 7.",)),
        (
            "This is not the sample planet.",
            {SAMPLE_SOURCE: 3},
            (SAMPLE_BANNER, "This is not the sample planet."),
        ),
        (SAMPLE_BANNER, {"mine": 3}, (SAMPLE_BANNER,)),  # the user says so: not ours to take away
    ],
)
def test_banners(note, sources, told):
    assert banners(note, sources) == told


def test_a_mixed_collection_says_how_much_of_it_is_generated():
    (told,) = banners("", {SAMPLE_SOURCE: 1500, "mine": 500})
    assert told.startswith("Partly built on the sample planet: 1,500 of 2,000 photos")
    assert told.endswith("No figure here is comparable with a paper's.")


@given(st.text(max_size=200))
def test_no_note_hides_the_sample_planet(note):
    assert any("sample planet" in banner for banner in banners(note, {SAMPLE_SOURCE: 1}))
