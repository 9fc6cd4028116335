"""Collections of street photos and overhead tiles, each through `geoloc ingest` from a small copy of its layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from geoloc.photos.catalog import read_catalog
from geoloc.photos.pairs import overhead_pool, read_pairs
from geoloc.photos.quarantine import read_quarantine
from orchestration.cli import main
from tests.photo_fixtures import exif, jpeg
from tests.unit.pretended import bare_workspace
from tests.unit.test_rasters import map_tiles, write_tiff


@pytest.fixture
def workspace(tmp_path):
    return bare_workspace(tmp_path / "w", {})


def run(workspace, *arguments) -> int:
    ingest = ["ingest", *map(str, arguments), "--no-dvc"]
    return main(["--workspace", str(workspace.root), *ingest])


def write(root: Path, files: dict[str, int | str]) -> Path:
    """Pictures by their seed, other files by their text."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        data = jpeg(content, 64, 64) if isinstance(content, int) else content.encode()
        (root / name).write_bytes(data)
    return root


def cvusa(root: Path) -> Path:
    def row(n: int) -> str:
        return (
            f"bingmap/19/000000{n}.jpg,streetview/panos/000000{n}.jpg,streetview/annotations/000000{n}.png\n"
        )

    places = "40.1,-90.1,40.10001,-90.10001,12\n41.2,-91.2,41.2,-91.2,200\n42.3,-92.3,42.3,-92.3,0\n"
    lists = {"splits/train-19zl.csv": row(2) + row(1), "splits/val-19zl.csv": row(3)}
    tiles = {f"bingmap/19/000000{n}.jpg": n for n in (1, 2, 3)}
    panoramas = {f"streetview/panos/000000{n}.jpg": 10 + n for n in (1, 2, 3)}
    return write(root, {**lists, "split_locations/all.csv": places, **tiles, **panoramas})


def cvact(root: Path) -> Path:
    files = {f"ANU_data_small/streetview/{n}_grdView.jpg": i for i, n in enumerate(("aB-1", "cD_2"))}
    files |= {
        f"ANU_data_small/satview_polish/{n}_satView_polish.jpg": 10 + i
        for i, n in enumerate(("aB-1", "cD_2"))
    }
    files |= {
        "ANU_data_test/streetview/eF3_grdView.jpg": 30,
        "ANU_data_test/satview_polish/eF3_satView_polish.jpg": 31,
    }
    write(root, files)
    ids = np.array(["aB-1", "cD_2", "eF3"], dtype=object)[:, None]
    utm = np.array([[693680.0, 6090580.0], [693780.0, 6090580.0], [693880.0, 6090680.0]])
    savemat(root / "ACT_data.mat", {"panoIds": ids, "utm": utm})
    return root


def vigor(root: Path) -> Path:
    pano = "x{n},40.70000{n},-74.00000{n},.jpg"
    tile = "satellite_40.7000{n}_-74.0000{n}.png"
    line = " ".join([pano, tile, "1.0 2.0", *(["satellite_41.0_-75.0.png 3.0 4.0"] * 3)])
    files: dict[str, int | str] = {
        "splits/NewYork/pano_label_balanced.txt": "\n".join(line.format(n=n) for n in (1, 2)) + "\n"
    }
    for n in (1, 2):
        files |= {f"NewYork/panorama/{pano.format(n=n)}": n, f"NewYork/satellite/{tile.format(n=n)}": 10 + n}
    return write(root, files)


def gtcrossview(root: Path) -> Path:
    return write(root, {
        "train.streetview.txt": "denver/s/1.jpg 1\ndenver/s/2.jpg 1\n",
        "train.overhead.txt": "denver/o/1.jpg 0\ndenver/o/2.jpg 0\n",
        "seattle_test.streetview.txt": "3.jpg 1\n",
        "seattle_test.overhead.txt": "o3.jpg 0\n",
        "places.csv": "file,latitude,longitude,heading\ndenver/s/1.jpg,39.7,-104.9,15\n"
        "denver/o/2.jpg,39.8,-104.8,\no3.jpg,47.6,-122.3,\n",
        "denver/s/1.jpg": 1, "denver/s/2.jpg": 2, "3.jpg": 3, "denver/o/1.jpg": 11, "denver/o/2.jpg": 12, "o3.jpg": 13,
    })  # fmt: skip


def pairs(root: Path) -> Path:
    return write(root, {
        "pairs.csv": "file,overhead_file,latitude,longitude,heading,heading_reference,city,photographer,tile_metres\n"
        "s/1.jpg,o/1.jpg,48.2,16.3,90,magnetic,\"Wien, AT\",anna,100\ns/2.jpg,o/2.jpg,48.3,16.4,,,NA,ben,\n",
        "s/1.jpg": 1, "s/2.jpg": 2, "o/1.jpg": 11, "o/2.jpg": 12,
    }) / "pairs.csv"  # fmt: skip


LAYOUTS = {"cvusa": cvusa, "cvact": cvact, "vigor": vigor, "gtcrossview": gtcrossview, "pairs": pairs}


def ingested(workspace, kind, path, *options):
    assert run(workspace, kind, path, "--source", kind, *options) == 0
    found = read_pairs(workspace.pool).sort_values("photo_id", ignore_index=True)
    street = read_catalog(workspace.pool).set_index("photo_id").loc[found["photo_id"]]
    tiles = read_catalog(overhead_pool(workspace.pool)).set_index("photo_id").loc[found["overhead_id"]]
    return found, street, tiles


def test_cvusa_is_placed_by_the_number_of_its_pictures(workspace, tmp_path, capsys):
    found, street, tiles = ingested(workspace, "cvusa", cvusa(tmp_path / "CVUSA"))
    assert found["overhead_id"].tolist() == [f"cvusa/bingmap/19/000000{n}.jpg" for n in (1, 2, 3)]
    assert street["latitude"].tolist() == [40.10001, 41.2, 42.3]
    assert tiles["longitude"].tolist() == [-90.1, -91.2, -92.3]
    assert found["heading"].tolist() == [0, 0, 0]
    assert found["city"].isna().all()
    assert found["tile_metres"][0] == pytest.approx(750 * 0.2986 * np.cos(np.radians(40.1)), rel=1e-3)
    assert "pairs: 3 added" in capsys.readouterr().out
    assert run(workspace, "cvusa", tmp_path / "CVUSA", "--source", "cvusa") == 0
    assert "pairs: 0 added, 3 already present, 0 dropped" in capsys.readouterr().out


def test_cvact_is_placed_by_utm(workspace, tmp_path):
    found, street, _ = ingested(workspace, "cvact", cvact(tmp_path / "CVACT"))
    assert len(found) == 3
    assert "cvact/ANU_data_test/streetview/eF3_grdView.jpg" in set(found["photo_id"])
    assert street["latitude"].between(-35.4, -35.2).all()
    assert street["longitude"].between(149.0, 149.2).all()
    assert set(found["tile_metres"]) == {144.0}


def test_vigor_is_placed_by_names_and_leaves_out_tiles_that_only_touch(workspace, tmp_path, capsys):
    found, street, tiles = ingested(workspace, "vigor", vigor(tmp_path / "VIGOR"))
    assert "left out: tiles that only touch a panorama 6" in capsys.readouterr().out
    assert found["city"].tolist() == ["NewYork"] * 2
    assert street["latitude"].tolist() == [40.700001, 40.700002]
    assert tiles["longitude"].tolist() == [-74.00001, -74.00002]
    assert found["tile_metres"].tolist() == pytest.approx([640 * 0.1132] * 2, rel=1e-3)


def test_corrected_labels_of_vigor_win(workspace, tmp_path):
    root = vigor(tmp_path / "VIGOR")
    list_ = root / "splits/NewYork/pano_label_balanced.txt"
    corrected = root / "splits__corrected/NewYork/pano_label_balanced__corrected.txt"
    corrected.parent.mkdir(parents=True)
    corrected.write_text(list_.read_text().splitlines()[0] + "\n")
    assert len(ingested(workspace, "vigor", root)[0]) == 1


def test_gtcrossview_is_placed_by_a_table(workspace, tmp_path, capsys):
    root = gtcrossview(tmp_path / "GT")
    assert run(workspace, "gtcrossview", root) == 1
    assert "give --table CSV" in capsys.readouterr().err
    found, street, _ = ingested(workspace, "gtcrossview", root, "--table", root / "places.csv")
    assert found["city"].tolist() == ["seattle_test", "denver", "denver"]
    assert street["latitude"].tolist() == [47.6, 39.7, 39.8]
    assert found["heading"].fillna(-1).tolist() == [-1, 15, -1]


def test_a_table_of_pairs(workspace, tmp_path):
    found, street, _ = ingested(workspace, "pairs", pairs(tmp_path))
    assert found["city"].tolist() == ["Wien, AT", "NA"]
    assert found["heading_reference"].fillna("").tolist() == ["magnetic", ""]
    assert found["heading"].isna().tolist() == [False, True]
    assert found["tile_metres"].fillna(0).tolist() == [100, 0]
    assert street["photographer"].nunique() == 2


def test_a_photo_at_two_places_keeps_the_first_and_says_so(workspace, tmp_path, capsys):
    file = pairs(tmp_path)
    rows = pd.read_csv(file, dtype=str, keep_default_na=False)
    moved = rows.head(1).assign(latitude="10.5", overhead_file=rows["overhead_file"].iloc[1])
    pd.concat([rows, moved]).to_csv(file, index=False)
    found, *_ = ingested(workspace, "pairs", file)
    assert len(found) == len(rows)
    assert "left out: the same photo at another place 1" in capsys.readouterr().out


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_missing_partner_is_told_and_the_rest_kept(workspace, tmp_path, kind, capsys):
    path = LAYOUTS[kind](tmp_path / kind)
    root = path if path.is_dir() else path.parent
    tile = next(file for file in sorted(root.rglob("*.*")) if file.suffix in (".jpg", ".png") and any(
        part in file.as_posix().removeprefix(root.as_posix()) for part in ("bingmap", "satview", "satellite", "/o")
    ))  # fmt: skip
    tile.unlink()
    options = ["--table", root / "places.csv"] if kind == "gtcrossview" else []
    found, *_ = ingested(workspace, kind, path, *options)
    away = read_quarantine(workspace.pool)
    assert away["reason"].tolist() == ["pair_without_tile"]
    assert read_quarantine(overhead_pool(workspace.pool))["reason"].tolist() == ["missing_file"]
    assert len(found) >= 1


@pytest.mark.parametrize(
    ("kind", "spoil", "told"),
    [
        ("cvusa", lambda root: (root / "split_locations/all.csv").unlink(), "has no split_locations/all.csv"),
        (
            "cvusa",
            lambda root: [(root / f"splits/{n}-19zl.csv").unlink() for n in ("train", "val")],
            "as CVUSA has",
        ),
        ("cvact", lambda root: (root / "ACT_data.mat").write_bytes(b"no matlab"), "is not a MATLAB file"),
        ("cvact", lambda root: (root / "ACT_data.mat").write_bytes(b"no " * 60), "is not a MATLAB file"),
        (
            "cvact",
            lambda root: savemat(root / "ACT_data.mat", {"panoIds": ["a"], "utm": [["1", "2"]]}),
            "must have numbers in utm",
        ),
        ("cvact", lambda root: (root / "ACT_data.mat").unlink(), "has no ACT_data.mat"),
        ("vigor", lambda root: (root / "splits/NewYork/pano_label_balanced.txt").unlink(), "as VIGOR has"),
        (
            "gtcrossview",
            lambda root: (root / "train.overhead.txt").write_text("a.jpg 0\n"),
            "must go together",
        ),
        ("gtcrossview", lambda root: (root / "train.overhead.txt").unlink(), "has no train.overhead.txt"),
    ],
)
def test_a_folder_that_is_no_such_collection_is_told_in_a_line(
    workspace, tmp_path, capsys, kind, spoil, told
):
    root = LAYOUTS[kind](tmp_path / kind)
    spoil(root)
    assert run(workspace, kind, root) == 1
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def street_photos(workspace, tmp_path, *places) -> None:
    """Photos of the pool at (latitude, longitude, heading)."""
    for number, (latitude, longitude, heading) in enumerate(places):
        file = tmp_path / "album" / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(jpeg(50 + number, 64, 64, exif=exif(latitude, longitude, heading=heading)))
    assert run(workspace, "folder", tmp_path / "album", "--photographer", "me", "--source", "mine") == 0


def test_tiles_are_cut_for_the_photos_of_the_pool(workspace, tmp_path, capsys):
    street_photos(
        workspace, tmp_path, (48.0, 11.0, 45), (48.0005, 11.0, None), (50.0, 11.0, 9), (48.0, 11.0054, 3)
    )
    folder = map_tiles(tmp_path / "tiles")
    assert run(workspace, "overhead", folder, "--metres", 40, "--city", "here", "--heading-from", "true") == 0
    out = capsys.readouterr().out
    assert "left out: outside of the raster 2" in out
    found = read_pairs(workspace.pool)
    assert found["heading"].fillna(-1).round(3).tolist() == [45, -1]
    assert found["city"].tolist() == ["here"] * 2
    tiles = read_catalog(overhead_pool(workspace.pool))
    assert (tiles["width"].tolist(), tiles["latitude"].tolist()) == ([256, 256], [48.0, 48.0005])
    assert run(workspace, "overhead", folder, "--metres", 40, "--city", "here", "--heading-from", "true") == 0
    assert "pairs: 0 added, 2 already present, 0 dropped" in capsys.readouterr().out


def test_photos_beside_the_raster_and_rasters_without_a_place_are_told(workspace, tmp_path, capsys):
    folder = map_tiles(tmp_path / "tiles")
    assert run(workspace, "overhead", folder) == 2
    assert "needs street photos in the pool" in capsys.readouterr().err
    street_photos(workspace, tmp_path, (10.0, 10.0, 1))
    assert run(workspace, "overhead", folder) == 2
    assert "none of 1 photos lies on" in capsys.readouterr().err
    from affine import Affine

    bare = write_tiff(tmp_path / "area.tif", np.zeros((9, 9, 3), np.uint8), Affine.identity(), None)
    assert run(workspace, "overhead", bare) == 1
    assert "area.tif has no coordinate system" in capsys.readouterr().err


@pytest.mark.parametrize(("share", "least", "most"), [("1", 10, 24), ("0", 0, 0)])
def test_the_sample_has_as_many_tiles_as_asked_for(tmp_path, share, least, most):
    options = [
        "--photos",
        "24",
        "--processes",
        "1",
        "--overhead-share",
        share,
        "--folder",
        str(tmp_path / "planet"),
    ]
    assert main(["sample", *options]) == 0
    lines = (tmp_path / "planet" / "pairs.csv").read_text().splitlines()
    assert least <= len(lines) - 1 <= most
