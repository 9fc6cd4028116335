"""Published retrieval collections, measured with a recipe's embeddings or with those of another program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoloc.evaluation.retrieval_sets.layouts import Images, images_of, measure, read_set, require_measurable
from geoloc.files import DamagedFile
from geoloc.retrieval.external import FeaturesError, read_features
from orchestration.assets.inputs import EMBEDDED_BY
from orchestration.lineage.build import Build
from orchestration.lineage.verify import require_as_embedded, require_recorded
from orchestration.tables import markdown
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from orchestration.assets.photo_embedder import PhotoEmbedder

NAMED = 3
"""Missing images that are named."""


@dataclass(frozen=True)
class Measured:
    """The measures of a collection, a row a protocol, in [0, 1]; `about` says of what."""

    layout: str
    about: str
    images: int
    dimensions: int
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        names = [name for name in self.rows[0] if name not in ("protocol", "queries")]
        cells = [
            [
                row["protocol"],
                f"{row['queries']:,}",
                *("" if isnan(row[name]) else f"{100 * row[name]:.1f}" for name in names),
            ]
            for row in self.rows
        ]
        head = f"{self.layout}: {self.images:,} images, {self.about}, {self.dimensions} dimensions; per cent"
        return "\n".join([head, "", markdown(cells, ["", "queries", *names])])

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "layout": self.layout,
            "embeddings": self.about,
            "images": self.images,
            "dimensions": self.dimensions,
            "measures": self.rows,
        }


def measure_features(
    layout: str, folder: Path, part: str, features: Path, ids: Path | None = None
) -> Measured:
    """Measure embeddings in a file, see geoloc.retrieval.external. Its ids are the images' paths below the folder, file
    names, or names without ending.

    Raises RetrievalSetError and FeaturesError.
    """
    collection = read_set(layout, folder)
    require_measurable(collection, layout, part)
    images = images_of(collection, part)
    found = read_features(features, ids)
    by_form = [(found.positions(names), names) for names in images.ids(folder)]
    position, names = max(by_form, key=lambda one: int((one[0] >= 0).sum()))
    if (position < 0).any():
        missing = [names[i] for i in np.flatnonzero(position < 0)]
        raise FeaturesError(
            f"{found.name} lacks {len(missing)} of the {len(names)} images of {folder}, such as "
            f"{', '.join(missing[:NAMED])}; its ids are such as {', '.join(found.ids[:NAMED])}"
        )
    rows = measure(collection, layout, found.units(position), part)
    return Measured(layout, f"embeddings of {found.name}", len(position), found.dimensions, rows)


def measure_recipe(
    layout: str,
    folder: Path,
    part: str,
    build: Build,
    model: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Measure a recipe's embeddings by one of its models, as it embeds its own photos: the centre crop, the layer and
    components of its settings. Queries of landmarks are cropped to their boxes first.

    Raises RetrievalSetError, WorkspaceError for what is not built, and DamagedFile for an image that is unreadable.
    """
    collection = read_set(layout, folder)
    require_measurable(collection, layout, part)
    images = images_of(collection, part)
    _require_built(build, model)
    from orchestration.assets.photo_embedder import PhotoEmbedder  # imports ONNX Runtime

    batch = build.settings.embeddings.batch_size
    embedder = PhotoEmbedder.open(build, model, accelerated=True)
    vectors = _embed(embedder, images, batch, progress)
    rows = measure(collection, layout, vectors, part)
    return Measured(layout, f"{model} of {build.recipe}", len(vectors), vectors.shape[1], rows)


def _require_built(build: Build, model: str) -> None:
    """Raise WorkspaceError, which names what to build, if a recipe does not have what embeds by `model`."""
    embedded = EMBEDDED_BY[model]
    if embedded not in [stage.name for stage in build.stages]:
        needed = "a section metric" if model == "metric" else f"{model} in embeddings.models"
        raise WorkspaceError(f"--model {model} needs {needed}, which {build.recipe} does not have")
    own = embedded if model == "backbone" else model
    for name in dict.fromkeys((own, embedded)):
        build.built(name)
    require_as_embedded(build, require_recorded(build, [own], [embedded])[embedded])


def _embed(
    embedder: PhotoEmbedder, images: Images, batch: int, progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    found = []
    for start in range(0, len(images.paths), batch):
        chosen = range(start, min(len(images.paths), start + batch))
        pixels = [_pixels(images.paths[i], images.boxes[i]) for i in chosen]
        vectors = embedder.embed(pixels, batch)
        for i, vector in zip(chosen, vectors, strict=True):
            if not np.isfinite(vector).all() or not vector.any():
                raise WorkspaceError(f"the network gives {images.paths[i]} no finite embedding, or all zeros")
        found.append(vectors)
        progress(chosen.stop, len(images.paths))
    return np.concatenate(found)


def _pixels(path: Path, box: tuple[float, float, float, float] | None) -> NDArray[np.uint8]:
    from geoloc.photos.decoding import UnreadablePhoto, decode_rgb

    try:
        pixels = decode_rgb(path.read_bytes())
    except UnreadablePhoto as error:
        raise DamagedFile(path, str(error)) from None
    if box is None:
        return pixels
    left, top, right, bottom = (max(0, round(edge)) for edge in box)
    cut = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    if not cut.size:
        raise DamagedFile(
            path, f"its box {box} is outside of its {pixels.shape[1]} x {pixels.shape[0]} pixels"
        )
    return cut
