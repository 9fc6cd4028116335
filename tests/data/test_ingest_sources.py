"""Sources: each kind of collection, with its dirt, through ingest into a pool."""

import bz2
import gzip
import io
import tarfile
from pathlib import Path

import msgpack
import pandas as pd
import pytest
from PIL import Image

from geoloc.photos.catalog import read_catalog
from geoloc.photos.photographers import photographer_id
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.shards import ShardReader
from geoloc.photos.sources import SourceError, delimited, open_source
from tests.photo_fixtures import KEY, contents, encoded, exif, jpeg, picture, take_in, write_tar


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return tmp_path / "data"


def reasons(pool: Path) -> dict[str, list[str]]:
    table = read_quarantine(pool)
    return {reason: sorted(rows["reference"]) for reason, rows in table.groupby("reason")}


# A folder of photos


@pytest.fixture
def album(tmp_path: Path) -> Path:
    root = tmp_path / "Pictures"
    (root / "anna" / "rome").mkdir(parents=True)
    (root / "ben").mkdir()
    rome = exif(41.9, 12.5, taken="2019:05:04 03:02:01", heading=123.45)
    (root / "anna" / "rome" / "1.jpg").write_bytes(jpeg(1, exif=rome))
    (root / "anna" / "2.JPG").write_bytes(jpeg(2, exif=exif(-41.3, -174.8, orientation=6)))
    (root / "ben" / "3.png").write_bytes(encoded(picture(3), "PNG", exif=exif(1.5, 2.5)))
    (root / "top.jpeg").write_bytes(jpeg(4, exif=exif(10, 20, taken="0000:00:00 00:00:00")))
    return root


def test_folder(pool, album):
    summary = take_in(pool, "folder", album, source="mine")
    assert (summary.added, summary.quarantined, summary.fields_dropped) == (4, {}, {})
    catalog = read_catalog(pool).set_index(read_catalog(pool)["latitude"].round(4))
    anna, ben = photographer_id("anna", KEY), photographer_id("ben", KEY)
    rome = catalog.loc[41.9]
    assert rome["photo_id"] == f"mine/{anna}/rome/1.jpg"
    assert rome["album"] == f"{anna}/rome"
    assert rome["photographer"] == anna
    assert rome["taken_at"] == pd.Timestamp("2019-05-04 03:02:01")
    assert rome["heading"] == pytest.approx(123.45)
    south = catalog.loc[-41.3]
    assert (south["longitude"], south["album"]) == (pytest.approx(-174.8), anna)
    assert (south["width"], south["height"]) == (32, 48)
    assert catalog.loc[1.5, "photographer"] == ben
    top = catalog.loc[10.0]
    assert pd.isna(top["photographer"])
    assert pd.isna(top["album"])
    assert pd.isna(top["taken_at"])
    assert b"anna" not in b"".join(contents(pool).values())
    assert "anna" not in read_catalog(pool).to_csv()
    with ShardReader(pool) as reader:
        stored = b"".join(reader.read(r.shard, r.offset, r.length) for r in read_catalog(pool).itertuples())
    assert b"SECRETMAKER" not in stored
    assert take_in(pool, "folder", album, source="mine").already_present == 4


def test_folder_of_one_photographer(pool, album):
    take_in(pool, "folder", album, photographer="Cleo", source="mine")
    catalog = read_catalog(pool)
    assert set(catalog["photographer"]) == {photographer_id("Cleo", KEY)}
    assert catalog["album"].dropna().tolist() == ["anna", "anna/rome", "ben"]  # a place here, not a person


def test_folder_with_dirt(pool, album):
    (album / "ben" / "no-gps.jpg").write_bytes(jpeg(5))
    (album / "ben" / "null-island.jpg").write_bytes(jpeg(6, exif=exif(0, 0)))
    (album / "ben" / "far.jpg").write_bytes(jpeg(7, exif=exif(95, 0.5)))
    (album / "ben" / "text.jpg").write_text("hello")
    (album / "ben" / "cut.jpg").write_bytes(jpeg(8, exif=exif(1, 2))[:-40])
    (album / "ben" / "new.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (album / "ben" / "when.jpg").write_bytes(jpeg(9, exif=exif(3, 4, taken="30:13.0")))
    (album / "ben" / "notes.txt").write_text("hello")
    (album / ".hidden.jpg").write_text("hello")
    (album / "ben" / "gone.jpg").symlink_to(album / "nowhere.jpg")
    summary = take_in(pool, "folder", album, source="mine")
    ben = photographer_id("ben", KEY)
    assert reasons(pool) == {
        "missing_coordinates": [f"{ben}/no-gps.jpg"],
        "zero_coordinates": [f"{ben}/null-island.jpg"],
        "out_of_range_coordinates": [f"{ben}/far.jpg"],
        "unreadable_image": [f"{ben}/new.heic", f"{ben}/text.jpg"],
        "truncated_image": [f"{ben}/cut.jpg"],
        "bad_time": [f"{ben}/when.jpg"],
        "missing_file": [f"{ben}/gone.jpg"],
    }
    assert summary.added == 5
    assert summary.fields_dropped == {"bad_time": 1}
    assert summary.notes == {"files that are no photos by their suffix": 1, "hidden files passed by": 1}
    assert summary.encoded_again == {"a JPEG that had to be turned upright": 1, "a PNG, no JPEG": 1}


# A table


def test_table_columns_by_option(pool, tmp_path):
    (tmp_path / "pix").mkdir()
    (tmp_path / "pix" / "a.jpg").write_bytes(jpeg(1))
    path = tmp_path / "t.csv"
    path.write_text(
        '﻿key,path,lat,lon,who,when,indoor,"a, b"\n'
        'NA,a.jpg,1.5,2.5,"O\'Hara, ""Bo""",2020-01-02T03:04:05,0.25,"x\ny"\n007,,3,4,,,,\n'
    )
    columns = {"photo_id": "key", "file": "path", "latitude": "lat", "longitude": "lon", "photographer": "who",
               "taken_at": "when", "prob_indoor": "indoor"}  # fmt: skip
    take_in(pool, "table", path, photos=tmp_path / "pix", columns=columns)
    first, second = read_catalog(pool).to_dict("records")
    assert (first["photo_id"], first["photographer"]) == ("NA", photographer_id('O\'Hara, "Bo"', KEY))
    assert (first["prob_indoor"], first["taken_at"]) == (0.25, pd.Timestamp("2020-01-02 03:04:05"))
    assert (second["photo_id"], second["latitude"], second["longitude"]) == ("007", 3.0, 4.0)
    assert pd.isna(second["shard"])
    assert pd.isna(second["prob_indoor"])
    assert pd.isna(second["photographer"])


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.tsv.bz2"])
def test_table_formats_agree(pool, tmp_path, name):
    frame = pd.DataFrame({"photo_id": ["1", "2"], "latitude": [1.5, -2.25], "longitude": [3.0, 4.0],
                          "posted_at": pd.to_datetime(["2014-01-01", None])})  # fmt: skip
    text = frame.to_csv(index=False, sep="\t" if "tsv" in name else ",").encode()
    if name == "t.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        data = {".csv": text, ".gz": gzip.compress(text), ".bz2": bz2.compress(text)}[Path(name).suffix]
        (tmp_path / name).write_bytes(data)
    assert take_in(pool, "table", tmp_path / name).added == 2
    catalog = read_catalog(pool)
    pd.testing.assert_frame_equal(
        catalog[["photo_id", "latitude", "longitude"]], frame.iloc[:, :3], check_dtype=False
    )
    assert catalog["posted_at"].tolist()[0] == pd.Timestamp("2014-01-01")
    assert catalog["shard"].isna().all()


def test_table_without_file_column_joins_by_id(pool, tmp_path):
    (tmp_path / "pix" / "deep").mkdir(parents=True)
    (tmp_path / "pix" / "deep" / "5.jpg").write_bytes(jpeg(1))
    (tmp_path / "t.csv").write_text("photo_id,latitude,longitude\n5,1,2\n6,1,2\n")
    summary = take_in(pool, "table", tmp_path / "t.csv", photos=tmp_path / "pix")
    assert (summary.added, summary.quarantined) == (1, {"missing_file": 1})
    (tmp_path / "u.csv").write_text("file,latitude,longitude\ndeep/5.jpg,1,2\n")
    other = tmp_path / "other"
    take_in(other, "table", tmp_path / "u.csv", photos=tmp_path / "pix", source="u")
    assert read_catalog(other)["photo_id"].tolist() == ["u/deep/5.jpg"]
    assert take_in(tmp_path / "third", "table", tmp_path / "u.csv", photos="none", source="u").added == 1


def test_image_added_later_to_a_metadata_photo_is_noted(pool, tmp_path):
    (tmp_path / "1.jpg").write_bytes(jpeg(1))
    (tmp_path / "t.csv").write_text("photo_id,file,latitude,longitude\n1,1.jpg,1,2\n")
    take_in(pool, "table", tmp_path / "t.csv", photos="none")
    summary = take_in(pool, "table", tmp_path / "t.csv")
    assert (summary.added, summary.already_present) == (0, 1)
    assert summary.notes == {"known by metadata only, and so the image was not added": 1}


def test_table_errors_say_what_there_is(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,lat,lon\n1,2,3\n")
    for options, match in [
        ({}, "has no column 'latitude'; it has id, lat, lon; say which"),
        ({"columns": {"latitude": "y"}}, r"no column 'y' \(for latitude\)"),
        ({"columns": {"lattitude": "lat"}}, "columns.lattitude is unknown"),
        ({"columns": {"latitude": "lat", "longitude": "lon"}}, "needs a column photo_id or file"),
    ]:
        with pytest.raises(SourceError, match=match):
            open_source("table", path, **options)
    with pytest.raises(SourceError, match="is not a file"):
        open_source("table", tmp_path / "none.csv")
    with pytest.raises(SourceError, match="must end in"):
        open_source("table", Path(__file__))
    with pytest.raises(SourceError, match="one of folder, table"):
        open_source("dropbox", path)


def test_row_numbers_hold_across_blocks_and_damage(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 256)
    lines = ["photo_id,latitude,longitude"]
    for i in range(1, 101):
        lines.append({30: "short", 31: "a,b,c,d", 60: "60,0,0", 90: "90,x,1"}.get(i, f"{i},{i / 2},1"))
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert take_in(pool, "table", tmp_path / "t.csv").added == 96
    assert reasons(pool) == {
        "malformed_record": ["t.csv: row 30", "t.csv: row 31"],
        "zero_coordinates": ["t.csv: row 60"],
        "malformed_coordinates": ["t.csv: row 90"],
    }


def test_a_table_that_breaks_off_keeps_what_came_before(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "_BLOCK_BYTES", 4096)
    text = "photo_id,latitude,longitude\n" + "".join(
        f"{i},{i / 1000:.3f},{(i * 7919) % 180}\n" for i in range(1, 20_000)
    )
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode())[:-2000])
    summary = take_in(pool, "table", tmp_path / "t.csv.gz")
    assert summary.added > 1000
    assert summary.quarantined == {"unreadable_file": 1}


# YFCC100M


def yfcc_line(photo: str, columns: int, **changes: str) -> str:
    cells = {
        "id": photo, "nsid": "12345%40N09", "nick": "nick", "taken": "2013-05-04 12:13:14.0",
        "posted": "1381464628", "device": "", "title": "a+%22b%22", "text": "", "tags": "", "machine": "",
        "longitude": "-79.5", "latitude": "43.25", "accuracy": "16", "page": "", "url": "",
        "licence": "Attribution+License", "licence_url": "", "server": "",
        "farm": "",
        "secret": "", "original": "", "extension": "jpg", "marker": "0", **changes,
    }  # fmt: skip
    line = list(cells.values())
    assert len(line) == 23
    return "\t".join(line if columns == 23 else ["9", line[0], "hash", *line[1:]])


@pytest.mark.parametrize("columns", [23, 25])
@pytest.mark.parametrize("suffix", [".tsv", ".bz2"])
def test_yfcc(pool, tmp_path, columns, suffix):
    lines = [
        yfcc_line("1", columns),
        yfcc_line("2", columns, taken="30:13.0"),
        yfcc_line("3", columns, taken="null", posted=""),
        yfcc_line("4", columns, longitude="", latitude=""),
        yfcc_line("5", columns, marker="1"),
        "damaged\tline",
        yfcc_line("NA", columns, longitude="17.08", latitude="-22.57", title='"'),
    ]
    text = ("\n".join(lines) + "\n").encode()
    path = tmp_path / f"set{suffix}"
    # as pbzip2 writes it: several streams in one file
    half = len(text) // 2
    path.write_bytes(bz2.compress(text[:half]) + bz2.compress(text[half:]) if suffix == ".bz2" else text)
    summary = take_in(pool, "yfcc", path)
    catalog = read_catalog(pool).set_index("photo_id")
    assert catalog.index.tolist() == ["1", "2", "3", "NA"]
    assert (catalog.loc["1", "latitude"], catalog.loc["1", "longitude"]) == (43.25, -79.5)
    assert catalog.loc["1", "taken_at"] == pd.Timestamp("2013-05-04 12:13:14")
    assert catalog.loc["1", "posted_at"] == pd.Timestamp("2013-10-11 04:10:28")
    assert catalog.loc["1", "licence"] == "Attribution License"
    assert catalog.loc["1", "photographer"] == photographer_id("12345@N09", KEY)
    assert catalog["taken_at"].isna().tolist() == [False, True, True, False]
    assert catalog["posted_at"].isna().tolist() == [False, False, True, False]
    assert summary.fields_dropped == {"bad_time": 1}
    assert summary.quarantined == {"malformed_record": 1, "missing_coordinates": 1}
    assert summary.notes == {"videos left out": 1}
    assert reasons(pool)["bad_time"] == [f"set{suffix}: row 2"]
    assert reasons(pool)["malformed_record"] == [f"set{suffix}: row 6"]


def test_yfcc_with_photos(pool, tmp_path):
    (tmp_path / "pix" / "ab").mkdir(parents=True)
    (tmp_path / "pix" / "ab" / "2.jpg").write_bytes(jpeg(1))
    (tmp_path / "set.tsv").write_text("\n".join(yfcc_line(str(i), 23, latitude=f"{i}") for i in range(1, 4)))
    summary = take_in(pool, "yfcc", tmp_path / "set.tsv", photos=tmp_path / "pix")
    assert summary.notes == {"rows without an image left out": 2}
    [row] = read_catalog(pool).to_dict("records")
    assert (row["photo_id"], row["latitude"], row["width"]) == ("2", 2.0, 48)


def test_yfcc_of_another_layout(tmp_path):
    (tmp_path / "set.tsv").write_text("a\tb\n")
    with pytest.raises(SourceError, match="must have 23 or 25 columns"):
        open_source("yfcc", tmp_path / "set.tsv")


# WebDataset


def test_webdataset(pool, tmp_path):
    def facts(latitude: float, **more: object) -> dict[str, object]:
        return {"caption": "x", "lat": latitude, "longitude": "2.5", "photographer": "anna", **more}

    link = tarfile.TarInfo("000000003.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    hard = tarfile.TarInfo("000000004.jpg")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../x"
    write_tar(tmp_path / "00000.tar", [
        ("000000000.jpg", jpeg(1)), ("000000000.json", facts(1.5)), ("000000000.txt", b"caption"),
        ("000000001.json", facts(2.5)), ("000000001.png", encoded(picture(2), "PNG")),
        ("../../evil.jpg", jpeg(3)), ("../../evil.json", facts(3)),
        ("/abs.jpg", jpeg(4)),
        (link, b""), (hard, b""),
        ("000000005.jpg", jpeg(5)),
        ("000000006.jpg", jpeg(6)), ("000000006.json", b"{broken"),
        ("000000007.json", facts(7)),
        ("000000008.jpg", jpeg(8)[:-30]), ("000000008.json", facts(8)),
    ])  # fmt: skip
    write_tar(tmp_path / "00001.tar", [("a.b.jpg", jpeg(9)), ("a.json", facts(9)), ("a.jpg", jpeg(10))])
    summary = take_in(pool, "webdataset", tmp_path / "*.tar", columns={"latitude": "lat"}, source="web")
    catalog = read_catalog(pool)
    assert catalog["photo_id"].tolist() == ["web/000000000", "web/000000001", "web/a"]
    assert catalog["latitude"].tolist() == [1.5, 2.5, 9.0]
    assert catalog["photographer"].nunique() == 1
    found = reasons(pool)
    assert found["unsafe_archive_member"] == sorted(
        f"00000.tar: {name}"
        for name in ["../../evil.jpg", "../../evil.json", "/abs.jpg", "000000003.jpg", "000000004.jpg"]
    )
    assert found["missing_coordinates"] == ["00000.tar: 000000005"]
    assert found["malformed_record"] == ["00000.tar: 000000006"]
    assert found["missing_file"] == ["00000.tar: 000000007"]
    assert found["truncated_image"] == ["00000.tar: 000000008"]
    assert summary.added == 3
    assert not (tmp_path.parent / "evil.jpg").exists()


def test_webdataset_that_breaks_off(pool, tmp_path):
    members = [(f"{i:04}.{kind}", jpeg(i) if kind == "jpg" else {"latitude": i + 1, "longitude": 1})
               for i in range(6) for kind in ("json", "jpg")]  # fmt: skip
    write_tar(tmp_path / "a.tar", members)
    data = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        last = tar.getmember("0005.jpg")
    (tmp_path / "a.tar").write_bytes(data[: last.offset_data + 100])
    (tmp_path / "b.tar").write_bytes(b"no tar" * 300)
    summary = take_in(pool, "webdataset", tmp_path / "*.tar", source="web")
    assert summary.added == 5
    assert summary.quarantined["unreadable_archive"] >= 1
    assert sum(summary.quarantined.values()) == len(read_quarantine(pool))
    assert "b.tar: its beginning" in reasons(pool)["unreadable_archive"]


# MP-16


def test_mp16(pool, tmp_path):
    def record(number: int, **changes: object) -> bytes:
        made = {
            "id": f"4b/{number}.jpg",
            "latitude": 10.0 + number,
            "longitude": 20.0,
            "image": jpeg(number),
            **changes,
        }
        return msgpack.packb(made)

    shard = b"".join([
        record(0), record(1, latitude=None), record(2, image=b"junk"), msgpack.packb([1, 2]), record(3, image=None),
        record(4, latitude="11.5"), record(5)[:-30],
    ])  # fmt: skip
    (tmp_path / "shard_0.msg").write_bytes(shard)
    (tmp_path / "shard_1.msg").write_bytes(record(6) + b"\xc1" + record(7))
    summary = take_in(pool, "mp16", tmp_path / "shard_*.msg")
    catalog = read_catalog(pool)
    assert catalog["photo_id"].tolist() == ["4b/0.jpg", "4b/4.jpg", "4b/6.jpg"]
    assert catalog["latitude"].tolist() == [10.0, 11.5, 16.0]
    assert reasons(pool) == {
        "missing_coordinates": ["shard_0.msg: record 2"],
        "unreadable_image": ["shard_0.msg: record 3"],
        "malformed_record": ["shard_0.msg: record 4"],
        "missing_file": ["shard_0.msg: record 5"],
        "unreadable_archive": ["shard_0.msg: after record 6", "shard_1.msg: after record 1"],
    }
    assert summary.added == 3
    with ShardReader(pool) as reader:
        row = catalog.iloc[0]
        assert Image.open(io.BytesIO(reader.read(row["shard"], row["offset"], row["length"]))).size == (
            48,
            32,
        )


def test_mp16_refuses_a_record_that_claims_gigabytes(pool, tmp_path):
    (tmp_path / "bomb.msg").write_bytes(b"\x81\xa5image\xc6\xff\xff\xff\xff" + b"x" * 100)
    summary = take_in(pool, "mp16", tmp_path / "bomb.msg")
    assert summary.quarantined == {"unreadable_archive": 1}


def test_no_files(tmp_path):
    for kind in ("webdataset", "mp16", "yfcc"):
        with pytest.raises(SourceError, match="there is no"):
            open_source(kind, tmp_path / "*.none")
    with pytest.raises(SourceError, match="is not a folder"):
        open_source("folder", tmp_path / "none")
