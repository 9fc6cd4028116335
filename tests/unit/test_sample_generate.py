"""A sample on disk: the same bytes however it is made, tables that agree, and dirt that ingest finds."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from geoloc.files import content_hash
from geoloc.photos.catalog import read_catalog
from geoloc.photos.ingest import IngestSummary
from geoloc.photos.quarantine import PHOTO, Reason, read_quarantine
from geoloc.photos.settings import SplitSettings
from geoloc.photos.splits import make_splits
from geoloc.sample import NO_DIRT, SOURCE, DirtSettings, SampleSettings, SampleSummary, drawing, make_sample
from geoloc.sample.dirt import DIRT, NOT_KEPT, WRONG_PLACE
from geoloc.sample.people import SUBJECTS, make_shots
from geoloc.sample.records import GPS_M, PAIR_COLUMNS, PHOTO_COLUMNS, TILE_COLUMNS, TRUTH_COLUMNS, prob_indoor
from geoloc.settings import SettingsError, parse
from geoloc.sphere import distance_km
from tests.photo_fixtures import take_in

pytestmark = pytest.mark.slow
PHOTOS = 500
DIRTY = DirtSettings(**dict.fromkeys(DirtSettings.model_fields, 0.008))
SETTINGS = SampleSettings(size=48, tile_size=48, dirt=DIRTY, exact_copy_share=0.012, near_copy_share=0.012)
TINY = SampleSettings(size=32, tile_size=32, cities=20)


@dataclasses.dataclass(frozen=True)
class Made:
    """A sample and its tables."""

    folder: Path
    summary: SampleSummary
    photos: pd.DataFrame
    tiles: pd.DataFrame
    pairs: pd.DataFrame
    truth: pd.DataFrame


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made") / "sample"
    summary = make_sample(folder, PHOTOS, 0, SETTINGS, processes=1)
    return Made(
        folder,
        summary,
        pd.read_csv(folder / "photos.csv", parse_dates=["taken_at", "posted_at"]),
        pd.read_csv(folder / "overhead.csv"),
        pd.read_csv(folder / "pairs.csv"),
        pd.read_csv(folder / "truth.csv", keep_default_na=False, na_values={"true_latitude": ""}),
    )


@pytest.fixture(scope="module")
def ingested(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IngestSummary]:
    pool = tmp_path_factory.mktemp("pool") / "data"
    return pool, take_in(pool, "table", made.folder / "photos.csv", source=SOURCE)


def digests(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_any_number_of_processes_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whatever the order of Python's sets, the time zone and the locale are; the environment stays as it was."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    make_sample(tmp_path / "two", 60, 7, TINY, processes=2)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in os.environ
    code = (
        "from geoloc.sample import SampleSettings, make_sample\n"
        f"make_sample({str(tmp_path / 'one')!r}, 60, 7, SampleSettings(size=32, tile_size=32, cities=20), processes=1)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    make_sample(tmp_path / "other", 60, 8, TINY, processes=1)
    assert content_hash(tmp_path / "other") != content_hash(tmp_path / "one")


def test_workers_end_with_a_main_process_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from geoloc.sample import SampleSettings, make_sample;"
        f"make_sample({str(tmp_path / 'one')!r}, 1500, 7, SampleSettings(cities=20), processes=2)"
    )
    main = subprocess.Popen([sys.executable, "-c", code])
    try:
        workers: list[psutil.Process] = []
        while len(workers) < 2:
            assert main.poll() is None
            time.sleep(0.1)
            found = psutil.Process(main.pid).children()
            workers = [one for one in found if "spawn_main" in " ".join(one.cmdline())]
        time.sleep(1)  # they are at work, or importing
    finally:
        main.kill()
        main.wait()
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_tables_have_their_columns(made: Made) -> None:
    assert tuple(made.photos.columns) == PHOTO_COLUMNS
    assert tuple(made.tiles.columns) == TILE_COLUMNS
    assert tuple(made.pairs.columns) == PAIR_COLUMNS
    assert tuple(made.truth.columns) == TRUTH_COLUMNS
    assert made.photos["photo_id"].tolist() == made.truth["photo_id"].tolist()
    assert set(made.truth["kind"]) == {"", *DIRT}
    header = (made.folder / "photos.csv").read_text().splitlines()
    assert header[1].count(",") == len(PHOTO_COLUMNS) - 1


def test_every_file_has_its_row(made: Made) -> None:
    files = {p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*") if p.is_file()}
    tables = {"photos.csv", "overhead.csv", "pairs.csv", "truth.csv"}
    absent = set(made.photos.loc[made.truth["kind"] == "no such file", "file"])
    assert files - tables == (set(made.photos["file"]) | set(made.tiles["file"])) - absent
    assert made.summary.jpeg_bytes == sum((made.folder / f).stat().st_size for f in files - tables)


def test_clean_rows_say_nearly_the_truth(made: Made) -> None:
    right = ~made.truth["kind"].isin(
        [*WRONG_PLACE, "no coordinates", "zero coordinates", "latitude out of range"]
    )
    photos, truth = made.photos[right], made.truth[right]
    metres = 1000 * distance_km(
        photos["latitude"], photos["longitude"], truth["true_latitude"], truth["true_longitude"]
    )
    assert metres.mean() == pytest.approx(GPS_M * np.sqrt(np.pi / 2), rel=0.15)
    assert metres.max() < 6 * GPS_M
    told = made.photos["heading"].notna()
    assert told.mean() == pytest.approx(SETTINGS.heading_share, abs=0.06)
    off = (made.photos["heading"] - made.truth["true_heading"] + 180) % 360 - 180
    assert off[told].std() == pytest.approx(5.0, rel=0.2)
    assert made.photos["heading"].dropna().between(0, 359.9).all()


def test_the_classifier_of_rooms_is_noisy_but_right(made: Made) -> None:
    assert made.photos["prob_indoor"].between(0, 1).all()
    subject = pd.Series(np.repeat(SUBJECTS, 2000))
    said = prob_indoor(subject, np.arange(len(subject))).reshape(len(SUBJECTS), -1)
    middle = dict(zip(SUBJECTS, np.median(said, axis=1).tolist(), strict=True))
    assert min(middle["indoor"], middle["food"]) > 0.8
    assert 0.4 < middle["pet"] < 0.6
    assert middle["outdoor"] < middle["portrait"] < 0.3
    assert (said[SUBJECTS.index("outdoor")] > 0.3).mean() > 0.01
    assert (said[SUBJECTS.index("indoor")] < 0.5).mean() > 0.01


def test_pairs_join_photos_and_tiles(made: Made) -> None:
    assert made.pairs["overhead_id"].tolist() == made.tiles["photo_id"].tolist()
    assert (made.pairs["overhead_id"] == "o-" + made.pairs["photo_id"]).all()
    truth = made.truth.drop_duplicates("photo_id").set_index("photo_id").loc[made.pairs["photo_id"]]
    assert (made.pairs["heading"].to_numpy() == truth["true_heading"].to_numpy()).all()
    assert (made.tiles["latitude"].to_numpy() == truth["true_latitude"].to_numpy()).all()
    assert (made.tiles["longitude"].to_numpy() == truth["true_longitude"].to_numpy()).all()
    assert (made.pairs["city"].to_numpy() == truth["city"].to_numpy()).all()
    assert made.pairs["city"].str.fullmatch(r".+, [A-Z]{2}").all()
    assert not truth["kind"].isin([*WRONG_PLACE, *NOT_KEPT, "exact copy", "near copy"]).any()
    assert made.summary.tiles == len(made.pairs) > 60


def test_pictures_are_what_is_drawn(made: Made) -> None:
    shots = make_shots(PHOTOS, 0, SETTINGS)
    clean = np.flatnonzero(made.truth["kind"].iloc[:PHOTOS] == "")[::60]
    for row in clean.tolist():
        with Image.open(made.folder / made.photos["file"][row]) as image:
            stored = np.asarray(image).astype(np.int64)
        drawn = drawing.draw_photo(next(shots.iloc[[row]].itertuples()), 48).astype(np.int64)
        assert stored.shape == drawn.shape == (48, 48, 3)
        assert np.abs(stored - drawn).mean() < 12
    tile = next(shots[shots["photo_id"] == made.pairs["photo_id"][0]].itertuples())
    with Image.open(made.folder / made.tiles["file"][0]) as image:
        drawn = drawing.draw_tile(tile, 0, 48, SETTINGS.metres_per_pixel).astype(np.int64)
        assert np.abs(np.asarray(image).astype(np.int64) - drawn).mean() < 12


def test_copies_and_bursts_in_the_truth(made: Made) -> None:
    photos, truth = made.photos.iloc[:PHOTOS].set_index("photo_id"), made.truth
    data = photos["file"].to_dict()
    exact = truth[truth["kind"] == "exact copy"]
    assert len(exact) == round(PHOTOS * SETTINGS.exact_copy_share)
    for copy, original in zip(exact["photo_id"], exact["copy_of"], strict=True):
        assert (made.folder / data[copy]).read_bytes() == (made.folder / data[original]).read_bytes()
        assert photos["photographer"][copy] != photos["photographer"][original]
        for column in ("latitude", "longitude", "taken_at", "prob_indoor"):
            assert photos[column][copy] == photos[column][original]
    near = truth[truth["kind"] == "near copy"]
    assert len(near) == round(PHOTOS * SETTINGS.near_copy_share)
    assert (near["near_duplicate_of"] != "").all()
    bursts = truth[(truth["near_duplicate_of"] != "") & (truth["kind"] != "near copy")]
    assert made.summary.bursts == len(bursts) > 15
    first = photos.loc[bursts["near_duplicate_of"]]
    assert not set(bursts["near_duplicate_of"]) & set(bursts["photo_id"])
    assert (
        photos.loc[bursts["photo_id"], "photographer"].to_numpy() == first["photographer"].to_numpy()
    ).all()
    assert (truth.loc[truth["kind"] != "exact copy", "copy_of"] == "").all()


def test_near_duplicates_look_alike_and_others_do_not(made: Made) -> None:
    plain = made.truth["kind"].isin(["", "near copy"]) & (made.truth.index < PHOTOS)
    rows = np.flatnonzero(plain)
    hashes = {
        row: imagehash.phash(Image.open(made.folder / made.photos["file"][row])) for row in rows.tolist()
    }
    at = {photo: row for row, photo in enumerate(made.photos["photo_id"].iloc[:PHOTOS])}
    pairs = [
        (row, at[first])
        for row, first in made.truth["near_duplicate_of"].iloc[rows].items()
        if first and at[first] in hashes
    ]
    alike = np.array([hashes[a] - hashes[b] for a, b in pairs])
    assert len(alike) > 15
    assert (alike <= 10).mean() > 0.5  # pictures of 48 pixels; of 128 they are nearer
    rng = np.random.default_rng(0)
    strangers = [hashes[a] - hashes[b] for a, b in rng.choice(rows, (400, 2)) if a != b]
    assert np.median(strangers) > 20


def test_ingest_turns_away_what_it_must_and_nothing_else(
    made: Made, ingested: tuple[Path, IngestSummary]
) -> None:
    """Recall and precision of quarantine are 1, and each reason is the right one."""
    pool, summary = ingested
    expected = {
        "truncated image": Reason.TRUNCATED_IMAGE,
        "not an image": Reason.UNREADABLE_IMAGE,
        "no such file": Reason.MISSING_FILE,
        "no coordinates": Reason.MISSING_COORDINATES,
        "zero coordinates": Reason.ZERO_COORDINATES,
        "latitude out of range": Reason.OUT_OF_RANGE_COORDINATES,
        "repeated id": Reason.DUPLICATE_ID,
        "exact copy": Reason.CONFLICTING_LABEL,  # by somebody who did not take it
    }
    quarantine = read_quarantine(pool)
    turned_away = quarantine[quarantine["severity"] == PHOTO]
    row = turned_away["reference"].str.extract(r"row (\d+)$")[0].astype(int).to_numpy() - 1
    found = pd.Series(turned_away["reason"].to_numpy(), index=row).sort_index()
    kind = made.truth["kind"]
    wanted = kind[kind.isin(expected)].map(lambda k: str(expected[k]))
    assert found.to_dict() == wanted.to_dict()
    assert len(found) == made.summary.faulty + made.summary.dirt["exact copy"]
    assert summary.notes == {}


def test_ingest_keeps_the_rest(made: Made, ingested: tuple[Path, IngestSummary]) -> None:
    pool, _ = ingested
    catalog = read_catalog(pool).set_index("photo_id")
    kept = made.truth[~made.truth["kind"].isin([*NOT_KEPT, "exact copy"])]
    assert set(catalog.index) == set(kept["photo_id"])
    no_time = catalog["taken_at"].isna()
    assert set(catalog.index[no_time]) == set(
        kept.loc[kept["kind"].isin(["missing time", "impossible time"]), "photo_id"]
    )
    assert (catalog["source"] == "sample-planet").all()
    odd = catalog.loc[kept.loc[kept["kind"] == "exif rotation", "photo_id"]]
    assert (odd["width"] == odd["height"]).all()


def test_the_default_split_fills_every_set(ingested: tuple[Path, IngestSummary]) -> None:
    splits = make_splits(read_catalog(ingested[0]), parse(SplitSettings, {}), 0)
    assert splits["split"].value_counts()[["train", "validation", "test"]].min() >= 10
    assert splits["reason"].str.startswith("near-duplicate").sum() >= 1


def test_a_later_version_joins_the_same_pool(tmp_path: Path) -> None:
    pool = tmp_path / "data"
    for version in (1, 2):
        make_sample(tmp_path / str(version), 60, 0, TINY, version, processes=1)
        summary = take_in(pool, "table", tmp_path / str(version) / "photos.csv", source=SOURCE)
        copies = summary.quarantined.get("conflicting_label", 0)
        assert summary.added + summary.already_present + copies == 60
    catalog = read_catalog(pool)
    version = catalog["photo_id"].str.extract(r"^p(\d)-")[0]
    assert version.value_counts().min() >= 59
    people = [set(catalog.loc[version == v, "photographer"]) for v in ("1", "2")]
    assert people[0] & people[1]
    assert people[1] - people[0]


def test_the_summary_counts_everything(made: Made) -> None:
    assert made.summary.photos == PHOTOS
    assert sum(made.summary.subjects.values()) == PHOTOS
    assert made.summary.dirt == {kind: int((made.truth["kind"] == kind).sum()) for kind in DIRT}
    assert made.summary.photographers == made.photos["photographer"].iloc[:PHOTOS].nunique()
    assert made.summary.albums == made.photos["album"].iloc[:PHOTOS].nunique()
    assert made.summary.faulty == len(made.photos) - PHOTOS


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, processes: int) -> None:
    def stop(done: int, total: int) -> None:
        assert 0 < done <= total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sample(tmp_path / "sample", 60, 0, TINY, processes=processes, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_leaves_the_sample_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sample(tmp_path / "sample", 20, 0, TINY, processes=1)
    before = digests(tmp_path / "sample")

    def broken(shot: object, size: int) -> np.ndarray:
        raise RuntimeError("no paint left")

    monkeypatch.setattr(drawing, "draw_photo", broken)
    with pytest.raises(RuntimeError, match="no paint left"):
        make_sample(tmp_path / "sample", 20, 1, TINY, processes=1)
    assert digests(tmp_path / "sample") == before
    assert [p.name for p in tmp_path.iterdir()] == ["sample"]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    summary = make_sample(
        tmp_path / "sample", 150, 0, TINY, processes=1, progress=lambda *at: told.append(at)
    )
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert len(set(totals)) == 1
    assert done[-1] == totals[0]
    copies = summary.dirt["exact copy"] + summary.dirt["near copy"]
    assert totals[0] == 150 + summary.faulty - summary.dirt["no such file"] - copies + summary.tiles


def test_settings_shape_the_sample(tmp_path: Path) -> None:
    clean = SampleSettings(
        size=40, tile_size=64, dirt=NO_DIRT, burst_share=0.0, exact_copy_share=0.0, near_copy_share=0.0,
        overhead_share=1.0, no_cue_share=0.0,
    )  # fmt: skip
    summary = make_sample(tmp_path / "sample", 12, 0, clean, processes=1)
    assert (summary.photos, summary.faulty, summary.tiles, summary.bursts) == (12, 0, 12, 0)
    sizes = {
        part: {Image.open(p).size for p in (tmp_path / "sample" / part).rglob("*.jpg")}
        for part in ("photos", "overhead")
    }
    assert sizes == {"photos": {(40, 40)}, "overhead": {(64, 64)}}
    assert len(list((tmp_path / "sample" / "photos").rglob("*.*"))) == 12


def test_no_tiles_at_all(tmp_path: Path) -> None:
    make_sample(tmp_path / "sample", 5, 0, SampleSettings(size=32, overhead_share=0.0, cities=5), processes=1)
    assert (tmp_path / "sample" / "pairs.csv").read_text() == ",".join(PAIR_COLUMNS) + "\n"


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="photos must be at least 2, got 1"):
        make_sample(tmp_path / "sample", 1, 0)
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        make_sample(tmp_path / "sample", 10, 0, processes=0)
    with pytest.raises(SettingsError, match=r"sample\.dirt\.grey must be at most 0\.05, got 0\.5"):
        parse(SampleSettings, {"dirt": {"grey": 0.5}}, "sample")
    with pytest.raises(SettingsError, match=r"must sum to at most 0\.5, got 0\.6"):
        parse(SampleSettings, {"burst_share": 0.5, "exact_copy_share": 0.1, "near_copy_share": 0.0}, "sample")
    assert list(tmp_path.iterdir()) == []
