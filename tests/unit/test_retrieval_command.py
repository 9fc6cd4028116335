"""`geoloc retrieval`: published collections measured from files of features; errors in one line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from geoloc.evaluation.retrieval_sets import layouts
from geoloc.files import write_json
from orchestration.cli import main
from orchestration.commands import retrieval as command


def images(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (200, 10, 10)).save(folder / name, "JPEG")
    return list(names)


def cub(folder, classes=(101, 101, 101, 102, 102, 102, 1)):
    names = images(folder / "images", [f"{c:03}.bird/{i}.jpg" for i, c in enumerate(classes)])
    (folder / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names)))
    (folder / "image_class_labels.txt").write_text("".join(f"{i} {c}\n" for i, c in enumerate(classes)))
    return names[:6]


def vectors(angles):
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


SIX = vectors([0, 1, 4, 90, 91, 3.1])  # the last bird of class 102 is among those of class 101


def write(file, ids, x):
    if file.suffix == ".npy":
        np.save(file, x)
        file.with_suffix(".txt").write_text("\n".join(ids))
    else:
        pd.DataFrame({"id": list(ids), "vector": list(x)}).to_parquet(file)
    return str(file)


def asked(capsys, *arguments):
    assert main(["retrieval", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["npy", "parquet"])
@pytest.mark.parametrize("form", ["path", "name", "stem"])
def test_recall_of_images_by_class(tmp_path, capsys, kind, form):
    names = cub(tmp_path / "cub")
    ids = {
        "path": [f"images/{name}" for name in names],
        "name": [name.split("/")[1] for name in names],
        "stem": [name.split("/")[1].split(".")[0] for name in names],
    }[form]
    # In another order than the collection's, with one image more.
    order = [5, 3, 0, 1, 4, 2]
    file = write(
        tmp_path / f"theirs.{kind}", ["more", *(ids[i] for i in order)], np.concatenate([SIX[:1], SIX[order]])
    )
    found = asked(capsys, "cub-200-2011", tmp_path / "cub", "--features", file)
    row = found["measures"][0]
    # Image 2 finds image 5 of the other class first, image 5 finds 2; the others find their own.
    assert (row["protocol"], row["queries"], found["dimensions"]) == ("test", 6, 2)
    assert (row["R@1"], row["R@2"], row["R@4"]) == pytest.approx((4 / 6, 5 / 6, 1))
    assert main(["retrieval", "cub-200-2011", str(tmp_path / "cub"), "--features", file]) == 0
    shown = capsys.readouterr().out
    assert "cub-200-2011: 6 images, embeddings of theirs" in shown
    assert "| test | 6" in shown
    assert "66.7" in shown


def test_landmarks_under_three_protocols_and_holidays(tmp_path, capsys):
    folder = tmp_path / "oxford"
    images(folder, [f"jpg/{name}.jpg" for name in ("a", "b", "c", "q")])
    truth = {"easy": [0], "hard": [2], "junk": [], "bbx": [0, 0, 20, 20]}
    write_json(folder / "gnd_roxford5k.json", {"imlist": ["a", "b", "c"], "qimlist": ["q"], "gnd": [truth]})
    file = write(tmp_path / "x.npy", ["q", "a", "b", "c"], vectors([0, 1, 2, 3]))
    rows = {r["protocol"]: r for r in asked(capsys, "roxford5k", folder, "--features", file)["measures"]}
    assert rows["easy"]["mAP"] == 1
    assert rows["hard"]["mAP"] == pytest.approx(0.25)  # b stands before c: the trapezoid of 0 and 1/2
    assert rows["hard"]["mP@1"] == 0
    assert rows["medium"]["mAP"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)

    holidays = tmp_path / "holidays"
    images(holidays, [f"{n}.jpg" for n in (100000, 100001, 100100, 100101)])
    file = write(tmp_path / "y.npy", ["100000", "100001", "100100", "100101"], vectors([0, 1, 50, -3]))
    (row,) = asked(capsys, "holidays", holidays, "--features", file)["measures"]
    assert row["queries"] == 2
    assert row["mAP"] == pytest.approx((1 + 1 / 3 / 2) / 2)


def test_the_other_layouts_are_known(tmp_path, capsys):
    assert command.LAYOUTS == layouts.LAYOUTS == tuple(layouts._READERS)
    names = images(tmp_path / "cars", [f"car_ims/{i:06}.jpg" for i in range(6)])
    kinds = [("relative_im_path", "O"), ("class", "O")]
    rows = np.array(list(zip(names, (99, 99, 99, 100, 100, 100), strict=True)), dtype=kinds)
    savemat(tmp_path / "cars" / "cars_annos.mat", {"annotations": rows})
    file = write(tmp_path / "cars.npy", names, SIX)
    assert asked(capsys, "cars-196", tmp_path / "cars", "--features", file)["measures"][0]["R@1"] == 4 / 6
    names = images(tmp_path / "sop", [f"chair_final/{i}.jpg" for i in range(6)])
    for part in ("train", "test"):
        lines = [f"{i} {i // 3} 1 {name}" for i, name in enumerate(names)]
        (tmp_path / "sop" / f"Ebay_{part}.txt").write_text(
            "\n".join(["image_id class_id super path", *lines])
        )
    file = write(tmp_path / "sop.npy", names, SIX)
    for part in ("train", "test"):
        (row,) = asked(
            capsys, "stanford-online-products", tmp_path / "sop", "--features", file, "--part", part
        )["measures"]
        assert (row["protocol"], row["R@1"], row["R@10"]) == (part, 4 / 6, 1)
        assert "R@1000" in row


def test_wrong_calls_and_files_are_told_in_one_line(tmp_path, capsys):
    folder, ids = tmp_path / "cub", cub(tmp_path / "cub")
    file = write(tmp_path / "theirs.npy", [name.split("/")[1] for name in ids], SIX)
    bad = SIX.copy()
    bad[2] = np.nan

    def refused(status, *arguments):
        assert main(["retrieval", *map(str, arguments)]) == status
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        return shown.err

    few = write(tmp_path / "few.parquet", ["0.jpg", "1.jpg"], SIX[:2])
    assert "few.parquet lacks 4 of the 6 images" in refused(1, "cub-200-2011", folder, "--features", few)
    assert "such as 2.jpg, 3.jpg, 4.jpg; its ids are such as 0.jpg, 1.jpg" in refused(
        1, "cub-200-2011", folder, "--features", few
    )
    nan = write(tmp_path / "nan.npy", [name.split("/")[1] for name in ids], bad)
    assert "NaN or infinite numbers in the embeddings of 1 photos, such as '2.jpg'" in refused(
        1, "cub-200-2011", folder, "--features", nan
    )
    one = cub(tmp_path / "one", (101, 1, 1))
    x = write(tmp_path / "x.npy", one, SIX[:3])
    assert "cub-200-2011 must have two or more images to test on, got 1" in refused(
        1, "cub-200-2011", tmp_path / "one", "--features", x
    )
    images(tmp_path / "holidays", ["100000.jpg", "100100.jpg"])
    assert "holidays must have queries with images to find, got 2 without any" in refused(
        1, "holidays", tmp_path / "holidays", "--features", file
    )
    assert "missing" in refused(1, "cub-200-2011", tmp_path / "none", "--features", file)
    assert "images.txt" in refused(1, "cub-200-2011", tmp_path, "--features", file)
    assert "theirs.pkl" in refused(1, "cub-200-2011", folder, "--features", tmp_path / "theirs.pkl")
    assert "--part is of images by class" in refused(
        2, "holidays", folder, "--features", file, "--part", "test"
    )
    assert "--model names a network" in refused(
        2, "holidays", folder, "--features", file, "--model", "metric"
    )
    assert "--ids belongs to .npy" in refused(2, "holidays", folder, "--features", few, "--ids", file)
    assert "geoloc init" in refused(1, "--workspace", tmp_path, "cub-200-2011", folder, "--recipe", "default")
    for arguments in (["cub-200-2011", str(folder)], ["cub", str(folder), "--features", file]):
        with pytest.raises(SystemExit) as stop:
            main(["retrieval", *arguments])
        assert stop.value.code == 2
