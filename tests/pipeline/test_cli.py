"""The command line as a newcomer meets it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from geoloc.files import content_hash
from geoloc.photos.catalog import read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.quarantine import read_quarantine
from orchestration.cli import COMMANDS, main
from orchestration.workspace import Workspace
from tests.photo_fixtures import read_photo_bytes
from tests.pipeline.conftest import Forked, geoloc


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.rpartition(".")[2])
def test_every_command_has_help_with_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command.__name__.rpartition(".")[2], "--help"])
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
        "pydantic",
        "yaml",
    }
    assert not loaded & heavy


def test_a_folder_that_is_no_workspace_is_an_error_that_names_geoloc_init(tmp_path, capsys):
    assert main(["--workspace", str(tmp_path), "build"]) == 1
    assert "geoloc init" in capsys.readouterr().err


def test_an_unknown_stage_is_named_with_those_that_exist(built, capsys):
    assert geoloc(built, "build", "--only", "spilts") == 1
    assert "got spilts" in capsys.readouterr().err


def test_an_unknown_artefact_is_named_with_those_that_exist(built, capsys):
    assert geoloc(built, "audit", "nonsense") == 1
    assert "default/classifier" in capsys.readouterr().err


@pytest.fixture(scope="module")
def small(initialised, tmp_path_factory):
    """A workspace with 40 photos of the sample planet. Do not change it: take `copied`."""
    root = shutil.copytree(initialised, tmp_path_factory.mktemp("small") / "w")
    assert main(["--workspace", str(root), *SMALL_SAMPLE]) == 0
    return Workspace.open(root)


SMALL_SAMPLE = ("sample", "--photos", "40", "--seed", "5", "--processes", "1")


@pytest.fixture
def copied(small, tmp_path):
    shutil.copytree(small.root, tmp_path / "w", symlinks=True)
    return Workspace.open(tmp_path / "w")


def test_a_sample_has_photos_tiles_and_pairs_of_stored_pictures(small):
    photos, tiles, pairs = (
        read_catalog(small.pool),
        read_catalog(overhead_pool(small.pool)),
        read_pairs(small.pool),
    )
    assert set(photos["source"]) == set(tiles["source"]) == {"sample-planet"}
    assert not set(photos["photo_id"]) & set(tiles["photo_id"])
    assert len(pairs) > 0
    assert set(pairs["photo_id"]) <= set(photos["photo_id"][photos["shard"].notna()])
    assert set(pairs["overhead_id"]) <= set(tiles["photo_id"][tiles["shard"].notna()])
    assert pairs["heading"].between(0, 360, inclusive="left").all()
    assert (pairs["city"] == pairs["split_city"]).all()
    tile = tiles.iloc[0]
    assert (
        read_photo_bytes(overhead_pool(small.pool), tile["shard"], tile["offset"], tile["length"])[:2]
        == b"\xff\xd8"
    )


def test_the_same_sample_again_adds_nothing(copied):
    before, version = content_hash(copied.pool), copied.data_pointer.read_bytes()
    assert geoloc(copied, *SMALL_SAMPLE) == 0
    assert content_hash(copied.pool) == before
    assert copied.data_pointer.read_bytes() == version


def test_a_sample_since_a_version_adds_new_photos_and_new_pairs(copied):
    before, pairs = read_catalog(copied.pool), read_pairs(copied.pool)
    away = read_quarantine(copied.pool)
    version = copied.data_pointer.read_bytes()
    assert geoloc(copied, *SMALL_SAMPLE, "--since", "1") == 0
    after = read_catalog(copied.pool)
    assert len(after) >= len(before) + 30
    assert after["photo_id"].head(len(before)).tolist() == before["photo_id"].tolist()
    assert len(read_pairs(copied.pool)) > len(pairs)
    assert copied.data_pointer.read_bytes() != version
    # rows of one number in two versions are two inputs: nothing that was turned away is forgotten
    assert len(read_quarantine(copied.pool).merge(away)) == len(away)
    again = content_hash(copied.pool)
    assert geoloc(copied, *SMALL_SAMPLE, "--since", "1") == 0
    assert content_hash(copied.pool) == again


@pytest.mark.parametrize("step", ["tiles", "photos"])
def test_a_sample_that_ends_between_two_steps_is_finished_by_the_same_command(
    small, initialised, tmp_path, monkeypatch, step
):
    root = shutil.copytree(initialised, tmp_path / "w")
    shutil.copy(small.root / ".gitignore", root)
    from geoloc.photos import ingest, pairs

    with monkeypatch.context() as patched:

        def stop(pool, *_args, **_keywords):
            raise KeyboardInterrupt

        if step == "tiles":
            real = ingest.ingest
            patched.setattr(
                ingest,
                "ingest",
                lambda pool, *a, **k: (real if pool.name == "overhead" else stop)(pool, *a, **k),
            )
        else:
            patched.setattr(pairs, "add_pairs", stop)
        assert main(["--workspace", str(root), *SMALL_SAMPLE]) == 130
    stopped = Workspace.open(root)
    assert not stopped.data_pointer.exists()  # recorded once, at the end
    assert len(read_catalog(overhead_pool(stopped.pool))) > 0
    assert len(read_pairs(stopped.pool)) == 0
    assert main(["--workspace", str(root), *SMALL_SAMPLE]) == 0
    assert content_hash(stopped.pool) == content_hash(small.pool)
    assert stopped.data_pointer.read_bytes() == small.data_pointer.read_bytes()


@pytest.mark.slow
def test_of_two_samples_at_once_one_is_done_and_the_other_is_told(small, initialised, tmp_path):
    workspace = Workspace(shutil.copytree(initialised, tmp_path / "w"))
    shutil.copy(small.root / ".gitignore", workspace.root)
    both = [Forked(lambda: geoloc(workspace, *SMALL_SAMPLE), caught=True) for _ in range(2)]
    statuses = {process.printed.read(): process.end() for process in both}
    assert sorted(statuses.values()) == [0, 1]
    (error,) = [text for text, code in statuses.items() if code == 1]
    assert re.fullmatch(
        r"geoloc: another command \(geoloc sample .*, process \d+, since .*; wait for it to end\n", error
    )
    assert content_hash(workspace.pool) == content_hash(small.pool)
    assert workspace.data_pointer.read_bytes() == small.data_pointer.read_bytes()


def test_a_sample_into_a_folder_leaves_the_pool_alone(copied, tmp_path):
    before = content_hash(copied.pool)
    assert geoloc(copied, *SMALL_SAMPLE, "--folder", str(tmp_path / "made")) == 0
    assert {"photos.csv", "overhead.csv", "pairs.csv", "truth.csv"} <= {
        p.name for p in (tmp_path / "made").iterdir()
    }
    assert content_hash(copied.pool) == before
    assert not list(copied.pool.rglob("truth*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--since", "0"], "argument --since: must be at least 1, got 0"),
        (["--photos", "1"], "argument --photos: must be at least 2, got 1"),
        (["--processes", "none"], "argument --processes: invalid whole number value: 'none'"),
    ],
)
def test_wrong_options_of_sample_are_named(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sample", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


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
    from orchestration.assets.inputs import read_photos
    from orchestration.plan.chain import output_folder

    splits = read_photos(output_folder(built, "default", "splits")).set_index("photo_id")["split"]
    catalog = read_catalog(built.pool)
    row = catalog[catalog["photo_id"].map(splits) == "train"].iloc[0]
    file = photos[0][0].replace("0.jpg", "reference.jpg")
    with open(file, "wb") as stream:  # noqa: PTH123
        stream.write(read_photo_bytes(built.pool, row["shard"], row["offset"], row["length"]))
    assert geoloc(built, "locate", file, "--method", "nn", "--json") == 0
    answer = json.loads(capsys.readouterr().out)[0]
    assert distance_km(row["latitude"], row["longitude"], answer["latitude"], answer["longitude"]) < 0.01
    assert answer["confidence"] > 0.99
