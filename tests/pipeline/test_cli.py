"""The command line as a newcomer meets it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import read_photo_bytes
from orchestration.cli import main
from tests.pipeline.conftest import geoloc


@pytest.mark.parametrize("command", ["init", "sample", "ingest", "build", "locate", "audit", "ui"])
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert re.search(r"examples:\n  geoloc ", capsys.readouterr().out)


def test_help_imports_nothing_heavy():
    code = "import sys; from orchestration.cli import make_parser; make_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "dagster",
        "dvc",
        "mlflow",
        "great_expectations",
        "pandas",
        "numpy",
    }
    assert not loaded & heavy


def test_a_folder_that_is_no_workspace_is_told_what_to_do(tmp_path, capsys):
    assert main(["--workspace", str(tmp_path), "build"]) == 1
    assert "geoloc init" in capsys.readouterr().err


def test_an_unknown_stage_is_named_with_those_that_exist(built, capsys):
    assert geoloc(built, "build", "--only", "spilts") == 1
    assert "got spilts" in capsys.readouterr().err


def test_an_unknown_artefact_is_named_with_those_that_exist(built, capsys):
    assert geoloc(built, "audit", "nonsense") == 1
    assert "default/classifier" in capsys.readouterr().err


@pytest.fixture(scope="module")
def photos(built, tmp_path_factory):
    """Two stored photos as files, and a file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    rows = read_catalog(built.pool).head(2)
    for row in rows.itertuples():
        data = read_photo_bytes(built.pool, row.shard, row.offset, row.length)
        (folder / f"{row.Index}.jpg").write_bytes(data)
    (folder / "text.jpg").write_text("not a picture")
    return [str(folder / name) for name in ("0.jpg", "1.jpg", "text.jpg")], rows


@pytest.mark.parametrize("method", ["class", "nn", "knn"])
def test_locate_answers_with_coordinates_names_confidence_and_reasons(
    built, photos, method, capsys, tmp_path
):
    files, _ = photos
    page = tmp_path / "map.html"
    assert geoloc(built, "locate", *files, "--method", method, "--json", "--map", str(page)) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["photo"] for answer in answers] == files
    for answer in answers[:2]:
        assert -90 <= answer["latitude"] <= 90
        assert 0 <= answer["confidence"] <= 1
        assert answer["place"]
        assert answer["alternatives"][0]["why"]
    assert answers[2]["latitude"] is None
    assert answers[2]["error"]
    text = page.read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", text)


def test_a_reference_photo_is_located_where_it_was_taken(built, photos, capsys):
    from geoloc.photos.catalog import read_catalog
    from geoloc.sphere import distance_km
    from orchestration.assets.data import read_splits
    from orchestration.chain import output_folder

    splits = read_splits(output_folder(built, "default", "splits")).set_index("photo_id")["split"]
    catalog = read_catalog(built.pool)
    row = catalog[catalog["photo_id"].map(splits) == "train"].iloc[0]
    file = photos[0][0].replace("0.jpg", "reference.jpg")
    with open(file, "wb") as stream:  # noqa: PTH123
        stream.write(read_photo_bytes(built.pool, row["shard"], row["offset"], row["length"]))
    assert geoloc(built, "locate", file, "--method", "nn", "--json") == 0
    answer = json.loads(capsys.readouterr().out)[0]
    assert distance_km(row["latitude"], row["longitude"], answer["latitude"], answer["longitude"]) < 0.01
    assert answer["confidence"] > 0.99
