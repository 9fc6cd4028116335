"""`geoloc locate --album` on a build that is put together by hand: all photos of a folder together."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from geoloc.localizers.by_album.hmm import HMM_FILE, count_transitions
from geoloc.localizers.settings import HMMSettings
from geoloc.partitions.base import Partition
from geoloc.photos.catalog import read_catalog
from geoloc.photos.sequences import make_sequences
from geoloc.photos.settings import SequenceSettings
from orchestration.assets.inputs import load_partitions
from orchestration.locate.by_class import ByClass
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace
from tests.pipeline.conftest import geoloc
from tests.pipeline.located_world import SETTINGS, files, make, record

_GPS, _EXIF = 0x8825, 0x8769
PLACE = (48.5, 2.25)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    return make(tmp_path_factory.mktemp("album") / "w")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """Five photos, in another order by time than by name; the last one with a place, a file that is no photo, and what
    is not looked at."""
    found = tmp_path / "album <b>"
    found.mkdir()
    for number, hour in enumerate((3, 1, 0, 4, 2)):
        exif = Image.Exif()
        exif.get_ifd(_EXIF)[0x9003] = f"2020:05:01 1{hour}:00:00"
        if number == 3:
            exif.get_ifd(_GPS).update({1: "N", 2: (48, 30, 0), 3: "E", 4: (2, 15, 0)})
        with Image.open(files(made, number)[0]) as image:
            image.save(found / f"{number}.jpg", exif=exif)
    (found / "notes.txt").write_text("no photo")
    (found / ".hidden").write_text("nor this")
    (found / "below").mkdir()
    return found


def ask(workspace: Workspace, capsys, *options: str) -> dict:
    assert geoloc(workspace, "locate", *options, "--json") == 0
    return json.loads(capsys.readouterr().out)


def names(album: dict) -> list[str]:
    return [Path(one["photo"]).name for one in album["photos"]]


def test_photos_of_a_folder_are_answered_together_in_order_of_time(made, folder, capsys):
    album = ask(made, capsys, "--album", str(folder))
    assert names(album) == ["2.jpg", "1.jpg", "4.jpg", "0.jpg", "3.jpg", "notes.txt"]
    *photos, other = album["photos"]
    assert other["error"]
    assert other["answer"] is None
    assert album["track"] == [[0, 1, 2, 3, 4]]
    single = [json.loads(_alone(made, capsys, folder / name))[0] for name in names(album)[:5]]
    for one, alone in zip(photos, single, strict=True):
        assert not one["anchor"]
        assert one["alone"]["latitude"] == alone["latitude"]
        kept = one["answer"]["latitude"] == one["alone"]["latitude"]
        assert one["changed"] == (not kept)
        assert (one["reason"] is None) == (one["answer"] == photos[0]["answer"]) or kept


def test_photos_without_a_time_are_in_the_order_of_the_numbers_in_their_names(made, folder, capsys):
    for number, name in enumerate(("IMG_2.jpg", "IMG_10.jpg", "IMG_9.jpg", "a1.jpg", "2.jpg")):
        with Image.open(folder / f"{number}.jpg") as image:
            image.convert("RGB").save(folder / f"_{name}", exif=Image.Exif())
        (folder / f"{number}.jpg").unlink()
        (folder / f"_{name}").rename(folder / f"x{name}")
    album = ask(made, capsys, "--album", str(folder))
    in_order = ["notes.txt", "x2.jpg", "xIMG_2.jpg", "xIMG_9.jpg", "xIMG_10.jpg", "xa1.jpg"]
    assert names(album) == in_order


def _alone(workspace: Workspace, capsys, photo: Path) -> str:
    assert geoloc(workspace, "locate", str(photo), "--json") == 0
    return capsys.readouterr().out


def test_photos_that_changed_because_of_the_others_are_told(made, folder, capsys, monkeypatch):
    """Four photos are sure of one cell, and one is a little surer of another."""
    cells = load_partitions(output_folder(made, "default", "partition"))["fine"].cell_count

    def said(by_class: ByClass, photos: list, scaled: bool) -> dict[str, np.ndarray]:
        p = np.full((len(photos), cells), 0.01 / (cells - 2), dtype=np.float32)
        p[:, :2] = 0.9, 0.09
        p[2, :2] = 0.4, 0.59  # 2.jpg
        return {"fine": p, "coarse": np.ones((len(photos), 1), dtype=np.float32)}

    monkeypatch.setattr(ByClass, "probabilities", said)
    photos = {Path(one["photo"]).name: one for one in ask(made, capsys, "--album", str(folder))["photos"]}
    assert [name for name, one in photos.items() if one["changed"]] == ["2.jpg"]
    assert photos["2.jpg"]["answer"]["latitude"] == photos["0.jpg"]["answer"]["latitude"]
    assert photos["2.jpg"]["moved_km"] > 0
    assert geoloc(made, "locate", "--album", str(folder)) == 0
    assert "changed by the others: alone" in capsys.readouterr().out


def test_an_anchor_in_no_cell_says_nothing_of_the_others(made, folder, capsys, monkeypatch):
    """Without its place, 0.jpg would draw the others along."""
    cells = load_partitions(output_folder(made, "default", "partition"))["fine"].cell_count

    def said(by_class: ByClass, photos: list, scaled: bool) -> dict[str, np.ndarray]:
        p = np.full((len(photos), cells), 0.01 / (cells - 2), dtype=np.float32)
        p[:, :2] = 0.45, 0.54
        p[0, :2] = 0.98, 0.01
        return {"fine": p, "coarse": np.ones((len(photos), 1), dtype=np.float32)}

    monkeypatch.setattr(ByClass, "probabilities", said)
    assign = Partition.assign
    monkeypatch.setattr(
        Partition, "assign", lambda self, lat, lon: np.where(np.less(lat, -88), -1, assign(self, lat, lon))
    )
    with Image.open(folder / "0.jpg") as image:
        exif = image.getexif()
        exif.get_ifd(_GPS).update({1: "S", 2: (89, 0, 0), 3: "E", 4: (2, 15, 0)})
        image.save(folder / "0.jpg", exif=exif)
    assert any(one["changed"] for one in ask(made, capsys, "--album", str(folder))["photos"])
    (folder / "3.jpg").unlink()  # the other anchor
    photos = ask(made, capsys, "--album", str(folder), "--anchors")["photos"]
    assert not any(one["changed"] for one in photos)
    (anchor,) = [one for one in photos if one["anchor"]]
    assert anchor["answer"]["latitude"] == -89
    assert "is in no cell of the partition" in anchor["reason"]


def test_places_in_exif_are_used_if_asked_for_and_marked(made, folder, capsys, tmp_path):
    assert geoloc(made, "locate", "--album", str(folder)) == 0
    said = capsys.readouterr()
    assert "1 of the photos have a place in their EXIF, which is not used; use it with --anchors" in said.err
    assert "1 of 6 files are no readable photos" in said.err
    assert "anchor" not in said.out
    assert "1 folders in" in said.err
    with Image.open(folder / "0.jpg") as image:
        exif = image.getexif()
        exif.get_ifd(_GPS).update({1: "N", 2: (91, 0, 0), 3: "E", 4: (2, 15, 0)})
        image.save(folder / "0.jpg", exif=exif)
    page = tmp_path / "track.html"
    assert geoloc(made, "locate", "--album", str(folder), "--anchors", "--map", str(page)) == 0
    said = capsys.readouterr()
    assert "anchor: its EXIF place" in said.out
    assert "1 anchors" in said.out
    assert (
        "1 of the photos are no anchors: their EXIF has a place that cannot be, such as 0.jpg: 91, 2.25"
        in said.err
    )
    html = page.read_text()
    assert "anchor: the place in its EXIF" in html
    assert "album &lt;b&gt;" in html
    assert not re.search(r"(src|href)=.https?:", html)
    album = ask(made, capsys, "--album", str(folder), "--anchors")
    anchor = next(one for one in album["photos"] if one["anchor"])
    assert Path(anchor["photo"]).name == "3.jpg"
    assert (anchor["answer"]["latitude"], anchor["answer"]["longitude"]) == pytest.approx(PLACE)
    assert not anchor["changed"]


def test_a_build_with_a_markov_model_answers_by_it(made, folder, capsys, tmp_path):
    shutil.copytree(made.root, tmp_path / "w")
    workspace = Workspace.open(tmp_path / "w")
    settings = SETTINGS | {"albums": {"averages": [], "hmm": {}}}
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    assert geoloc(workspace, "locate", "--album", str(folder)) == 1
    assert "default has no album_models yet; build it with: geoloc build" in capsys.readouterr().err
    partition = load_partitions(output_folder(workspace, "default", "partition"))["fine"]
    train = read_catalog(workspace.pool).head(40).assign(album="one")
    cells = partition.assign(train["latitude"], train["longitude"])
    single = np.full((1, partition.cell_count), 1 / partition.cell_count)
    counted = count_transitions(
        cells, make_sequences(train, SequenceSettings()), partition.cell_count, HMMSettings(), single
    )
    out = output_folder(workspace, "default", "album_models")
    out.mkdir()
    counted.save(out / HMM_FILE)
    # What it was made from is not read, only named.
    (out.parent / "class_probabilities").mkdir()
    record(workspace, "class_probabilities", "album_models")
    album = ask(workspace, capsys, "--album", str(folder), "--anchors")
    assert album["method"] == f"[L]HMM {partition.cell_count}C"
    assert names(album)[:5] == ["2.jpg", "1.jpg", "4.jpg", "0.jpg", "3.jpg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--album", "nowhere"], "--album must be a folder of photos, got nowhere"),
        (["--album", "{empty}"], "has no files"),
        (["--album", "{empty}", "a.jpg"], "and the photo a.jpg exclude each other"),
        (["--album", "{empty}", "--overhead", "area"], "and --overhead exclude each other"),
        (["--anchors", "a.jpg"], "--anchors needs --album FOLDER"),
        (["--album", "{empty}", "--method", "nn"], "and --method exclude each other"),
        (["--album", "{empty}", "--abstain-below", "0.5"], "and --abstain-below exclude each other"),
        ([], "or a folder with --album"),
        (["a.jpg", "--alternatives", "1001"], "--alternatives must be from 1 to 1,000, got 1,001"),
    ],
)
def test_what_makes_no_sense_is_one_line(made, tmp_path, capsys, options, message):
    (tmp_path / "empty").mkdir()
    asked = [one.format(empty=tmp_path / "empty") for one in options]
    assert geoloc(made, "locate", *asked) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_map_does_not_replace_a_photo(made, folder, capsys):
    before = (folder / "0.jpg").read_bytes()
    assert geoloc(made, "locate", "--album", str(folder), "--map", str(folder / "0.jpg")) == 2
    assert "would replace a photo" in capsys.readouterr().err
    assert (folder / "0.jpg").read_bytes() == before
