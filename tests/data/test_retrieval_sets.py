"""Loaders of published collections, on small made-up copies of their layouts."""

from __future__ import annotations

import json
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoloc.evaluation.retrieval_sets.base import RetrievalSetError
from geoloc.evaluation.retrieval_sets.by_class import cars_196, cub_200_2011, stanford_online_products
from geoloc.evaluation.retrieval_sets.landmarks import holidays, revisited
from geoloc.files import write_json


def images(folder: Path, *names: str) -> list[Path]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image")
    return [folder / name for name in names]


def test_cars_196(tmp_path: Path) -> None:
    from scipy.io import savemat

    names = [f"car_ims/{i:06}.jpg" for i in range(1, 4)]
    dtype = [("relative_im_path", "O"), ("class", "O"), ("test", "O")]
    annotations = np.array([(names[0], 1, 0), (names[1], 98, 1), (names[2], 99, 0)], dtype=dtype)
    savemat(tmp_path / "cars_annos.mat", {"annotations": annotations})
    with pytest.raises(
        RetrievalSetError, match=r"3 of 3 images that .*cars_annos\.mat names are missing, such as .*000001"
    ):
        cars_196(tmp_path)
    paths = images(tmp_path, *names)
    found = cars_196(str(tmp_path))
    assert list(found.paths) == paths
    assert found.classes.tolist() == [1, 98, 99]
    assert found.train.tolist() == [True, True, False]
    assert found.part(train=False)[0] == (paths[2],)
    (tmp_path / "cars_annos.mat").write_bytes(b"no MATLAB file")
    with pytest.raises(
        RetrievalSetError, match=r"cars_annos\.mat does not hold annotations of Stanford Cars"
    ):
        cars_196(tmp_path)


def test_cub_200_2011(tmp_path: Path) -> None:
    (tmp_path / "images.txt").write_text("1 001.Black/a.jpg\n2 100.Pelican/b.jpg\n3 101.White/c.jpg\n")
    (tmp_path / "image_class_labels.txt").write_text("1 1\n3 101\n2 100\n")
    paths = images(tmp_path / "images", "001.Black/a.jpg", "100.Pelican/b.jpg", "101.White/c.jpg")
    found = cub_200_2011(tmp_path)
    assert list(found.paths) == paths
    assert found.classes.tolist() == [1, 100, 101]
    assert found.train.tolist() == [True, True, False]
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 x\n3 101\n")
    with pytest.raises(
        RetrievalSetError, match=r"image_class_labels\.txt has 'x' where a whole number belongs"
    ):
        cub_200_2011(tmp_path)
    (tmp_path / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(RetrievalSetError, match=r"images\.txt has 3 images, image_class_labels\.txt 1"):
        cub_200_2011(tmp_path)
    (tmp_path / "images.txt").unlink()
    with pytest.raises(RetrievalSetError, match=r"images\.txt cannot be read"):
        cub_200_2011(tmp_path)


def test_stanford_online_products(tmp_path: Path) -> None:
    head = "image_id class_id super_class_id path\n"
    (tmp_path / "Ebay_train.txt").write_text(head + "1 1 1 bicycle_final/a.JPG\n")
    (tmp_path / "Ebay_test.txt").write_text(head + "2 11319 1 bicycle_final/b.JPG\n")
    paths = images(tmp_path, "bicycle_final/a.JPG", "bicycle_final/b.JPG")
    found = stanford_online_products(tmp_path)
    assert list(found.paths) == paths
    assert found.classes.tolist() == [1, 11319]
    assert found.train.tolist() == [True, False]
    (tmp_path / "Ebay_test.txt").write_text(head + "2 11319 bicycle_final/b.JPG\n")
    with pytest.raises(RetrievalSetError, match=r"Ebay_test\.txt must have 4 columns, got 3: 2 11319"):
        stanford_online_products(tmp_path)


def cub(folder: Path, images_txt: str, labels: str) -> None:
    images(folder / "images", "a.jpg", "b.jpg")
    (folder / "images.txt").write_text(images_txt)
    (folder / "image_class_labels.txt").write_text(labels)


@pytest.mark.parametrize(
    ("images_txt", "labels", "told"),
    [
        ("1 a.jpg\n1 b.jpg\n", "1 101\n1 102\n", r"images\.txt has the id 1 twice"),
        ("1 a.jpg\n2 a.jpg\n", "1 101\n2 102\n", r"images\.txt names the image a\.jpg twice"),
        ("1 a.jpg\n2 /etc/hosts\n", "1 101\n2 101\n", r"names an image outside of .*images: /etc/hosts"),
        ("1 a.jpg\n2 ../b.jpg\n", "1 101\n2 101\n", r"names an image outside of .*: \.\./b\.jpg"),
        ("1 a.jpg\n2 b.jpg\n", "1 101\n2 ²\n", r"has '²' where a whole number belongs"),
        ("1 a.jpg\n2 b.jpg\n", "1 101\n2 " + "9" * 20, r"has '9{20}' where a whole number belongs"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path: Path, images_txt: str, labels: str, told: str) -> None:
    cub(tmp_path, images_txt, labels)
    with pytest.raises(RetrievalSetError, match=told):
        cub_200_2011(tmp_path)


def test_a_list_may_begin_with_a_byte_order_mark_and_needs_its_header(tmp_path: Path) -> None:
    images(tmp_path, "a.JPG", "b.JPG")
    (tmp_path / "Ebay_train.txt").write_text(
        "image_id class_id super_class_id path\n1 1 1 a.JPG\n", "utf-8-sig"
    )
    (tmp_path / "Ebay_test.txt").write_text("2 5 1 b.JPG\n")
    with pytest.raises(RetrievalSetError, match=r"Ebay_test\.txt must begin with the line image_id"):
        stanford_online_products(tmp_path)


@pytest.mark.parametrize("wrong", [99.5, "x", float("nan")])
def test_classes_of_cars_are_whole_numbers(tmp_path: Path, wrong: object) -> None:
    from scipy.io import savemat

    names = [path.name for path in images(tmp_path, "a.jpg", "b.jpg")]
    rows = np.array([(names[0], 99.0), (names[1], wrong)], dtype=[("relative_im_path", "O"), ("class", "O")])
    savemat(tmp_path / "cars_annos.mat", {"annotations": rows})
    with pytest.raises(
        RetrievalSetError, match=rf"cars_annos\.mat has '{wrong}' where a whole number belongs"
    ):
        cars_196(tmp_path)


def test_damaged_compressed_annotations_are_refused(tmp_path: Path) -> None:
    from scipy.io import savemat

    file = tmp_path / "cars_annos.mat"
    savemat(file, {"annotations": np.zeros(50)}, do_compression=True)
    damaged = bytearray(file.read_bytes())
    damaged[-4] ^= 255  # of the checksum
    file.write_bytes(damaged)
    with pytest.raises(RetrievalSetError, match="does not hold annotations"):
        cars_196(tmp_path)


def ground_truth(easy: Any) -> dict[str, Any]:
    gnd = [{"bbx": [1.0, 2, 30, 40.5], "easy": easy, "hard": [], "junk": [2]}]
    return {"imlist": ["a", "b", "c"], "qimlist": ["q"], "gnd": gnd}


def test_revisited_oxford_and_paris(tmp_path: Path) -> None:
    path = tmp_path / "gnd_rparis6k.json"
    write_json(path, ground_truth([1, 0]))
    images(tmp_path / "jpg", "a.jpg", "b.jpg", "c.jpg", "q.jpg")
    found = revisited(tmp_path, "rparis6k")
    assert [one.stem for one in found.database] == ["a", "b", "c"]
    assert found.queries == (tmp_path / "jpg" / "q.jpg",)
    assert found.boxes == ((1.0, 2.0, 30.0, 40.5),)
    (wanted,) = found.relevance
    assert [part.tolist() for part in (wanted.easy, wanted.hard, wanted.junk)] == [[1, 0], [], [2]]
    for easy, told in (
        ([7], "an image is number 7 of 3"),
        ([0.5], r"an image is number 0\.5 of 3"),
        ([True], "an image is number True of 3"),
        ([1, 1], "image 1 is more than once among easy, hard and junk"),
        ([2], "image 2 is more than once among easy, hard and junk"),
    ):
        write_json(path, ground_truth(easy))
        with pytest.raises(RetrievalSetError, match=rf"gnd_rparis6k\.json does not hold .* {told}"):
            revisited(tmp_path, "rparis6k")
    for box in ([30, 1, 2, 40], [1, 2, 1, 40], [1, 2, 3], [1, 2, float("nan"), 40]):
        truth = ground_truth([1])
        truth["gnd"][0]["bbx"] = box
        path.write_text(json.dumps(truth))
        with pytest.raises(RetrievalSetError, match=r"gnd_rparis6k\.json does not hold"):
            revisited(tmp_path, "rparis6k")
    path.write_bytes(b"\x80nothing")
    with pytest.raises(RetrievalSetError, match=r"gnd_rparis6k\.json"):
        revisited(tmp_path, "rparis6k")
    with pytest.raises(RetrievalSetError, match="name must be one of roxford5k, rparis6k; got 'oxford5k'"):
        revisited(tmp_path, "oxford5k")


def test_the_published_pickle_is_not_loaded_but_converted_by_the_command_that_is_told(tmp_path: Path) -> None:
    images(tmp_path / "jpg", "a.jpg", "b.jpg", "c.jpg", "q.jpg")
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(ground_truth(np.array([1, 0]))))
    with pytest.raises(RetrievalSetError, match=r"gnd_roxford5k\.json is missing; make it with: ") as told:
        revisited(tmp_path, "roxford5k")
    words = shlex.split(str(told.value).partition("make it with: ")[2])
    subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, check=True)
    assert revisited(tmp_path, "roxford5k").relevance[0].easy.tolist() == [1, 0]


def test_holidays(tmp_path: Path) -> None:
    images(
        tmp_path / "jpg",
        "100000.jpg",
        "100001.jpg",
        "100002.jpg",
        "100100.jpg",
        "100101.jpg",
        "readme.jpg",
        "²²²²²².jpg",
    )
    found = holidays(tmp_path)
    assert [path.stem for path in found.queries] == ["100000", "100100"]
    assert [one.easy.tolist() for one in found.relevance] == [[1, 2], [4]]
    assert [one.junk.tolist() for one in found.relevance] == [[0], [3]]
    assert found.boxes == (None, None)
    (tmp_path / "jpg" / "100100.jpg").unlink()
    with pytest.raises(RetrievalSetError, match=r"has no 100100\.jpg, the query of scene 1001 \(1 scenes\)"):
        holidays(tmp_path)
    with pytest.raises(RetrievalSetError, match="has no images with numbers as names"):
        holidays(tmp_path / "jpg" / "nowhere")
