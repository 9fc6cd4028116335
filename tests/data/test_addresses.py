"""Photos on servers and in buckets: every source reads them there as it reads them here."""

from __future__ import annotations

import functools
import http.server
import io
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from geoloc.photos import addresses
from geoloc.photos.addresses import Address, Entry, SourceError, as_place, fetched, listed
from geoloc.photos.catalog import read_catalog
from geoloc.photos.origins import claim_source
from geoloc.photos.quarantine import read_quarantine
from orchestration.cli import main
from orchestration.workspace import Workspace
from tests.data.test_account import album, sources, tar_set
from tests.photo_fixtures import encoded, exif, jpeg, photo_table, picture
from tests.photo_server import photo_server
from tests.unit.pretended import bare_workspace

BUCKET = "photos-of-tests"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return bare_workspace(tmp_path / "w", {})


def collection(root: Path) -> Path:
    """What every source reads: folders, a table with its photos, tars, msgpack shards."""
    album(root / "My photos" / "anna" / "rome", 10)
    album(root / "My photos" / "ben", 20)
    album(root / "My photos" / ".hidden", 30)
    (root / "My photos" / "ben" / "side.png").write_bytes(encoded(picture(77), "PNG"))
    (root / "My photos" / "ben" / "side.png.json").write_text(
        '{"photoTakenTime": {"timestamp": "1372680000"}, "geoData": {"latitude": 5.5, "longitude": 6.5}}'
    )
    (root / "My photos" / "ben" / "notes.txt").write_text("not a photo")
    photo_table(root / "tabled", 3, 40)
    tar_set(root / "shards", 50)
    (root / "mp16").mkdir()
    records = [{"id": f"m{i}", "image": jpeg(60 + i)} for i in range(2)]
    (root / "mp16" / "0.msg").write_bytes(b"".join(msgpack.packb(record) for record in records))
    (root / "mp16" / "places.csv").write_text("IMG_ID,LAT,LON\nm0,1,2\nm1,3,4\n")
    return root


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A folder on a web server, whose listings link elsewhere too."""
    root = collection(tmp_path / "www" / "collection")
    (tmp_path / "www" / "secret.jpg").write_bytes(jpeg(1, exif=exif(1, 1)))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def list_directory(self, path):  # type: ignore[no-untyped-def]
            made = super().list_directory(path)
            page = made.read() if made else b""
            links = b'<a href="/secret.jpg">up</a> <a href="http://127.0.0.2/x.jpg">x</a> <a href="?C=N;O=D">s</a>'
            return io.BytesIO(page.replace(b"</ul>", links + b"</ul>"))

        def send_header(self, keyword: str, value: str) -> None:
            if not (keyword == "Content-Length" and self.path.endswith("/")):
                super().send_header(keyword, value)

    handler = functools.partial(Handler, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{root.name}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket on loopback."""
    server_module = pytest.importorskip("moto.server")
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    filesystem = fsspec.filesystem("s3")
    filesystem.mkdir(BUCKET)
    filesystem.put(f"{collection(tmp_path / 'up')}/", f"{BUCKET}/collection/", recursive=True)
    yield f"s3://{BUCKET}/collection"
    server.stop()


def add(workspace: Workspace, kind: str, address: str, *options: str) -> int:
    return main(["--workspace", str(workspace.root), "ingest", kind, address, "--no-dvc", *options])


def facts(workspace: Workspace) -> list[tuple[object, ...]]:
    found = read_catalog(workspace.pool)
    names = ["photo_id", "source", "latitude", "longitude", "album", "sha256", "taken_at", "place_source"]
    return sorted(map(tuple, found[names].astype(str).to_numpy().tolist()))


def everything(workspace: Workspace, root: str) -> None:
    space = "%20" if root.startswith("http") else " "
    assert add(workspace, "folder", f"{root}/My{space}photos") == 0
    assert add(workspace, "table", f"{root}/tabled/photos.csv") == 0
    assert add(workspace, "webdataset", f"{root}/shards/{{00000..00000}}.tar") == 0
    assert add(workspace, "webdataset", f"{root}/shards/*.tar") == 0
    assert add(workspace, "mp16", f"{root}/mp16/0.msg") == 0


def test_a_web_server_gives_what_a_disk_gives(web, workspace, tmp_path):
    everything(workspace, web)
    here = bare_workspace(tmp_path / "here", {})
    (here.root / ".geoloc").mkdir(exist_ok=True)
    (here.root / ".geoloc" / "photographer.key").write_bytes(
        (workspace.root / ".geoloc" / "photographer.key").read_bytes()
    )
    everything(here, str(tmp_path / "www" / "collection"))
    assert facts(workspace) == facts(here)
    assert sources(workspace) == sources(here)
    columns = ["source", "reference", "reason"]
    there = read_quarantine(workspace.pool)[columns].to_numpy().tolist()
    assert there == read_quarantine(here.pool)[columns].to_numpy().tolist()
    assert ".hidden/" in str(there)


def test_a_bucket_gives_what_a_disk_gives(bucket, workspace, tmp_path):
    everything(workspace, bucket)
    here = bare_workspace(tmp_path / "here", {})
    (here.root / ".geoloc").mkdir(exist_ok=True)
    (here.root / ".geoloc" / "photographer.key").write_bytes(
        (workspace.root / ".geoloc" / "photographer.key").read_bytes()
    )
    everything(here, str(tmp_path / "up"))
    assert facts(workspace) == facts(here)


def test_a_listing_leads_nowhere_else(web):
    names = [entry.name for entry in listed(as_place(web))]
    assert names == ["My photos", "mp16", "shards", "tabled"]
    for space in ("%20", " "):
        assert [entry.name for entry in listed(as_place(f"{web}/My{space}photos/"))] == [
            ".hidden",
            "anna",
            "ben",
        ]


def test_a_folder_that_lists_itself_ends(workspace, monkeypatch):
    endless = [Entry("again", True, None), Entry("a.jpg", False, 10**12)]
    monkeypatch.setattr("geoloc.photos.sources.remote_folder.listed", lambda folder: endless)
    assert add(workspace, "folder", "memory://photos") == 0
    found = read_quarantine(workspace.pool)["reason"].value_counts().to_dict()
    assert found == {"too_large_file": 33, "unreadable_folder": 1}


def test_rows_with_photos_elsewhere(web, workspace, tmp_path):
    """A table here with photos there, by file and by id."""
    table = tmp_path / "here.csv"
    rows = ["a,images/40.jpg,1,2", "b,images/99.jpg,1,2", "c,../../secret.jpg,1,2", "d,/etc/passwd,1,2"]
    table.write_text("\n".join(["photo_id,file,latitude,longitude", *rows]) + "\n")
    assert add(workspace, "table", str(table), "--photos", f"{web}/tabled") == 0
    table = tmp_path / "by_id.csv"
    table.write_text("photo_id,latitude,longitude\n41,3,4\n77,3,4\n")
    assert add(workspace, "table", str(table), "--photos", f"{web}/tabled") == 0
    assert read_catalog(workspace.pool)["photo_id"].tolist() == ["a", "41"]
    found = read_quarantine(workspace.pool).set_index("photo_id")["reason"].to_dict()
    assert found == {"b": "missing_file", "77": "missing_file", "c": "unsafe_path", "d": "unsafe_path"}


def test_a_table_of_addresses_may_be_elsewhere_too(workspace):
    with photo_server() as server:
        rows = f"url,latitude,longitude\n{server.url}/photo/1.jpg,1,2\n{server.url}/status/404,1,2\n"
        server.files["/lists/photos.csv"] = rows.encode()
        assert add(workspace, "urls", f"{server.url}/lists/photos.csv") == 0
        assert add(workspace, "urls", f"{server.url}/lists/photos.csv") == 0
        assert server.asked["/photo/1.jpg"] == server.asked["/status/404"] == 1
    assert sources(workspace) == ["photos"]
    assert read_quarantine(workspace.pool)["reason"].tolist() == ["http_gone"]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ftp://host/a.tar", "an address begins with one of"),
        ("http://127.0.0.1:9/a.tar", "http://127.0.0.1:9/a.tar"),
        ("{web}/nothing.tar", "nothing.tar"),
        ("{web}/nothing/*.tar", "nothing"),
        ("gs://bucket/a.tar", "pip install 'geoloc[gs]'"),
    ],
)
def test_what_cannot_be_read_is_a_line(web, workspace, capsys, address, told, monkeypatch):
    monkeypatch.setattr("geoloc.photos.addresses._PAUSE_SECONDS", 0.01)
    if address.startswith("gs"):
        monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert add(workspace, "webdataset", address.format(web=web)) == 1
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_a_password_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setattr("geoloc.photos.addresses._PAUSE_SECONDS", 0.01)
    place = as_place("http://anna:secret@127.0.0.1:9/a.tar")
    with pytest.raises(SourceError) as error, fetched(place):
        pass
    assert "secret" not in str(error.value)
    assert claim_source(tmp_path, "folder", "http://anna:secret@127.0.0.1:9", b"k" * 32) == "127.0.0.1:9"
    assert "127.0.0.1:9/a.tar" in str(error.value)


def test_a_file_that_is_cut_off_or_too_large_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("geoloc.photos.addresses._PAUSE_SECONDS", 0.01)
    with photo_server() as server:
        for path, told in (("short", "short"), ("huge", "does not fit"), ("circle/0", "circle")):
            with pytest.raises(SourceError, match=told), fetched(as_place(f"{server.url}/{path}")):
                pass


def test_a_lost_tar_costs_only_itself(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("geoloc.photos.addresses._PAUSE_SECONDS", 0.01)
    with photo_server() as server:
        server.files["/t/00000.tar"] = (tar_set(tmp_path / "t", 1) / "00000.tar").read_bytes()
        server.files["/t/00001.tar"] = b""  # there when the set is listed, and gone when it is read
        fetch = addresses.fetch

        def fetch_and_lose(address: Address, path: Path, most: int) -> None:
            server.files.pop("/t/00001.tar", None)
            fetch(address, path, most)

        monkeypatch.setattr(addresses, "fetch", fetch_and_lose)
        assert add(workspace, "webdataset", f"{server.url}/t/{{00000..00001}}.tar") == 0
    assert len(read_catalog(workspace.pool)) == 3
    assert read_quarantine(workspace.pool)["reason"].tolist() == ["unreadable_file"]
