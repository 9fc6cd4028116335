"""Revisited Oxford and Paris, and INRIA Holidays: queries with the images that each should find."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.measures.retrieval import Relevance
from geoloc.evaluation.retrieval_sets.base import LandmarkSet, RetrievalSetError, images_below
from geoloc.files import read_json

REVISITED = ("roxford5k", "rparis6k")
_CONVERT = (
    "python -c \"import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb')), open(sys.argv[2], 'w'), "
    'default=lambda x: x.tolist())" gnd_{name}.pkl gnd_{name}.json'
)
"""How to convert the published ground truth, where its origin is trusted: loading a pickle runs what is in it."""
_NUMBERED = re.compile(r"[0-9]{1,18}")


def revisited(folder: Path | str, name: str) -> LandmarkSet:
    """roxford5k or rparis6k: gnd_<name>.json, with imlist, qimlist and gnd (easy, hard, junk and bbx of each query),
    and jpg/ (Radenović et al., 2018).

    The ground truth is published as a pickle, which is never loaded: convert it first. Raises RetrievalSetError, which
    says how, if it is not converted, and if a file is missing or not in that layout.
    """
    if name not in REVISITED:
        raise RetrievalSetError(f"name must be one of {', '.join(REVISITED)}; got {name!r}")
    folder = Path(folder)
    path = folder / f"gnd_{name}.json"
    if not path.exists() and path.with_suffix(".pkl").exists():
        raise RetrievalSetError(f"{path} is missing; make it with: {_CONVERT.format(name=name)}")
    if not path.exists():
        raise RetrievalSetError(f"{path} is missing")
    try:
        truth = read_json(path, dict)
        database, queries = ([f"{image}.jpg" for image in truth[key]] for key in ("imlist", "qimlist"))
        boxes = tuple(_box(one["bbx"]) for one in truth["gnd"])
        relevance = tuple(_relevance(one, len(database)) for one in truth["gnd"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise RetrievalSetError(f"{path} does not hold the ground truth of {name}: {error}") from None
    if len(queries) != len(relevance):
        raise RetrievalSetError(f"{path} has {len(queries)} queries and ground truth of {len(relevance)}")
    jpg = folder / "jpg"
    return LandmarkSet(images_below(jpg, database, path), images_below(jpg, queries, path), boxes, relevance)


def holidays(folder: Path | str) -> LandmarkSet:
    """INRIA Holidays: jpg/NNNNNN.jpg (or the images in the folder itself). The last two digits number the images of a
    scene; 00 is its query, and the others are what it should find (Jégou et al., Hamming embedding, 2008).

    The query itself is junk. Raises RetrievalSetError if there is no image of such a name, or a scene has no query.
    """
    folder = Path(folder)
    images = folder / "jpg" if (folder / "jpg").is_dir() else folder
    database = tuple(sorted(path for path in images.glob("*.jpg") if _NUMBERED.fullmatch(path.stem)))
    if not database:
        raise RetrievalSetError(f"{images} has no images with numbers as names, such as 100000.jpg")
    numbers = np.array([int(path.stem) for path in database], dtype=np.int64)
    scenes = numbers // 100
    queries = np.flatnonzero(numbers % 100 == 0)
    without = np.setdiff1d(scenes, scenes[queries])
    if len(without):
        raise RetrievalSetError(
            f"{images} has no {without[0] * 100}.jpg, the query of scene {without[0]} ({len(without)} scenes)"
        )
    none = np.empty(0, dtype=np.int64)
    relevance = tuple(
        Relevance(np.setdiff1d(np.flatnonzero(scenes == scenes[q]), [q]), none, np.array([q]))
        for q in queries
    )
    return LandmarkSet(database, tuple(database[q] for q in queries), (None,) * len(queries), relevance)


def _box(box: Any) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    left, top, right, bottom = (float(edge) for edge in box)
    if not (all(map(math.isfinite, (left, top, right, bottom))) and left < right and top < bottom):
        raise ValueError(
            f"the box {box} must be left, top, right, bottom, with left < right and top < bottom"
        )
    return left, top, right, bottom


def _relevance(truth: Any, count: int) -> Relevance:
    easy, hard, junk = (_positions(truth[key], count) for key in ("easy", "hard", "junk"))
    numbers, times = np.unique(np.concatenate([easy, hard, np.unique(junk)]), return_counts=True)
    if len(twice := numbers[times > 1]):
        raise ValueError(f"image {twice[0]} is more than once among easy, hard and junk of a query")
    return Relevance(easy, hard, junk)


def _positions(values: Any, count: int) -> NDArray[np.int64]:
    for one in values:
        if type(one) not in (int, float) or not 0 <= one < count or one % 1:
            raise ValueError(f"an image is number {one} of {count}")
    return np.array(values, dtype=np.int64)
