"""The published collections by name, and what each publishes: R@k of images by class, mAP and mP@k of landmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoloc.evaluation.measures.retrieval import PROTOCOLS, landmark_measures, recall_at_k
from geoloc.evaluation.retrieval_sets.base import ClassSet, LandmarkSet, RetrievalSetError
from geoloc.evaluation.retrieval_sets.by_class import cars_196, cub_200_2011, stanford_online_products
from geoloc.evaluation.retrieval_sets.landmarks import holidays, revisited

LAYOUTS = ("cars-196", "cub-200-2011", "stanford-online-products", "roxford5k", "rparis6k", "holidays")
PARTS = ("test", "train")
_SMALL, _LARGE = (1, 2, 4, 8, 16, 32), (1, 10, 100, 1000)
_QUERIES_AT_ONCE = 256
_READERS: dict[str, Callable[[Path], ClassSet | LandmarkSet]] = {
    "cars-196": cars_196,
    "cub-200-2011": cub_200_2011,
    "stanford-online-products": stanford_online_products,
    "roxford5k": partial(revisited, name="roxford5k"),
    "rparis6k": partial(revisited, name="rparis6k"),
    "holidays": holidays,
}

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Images:
    """N distinct images that a collection needs embeddings of: `paths`, and `boxes` (left, top, right, bottom in
    pixels) to which each is cropped, None for the whole image."""

    paths: tuple[Path, ...]
    boxes: tuple[Box | None, ...]

    def ids(self, folder: Path) -> tuple[list[str], list[str], list[str]]:
        """The ids by which other programs may call them: path below `folder`, file name, and name without ending."""
        below = [path.relative_to(folder).as_posix() for path in self.paths]
        return below, [path.name for path in self.paths], [path.stem for path in self.paths]


def read_set(layout: str, folder: Path | str) -> ClassSet | LandmarkSet:
    """The collection in `folder`, in one of LAYOUTS. Raises RetrievalSetError for another layout, for a folder that is
    missing or not in that layout."""
    if layout not in LAYOUTS:
        raise RetrievalSetError(f"the layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    if not Path(folder).is_dir():
        raise RetrievalSetError(f"{folder} is {'no folder' if Path(folder).exists() else 'missing'}")
    return _READERS[layout](Path(folder))


def ranks_measured(layout: str) -> tuple[int, ...]:
    """The k of R@k that are published for a layout of images by class (dissertation table 4.1)."""
    return _LARGE if layout == "stanford-online-products" else _SMALL


def images_of(collection: ClassSet | LandmarkSet, part: str = "test") -> Images:
    """The images whose embeddings `measure` takes, in that order: those of a part of images by class, or the database
    and then the queries that are not in it."""
    if isinstance(collection, ClassSet):
        paths = collection.part(part == "train")[0]
        return Images(paths, (None,) * len(paths))
    database = set(collection.database)
    further = [
        (path, box)
        for path, box in zip(collection.queries, collection.boxes, strict=True)
        if path not in database or box is not None
    ]
    return Images(
        (*collection.database, *(path for path, _ in further)),
        (*(None for _ in collection.database), *(box for _, box in further)),
    )


def require_measurable(collection: ClassSet | LandmarkSet, layout: str, part: str = "test") -> None:
    """Raise RetrievalSetError for a part of fewer than two images by class, and where no query has an image to find:
    nothing can be measured there."""
    if isinstance(collection, ClassSet):
        if (count := len(collection.part(part == "train")[0])) < 2:
            raise RetrievalSetError(f"{layout} must have two or more images to {part} on, got {count}")
    elif not any(len(one.easy) + len(one.hard) for one in collection.relevance):
        raise RetrievalSetError(
            f"{layout} must have queries with images to find, got {len(collection.relevance)} without any"
        )


def measure(
    collection: ClassSet | LandmarkSet, layout: str, vectors: ArrayLike, part: str = "test"
) -> list[dict[str, Any]]:
    """Returns one row a protocol: its name, `queries`, and the measures in [0, 1]: R@k of images by class, mAP and mP@k
    of landmarks under PROTOCOLS; of Holidays, whose images are all easy, mAP alone.

    `vectors` float (N, D) are L2-normalised embeddings of the images of `images_of`. Raises ValueError for other
    shapes, and the errors of require_measurable and recall_at_k.
    """
    require_measurable(collection, layout, part)
    x = np.asarray(vectors, dtype=np.float32)
    wanted = len(images_of(collection, part).paths)
    if x.ndim != 2 or len(x) != wanted:
        raise ValueError(f"{wanted} images do not fit embeddings of shape {x.shape}")
    if isinstance(collection, ClassSet):
        classes = collection.part(part == "train")[1]
        found = recall_at_k(x, classes, ranks_measured(layout))
        return [{"protocol": part, "queries": len(x)} | {f"R@{k}": value for k, value in found.items()}]
    ranked = _ranked(collection, x)
    rows = []
    for protocol in ("easy",) if layout == "holidays" else PROTOCOLS:
        values = landmark_measures(ranked, collection.relevance, protocol)
        queries = int(values.pop("queries"))
        row: dict[str, Any] = {"protocol": protocol, "queries": queries, "mAP": values["map"]}
        if layout == "holidays":
            rows.append(row | {"protocol": "all"})
            continue
        rows.append(
            row | {f"mP@{name.removeprefix('mp_')}": v for name, v in values.items() if name != "map"}
        )
    return rows


def _ranked(collection: LandmarkSet, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """The database's positions by falling similarity with each query, int64 (Q, N)."""
    database = x[: len(collection.database)]
    place = {path: i for i, path in enumerate(collection.database)}
    further = iter(range(len(database), len(x)))
    rows = np.array(
        [
            place[path] if path in place and box is None else next(further)
            for path, box in zip(collection.queries, collection.boxes, strict=True)
        ],
        dtype=np.int64,
    )
    ranked = np.empty((len(rows), len(database)), dtype=np.int64)
    for start in range(0, len(rows), _QUERIES_AT_ONCE):
        similarity = x[rows[start : start + _QUERIES_AT_ONCE]] @ database.T
        ranked[start : start + _QUERIES_AT_ONCE] = np.argsort(-similarity, axis=1, kind="stable")
    return ranked
