"""Photos that a table lists by their addresses: asked for once, politely, whatever the server does."""

from __future__ import annotations

import csv
import errno
import gzip
import importlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geoloc.photos.catalog import read_catalog
from geoloc.photos.downloads.answer import Answer, BadAddress, now, parse_address
from geoloc.photos.downloads.hosts import retry_after
from geoloc.photos.downloads.spool import Spool
from geoloc.photos.ingest import ingest
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.settings import DownloadSettings, IngestSettings
from geoloc.photos.sources import open_source
from orchestration.cli import main
from orchestration.commands.downloads import _HELP
from orchestration.workspace import Workspace
from tests.photo_fixtures import exif, jpeg
from tests.photo_server import PhotoServer, photo_server
from tests.unit.pretended import bare_workspace

ROOT = Path(__file__).parents[2]
QUICK = ("--backoff", "0.01", "--tries", "2", "--timeout", "0.5")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return bare_workspace(tmp_path / "w", {})


@pytest.fixture
def server() -> Iterator[PhotoServer]:
    with photo_server() as made:
        yield made


def write_table(path: Path, urls: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo_id", "url", "latitude", "longitude", "photographer", "licence"])
        for i, url in enumerate(urls):
            writer.writerow([f"id{i}", url, 10 + i * 0.25, 20, f"p{i % 3}", "CC BY 4.0"])
    return path


def add(workspace: Workspace, table: Path | str, *options: str) -> int:
    return main(["--workspace", str(workspace.root), "ingest", "urls", str(table), "--no-dvc", *options])


def first_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[0]


def test_each_answer_ends_as_what_it_is(workspace, server, tmp_path, capsys):
    with photo_server() as other:
        server.elsewhere = other.url
        paths = {
            "photo/0.jpg": None,
            "moved/1.jpg": None,
            "after/2/503/2.jpg": None,
            "after/2/429/3.jpg": None,
            "status/404": "http_gone",
            "status/410": "http_gone",
            "status/403": "http_refused",
            "status/500": "http_unavailable",
            "status/503": "http_unavailable",
            "html": "not_a_photo",
            "htmljpg": "not_a_photo",
            "empty": "not_a_photo",
            "torn": "truncated_image",
            "huge": "too_large_file",
            "endless": "too_large_file",
            "short": "http_unavailable",
            "slow": "http_unavailable",
            "reset": "http_unavailable",
            "circle/0": "redirect_refused",
            "chain/0": "redirect_refused",
            "away/4.jpg": "redirect_refused",
        }
        urls = [f"{server.url}/{path}" for path in paths]
        bad = {"ftp://x/a.jpg": "bad_address", "": "bad_address", "http://u:p@127.0.0.1/": "bad_address",
               "http://169.254.169.254/latest": "bad_address"}  # fmt: skip
        table = write_table(tmp_path / "photos.csv", [*urls, *bad])
        assert add(workspace, table, *QUICK) == 0
        assert not other.asked
    assert f"photos: 4 added, 0 already present, {len(paths) + len(bad) - 4} quarantined" in first_line(
        capsys
    )
    reasons = [*paths.values(), *bad.values()]
    found = read_quarantine(workspace.pool).set_index("photo_id")["reason"].to_dict()
    assert found == {f"id{i}": reason for i, reason in enumerate(reasons) if reason is not None}
    catalog = read_catalog(workspace.pool)
    assert catalog["url"].tolist() == urls[:4]
    assert catalog["licence"].tolist() == ["CC BY 4.0"] * 4
    once = ["/photo/0.jpg", "/status/404", "/status/410", "/status/403", "/status/500", "/html", "/huge"]
    assert [server.asked[path] for path in once] == [1] * len(once)  # only what may pass is asked again
    assert [server.asked[path] for path in ("/status/503", "/short", "/slow")] == [2] * 3
    assert server.asked["/reset"] >= 2  # aiohttp repeats a request once if a kept connection breaks
    log = pd.read_parquet(workspace.pool / "downloads.parquet").set_index("url")
    assert log.loc[urls[4], "status"] == 404
    assert not log.loc[urls[4], "later"]
    assert log.loc[urls[8], "later"]
    assert log.loc[urls[0], "etag"].startswith('"')

    asked = server.asked.copy()
    before = read_quarantine(workspace.pool)
    assert add(workspace, table, *QUICK) == 0
    assert "0 added, 4 already present" in first_line(capsys)
    again = {path for path in server.asked if server.asked[path] > asked[path]}
    assert again == {"/status/500", "/status/503", "/short", "/slow", "/reset", "/empty"}
    assert read_quarantine(workspace.pool).equals(before)


def test_what_comes_later_is_mended(workspace, server, tmp_path):
    table = write_table(
        tmp_path / "photos.csv", [f"{server.url}/after/3/503/1.jpg", f"{server.url}/photo/2.jpg"]
    )
    add(workspace, table, "--tries", "1")
    assert read_quarantine(workspace.pool)["reason"].tolist() == ["http_unavailable"]
    add(workspace, table, "--tries", "2", "--backoff", "0")
    assert len(read_catalog(workspace.pool)) == 2
    rows = read_quarantine(workspace.pool, mended=True)
    assert rows["mended_by"].tolist() == ["id0"]


def test_a_killed_run_asks_only_for_what_is_missing(workspace, server, tmp_path):
    server.pause = 0.05
    count = 60
    table = write_table(tmp_path / "photos.csv", [f"{server.url}/photo/{i}.jpg" for i in range(count)])
    command = [
        sys.executable,
        "-m",
        "orchestration.cli",
        "--workspace",
        str(workspace.root),
        "ingest",
        "urls",
    ]
    process = subprocess.Popen(
        [*command, str(table), "--no-dvc", "--per-host", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    while sum(server.asked.values()) < count // 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)
    before = sum(server.asked.values())
    assert before < count
    server.pause = 0.0
    add(workspace, table)
    assert sum(server.asked.values()) <= count + 4  # those on their way were asked twice
    assert set(read_catalog(workspace.pool)["photo_id"]) == {f"id{i}" for i in range(count)}
    assert not list((workspace.root / ".geoloc" / "downloads").glob("*/*"))


def test_a_storm_of_429_is_waited_out_and_a_long_one_left_alone(workspace, server, tmp_path):
    waits = [f"{server.url}/wait/3600/{i}.jpg" for i in range(40)]
    table = write_table(tmp_path / "photos.csv", waits)
    add(workspace, table, "--per-host", "1")
    assert sum(server.asked.values()) == 1
    found = read_quarantine(workspace.pool)
    assert set(found["reason"]) == {"http_unavailable"}
    assert len(found) == 40
    add(workspace, write_table(tmp_path / "b.csv", [f"{server.url}/after/2/429/1.jpg"]))
    assert len(read_catalog(workspace.pool)) == 1


def test_retry_after_is_kept_to(workspace, server, tmp_path):
    table = write_table(tmp_path / "photos.csv", [f"{server.url}/wait/1/0.jpg"])
    add(workspace, table, "--tries", "2", "--backoff", "0")
    first, second = server.times["/wait/1/0.jpg"]
    assert second - first >= 1


def test_manners_are_settings(workspace, server, tmp_path):
    server.pause = 0.02
    table = write_table(tmp_path / "photos.csv", [f"{server.url}/photo/{i}.jpg" for i in range(12)])
    add(workspace, table, "--per-host", "2", "--user-agent", "tests (mail@example.org)")
    assert server.busiest <= 2
    assert server.agents == {"tests (mail@example.org)"}
    table = write_table(tmp_path / "more.csv", [f"{server.url}/photo/{i}.jpg" for i in range(20, 24)])
    add(workspace, table, "--delay", "0.1")
    times = sorted(server.times[f"/photo/{i}.jpg"][0] for i in range(20, 24))
    assert min(b - a for a, b in itertools.pairwise(times)) > 0.05


@pytest.mark.parametrize(
    "wrong", [("--per-host", "0"), ("--delay", "-1"), ("--column", "link=url"), ("--column", "url=nothing")]
)
def test_wrong_settings_are_a_line(workspace, tmp_path, capsys, wrong):
    table = write_table(tmp_path / "photos.csv", [])
    assert add(workspace, table, *wrong) != 0
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "Traceback" not in told


def test_hosts_are_those_of_the_table(workspace, server, tmp_path):
    with photo_server() as other:
        server.elsewhere = other.url
        table = write_table(tmp_path / "photos.csv", [f"{server.url}/away/4.jpg"])
        add(workspace, table)
        assert not other.asked
        add(workspace, table, "--again", "--redirect-host", "127.0.0.1")
        assert len(read_catalog(workspace.pool)) == 1
    private = write_table(tmp_path / "private.csv", [f"{server.url}/photo/9.jpg"])
    asked = sum(server.asked.values())
    add(workspace, private, "--private", "never")
    assert sum(server.asked.values()) == asked


def test_a_dead_host_is_left_alone(workspace, tmp_path):
    table = write_table(tmp_path / "photos.csv", [f"http://127.0.0.1:9/{i}.jpg" for i in range(50)])
    add(workspace, table, "--tries", "1", "--per-host", "1", "--host-failures", "5")
    found = read_quarantine(workspace.pool)
    assert len(found) == 50
    assert found["detail"].str.contains("not asked for").sum() == 45


def test_equal_addresses_are_asked_once_and_bad_places_never(workspace, server, tmp_path, capsys):
    table = tmp_path / "photos.csv"
    same = f"{server.url}/photo/1.jpg"
    table.write_text(
        "photo_id,url,latitude,longitude\n"
        f"a,{same},10,20\nb,{same},10,20\nc,{server.url}/photo/2.jpg,95,20\nd,{server.url}/photo/3.jpg,,\n"
    )
    add(workspace, table)
    assert "1 added, 1 already present, 2 quarantined" in first_line(capsys)
    assert server.asked == {"/photo/1.jpg": 1}


def yfcc_row(cells: int, photo: int, url: str) -> str:
    row = [""] * 23
    row[0], row[1], row[3], row[4] = str(photo), "12@N01", "2013-07-01 12:00:00.0", "1372680000"
    row[10], row[11], row[14], row[15], row[22] = "20.5", str(10 + photo), url, "Attribution+License", "0"
    return "\t".join(row if cells == 23 else ["7", row[0], "hash", *row[1:]])


def test_published_tables_are_read_as_they_are(workspace, server, tmp_path):
    def url(i: int) -> str:
        return f"{server.url}/photo/{i}.jpg"

    rows = [*(yfcc_row(23, i, url(i)) for i in range(3)), yfcc_row(23, 90, "")]
    (tmp_path / "yfcc").write_text("\n".join(rows) + "\n")
    (tmp_path / "yfcc25.tsv").write_text("\n".join(yfcc_row(25, i, url(i)) for i in range(3, 5)) + "\n")
    (tmp_path / "mp16_urls.csv").write_text(f"ab/cd/1.jpg,{url(5)}\nab/cd/2.jpg,{url(6)}\n")
    (tmp_path / "mp16_places365.csv").write_text("IMG_ID,LAT,LON\nab/cd/1.jpg,1.5,2.5\nab/cd/2.jpg,3.5,4.5\n")
    osv = "id,latitude,longitude,thumb_original_url,country,sequence,creator_username,creator_id\n"
    (tmp_path / "train.csv").write_text(osv + f"77,5,6,{url(7)},NA,s1,anna,900\n")
    with gzip.open(tmp_path / "list.txt.gz", "wt") as file:
        file.write(f"{server.url}/exif/9.jpg\n")
    server.files["/exif/9.jpg"] = jpeg(9, exif=exif(48.0, 11.0))
    frame = pd.DataFrame({"key": ["z"], "link": [url(10)], "latitude": [1.0], "longitude": [2.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("yfcc", "yfcc25.tsv", "mp16_urls.csv", "train.csv"):
        assert add(workspace, tmp_path / name) == 0
    (tmp_path / "mp16_places365.csv").unlink()
    assert add(workspace, tmp_path / "list.txt.gz") == 0
    assert add(workspace, tmp_path / "t.parquet", "--column", "url=link", "--column", "photo_id=key") == 0
    assert read_quarantine(workspace.pool)["photo_id"].tolist() == ["90"]
    found = read_catalog(workspace.pool).set_index("photo_id")
    assert list(found.index[:8]) == ["0", "1", "2", "3", "4", "ab/cd/1.jpg", "ab/cd/2.jpg", "77"]
    assert found["licence"].iloc[0] == "Attribution License"
    assert found.loc["ab/cd/2.jpg", "latitude"] == 3.5
    assert found.loc["77", "album"] == "s1"
    assert found["latitude"].iloc[8] == pytest.approx(48.0)
    assert found.index[8].endswith("/exif/9.jpg")
    assert found.index[9] == "z"


def test_no_photo_is_lost_when_the_pool_forgets(workspace, server, tmp_path):
    """A log without its photos (a pool restored from before) asks again."""
    table = write_table(tmp_path / "photos.csv", [f"{server.url}/photo/1.jpg"])
    add(workspace, table)
    (workspace.pool / "catalog.parquet").unlink()
    add(workspace, table)
    assert len(read_catalog(workspace.pool)) == 1
    assert server.asked["/photo/1.jpg"] == 2


def test_an_address_listed_twice_is_asked_once_whatever_is_committed_between(
    workspace, server, tmp_path, monkeypatch
):
    monkeypatch.setattr("geoloc.photos.sources.urls._BATCH", 2)
    urls = [f"{server.url}/photo/{i}.jpg" for i in (1, 2, 3, 1, 2, 4, 5, 6, 7, 8, 1)]
    table = write_table(tmp_path / "photos.csv", urls)
    source = open_source("urls", table, pool=workspace.pool, spool=tmp_path / "spool")
    settings = IngestSettings(shard_bytes=1)  # every photo is committed
    took_in = ingest(workspace.pool, source, source="s", photographer_key=b"x" * 32, settings=settings)
    assert took_in.seen == len(urls)
    assert took_in.added == 8
    assert set(server.asked.values()) == {1}
    assert not (tmp_path / "spool").exists()


def test_photos_without_a_place_are_told_once(workspace, server, tmp_path):
    table = tmp_path / "list.txt"
    table.write_text(f"{server.url}/photo/1.jpg\n")
    add(workspace, table)
    first = read_quarantine(workspace.pool)
    assert first["reason"].tolist() == ["missing_coordinates"]
    add(workspace, table)
    assert read_quarantine(workspace.pool).equals(first)
    assert server.asked["/photo/1.jpg"] == 1


def test_another_failure_of_the_same_photo_is_no_other_input(workspace, server, tmp_path):
    table = write_table(tmp_path / "photos.csv", [f"{server.url}/after/9/503/1.jpg"])
    add(workspace, table, "--tries", "1")
    server.shutdown()
    server.server_close()
    add(workspace, table, "--tries", "1")
    found = read_quarantine(workspace.pool)
    assert found["detail"].str.startswith("no connection").tolist() == [True]


def test_help_tells_the_defaults_that_hold():
    made = DownloadSettings()
    for name, told in _HELP.items():
        if "(default: " in told:
            assert f"(default: {getattr(made, name):g})" in told


@given(st.text(max_size=200))
@example("http://[::1")
@example("http://a:99999999/")
@example("http://\ud800/")
def test_any_text_is_an_address_or_refused(text):
    try:
        url = parse_address(text)
    except BadAddress:
        return
    assert url.scheme in ("http", "https")
    assert url.host


@given(st.one_of(st.none(), st.text(max_size=60), st.integers().map(str)))
def test_any_retry_after_is_a_time_or_nothing(header):
    wait = retry_after(header)
    assert wait is None or 0 <= wait < 1e12


def test_a_public_name_does_not_lead_into_a_private_network(workspace, server, tmp_path, monkeypatch):
    port = server.server_address[1]
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: resolve("127.0.0.1", *more, **named)
    )
    table = write_table(tmp_path / "photos.csv", [f"http://photos.example.org:{port}/photo/1.jpg"])
    add(workspace, table)
    assert not server.asked
    assert read_quarantine(workspace.pool)["reason"].tolist() == ["bad_address"]
    add(workspace, table, "--again", "--private", "always")
    assert len(read_catalog(workspace.pool)) == 1


@pytest.mark.parametrize("torn", range(1, 40, 7))
def test_a_torn_spool_gives_what_is_whole(tmp_path, torn):
    part = Spool(tmp_path).part()
    for i in range(2):
        part.add(Answer(f"http://a/{i}", None, status=200, tries=1, asked_at=now(), data=jpeg(i)))
    path = next(tmp_path.glob("*.spool"))
    path.write_bytes(path.read_bytes()[:-torn])
    found = Spool(tmp_path).found
    assert list(found) == ["http://a/0"]
    assert found["http://a/0"].read() == jpeg(0)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a", "a.parquet", "a.csv.gz"])
@pytest.mark.parametrize("content", [b"", b"\0\xff", b"url", b"a,b,c\n1,2,3\n", b"http://a/,http://b/,c\n"])
def test_a_file_that_is_no_table_of_addresses_is_a_line(workspace, tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    status = add(workspace, tmp_path / name)
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert (status == 0 and "0 added" in told.out) or len(told.err.splitlines()) == 1


def full_disk(monkeypatch, after: int, name: str) -> list[int]:
    """The disk takes `after` more writes of that function of a module, and then half of what is written."""
    module, function = name.rsplit(".", 1)
    real, calls = getattr(importlib.import_module(module), function), []

    def write(file, data):
        calls.append(1)
        if len(calls) <= after:
            return real(file, data)
        file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(name, write)
    return calls


def test_a_full_disk_is_one_line_and_the_next_run_asks_only_for_the_rest(
    workspace, server, tmp_path, capsys, monkeypatch
):
    table = write_table(tmp_path / "t.csv", [f"{server.url}/photo/{i}.jpg" for i in range(6)])
    with monkeypatch.context() as patch:
        full_disk(patch, 3, "geoloc.photos.downloads.spool._write_all")
        assert add(workspace, table, *QUICK) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"geoloc: {workspace.root}/.geoloc/downloads")
    assert "No space left on device; make room there" in told
    assert add(workspace, table, *QUICK) == 0
    assert "6 added, 0 already present, 0 quarantined" in capsys.readouterr().out
    assert sum(times > 1 for times in server.asked.values()) <= 3  # three are on the disk


@pytest.mark.parametrize(
    "place", ["geoloc.photos.shards.tarfile.TarFile.addfile", "geoloc.photos.catalog.pq.write_table"]
)
def test_a_full_disk_of_the_pool_is_one_line_and_loses_nothing(
    workspace, server, tmp_path, capsys, monkeypatch, place
):
    table = write_table(tmp_path / "t.csv", [f"{server.url}/photo/{i}.jpg" for i in range(4)])

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        assert add(workspace, table, *QUICK) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"geoloc: {workspace.root}/data: No space left on device; make room there")
    asked = sum(server.asked.values())
    assert add(workspace, table, *QUICK) == 0
    assert "4 added, 0 already present, 0 quarantined" in capsys.readouterr().out
    assert sum(server.asked.values()) == asked


def test_a_full_disk_is_one_line_wherever_it_is_met(workspace, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.delenv("GEOLOC_PHOTOGRAPHER_KEY", raising=False)  # then the key is written first
    monkeypatch.setattr(os, "fsync", full)
    assert add(workspace, write_table(tmp_path / "t.csv", ["http://127.0.0.1:9/a.jpg"]), *QUICK) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"geoloc: {workspace.root}: No space left on device; make room there")
