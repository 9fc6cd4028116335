"""Cars-196, CUB-200-2011 and Stanford Online Products: images by class; the test classes are not those of training."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.retrieval_sets.base import (
    ClassSet,
    RetrievalSetError,
    images_below,
    read_lines,
    whole_numbers,
)

CARS_TRAIN, CUB_TRAIN = 98, 100
"""The last class to train on (dissertation 4.5)."""


def cars_196(folder: Path | str) -> ClassSet:
    """Stanford Cars: car_ims/ and cars_annos.mat (a MATLAB struct array, `annotations`). Classes 1 to 98 train.

    Raises RetrievalSetError if a file is missing or not in that layout.
    """
    from scipy.io import loadmat, matlab  # imported here: only this layout needs them

    folder = Path(folder)
    path = folder / "cars_annos.mat"
    try:
        annotations: Any = loadmat(path, squeeze_me=True)["annotations"]
        rows = np.atleast_1d(annotations)
        names = [str(name) for name in rows["relative_im_path"]]
        classes = [str(one).removesuffix(".0") for one in rows["class"]]
    except (
        OSError,
        KeyError,
        IndexError,
        ValueError,
        TypeError,
        NotImplementedError,
        matlab.MatReadError,
        zlib.error,
    ) as error:
        raise RetrievalSetError(f"{path} does not hold annotations of Stanford Cars: {error}") from None
    numbers = whole_numbers(path, classes)
    return ClassSet(images_below(folder, names, path), numbers, numbers <= CARS_TRAIN)


def cub_200_2011(folder: Path | str) -> ClassSet:
    """Caltech-UCSD Birds: images.txt, image_class_labels.txt and images/. Classes 1 to 100 train.

    Raises RetrievalSetError if a file is missing or not in that layout.
    """
    folder = Path(folder)
    names = _by_id(folder / "images.txt")
    labels = _by_id(folder / "image_class_labels.txt")
    if names.keys() != labels.keys():
        raise RetrievalSetError(
            f"{folder}/images.txt has {len(names)} images, image_class_labels.txt {len(labels)}: they must be the same"
        )
    paths = images_below(folder / "images", list(names.values()), folder / "images.txt")
    classes = whole_numbers(folder / "image_class_labels.txt", [labels[key] for key in names])
    return ClassSet(paths, classes, classes <= CUB_TRAIN)


def stanford_online_products(folder: Path | str) -> ClassSet:
    """Stanford Online Products: Ebay_train.txt and Ebay_test.txt (image_id class_id super_class_id path), with the
    images below the folder.

    Raises RetrievalSetError if a file is missing or not in that layout.
    """
    folder = Path(folder)
    paths: list[Path] = []
    classes: list[NDArray[np.int64]] = []
    train: list[bool] = []
    for part in ("train", "test"):
        path = folder / f"Ebay_{part}.txt"
        lines = read_lines(path)
        if not lines or lines[0][0] != "image_id":
            raise RetrievalSetError(f"{path} must begin with the line image_id class_id super_class_id path")
        if (wrong := next((words for words in lines if len(words) != 4), None)) is not None:
            raise RetrievalSetError(f"{path} must have 4 columns, got {len(wrong)}: {' '.join(wrong)}")
        paths += images_below(folder, [words[3] for words in lines[1:]], path)
        classes.append(whole_numbers(path, [words[1] for words in lines[1:]]))
        train += [part == "train"] * (len(lines) - 1)
    return ClassSet(tuple(paths), np.concatenate(classes), np.array(train, dtype=bool))


def _by_id(path: Path) -> dict[str, str]:
    """The second of two columns, by the first."""
    lines = read_lines(path)
    wrong = next((words for words in lines if len(words) != 2), None)
    if wrong is not None:
        raise RetrievalSetError(f"{path} must have 2 columns, got {len(wrong)}: {' '.join(wrong)}")
    found: dict[str, str] = {}
    for key, value in lines:
        if key in found:
            raise RetrievalSetError(f"{path} has the id {key} twice")
        found[key] = value
    return found
