"""The account: every input of every source is added, already present or in quarantine, and stays told apart."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geoloc.files import DamagedFile
from geoloc.photos import ingest as ingest_module
from geoloc.photos import known
from geoloc.photos.catalog import LATER_COLUMNS, read_catalog
from geoloc.photos.origins import claim_source
from geoloc.photos.quarantine import read_quarantine
from geoloc.photos.settings import SplitSettings
from geoloc.photos.splits import make_splits
from geoloc.settings import parse
from orchestration.cli import main
from orchestration.workspace import Workspace
from tests.photo_fixtures import contents, encoded, exif, jpeg, photo_table, picture, take_in, write_tar
from tests.unit.pretended import bare_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return bare_workspace(tmp_path / "w", {})


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return tmp_path / "data"


def geoloc(workspace: Workspace, *arguments: str) -> int:
    return main(["--workspace", str(workspace.root), *arguments])


def add(workspace: Workspace, kind: str, path: Path | str, *options: str) -> None:
    assert geoloc(workspace, "ingest", kind, str(path), "--no-dvc", *options) == 0


def sources(workspace: Workspace) -> list[str]:
    return read_catalog(workspace.pool)["source"].unique().tolist()


def tar_set(folder: Path, seed: int, *, places: tuple[float, ...] = (10.0, 11.0, 12.0)) -> Path:
    """A tar whose keys count from 0, as img2dataset writes every set."""
    folder.mkdir(parents=True, exist_ok=True)
    members: list[tuple[str, bytes | dict[str, object]]] = []
    for i, latitude in enumerate(places):
        members += [
            (f"{i:09d}.jpg", jpeg(seed + i)),
            (f"{i:09d}.json", {"latitude": latitude, "longitude": 20.0}),
        ]
    write_tar(folder / "00000.tar", members)
    return folder


def album(folder: Path, seed: int, count: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(jpeg(seed + i, exif=exif(10 + seed, 20 + i)))
    return folder


# Names of sources


def test_sources_are_distinct_by_themselves(workspace, tmp_path, monkeypatch):
    add(workspace, "folder", album(tmp_path / "2019.07 Rome", 10))
    add(workspace, "folder", f"{album(tmp_path / '2019.08 Oslo', 20)}/")
    add(workspace, "folder", album(tmp_path / "a" / "café", 30))
    add(workspace, "folder", album(tmp_path / "b" / "café", 40))
    add(workspace, "webdataset", tar_set(tmp_path / "shards", 50) / "*.tar")
    add(workspace, "webdataset", tar_set(tmp_path / "more" / "shards", 60) / "*.tar")
    add(workspace, "webdataset", tar_set(tmp_path / "single", 70) / "00000.tar")
    names = ["2019.07 Rome", "2019.08 Oslo", "café", "b-café", "shards", "more-shards", "single-00000"]
    assert sources(workspace) == names
    before = contents(workspace.pool)
    monkeypatch.chdir(tmp_path / "b" / "café")
    add(workspace, "folder", ".")
    add(workspace, "folder", "../../b/café")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "b")
    add(workspace, "folder", tmp_path / "elsewhere" / "café")
    assert contents(workspace.pool) == before


def test_a_default_name_never_joins_a_source_that_a_person_named(workspace, tmp_path):
    add(workspace, "folder", album(tmp_path / "x", 1), "--source", "im2gps")
    add(workspace, "folder", album(tmp_path / "im2gps", 5))
    assert len(sources(workspace)) == 2


def test_a_source_without_a_name_is_a_usage_error(workspace, tmp_path, capsys):
    assert geoloc(workspace, "ingest", "folder", str(album(tmp_path / "x", 1)), "--source", " ") == 2
    assert "--source must be a name, got ' '" in capsys.readouterr().err


# Identity


@pytest.mark.parametrize("options", [(), ("--source", "web")])
def test_equal_keys_at_equal_places_are_other_photos_if_their_bytes_differ(workspace, tmp_path, options):
    towns = (48.1, 41.9, 59.9)
    for _ in range(2):  # the second time all are known, under whatever ids
        for name, seed in (("c", 100), ("d", 200)):
            add(workspace, "webdataset", tar_set(tmp_path / name, seed, places=towns) / "00000.tar", *options)
        catalog = read_catalog(workspace.pool)
        assert len(catalog) == catalog["photo_id"].nunique() == catalog["sha256"].nunique() == 6
    assert read_quarantine(workspace.pool).empty


def test_tars_of_one_name_in_one_run_are_two(pool, tmp_path):
    tar_set(tmp_path / "a", 1)
    tar_set(tmp_path / "b", 11)
    assert take_in(pool, "webdataset", tmp_path / "?" / "00000.tar").added == 6
    assert take_in(pool, "webdataset", tmp_path / "?" / "00000.tar").already_present == 6


def test_two_tables_that_number_their_photos_from_one_share_a_source(pool, tmp_path):
    for folder, first in (("jan", 0), ("feb", 10)):
        table = photo_table(tmp_path / folder, 3, first)
        text = table.read_text()
        for i in range(3):
            text = text.replace(f"id{first + i},", f"{i},")
        table.write_text(text)
        assert take_in(pool, "table", table).added == 3
        assert take_in(pool, "table", table).already_present == 3
    assert read_catalog(pool)["photo_id"].tolist()[:4] == ["0", "1", "2", "test/0"]


def test_a_photo_changed_at_its_path_is_another_photo(pool, tmp_path):
    folder = album(tmp_path / "x", 1, 1)
    take_in(pool, "folder", folder)
    (folder / "0.jpg").write_bytes(jpeg(77, exif=exif(11, 20)))
    assert take_in(pool, "folder", folder).added == 1
    assert take_in(pool, "folder", folder).already_present == 1


def test_what_the_pool_has_is_not_decoded_again(pool, tmp_path, monkeypatch):
    table = photo_table(tmp_path, 3)
    (tmp_path / "images" / "1.jpg").write_bytes(encoded(picture(1, 64, 200, "RGBA"), "PNG"))
    assert take_in(pool, "table", table, settings={"resize_short_side": 32}).added == 3
    monkeypatch.setattr(ingest_module, "check_and_normalise", lambda *_: pytest.fail("decoded"))
    assert take_in(pool, "table", table, settings={"resize_short_side": 32}).already_present == 3


def test_a_pool_from_before_these_columns_goes_on(pool, tmp_path):
    table = photo_table(tmp_path, 3)
    (tmp_path / "images" / "1.jpg").write_bytes(b"broken")
    take_in(pool, "table", table)
    quarantine = pd.read_parquet(pool / "quarantine.parquet")
    quarantine.drop(columns=["origin", "content", "mended_by"]).to_parquet(pool / "quarantine.parquet")
    assert not set(LATER_COLUMNS) & set(pd.read_parquet(pool / "catalog.parquet").columns)
    assert read_catalog(pool)["input_sha256"].isna().all()
    again = take_in(pool, "table", table)
    assert (again.added, again.already_present, len(read_quarantine(pool))) == (0, 2, 1)


# Labels


def two_labels(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / f"{name}.jpg").write_bytes(jpeg(9))
    table = folder / "same.csv"
    table.write_text(
        "file,latitude,longitude,photographer\n"
        "a.jpg,32.3,-64.8,ann\nb.jpg,-33.8,151.2,bob\nc.jpg,32.30001,-64.8,ann\n"
    )
    return table


def test_both_labels_of_equal_pixels_are_recorded(workspace, tmp_path, capsys):
    table = two_labels(tmp_path / "x")
    add(workspace, "table", table)
    assert "1 added, 1 already present, 1 quarantined" in capsys.readouterr().out
    assert geoloc(workspace, "quarantine", "--reason", "conflicting_label") == 0
    told = capsys.readouterr().out
    ann, bob = read_catalog(workspace.pool)["photographer"][0], "-33.8, 151.2 by p"
    assert "b.jpg" in told
    assert bob in told
    assert f"32.3, -64.8 by {ann}" in told
    assert "c.jpg" not in told
    away = read_quarantine(workspace.pool).set_index("reason")
    assert away.loc["duplicate_photo", ["photo_id", "severity"]].tolist() == ["same/c.jpg", "label"]
    before = contents(workspace.pool)
    add(workspace, "table", table)
    assert contents(workspace.pool) == before


def test_an_external_set_keeps_photos_that_the_pool_has(workspace, tmp_path, capsys):
    photos = photo_table(tmp_path / "mine", 12)
    add(workspace, "table", photos, "--source", "mine")
    theirs = photo_table(tmp_path / "theirs", 4)
    theirs.write_text(
        theirs.read_text()
        .replace("person0", "somebody")
        .replace("id2,images/2.jpg,10.5", "id2,images/2.jpg,-7")
    )
    add(workspace, "table", theirs, "--source", "published")
    out = capsys.readouterr().out
    catalog = read_catalog(workspace.pool)
    assert (catalog["source"] == "published").sum() == 4
    away = read_quarantine(workspace.pool)
    assert away["reason"].tolist() == ["conflicting_label"] * 3  # ids 0, 2 and 3
    assert set(away["severity"]) == {"label"}
    assert "of mine have another photographer there, of 4 compared" in out
    values = {"external": {"published": "published"}, "test": {"share": 0}, "validation": {"share": 0}}
    splits = make_splits(catalog, parse(SplitSettings, {**values, "max_hamming": 0}, "splits"), 0)
    assert splits["split"].value_counts()["published"] == 4


def test_an_own_split_counts_a_photo_of_two_sources_once(pool, tmp_path):
    for source in ("one", "two"):
        take_in(pool, "table", photo_table(tmp_path, 5), source=source)
    values = {"test": {"share": 0}, "validation": {"share": 0}, "max_hamming": 0}
    catalog = read_catalog(pool)
    splits = make_splits(catalog, parse(SplitSettings, values, "splits"), 0)
    train = catalog.merge(splits[splits["split"] == "train"], on="photo_id")
    assert len(catalog) == 10
    assert len(train) == train["sha256"].nunique() == 5
    assert set(splits["reason"].dropna()) == {"near-duplicate of a train photo"}


# Quarantine


@pytest.mark.parametrize("options", [(), ("--source", "months")])
def test_tables_of_one_name_have_rows_of_their_own(workspace, tmp_path, capsys, options):
    for month, first, second in (("jan", "x", "11"), ("feb", "y", "12"), ("mar", "13", "z")):
        table = tmp_path / month / "photos.csv"
        table.parent.mkdir()
        table.write_text(f"photo_id,latitude,longitude\n{month}1,{first},20\n{month}2,{second},20\nshort,1\n")
        add(workspace, "table", table, *options)
        assert "1 added, 0 already present, 2 quarantined" in capsys.readouterr().out
    away = read_quarantine(workspace.pool)
    assert sorted(away["photo_id"].dropna()) == ["feb1", "jan1", "mar2"]
    assert (away["reason"] == "malformed_record").sum() == 3  # the same text in the same row of three files
    before = contents(workspace.pool)
    add(workspace, "table", tmp_path / "jan" / "photos.csv", *options)
    assert contents(workspace.pool) == before


def test_a_card_that_is_filled_anew_forgets_nothing(pool, tmp_path):
    card = tmp_path / "DCIM"
    card.mkdir()
    for seed in (1, 2):
        (card / "DSC_0001.jpg").write_bytes(jpeg(seed))  # no coordinates
        assert take_in(pool, "folder", card).quarantined == {"missing_coordinates": 1}
        assert len(read_quarantine(pool)) == seed


def test_what_is_mended_is_marked_and_what_breaks_again_is_open(workspace, tmp_path, capsys):
    folder = album(tmp_path / "trip", 1)
    good = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(good[:-40])
    add(workspace, "folder", folder)
    (folder / "1.jpg").write_bytes(good)
    add(workspace, "folder", folder)
    assert read_quarantine(workspace.pool).empty
    assert read_quarantine(workspace.pool, mended=True)["mended_by"].tolist() == ["trip/1.jpg"]
    capsys.readouterr()
    assert geoloc(workspace, "quarantine", "--mended", "--source", "trip") == 0
    told = capsys.readouterr().out
    assert "0  in all, and 1 mended since" in told
    assert (
        "1.jpg (trip/1.jpg): the JPEG ends within the picture; mended: the pool has it as trip/1.jpg" in told
    )
    (folder / "1.jpg").write_bytes(good[:-40])
    add(workspace, "folder", folder)
    assert len(read_quarantine(workspace.pool)) == 1


def test_quarantine_names_what_may_be_asked_for(workspace, tmp_path, capsys):
    assert geoloc(workspace, "quarantine") == 0  # a workspace without photos
    add(workspace, "folder", album(tmp_path / "trip", 1))
    capsys.readouterr()
    assert geoloc(workspace, "quarantine", "--reason", "zero_coordinates") == 0
    assert capsys.readouterr().out.strip() == "0  in all"
    assert geoloc(workspace, "quarantine", "--source", "trap") == 2
    assert "--source must be one of trip; got 'trap'" in capsys.readouterr().err
    assert geoloc(workspace, "quarantine", "--reason", "bad") == 2
    assert "zero_coordinates" in capsys.readouterr().err


def test_no_control_character_of_a_file_name_reaches_the_terminal(workspace, tmp_path, capsys):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "a\x1b[2J\n.jpg").write_bytes(b"broken")
    add(workspace, "folder", folder, "--photographer", "me")
    assert geoloc(workspace, "quarantine") == 0
    assert "  a\\x1b[2J\\n.jpg" in capsys.readouterr().out


# Folders and files


def test_no_folder_and_no_file_vanishes(workspace, tmp_path, capsys):
    outside = album(tmp_path / "outside", 30)
    root = album(tmp_path / "photos", 1)
    album(root / "sub", 10)
    album(root / ".hidden", 20)
    (root / "linked").symlink_to(outside)
    (root / "inner").symlink_to(root / "sub")
    (root / "sub" / "loop").symlink_to(root)
    (root / "out.jpg").symlink_to(outside / "0.jpg")
    (root / "in.jpg").symlink_to(root / "0.jpg")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "zero.jpg").touch()
    os.mkfifo(root / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s.jpg"))
    with (root / "huge.webp").open("wb") as stream:
        stream.write(b"RIFF\0\0\0\xc0WEBPVP8 ")
        stream.truncate(3 * 1024**3)
    wanted = {
        ".hidden/": "hidden_folder",
        "linked/": "linked_folder",
        "inner/": "linked_folder",
        "sub/loop/": "linked_folder",
        "out.jpg": "link_outside",
        "self.jpg": "unreadable_file",
        "zero.jpg": "unreadable_image",
        "pipe.jpg": "unreadable_file",
        "s.jpg": "unreadable_file",
        "huge.webp": "too_large_file",
    }
    add(workspace, "folder", root, "--photographer", "me")
    # in.jpg has the bytes of 0.jpg
    assert "4 added, 1 already present, 10 quarantined" in (out := capsys.readouterr().out)
    assert "folder not entered: .hidden/ (a hidden folder is not entered) 1" in out
    away = read_quarantine(workspace.pool)
    found = away[away["severity"] == "photo"].set_index("reference")["reason"].to_dict()
    assert found == wanted
    add(workspace, "folder", root, "--photographer", "me", "--follow-links")
    # linked/ has two photos, and out.jpg the bytes of one of them
    assert "2 added, 6 already present" in (out := capsys.readouterr().out)
    assert "8 quarantined" in out
    assert len(read_catalog(workspace.pool)) == 6


def test_a_folder_that_cannot_be_read_is_named(pool, tmp_path, monkeypatch):
    root = album(tmp_path / "photos", 1)
    closed = album(root / "closed", 5)
    real = os.scandir

    def scandir(path):
        if Path(path) == closed:  # root may read everything, and tests may run as root
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    summary = take_in(pool, "folder", root, photographer="me")
    assert (summary.added, summary.quarantined) == (2, {"unreadable_folder": 1})
    assert summary.notes == {"folder not entered: closed/ (Permission denied)": 1}


def test_names_of_people_in_folders_that_are_not_entered_stay_out_of_the_pool(pool, tmp_path):
    root = album(tmp_path / "photos", 1)
    (root / "anna").symlink_to(album(tmp_path / "x", 5))
    assert take_in(pool, "folder", root).quarantined == {"linked_folder": 1}
    assert b"anna" not in b"".join(contents(pool).values())


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (300, 15)])
def test_icons_and_thumbnails_are_no_photos(pool, tmp_path, size):
    table = photo_table(tmp_path, 2)
    (tmp_path / "images" / "1.jpg").write_bytes(jpeg(1, *size))
    assert take_in(pool, "table", table).quarantined == {"too_small_image": 1}
    assert take_in(pool, "table", table, settings={"min_side": 1}).added == 1


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, SyntaxError, RecursionError, AttributeError])
def test_nothing_that_a_decoder_raises_ends_the_run(pool, tmp_path, monkeypatch, error):
    real = ingest_module.check_and_normalise

    def failing(data, limits):
        if data == (tmp_path / "images" / "1.jpg").read_bytes():
            raise error("bad file")
        return real(data, limits)

    monkeypatch.setattr(ingest_module, "check_and_normalise", failing)
    summary = take_in(pool, "table", photo_table(tmp_path, 3))
    assert (summary.added, summary.quarantined) == (2, {"unreadable_image": 1})
    assert error.__name__ in read_quarantine(pool)["detail"][0]


# All of it at once

CELLS = st.sampled_from(["1", "1", "2.5", "", "x", "nan", "95", "0"])
FILES = st.sampled_from(["0", "1", "2", "cut", "none"])


def rows_of(file: st.SearchStrategy[str]) -> st.SearchStrategy[list[tuple[str, ...]]]:
    photo, person = st.sampled_from(["a", "b", "", "é"]), st.sampled_from(["ann", "bob", ""])
    return st.lists(st.tuples(photo, file, CELLS, CELLS, person), max_size=10)


ROWS = rows_of(FILES) | rows_of(st.just(""))
"""A table with image files, or of metadata."""


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables=st.lists(ROWS, min_size=1, max_size=3))
def test_any_tables_are_accounted_for_to_the_last_row(tmp_path_factory, tables):
    root = tmp_path_factory.mktemp("account")
    pool = root / "data"
    paths = []
    for number, rows in enumerate(tables):
        folder = root / str(number)
        photo_table(folder, 3)
        (folder / "images" / "cut.jpg").write_bytes(jpeg(5)[:-30])
        path = folder / "photos.csv"
        lines = [f"{i},{f'images/{f}.jpg' if f else ''},{y},{x},{who}" for i, f, y, x, who in rows]
        path.write_text("\n".join(["photo_id,file,latitude,longitude,photographer", *lines]) + "\n")
        paths.append(path)
    for path, rows in zip(paths, tables, strict=True):
        before = len(read_quarantine(pool, mended=True))
        catalog = len(read_catalog(pool)) if (pool / "catalog.parquet").is_file() else 0
        summary = take_in(pool, "table", path)
        assert summary.seen == len(rows)
        assert len(read_catalog(pool)) == catalog + summary.added
        told = (summary.quarantined, summary.fields_dropped, summary.labels)
        new = len(read_quarantine(pool, mended=True)) - before
        assert new == sum(sum(counts.values()) for counts in told)
        kept = contents(pool)
        again = take_in(pool, "table", path)
        assert (again.added, again.seen) == (0, len(rows))
        assert again.quarantined == summary.quarantined
        assert contents(pool) == kept


def test_180_east_is_180_west():
    here = known.Label("a", "s", 10.0, 179.99999, None)
    assert here.agrees(known.Label("b", "t", 10.0, -179.99999, "p1"))
    assert not here.agrees(known.Label("b", "t", 10.0, 179.9, None))
    assert not known.Label("a", "s", 1, 2, "p1").agrees(known.Label("a", "s", 1, 2, "p2"))


def test_what_cannot_be_split_is_said_at_ingest(tmp_path, capsys):
    few = {"fine": {"s2": {"max_photos": 90, "min_photos": 9}}}
    for name, values, said in (
        ("people", {"by": "photographer"}, "cannot be split: splits.test.share is 0.2, .* splits.by: trip"),
        ("trips", {}, "all known photographers are one person, so 6 trips are held out .*splits.by: auto"),
        ("one", {"trip_km": 2000.0}, "as these photos cannot be split: .* of 1 trips.*splits.trip_km"),
        ("cells", {}, "the 3 training photos do not fit partitions.fine: .*min_photos"),
    ):  # fmt: skip
        values = {"test": {"share": 0.2}, "validation": {"share": 0.2}, **values}
        params = {
            "splits": values,
            "partitions": few if name == "cells" else {"fine": {"scale_with_photos": True}},
        }
        workspace = bare_workspace(tmp_path / name / "w", params)
        add(workspace, "folder", album(tmp_path / "mine", 1, 6), "--photographer", "me")
        assert re.search(f"note: .*{said}", capsys.readouterr().out), name


def test_a_damaged_list_of_sources_is_named(tmp_path):
    (tmp_path / "pool").mkdir()
    for text in ("", "[1", "[]"):
        (tmp_path / "pool" / "sources.json").write_text(text)
        with pytest.raises(DamagedFile, match=r"sources\.json is damaged"):
            claim_source(tmp_path / "pool", "folder", tmp_path, b"k" * 32)
