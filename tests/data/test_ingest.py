"""Ingest: appending, resuming after a kill, skipping what is there, and turning bad input away with its reason."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geoloc.photos.catalog import read_catalog
from geoloc.photos.ingest import ingest
from geoloc.photos.photographers import photographer_id
from geoloc.photos.pool import PoolBusyError, locked
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.settings import IngestSettings
from geoloc.photos.shards import ShardReader
from geoloc.photos.sources import open_source
from geoloc.settings import SettingsError, parse
from tests.photo_fixtures import KEY, contents, encoded, jpeg, photo_table, picture, take_in


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return tmp_path / "data"


def add_rows(table: Path, *lines: str) -> None:
    table.write_text(table.read_text() + "".join(f"{line}\n" for line in lines))


def test_every_photo_is_where_the_catalog_says_and_is_what_it_says(pool, tmp_path):
    summary = take_in(pool, "table", photo_table(tmp_path, 7), settings={"shard_bytes": 5000})
    assert (summary.added, summary.already_present, summary.quarantined) == (7, 0, {})
    catalog = read_catalog(pool)
    assert catalog["photo_id"].tolist() == [f"id{i}" for i in range(7)]
    assert catalog["shard"].nunique() > 1
    with ShardReader(pool) as reader:
        for i, row in enumerate(catalog.itertuples()):
            data = reader.read(row.shard, row.offset, row.length)
            assert hashlib.sha256(data).hexdigest() == row.sha256
            image = Image.open(pool.parent / "images" / f"{i}.jpg")
            import io

            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))
            assert (row.width, row.height) == image.size
    np.testing.assert_allclose(catalog["latitude"], 10 + np.arange(7) * 0.25)
    assert catalog["photographer"].tolist() == [photographer_id(f"person{i % 3}", KEY) for i in range(7)]
    assert set(catalog["source"]) == {"test"}


def test_second_ingest_changes_nothing(pool, tmp_path):
    table = photo_table(tmp_path, 5)
    add_rows(table, "bad,images/none.jpg,1,2,x", "id1,images/1.jpg,10.25,19.5,person1")
    first = take_in(pool, "table", table)
    assert first.quarantined == {"duplicate_id": 1, "missing_file": 1}
    before = contents(pool)
    second = take_in(pool, "table", table)
    assert (second.added, second.already_present) == (0, 5)
    assert second.quarantined == first.quarantined
    assert contents(pool) == before
    assert second.seen == first.seen == 7


def test_growth_appends_and_rewrites_no_shard(pool, tmp_path):
    take_in(pool, "table", photo_table(tmp_path / "a", 4))
    before, rows = contents(pool), read_catalog(pool)
    summary = take_in(pool, "table", photo_table(tmp_path / "b", 6))
    assert (summary.added, summary.already_present) == (2, 4)
    after = contents(pool)
    for name, data in before.items():
        assert name.endswith(".parquet") or after[name] == data
    pd.testing.assert_frame_equal(read_catalog(pool).iloc[:4], rows)
    assert sorted(name for name in after if "shards" in name) == [
        "shards/photos-000000.tar",
        "shards/photos-000001.tar",
    ]


def test_same_bytes_whatever_the_threads(tmp_path):
    table = photo_table(tmp_path, 30)
    pools = [tmp_path / f"pool{workers}" for workers in (1, 2, 5)]
    for workers, pool in zip((1, 2, 5), pools, strict=True):
        take_in(pool, "table", table, settings={"workers": workers, "shard_bytes": 20_000})
    assert contents(pools[0]) == contents(pools[1]) == contents(pools[2])


def test_same_content_under_another_id_is_already_present_unless_its_label_differs(pool, tmp_path):
    table = photo_table(tmp_path, 3)
    add_rows(table, "other,images/2.jpg,10.5,19.0,person2", "elsewhere,images/2.jpg,5,5,person9")
    summary = take_in(pool, "table", table)
    assert (summary.added, summary.already_present) == (3, 1)
    assert summary.notes == {"same bytes as a photo with another id": 1}
    assert summary.quarantined == {"conflicting_label": 1}
    again = take_in(pool, "table", table, source="elsewhere")
    assert (again.added, again.already_present) == (3, 1)
    assert read_catalog(pool)["photo_id"].tolist()[3:] == ["elsewhere/id0", "elsewhere/id1", "elsewhere/id2"]


def test_another_photo_with_a_known_id_is_turned_away_not_skipped(pool, tmp_path):
    take_in(pool, "table", photo_table(tmp_path / "a", 3))
    table = photo_table(tmp_path / "b", 3)
    table.write_text(table.read_text().replace("id1,images/1.jpg,10.25", "id1,images/1.jpg,44"))
    summary = take_in(pool, "table", table)
    assert summary.quarantined == {"duplicate_id": 1}
    assert read_quarantine(pool)["detail"].str.contains("other coordinates").all()


POISON = {
    "unreadable_image": b"no image at all",
    "truncated_image": jpeg(1)[:-100],
    "oversized_image": jpeg(2, 600, 40),
    "too_large_file": jpeg(3) + b"x" * 200_000,
    "decompression_bomb": encoded(Image.new("1", (3000, 3000)), "PNG"),
}
COORDINATES = {
    "missing_coordinates": ",2",
    "malformed_coordinates": "north,2",
    "non_finite_coordinates": "nan,2",
    "out_of_range_coordinates": "91,2",
    "zero_coordinates": "0,0",
}


def test_a_poisoned_table_ends_in_quarantine(pool, tmp_path):
    table = photo_table(tmp_path, 2)
    lines = []
    for name, data in POISON.items():
        (tmp_path / "images" / f"{name}.jpg").write_bytes(data)
        lines.append(f"{name},images/{name}.jpg,1,2,p")
    lines += [f"{name},images/0.jpg,{place},p" for name, place in COORDINATES.items()]
    lines += [
        "unsafe_path,../images/0.jpg,1,2,p",
        "unsafe_path,/etc/hostname,1,2,p",
        "unsafe_path,C:\\x.jpg,1,2,p",
    ]
    lines += ["missing_file,images/none.jpg,1,2,p", "short,1", "unreadable_file,images,1,2,p"]
    add_rows(table, *lines)
    limits = {"max_pixels": 1_000_000, "max_side": 500, "max_file_bytes": 150_000}
    summary = take_in(pool, "table", table, settings=limits)
    assert summary.added == 2
    found = read_quarantine(pool)
    named = found[found["reason"] != "malformed_record"]
    assert named["photo_id"].tolist() == named["reason"].tolist()  # each for its own reason
    assert set(named["reason"]) == {*POISON, *COORDINATES, "unsafe_path", "missing_file", "unreadable_file"}
    assert found.loc[found["reason"] == "malformed_record", "reference"].tolist() == ["photos.csv: row 17"]
    assert set(found["severity"]) == {"photo"}
    assert summary.quarantined == found["reason"].value_counts().to_dict()
    assert summary.seen == 2 + len(lines)


def test_quarantine_ends_when_the_input_is_mended(pool, tmp_path):
    table = photo_table(tmp_path, 3)
    good = (tmp_path / "images" / "1.jpg").read_bytes()
    (tmp_path / "images" / "1.jpg").write_bytes(good[:-50])
    assert take_in(pool, "table", table).quarantined == {"truncated_image": 1}
    (tmp_path / "images" / "1.jpg").write_bytes(good)
    summary = take_in(pool, "table", table)
    assert (summary.added, summary.already_present, summary.quarantined) == (1, 2, {})
    assert len(read_quarantine(pool)) == 0


def test_resize_and_other_formats(pool, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(picture(1, 200, 100, "RGBA"), "PNG"))
    (tmp_path / "t.tsv").write_text("photo_id\tfile\tlatitude\tlongitude\nNA\timages/a.png\t-22.57\t17.08\n")
    take_in(pool, "table", tmp_path / "t.tsv", settings={"resize_short_side": 64})
    [row] = read_catalog(pool).to_dict("records")
    assert (row["photo_id"], row["width"], row["height"]) == ("NA", 128, 64)


def test_progress_counts_up_to_the_summary(pool, tmp_path):
    seen: list[int] = []
    table = photo_table(tmp_path, 120, width=16)
    candidates = open_source("table", table)
    summary = ingest(
        pool, candidates, source="s", photographer_key=KEY, progress=lambda state: seen.append(state.seen)
    )
    assert seen == sorted(seen)
    assert seen[0] < 120
    assert seen[-1] == summary.seen == 120
    assert "120 added" in str(summary)


def test_one_ingest_at_a_time(pool, tmp_path):
    table = photo_table(tmp_path, 1)
    with locked(pool), pytest.raises(PoolBusyError, match="another ingest is adding to"):
        take_in(pool, "table", table)
    assert contents(pool) == {}
    assert take_in(pool, "table", table).added == 1
    assert not any(name.endswith("lock") for name in contents(pool))


def test_leftovers_of_a_killed_ingest_are_removed(pool, tmp_path):
    table = photo_table(tmp_path, 4)
    take_in(pool, "table", table)
    before = contents(pool)
    (pool / "shards" / "photos-000001.tar").write_bytes(b"a shard that no catalog names")
    (pool / "shards" / ".photos-000002.tar.part").write_bytes(b"x")
    (pool / ".catalog.parquet.1.part").write_bytes(b"x")
    (pool / "shards" / "mine.txt").write_bytes(b"not ours")
    take_in(pool, "table", table)
    assert contents(pool) == {**before, "shards/mine.txt": b"not ours"}


def test_an_error_of_the_source_keeps_what_is_committed(pool, tmp_path):
    table = photo_table(tmp_path, 6)

    def failing():
        yield from open_source("table", table)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        ingest(
            pool, failing(), source="test", photographer_key=KEY, settings=IngestSettings(shard_bytes=4000)
        )
    committed = read_catalog(pool)
    assert 0 < len(committed) <= 6
    assert not list((pool / "shards").glob(".*"))
    summary = take_in(pool, "table", table, settings={"shard_bytes": 4000})
    assert summary.added + len(committed) == 6


RUN = """
import sys, time
from pathlib import Path
from geoloc.photos import ingest as module
from tests.photo_fixtures import take_in
slow = float(sys.argv[3])
original = module.check_and_normalise
def slowed(*given):
    time.sleep(slow)
    return original(*given)
module.check_and_normalise = slowed
take_in(Path(sys.argv[1]), "table", Path(sys.argv[2]), settings={"shard_bytes": 20_000})
"""


@pytest.mark.parametrize("wanted_shards", [1, 3])
def test_kill_and_resume_end_with_the_bytes_of_an_uninterrupted_run(tmp_path, wanted_shards):
    table = photo_table(tmp_path, 80)
    (tmp_path / "images" / "3.jpg").write_bytes(b"broken")
    (tmp_path / "images" / "77.jpg").write_bytes(b"broken")
    add_rows(table, "id9,images/9.jpg,12.25,15.5,person0", "copy,images/5.jpg,1,1,x", "meta,,4,4,x")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    take_in(whole, "table", table, settings={"shard_bytes": 20_000})
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(killed), str(table), "0.02"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    deadline = time.monotonic() + 60
    while len(list((killed / "shards").glob("photos-*.tar"))) < wanted_shards and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    if (killed / "catalog.parquet").exists():  # what was committed is whole
        for row in read_catalog(killed).itertuples():
            assert (killed / "shards" / row.shard).stat().st_size >= row.offset + row.length
    summary = take_in(killed, "table", table, settings={"shard_bytes": 20_000})
    assert summary.added < 80
    assert contents(killed) == contents(whole)


def test_the_pool_tells_no_photographer(pool, tmp_path):
    take_in(pool, "table", photo_table(tmp_path, 6))
    assert read_catalog(pool)["photographer"].nunique() == 3
    everything = b"".join(contents(pool).values())
    assert b"person" not in everything
    assert b"person" not in read_catalog(pool).to_csv().encode()


def test_settings_name_what_is_wrong(pool):
    with pytest.raises(SettingsError, match=r"ingest.max_side must be at least 1, got 0"):
        parse(IngestSettings, {"max_side": 0}, "ingest")
    with pytest.raises(ValueError, match="source must be a name"):
        ingest(pool, [], source=" ", photographer_key=KEY)
    with pytest.raises(ValueError, match="photographer_key must be at least"):
        ingest(pool, [], source="s", photographer_key=b"")
    assert not pool.exists()


def test_an_empty_source_still_makes_a_pool(pool):
    assert ingest(pool, [], source="s", photographer_key=KEY).seen == 0
    assert len(read_catalog(pool)) == len(read_quarantine(pool)) == 0
