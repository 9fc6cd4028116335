"""The sample: same bytes each time, faults where they are announced, and pictures that tell of their place."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError

from geoloc.files import content_hash
from geoloc.photos.splits import SplitSettings, make_splits
from geoloc.sample import SampleSettings, make_sample
from geoloc.sample.generate import COLUMNS, FAULTS
from geoloc.sample.looks import Looks, looks
from geoloc.sample.scene import Shot, draw
from geoloc.sample.world import make_cities, make_photos
from geoloc.settings import parse
from geoloc.sphere import distance_km, is_valid

PHOTOS = 500


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "sample"
    make_sample(folder, PHOTOS, 0)
    return folder


@pytest.fixture(scope="module")
def world() -> pd.DataFrame:
    return make_photos(PHOTOS, 0, SampleSettings())


def read_table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(
        folder / "photos.csv", dtype={"photo_id": "str"}, parse_dates=["taken_at", "posted_at"]
    )


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        image.load()
        return np.asarray(image)


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    for run in ("1", "2"):
        code = (
            f"from geoloc.sample import make_sample; make_sample({str(tmp_path / run / 'sample')!r}, 40, 7)"
        )
        environment = {**os.environ, "PYTHONHASHSEED": run, "TZ": "Asia/Tokyo" if run == "2" else "UTC"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    make_sample(tmp_path / "3" / "sample", 40, 8)
    one, two, other = (content_hash(tmp_path / run / "sample") for run in "123")
    assert one == two
    assert one != other


def test_a_drawing_keeps_its_bytes() -> None:
    """A golden picture from whole numbers alone: a change here is a new version of the sample for everybody."""
    whole = {name: np.array([value], np.int32) for name, value in WHOLE_LOOK.items()}
    pictures = [
        draw(Looks(**whole), 0, Shot((1, 2), (3,), hour, urban, indoor), 64)
        for hour, urban, indoor in ((12, 220, False), (22, 120, False), (18, 20, False), (9, 90, True))
    ]
    assert all(p.shape == (64, 64, 3) and p.dtype == np.uint8 for p in pictures)
    assert hashlib.sha256(b"".join(p.tobytes() for p in pictures)).hexdigest() == GOLDEN


WHOLE_LOOK = {
    "sky_top": [60, 120, 200], "sky_low": [190, 210, 230], "ground": [100, 130, 60], "rock": [120, 110, 120],
    "leaf": [40, 110, 40], "wall": [200, 150, 100], "roof": [180, 90, 60], "roof_kind": 3, "tree_kind": 1,
    "cloud": 120, "relief": 160, "snow": 90, "green": 200, "window_pitch": 7, "window_shape": 1,
    "line": [232, 190, 40], "pavement": 2, "pavement_a": [200, 180, 160], "pavement_b": [90, 40, 60],
}  # fmt: skip
GOLDEN = "e04b352cebca70d58341f753405c08c307b6b87b6a3c12a1fda32a5718fd4443"


def test_the_table_and_its_good_rows(sample: Path, world: pd.DataFrame) -> None:
    table = read_table(sample)
    assert tuple(table.columns) == COLUMNS
    assert len(table) == PHOTOS + 2 * len(FAULTS)
    good = table.iloc[:PHOTOS]
    assert good["photo_id"].is_unique
    assert is_valid(good["latitude"], good["longitude"]).all()
    assert good[["photographer", "taken_at", "posted_at", "album", "prob_indoor"]].notna().all(axis=None)
    assert good["prob_indoor"].between(0, 1).all()
    assert good["heading"].dropna().between(0, 360, inclusive="left").all()
    assert 0.5 < good["heading"].notna().mean() < 0.9
    # Nobody posts before taking: posted_at is UTC, taken_at local, at most 13 hours apart.
    assert (good["posted_at"] - good["taken_at"] > pd.Timedelta(hours=-13)).all()
    for file in good["file"]:
        pixels = picture(sample / file)
        assert pixels.shape == (128, 128, 3)
        assert pixels.std() > 4
    assert set(world["file"]) == set(good["file"])
    files = {p.relative_to(sample).as_posix() for p in sample.rglob("*.jpg")}
    assert files - set(table["file"]) == set()


def test_the_faults_are_as_announced(sample: Path) -> None:
    table = read_table(sample)
    bad = table.iloc[PHOTOS:].reset_index(drop=True)
    bad["fault"] = [kind for kind in FAULTS for _ in range(2)]
    found = []
    for row in bad.itertuples():
        path = sample / row.file
        data = path.read_bytes() if path.exists() else None
        if data is None:
            found.append("no such file")
        elif np.isnan(row.latitude) and np.isnan(row.longitude):
            found.append("no coordinates")
        elif row.latitude == 0 and row.longitude == 0:
            found.append("coordinates (0, 0)")
        elif not -90 <= row.latitude <= 90:
            found.append("latitude out of range")
        elif row.photo_id in set(table["photo_id"][:PHOTOS]):
            found.append("repeated id")
            good = table.loc[table["photo_id"] == row.photo_id, "file"].iloc[0]
            assert data != (sample / good).read_bytes()
        elif not data.startswith(b"\xff\xd8"):
            found.append("not an image")
            with pytest.raises(UnidentifiedImageError):
                picture(path)
        else:
            found.append("truncated image")
            with pytest.raises(OSError, match="truncated"):
                picture(path)
    assert found == bad["fault"].tolist()


def test_bursts_are_near_duplicates_and_other_photos_are_not(sample: Path, world: pd.DataFrame) -> None:
    hashes = np.array(
        [int(str(imagehash.phash(Image.open(sample / f))), 16) for f in world["file"]], np.uint64
    )
    scene = np.where(world["copy_of"] >= 0, world["scene"].to_numpy()[world["copy_of"]], world["scene"])
    i, j = np.triu_indices(PHOTOS, 1)
    close, burst = np.bitwise_count(hashes[i] ^ hashes[j]) <= 6, scene[i] == scene[j]
    assert burst.sum() > 15
    assert close[burst].mean() > 0.7
    assert (close & ~burst).sum() <= 3  # of 125,000 pairs
    in_burst = world.groupby("scene").filter(lambda g: len(g) > 1).query("copy_of < 0")
    assert in_burst.groupby("scene")["photographer"].nunique().max() == 1


def test_exact_copies_are_by_other_photographers(sample: Path, world: pd.DataFrame) -> None:
    digest = world["file"].map(lambda f: hashlib.sha256((sample / f).read_bytes()).hexdigest())
    groups = world.groupby(digest)
    copies = groups.filter(lambda g: len(g) > 1)
    assert len(copies) == 2 * (world["copy_of"] >= 0).sum() > 0
    assert (copies.groupby(digest)["photographer"].nunique() == 2).all()
    assert (copies.groupby(digest)["latitude"].nunique() == 1).all()


def test_pictures_tell_of_their_place_but_not_by_colour_alone(sample: Path, world: pd.DataFrame) -> None:
    """Nearest photo by another photographer: better than a random one, and far from perfect."""
    pixels = np.stack([picture(sample / f) for f in world["file"]]).astype(np.float32)
    thumbs = pixels.reshape(PHOTOS, 4, 32, 4, 32, 3).mean(axis=(2, 4)).reshape(PHOTOS, -1)
    who = pd.factorize(world["photographer"])[0]
    latitude, longitude = world["latitude"].to_numpy(), world["longitude"].to_numpy()

    def within_750(features: np.ndarray) -> float:
        scaled = (features - features.mean(axis=0)) / features.std(axis=0)
        square = (scaled**2).sum(axis=1)
        far = square[:, None] + square[None, :] - 2 * scaled @ scaled.T
        far[who[:, None] == who[None, :]] = np.inf
        near = far.argmin(axis=1)
        return float((distance_km(latitude, longitude, latitude[near], longitude[near]) <= 750).mean())

    random = within_750(np.random.default_rng(0).normal(size=(PHOTOS, 8)))
    colour, thumb = within_750(pixels.mean(axis=(1, 2))), within_750(thumbs)
    assert random < colour < thumb < 0.8
    assert thumb > 2.5 * random
    assert colour < 0.35


def test_looks_change_smoothly_and_with_distance() -> None:
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(-65, 65, 300), rng.uniform(-180, 180, 300)
    city = np.zeros(300, np.int64)
    here, beside = looks(latitude, longitude, city), looks(latitude + 0.1, longitude, city)
    away = looks(latitude, longitude + 60, city)
    round_trip = looks(latitude, longitude + 360, city)
    for name in ("ground", "wall", "sky_top", "leaf", "roof"):
        a = getattr(here, name)
        assert a.dtype == np.int32
        assert a.min() >= 0
        assert a.max() <= 255
        assert np.abs(a - getattr(beside, name)).max() <= 6, name
        assert np.abs(a - getattr(away, name)).mean() > 8, name
        assert np.abs(a - getattr(round_trip, name)).max() <= 1, name
    assert len(set(here.roof_kind)) == 5
    assert len(set(here.tree_kind)) == 4


def test_the_pavement_belongs_to_the_city() -> None:
    made = looks(np.full(400, 40.0), np.full(400, 10.0), np.repeat(np.arange(200) + 2_640_000, 2))
    signs = np.column_stack([made.pavement, made.pavement_a, made.pavement_b])
    assert (signs[::2] == signs[1::2]).all()
    assert len(np.unique(signs, axis=0)) == 200
    assert np.bincount(made.pavement).min() > 60


def test_people_and_cities_are_skewed_like_real_ones() -> None:
    world = make_photos(3000, 0, SampleSettings())
    per_person = world["photographer"].value_counts()
    assert len(per_person) > 200
    assert per_person.iloc[0] > 8 * per_person.median()
    assert world["city"].nunique() > 100
    assert world.groupby("city")["photographer"].nunique().max() > 20
    cities = make_cities(260, 0).set_index("city")
    km = distance_km(
        world["latitude"], world["longitude"],
        cities.loc[world["city"], "latitude"].to_numpy(), cities.loc[world["city"], "longitude"].to_numpy(),
    )  # fmt: skip
    assert km.max() < 80
    assert cities["population"].max() > 5_000_000


def test_the_default_split_of_the_sample_fills_every_set(sample: Path) -> None:
    table = read_table(sample).iloc[:PHOTOS]
    shots = [picture(sample / f) for f in table["file"]]
    catalog = table.assign(
        source="sample",
        phash=[str(imagehash.phash(Image.fromarray(s))) for s in shots],
        sha256=[hashlib.sha256((sample / f).read_bytes()).hexdigest() for f in table["file"]],
    )
    splits = make_splits(catalog, parse(SplitSettings, {}), 0)
    assert splits["split"].value_counts()[["train", "validation", "test"]].min() >= 10
    assert splits["reason"].str.startswith("near-duplicate").sum() >= 1


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 20
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "sample", 20, 0, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_settings_shape_the_sample(tmp_path: Path) -> None:
    wanted = SampleSettings(size=48, faulty_each=0, burst_share=0.0, copy_share=0.0)
    summary = make_sample(tmp_path / "sample", 12, 0, wanted)
    assert (summary.photos, summary.faulty) == (12, 0)
    assert summary.jpeg_bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.jpg"))
    assert {picture(p).shape for p in tmp_path.rglob("*.jpg")} == {(48, 48, 3)}
    with pytest.raises(ValueError, match="photos must be at least 2, got 1"):
        make_sample(tmp_path / "sample", 1, 0)
