"""`geoloc index overhead` and `geoloc locate --overhead`: an area becomes an index, and answers come from it.

The network is replaced by one whose embedding of a picture is its mean colour, so that it is known which tile is right.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from geoloc.files import write_parquet
from geoloc.localizers.by_overhead.calibration import Calibration
from geoloc.localizers.by_overhead.index import CALIBRATION_FILE, OverheadIndex
from geoloc.localizers.by_overhead.tiling import Tiling, tile_raster
from geoloc.photos.geotiff import open_raster
from geoloc.photos.pair_splits import PAIR_COLUMNS, PICTURE_COLUMNS
from geoloc.sphere import distance_km
from orchestration.cli import main
from orchestration.lineage.build import Build
from orchestration.locate import by_overhead
from orchestration.plan.chain import PAIRS_FILE, PICTURES_FILE, STAGES
from tests.unit.pretended import bare_workspace, pretend_stage, record_as_built, write_recipe
from tests.unit.test_rasters import write_tiff

SIDE = 360  # metres, and pixels, of the area


class MeanColour:
    """An embedder by mean colour."""

    model = "f" * 64
    network = SimpleNamespace(
        shape=SimpleNamespace(rotation_range=360, normalise=False, kind="embedding"), tells_orientation=False
    )
    calls = 0

    def photos(self, photos):
        return np.stack([photo.reshape(-1, 3).mean(axis=0) / 255 for photo in photos]).astype(np.float32)

    def tiles(self, tiles, rotations):
        MeanColour.calls += 1
        return np.repeat(self.photos(tiles)[:, None], rotations, axis=1)


@pytest.fixture
def area(tmp_path):
    """A georeferenced picture: red grows to the east, green to the south."""
    from rasterio.transform import from_origin

    pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
    pixels[:, :, 0] = np.linspace(0, 250, SIDE)[None, :]
    pixels[:, :, 1] = np.linspace(0, 250, SIDE)[:, None]
    return write_tiff(tmp_path / "area.tif", pixels, from_origin(700_000, 5_300_000, 1, 1), crs="EPSG:32632")


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace whose recipe `above` has a cross-view network, calibrated, on tiles of 60 m."""
    workspace = bare_workspace(tmp_path / "w", {})
    build = write_recipe(workspace, "above", {"cross_view": {"search": {"rotations": 4, "matching": "best"}}})
    for stage in ("pairs", "cross_view_model", "overhead_index"):
        pretend_stage(build, STAGES[stage])
    pairs = pd.DataFrame([dict.fromkeys(PAIR_COLUMNS)]).assign(overhead_id="o", metres_per_pixel=1.0)
    pictures = pd.DataFrame([dict.fromkeys(PICTURE_COLUMNS)]).assign(photo_id="o", view="overhead", width=60)
    write_parquet(build.folder("pairs") / PAIRS_FILE, pairs)
    write_parquet(build.folder("pairs") / PICTURES_FILE, pictures)
    calibration = Calibration(0.01, 0.01, 0.002, heading_error=12.0, heading_error_90=40.0, pairs=9)
    calibration.save(build.folder("overhead_index") / CALIBRATION_FILE)
    for stage in ("pairs", "cross_view_model", "overhead_index"):
        record_as_built(build, STAGES[stage])
    monkeypatch.setattr(by_overhead, "_embedder", lambda build: MeanColour())
    MeanColour.calls = 0
    return workspace


def geoloc(workspace, *arguments) -> int:
    return main(["--workspace", str(workspace.root), *map(str, arguments)])


def index(workspace, area, output, *more) -> int:
    return geoloc(
        workspace, "index", "overhead", "--raster", area, "--recipe", "above", "--output", output, *more
    )


def test_an_index_below_a_file_is_refused(workspace, area, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert index(workspace, area, tmp_path / "taken" / "index") == 2
    error = capsys.readouterr().err
    assert (
        f"--output must be a new folder, got {tmp_path / 'taken' / 'index'}: {tmp_path / 'taken'} is a file"
        in error
    )


def photo(path, red, green):
    Image.new("RGB", (64, 48), (red, green, 40)).save(path, quality=95)
    return path


def test_an_area_is_indexed_and_photos_are_found_on_it(workspace, area, tmp_path, capsys):
    assert index(workspace, area, tmp_path / "index", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["metres"], facts["step"], facts["recipe"]) == (60, 30, "above")
    made = OverheadIndex.open(tmp_path / "index")
    assert len(made) == facts["tiles"] > 60
    assert facts["on_edge"] > 0
    assert made.vectors.shape[1:] == (4, 3)
    assert list((tmp_path).glob(".index*")) == []

    inside, outside = photo(tmp_path / "in.jpg", 125, 60), photo(tmp_path / "out.jpg", 0, 255)
    page = tmp_path / "map.html"
    asked = [
        "locate",
        inside,
        outside,
        tmp_path / "gone.jpg",
        "--recipe",
        "above",
        "--overhead",
        tmp_path / "index",
    ]
    assert geoloc(workspace, *asked, "--json", "--map", page) == 0
    found, beside, gone = json.loads(capsys.readouterr().out)
    with open_raster(area) as raster:
        latitude, longitude = (float(one[0]) for one in raster.from_pixels([SIDE / 2], [SIDE * 60 / 250]))
    assert distance_km(latitude, longitude, found["latitude"], found["longitude"]) < 0.03
    assert found["confidence"] == found["alternatives"][0]["weight"] > 0
    assert 0 <= found["radius_km"] < 0.2
    assert beside["latitude"] is None
    assert "outside of the index's area" in beside["error"]
    assert "No such file" in gone["error"]
    assert "in.jpg" in page.read_text()
    assert geoloc(workspace, *asked) == 0
    assert "half of the probability is within" in capsys.readouterr().out
    assert geoloc(workspace, "locate", outside, "--recipe", "above", "--overhead", tmp_path / "index") == 1


def test_the_heading_is_told_with_its_error_and_drawn(workspace, area, tmp_path, capsys, monkeypatch):
    from geoloc.localizers.by_overhead import localizer

    monkeypatch.setattr(
        localizer, "headings_of", lambda network, photos, tiles, up: np.full(len(photos), 123.0)
    )
    assert index(workspace, area, tmp_path / "index") == 0
    asked = [
        "locate",
        photo(tmp_path / "in.jpg", 125, 60),
        "--recipe",
        "above",
        "--overhead",
        tmp_path / "index",
    ]
    assert geoloc(workspace, *asked, "--map", tmp_path / "map.html") == 0
    assert "it looks towards 123° ± 12° from north" in capsys.readouterr().out
    assert geoloc(workspace, *asked, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["heading"], found["heading_error"]) == (123, 12)
    monkeypatch.setattr(
        localizer, "headings_of", lambda network, photos, tiles, up: np.full(len(photos), 359.8)
    )
    assert geoloc(workspace, *asked) == 0
    told = capsys.readouterr().out
    assert "it looks towards 0° ± 12° from north" in told
    assert "heading 0°" in told
    ring = by_overhead._wedge(
        by_overhead.LocatedOverhead("a", "m", 48.0, 11.0, heading=90.0, heading_error=10.0)
    )[0]
    assert all(longitude >= 11.0 for _, longitude in ring)
    assert "M" in (tmp_path / "map.html").read_text()


def test_a_joint_answer_is_where_the_classifier_thinks_it_likely(
    workspace, area, tmp_path, capsys, monkeypatch
):
    build = Build(workspace, "above")
    for stage in ("splits", "partition", "classifier"):
        pretend_stage(build, STAGES[stage])
    assert index(workspace, area, tmp_path / "index") == 0
    capsys.readouterr()
    asked = [
        "locate",
        photo(tmp_path / "in.jpg", 125, 60),
        "--recipe",
        "above",
        "--overhead",
        tmp_path / "index",
    ]
    assert geoloc(workspace, *asked, "--json") == 0
    (alone,) = json.loads(capsys.readouterr().out)

    def likely(north_first):
        class Halves:
            def assign(self, latitude, longitude):
                return (np.asarray(latitude) < alone["latitude"] + 0.0002).astype(np.int64)

        shares = np.array([[0.99, 0.01] if north_first else [0.01, 0.99]], np.float32)
        return lambda build, pixels, say: by_overhead._Likely("[L]2C", shares, Halves())

    monkeypatch.setattr(by_overhead, "_likely", likely(False))
    assert geoloc(workspace, *asked, "--joint", "--json") == 0
    (same,) = json.loads(capsys.readouterr().out)
    assert (same["latitude"], same["method"]) == (alone["latitude"], "[overhead] in [L]2C")
    monkeypatch.setattr(by_overhead, "_likely", likely(True))
    geoloc(workspace, *asked, "--joint", "--json")
    (moved,) = json.loads(capsys.readouterr().out)
    assert moved["latitude"] is None or moved["latitude"] > alone["latitude"]
    assert geoloc(workspace, *asked[:-2], "--joint") == 2
    assert "--joint is for --overhead INDEX" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_where_it_was(area, tmp_path):
    tiling, seen = Tiling(metres=60, pixels=32, step=60, batch=2), []

    def embed(tiles):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(len(tiles))
        return MeanColour().tiles(tiles, 1)

    with open_raster(area) as raster:
        with pytest.raises(KeyboardInterrupt):
            tile_raster(raster, tiling, embed, "model", tmp_path / "work")
        calls = []
        made = tile_raster(
            raster,
            tiling,
            lambda t: calls.append(len(t)) or MeanColour().tiles(t, 1),
            "model",
            tmp_path / "work",
        )
        whole = tile_raster(raster, tiling, lambda t: MeanColour().tiles(t, 1), "model", tmp_path / "other")
        assert sum(seen) + sum(calls) == len(made.tiles)
        assert made.tiles.equals(whole.tiles)
        assert np.array_equal(made.vectors, whole.vectors)
        other = []
        tile_raster(
            raster, tiling, lambda t: other.append(1) or MeanColour().tiles(t, 1), "net 2", tmp_path / "work"
        )
        assert len(other) > len(calls)  # what another network embedded is not taken


def test_tiles_on_the_edge_are_padded_where_asked(workspace, area, tmp_path, capsys):
    assert index(workspace, area, tmp_path / "a", "--json") == 0
    refused = json.loads(capsys.readouterr().out)
    assert index(workspace, area, tmp_path / "b", "--json", "--pad", "0.5") == 0
    padded = json.loads(capsys.readouterr().out)
    assert padded["tiles"] > refused["tiles"]
    assert padded["on_edge"] < refused["on_edge"]
    assert sum(refused[n] for n in ("tiles", "on_edge", "outside")) == sum(
        padded[n] for n in ("tiles", "on_edge", "outside")
    )


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        (["--metres", "5000"], 1, "has no place for a tile of 5000 m"),
        (["--step", "0.001"], 1, "take a larger step"),
        (["--metres", "0"], 2, "--metres: must be a number of metres"),
        (["--zoom", "4"], 2, "--zoom is for map tiles"),
        (
            ["--recipe", "default"],
            1,
            "needs? a recipe with a section cross_view|need a recipe with a section cross_view",
        ),
    ],
)
def test_what_cannot_be_indexed_is_told_in_a_line(workspace, area, tmp_path, capsys, options, status, told):
    try:
        found = index(workspace, area, tmp_path / "index", *options)
    except SystemExit as stopped:  # argparse
        found = stopped.code
    assert found == status
    import re

    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "index").exists()


def test_what_locate_cannot_answer_from_is_told_in_a_line(workspace, area, tmp_path, capsys):
    asked = [
        "locate",
        photo(tmp_path / "in.jpg", 125, 60),
        "--recipe",
        "above",
        "--overhead",
        tmp_path / "index",
    ]
    assert geoloc(workspace, *asked) == 2
    assert "geoloc index overhead --raster FILE --recipe above" in capsys.readouterr().err
    assert geoloc(workspace, *asked, "--method", "nn") == 2
    assert "--overhead and --method nn exclude each other" in capsys.readouterr().err
    assert index(workspace, area, tmp_path / "index") == 0
    made = OverheadIndex.open(tmp_path / "index")
    (tmp_path / "index" / CALIBRATION_FILE).unlink()
    assert geoloc(workspace, *asked) == 1
    assert "has no calibration" in capsys.readouterr().err
    for vectors, told in (
        (
            np.array(made.vectors)[:, :, :2],
            "it has embeddings of 2 dimensions, and the network of above gives 3",
        ),
        (np.full_like(made.vectors, np.nan), "its embeddings are NaN"),
    ):
        OverheadIndex(made.tiles, vectors, made.up, None, made.model, made.calibration).save(
            tmp_path / "index"
        )
        assert geoloc(workspace, *asked) == 1
        assert f"vectors.npy is damaged: {told}" in capsys.readouterr().err
    OverheadIndex(made.tiles, np.array(made.vectors), made.up, None, "e" * 64, made.calibration).save(
        tmp_path / "index"
    )
    assert geoloc(workspace, *asked) == 1
    assert "was made with another network" in capsys.readouterr().err
    assert index(workspace, area, tmp_path) == 2
    assert "--output must be a new folder or an overhead index" in capsys.readouterr().err
