"""Ingest of collections as cameras, phones, spreadsheets and downloaders really leave them, by the command line."""

import contextlib
import json
import unicodedata
import warnings

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoloc.photos.catalog import read_catalog
from geoloc.photos.photographers import photographer_id
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.sources import open_source
from geoloc.photos.sources.candidates import SourceError
from orchestration.cli import main
from orchestration.workspace import PHOTOGRAPHER_KEY_VARIABLE
from tests.limits import under_limits
from tests.photo_fixtures import KEY, encoded, jpeg, picture, take_in, write_tar
from tests.raw_exif import angle, dms, photo, taken, xmp
from tests.unit.pretended import bare_workspace

HERE = dms("N", angle(48, 8), "E", angle(11, 34))


@pytest.fixture
def ingest(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PHOTOGRAPHER_KEY_VARIABLE, KEY.decode())
    workspace = bare_workspace(tmp_path / "workspace", {})

    def run(*arguments: object) -> str:
        command = ["--workspace", workspace.root, "ingest", *arguments, "--no-dvc"]
        assert main([str(argument) for argument in command]) == 0
        return capsys.readouterr().out

    run.pool = workspace.pool
    return run


def reasons(pool) -> dict[str, list[str]]:
    frame = read_quarantine(pool)
    return {reason: sorted(rows["reference"]) for reason, rows in frame.groupby("reason")}


def test_a_folder_from_a_phone_and_from_takeout(ingest, tmp_path):
    album = tmp_path / "50 % é? done"
    album.mkdir()
    (album / "IMG_1.HEIC").write_bytes(
        encoded(picture(1, 64, 64), "HEIF", exif=b"Exif\0\0" + exif_of_a_phone())
    )
    (album / "IMG_2.jpg").write_bytes(photo(2, exif=taken("2019:04:09 16:19:13")))
    place = {"latitude": -33.85, "longitude": 151.2}
    (album / "IMG_2.jpg.supplemental-metad.json").write_text(
        json.dumps({"geoData": place, "photoTakenTime": {"timestamp": "1554826753"}})
    )
    (album / "IMG_3.jpg").write_bytes(photo(3, xmp=xmp('exif:GPSLatitude="1,30S" exif:GPSLongitude="2,0W"')))
    (album / "IMG_4.dng").write_bytes(b"II*\0" + bytes(40))
    (album / "IMG_5.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (album / "IMG_6.jpg").write_bytes(photo(6))
    (album / "IMG_6.xmp").write_text("<!DOCTYPE a><a/>")
    ingest("folder", album, "--photographer", "me")
    catalog = read_catalog(ingest.pool)
    assert catalog["place_source"].tolist() == ["exif", "takeout", "xmp"]
    assert catalog["time_source"].tolist()[:2] == ["exif", "exif"]
    assert catalog["latitude"].tolist() == pytest.approx([48 + 8 / 60, -33.85, -1.5])
    assert catalog["heading_reference"].tolist()[0] == "magnetic"
    found = read_quarantine(ingest.pool).set_index("reference")
    assert found.loc["IMG_5.jxl", "reason"] == "unsupported_format"
    assert "JPEG XL is not supported" in found.loc["IMG_5.jxl", "detail"]
    assert "IMG_6.xmp" in str(found.loc["IMG_6.jpg", "detail"])


def exif_of_a_phone() -> bytes:
    from tests.raw_exif import ASCII, RATIONAL, tiff

    heading = {16: (ASCII, "M"), 17: (RATIONAL, [(27, 1)])}
    return tiff(gps=HERE | heading, exif=taken("2023:01:02 03:04:05"))


def test_photographers_of_spreadsheets(ingest, tmp_path):
    zoe = "Zoë"
    rows = ["12345", "12345.0", unicodedata.normalize("NFC", zoe), unicodedata.normalize("NFD", f" {zoe} ")]
    text = "photo_id,latitude,longitude,photographer\n" + "".join(
        f"{i}.0,{10 + i},20,{who}\n" for i, who in enumerate(rows)
    )
    (tmp_path / "t.csv").write_bytes(text.encode() + "8,1,2,Müller\n9,1,2,Möller\n".encode("latin-1"))
    ingest("table", tmp_path / "t.csv")
    catalog = read_catalog(ingest.pool)
    assert catalog["photo_id"].tolist() == ["0", "1", "2", "3"]
    assert catalog["photographer"].tolist() == [
        photographer_id(who, KEY) for who in ("12345", "12345", zoe, zoe)
    ]
    assert reasons(ingest.pool) == {"undecodable_text": ["t.csv: row 5", "t.csv: row 6"]}
    assert "ller" not in read_quarantine(ingest.pool).to_csv()


def test_files_that_a_table_names_in_another_form(ingest, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / (unicodedata.normalize("NFD", "Zoë") + ".jpg")).write_bytes(jpeg(1))
    (tmp_path / "p" / "b c?.jpg").write_bytes(jpeg(2))
    name = unicodedata.normalize("NFC", "Zoë")
    (tmp_path / "t.csv").write_text(f"file,latitude,longitude\np/{name}.jpg,1,2\np\\b c?.jpg,3,4\n")
    ingest("table", tmp_path / "t.csv")
    assert read_catalog(ingest.pool)["shard"].notna().tolist() == [True, True]


def test_a_quote_that_does_not_end_spoils_its_row_only(ingest, tmp_path):
    rows = [
        "1,10,20,a",
        '2,11,21,"open',
        "3,12,22,b",
        '4,13,23,"two\nlines"',
        '5,14,24,"open again',
        "6,15,25,c",
    ]
    (tmp_path / "t.csv").write_text("photo_id,latitude,longitude,album\n" + "\n".join(rows))
    ingest("table", tmp_path / "t.csv")
    assert read_catalog(ingest.pool)["photo_id"].tolist() == ["1", "3", "4", "6"]
    assert reasons(ingest.pool) == {"malformed_record": ["t.csv: row 2", "t.csv: row 5"]}


def test_every_image_of_a_tar_is_accounted_for(ingest, tmp_path):
    def facts(i: int) -> dict[str, object]:
        return {"latitude": 10 + i, "longitude": 20}

    write_tar(tmp_path / "set-00.tar", [
        ("._1.jpg", b"\0\5\x16\7"), ("1.jpg", jpeg(1)), ("._1.json", b"\0\5\x16\7"), ("1.json", facts(1)),
        ("2019.07.01.jpg", jpeg(2)), ("2019.07.02.jpg", jpeg(3)),  # the JSON of each comes later
        ("2019.07.02.json", facts(3)), ("2019.07.01.json", facts(2)),
        ("two.png", encoded(picture(4), "PNG")), ("two.jpg", jpeg(5)), ("two.json", facts(4)),
        ("odd.img", jpeg(6)), ("odd.json", facts(5)), ("bare", jpeg(7)), ("bare.json", facts(6)),
        ("whole.jpg.json", facts(7)), ("whole.jpg", jpeg(8)),
        ("none.txt", b"text"), ("none.json", facts(8)),
    ])  # fmt: skip
    write_tar(tmp_path / "set-01.tar", [("9.jpg", jpeg(9)), ("9.json", facts(9))])
    ingest("webdataset", tmp_path / "set-{00..01}.tar", "--source", "web")
    assert sorted(read_catalog(ingest.pool)["photo_id"]) == [
        f"web/{key}" for key in ["1", "2019.07.01", "2019.07.02", "9", "bare", "odd", "two", "whole.jpg"]
    ]
    found = read_quarantine(ingest.pool).set_index("reference")["detail"].to_dict()
    assert found == {
        "set-00.tar: two.jpg": "a second image of the key two; two.png is the first",
        "set-00.tar: none": "no image among none.json, none.txt",
    }


def test_braces_name_every_tar(tmp_path):
    write_tar(tmp_path / "00.tar", [("1.jpg", jpeg(1))])
    with pytest.raises(SourceError, match=r"01\.tar: there is no tar \(of the pattern"):
        open_source("webdataset", tmp_path / "{00..01}.tar")
    folder = tmp_path / "[a]"
    folder.mkdir()
    write_tar(folder / "x.tar", [("1.jpg", jpeg(1))])
    assert list(open_source("webdataset", folder / "*.tar"))


@pytest.mark.parametrize("bin_type", [True, False])
@pytest.mark.parametrize("option", [True, False])
def test_mp16_as_its_downloader_leaves_it(ingest, tmp_path, bin_type, option):
    ids = [f"{i:02x}/{i}.jpg" for i in range(4)]
    with (tmp_path / "shard_0.msg").open("wb") as stream:
        for i, name in enumerate(ids):
            stream.write(msgpack.packb({"image": jpeg(i), "id": name}, use_bin_type=bin_type))
        stream.write(msgpack.packb(None))
        stream.write(msgpack.packb({"image": jpeg(9), "id": "not in the table"}, use_bin_type=bin_type))
    (tmp_path / "elsewhere").mkdir()
    table = (tmp_path / "elsewhere" if option else tmp_path) / "mp16_places365.csv"
    lines = [f"{name},{i}@N00,{10 + i},{20 + i}" for i, name in enumerate(ids)]
    table.write_text("IMG_ID,AUTHOR,LAT,LON\n" + "\n".join(lines))
    ingest("mp16", tmp_path / "*.msg", *(["--table", table] if option else []))
    catalog = read_catalog(ingest.pool)
    assert catalog["photo_id"].tolist() == ids
    assert catalog["latitude"].tolist() == [10, 11, 12, 13]
    assert catalog["place_source"].tolist() == ["table"] * 4
    assert catalog["photographer"].tolist() == [photographer_id(f"{i}@N00", KEY) for i in range(4)]
    assert reasons(ingest.pool) == {
        "missing_coordinates": ["shard_0.msg: record 6"],
        "missing_file": ["shard_0.msg: record 5"],
    }


def test_warnings_are_counted_with_a_name(ingest, tmp_path, recwarn):
    data = photo(1, gps=HERE)
    at = data.index(b"Exif\0\0") + 6
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "odd.jpg").write_bytes(data)
    damaged = data[:at] + data[at : at + 4] + b"\xff\xff\0\0" + data[at + 8 :]
    (tmp_path / "a" / "bad.jpg").write_bytes(damaged)
    warnings.simplefilter("always")
    out = ingest("folder", tmp_path / "a", "--photographer", "me")
    assert "warning of a decoder: " in out
    assert "(as of bad.jpg)" in out
    assert not [warning for warning in recwarn if "EXIF" in str(warning.message)]


# Whatever the bytes are, they end as photos or as rows of quarantine.

FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(tmp_path, kind: str, name: str, data: bytes, **options: object) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with contextlib.suppress(SourceError), warnings.catch_warnings():
        warnings.simplefilter("error")  # also what a library swallows and prints
        for batch in open_source(kind, path, **options):
            assert batch.faults.num_rows + batch.table.num_rows < 10_000


def damaged(draw, original: bytes) -> bytes:
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 8))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(len(data) // 3, len(data)))])


@under_limits()
@FUZZ
@given(data=st.data())
def test_damaged_tars(tmp_path, data):
    path = tmp_path / "whole.tar"
    write_tar(
        path, [("1.jpg", jpeg(1)), ("1.json", {"latitude": 1, "longitude": "\ud800"}), ("x" * 120, b"1")]
    )
    headers = bytearray(path.read_bytes())
    survives(tmp_path, "webdataset", "a.tar", damaged(data.draw, bytes(headers)))
    for at in data.draw(
        st.lists(st.integers(100, 511), max_size=6)
    ):  # headers are what leads a reader astray
        headers[at] = data.draw(st.integers(0, 255))
    survives(tmp_path, "webdataset", "b.tar", bytes(headers))


@under_limits()
@FUZZ
@given(data=st.data())
def test_damaged_msgpack(tmp_path, data):
    value = st.recursive(st.none() | st.binary(max_size=9) | st.floats() | st.integers(-9, 9) | st.text(max_size=9),
                         lambda inner: st.lists(inner, max_size=3), max_leaves=4)  # fmt: skip
    records = [
        data.draw(st.dictionaries(st.sampled_from(["id", "image", "latitude", "longitude", "x"]), value))
    ]
    packed = b"".join(msgpack.packb(record) for record in [{"id": "1", "image": b"x"}, *records])
    survives(tmp_path, "mp16", "a.msg", packed)
    survives(tmp_path, "mp16", "a.msg", damaged(data.draw, packed))


@under_limits()
@FUZZ
@given(data=st.binary(max_size=200), kind=st.sampled_from(["csv", "tsv", "csv.gz", "parquet"]))
def test_tables_of_any_bytes(tmp_path, data, kind):
    start = b"photo_id,latitude,longitude,photographer\n1,2,3,a\n"
    survives(tmp_path, "table", f"a.{kind}", data)
    survives(tmp_path, "table", f"a.{kind}", start + data)


@under_limits()
@FUZZ
@given(data=st.binary(max_size=200))
def test_yfcc_of_any_bytes(tmp_path, data):
    row = b"\t".join([b"1", b"a%FF"] + [b"2"] * 21)
    survives(tmp_path, "yfcc", "a.tsv", row + b"\n" + data)
    survives(tmp_path, "yfcc", "a.tsv", data)


def test_a_bad_row_that_is_no_utf8_is_a_row_of_quarantine(ingest, tmp_path):
    text = "photo_id,latitude,longitude,album\n1,2,3,Köln\n2,3,Köln\n3,4,5,a\n"
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    ingest("table", tmp_path / "t.csv")
    assert read_catalog(ingest.pool)["photo_id"].tolist() == ["1", "3"]
    assert reasons(ingest.pool) == {
        "malformed_record": ["t.csv: row 2"],
        "undecodable_text": ["t.csv: row 1"],
    }


def test_numbers_of_json_that_are_hostile(tmp_path):
    members = [("1.jpg", jpeg(1)), ("1.json", b'{"latitude": 1' + b"0" * 5000 + b', "longitude": [[1]]}')]
    members += [
        ("2.jpg", jpeg(2)),
        ("2.json", b'{"latitude": 1e999, "longitude": true, "photo_id": {"a": 1}}'),
    ]
    write_tar(tmp_path / "a.tar", members)
    assert take_in(tmp_path / "pool", "webdataset", tmp_path / "a.tar").added == 0
