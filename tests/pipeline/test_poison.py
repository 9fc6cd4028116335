"""A folder of bad input ends in quarantine, every file accounted for, and the build and its report are good."""

from __future__ import annotations

import io
import re

import pandas as pd
from PIL import Image

from geoloc.photos.catalog import read_catalog
from geoloc.photos.quarantine import read_quarantine
from orchestration.plan.chain import output_folder
from tests.pipeline.conftest import geoloc


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "JPEG")
    return stream.getvalue()


def test_poisoned_photos_end_in_quarantine_and_the_report_is_good(workspace, tmp_path):
    folder = tmp_path / "poison"
    folder.mkdir()
    noise = Image.effect_noise((96, 96), 80).convert("RGB")
    noise.save(folder / "good.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:900])
    (folder / "text.jpg").write_text("not a picture")
    (tmp_path / "outside.jpg").write_bytes(jpeg((9, 9, 9)))
    rows = [
        ("good", "good.jpg", "48.85", "2.35"),
        ("truncated", "truncated.jpg", "48.85", "2.35"),
        ("text", "text.jpg", "48.85", "2.35"),
        ("zero", "good.jpg", "0", "0"),
        ("nowhere", "good.jpg", "", "2.35"),
        ("far", "good.jpg", "95", "2.35"),
        ("nan", "good.jpg", "nan", "2.35"),
        ("absent", "absent.jpg", "48.85", "2.35"),
        ("escape", "../outside.jpg", "48.85", "2.35"),
    ]
    table = pd.DataFrame(rows, columns=["photo_id", "file", "latitude", "longitude"])
    table.assign(photographer="<script>alert(1)</script>").to_csv(folder / "photos.csv", index=False)
    before, quarantined = read_catalog(workspace.pool), read_quarantine(workspace.pool)

    assert geoloc(workspace, "ingest", "table", str(folder / "photos.csv"), "--source", "poison") == 0

    catalog, quarantine = read_catalog(workspace.pool), read_quarantine(workspace.pool)
    added = set(catalog["photo_id"]) - set(before["photo_id"])
    assert added == {"good"}
    new = quarantine[quarantine["source"] == "poison"].set_index("photo_id")["reason"].to_dict()
    assert set(new) == {row[0] for row in rows} - {"good"}
    assert new["truncated"] == "truncated_image"
    assert new["zero"] == "zero_coordinates"
    assert new["far"] == "out_of_range_coordinates"
    assert new["absent"] == "missing_file"
    assert "alert" not in catalog["photographer"].str.cat()

    params = workspace.root / "params.yaml"  # explanations, which other tests look at, take their time
    params.write_text(params.read_text().replace("explained: 2", "explained: 0"))
    assert geoloc(workspace, "build", "--no-commit") == 0
    page = (output_folder(workspace, "default", "report") / "report.html").read_text()
    assert "zero_coordinates" in page
    assert len(quarantine) == len(quarantined) + len(rows) - 1
    assert re.search(r"truncated_image", page)


def test_photos_that_data_dvc_does_not_know_stop_the_build(workspace, tmp_path, capsys):
    Image.effect_noise((96, 96), 60).convert("RGB").save(tmp_path / "a.jpg")
    (tmp_path / "photos.csv").write_text("photo_id,file,latitude,longitude\na,a.jpg,10,10\n")
    assert geoloc(workspace, "ingest", "table", str(tmp_path / "photos.csv"), "--no-dvc") == 0
    assert geoloc(workspace, "build", "--force") == 1
    assert "data/ is not the version that data.dvc names" in capsys.readouterr().err


def test_a_photo_at_sea_is_told_and_does_not_stop_the_build(workspace, tmp_path, capfd):
    Image.effect_noise((96, 96), 60).convert("RGB").save(tmp_path / "a.jpg")
    (tmp_path / "photos.csv").write_text("photo_id,file,latitude,longitude\nadrift,a.jpg,30,-45\n")
    assert geoloc(workspace, "ingest", "table", str(tmp_path / "photos.csv")) == 0
    assert geoloc(workspace, "build", "--only", "photos") == 0
    told = [line for line in capfd.readouterr().err.splitlines() if "No photo is far out at sea" in line]
    assert len(told) == 1
    assert re.search(r"not so for \d+ of \d+ rows, such as .*km from land", told[0])
