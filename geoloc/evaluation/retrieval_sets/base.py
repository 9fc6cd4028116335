"""What a collection for image retrieval is: images by class, or queries with the images that each should find."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.measures.retrieval import Relevance

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")


class RetrievalSetError(ValueError):
    """A collection is not in its published layout. The message names the file and what is wrong."""


@dataclass(frozen=True)
class ClassSet:
    """N images by class: `paths`, `classes` int64 (N,), and `train` bool (N,), by the usual split into disjoint
    classes."""

    paths: tuple[Path, ...]
    classes: NDArray[np.int64]
    train: NDArray[np.bool_]

    def part(self, train: bool) -> tuple[tuple[Path, ...], NDArray[np.int64]]:
        """Paths and classes of the images to train on, or of those to test on."""
        chosen = np.flatnonzero(self.train == train)
        return tuple(self.paths[i] for i in chosen), self.classes[chosen]


@dataclass(frozen=True)
class LandmarkSet:
    """Q queries over a database of N images: paths, the query's box (left, top, right, bottom in pixels) or None for
    the whole image, and what each query should find."""

    database: tuple[Path, ...]
    queries: tuple[Path, ...]
    boxes: tuple[tuple[float, float, float, float] | None, ...]
    relevance: tuple[Relevance, ...]


def read_lines(path: Path) -> list[list[str]]:
    """The words of each line of a text file that is not empty. Raises RetrievalSetError if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of its encoding
    except (OSError, UnicodeDecodeError) as error:
        raise RetrievalSetError(f"{path} cannot be read: {error}") from None
    return [line.split() for line in text.splitlines() if line.strip()]


def whole_numbers(path: Path, words: Sequence[str]) -> NDArray[np.int64]:
    """Words as integers. Raises RetrievalSetError that names the file and the first word that is none."""
    wrong = next((word for word in words if not _WHOLE_NUMBER.fullmatch(word)), None)
    if wrong is not None:
        raise RetrievalSetError(f"{path} has {wrong!r} where a whole number belongs")
    return np.array([int(word) for word in words], dtype=np.int64)


def images_below(folder: Path, names: Sequence[str], source: Path) -> tuple[Path, ...]:
    """The paths of the images that `source` names, relative to `folder`. Raises RetrievalSetError for a name that leads
    out of the folder, that is given twice, or that no image has."""
    seen: set[str] = set()
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise RetrievalSetError(f"{source} names an image outside of {folder}: {name}")
        if name in seen:
            raise RetrievalSetError(f"{source} names the image {name} twice")
        seen.add(name)
    paths = tuple(folder / name for name in names)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise RetrievalSetError(
            f"{len(missing)} of {len(paths)} images that {source} names are missing, such as {missing[0]}"
        )
    return paths
